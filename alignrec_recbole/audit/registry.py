"""All checks, in the order of a report, and their run."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from tqdm.auto import tqdm

from alignrec_recbole.audit import feature_leaks, features, models, numbering, split
from alignrec_recbole.audit.definition import Definition, Finding, NotApplicable
from alignrec_recbole.audit.report import AuditReport, Check, Skipped
from alignrec_recbole.audit.subject import Subject, hash_of_split
from alignrec_recbole.errors import AlignRecError, printable
from alignrec_recbole.runs import provenance

CHECKS: tuple[Definition, ...] = (
    *numbering.CHECKS,
    *split.CHECKS,
    *features.CHECKS,
    *feature_leaks.CHECKS,
    *models.CHECKS,
)


def audit(subject: Subject, checks: Sequence[Definition] = CHECKS) -> AuditReport:
    """Run checks; those that cannot be made are listed with the reason."""
    started = time.process_time()
    found: list[Check] = []
    skipped: list[Skipped] = []
    with tqdm(total=len(checks), unit="check", disable=not subject.progress, leave=False) as bar:
        for definition in checks:
            bar.set_description(definition.name)
            try:
                for entry in _run(definition, subject):
                    if isinstance(entry, Check):
                        found.append(entry)
                    else:
                        skipped.append(entry)
            except NotApplicable as reason:
                skipped.append(_skipped(definition, str(reason)))
            except AlignRecError as error:
                parts = [error.problem, *([f"found {error.found}"] if error.found else [])]
                skipped.append(_skipped(definition, " ".join(parts)))
            bar.update()
    return AuditReport(
        dataset=subject.spec.dataset,
        features=list(subject.spec.features),
        model=subject.model,
        data={"files": {}, "split": {}, **subject.data},
        split_sha256=hash_of_split(subject.rows),
        checks=found,
        skipped=skipped,
        seconds=time.process_time() - started,
        command=provenance.command(),
        code=provenance.code(),
    )


def _run(definition: Definition, subject: Subject) -> Iterator[Check | Skipped]:
    if definition.group == "features" and not subject.spec.features:
        raise NotApplicable("no features are named; name them with --features")
    if definition.group == "models" and subject.model is None:
        raise NotApplicable("no model is named; name one with --model")
    started = time.process_time()
    for finding in definition.run(subject):
        now = time.process_time()
        if isinstance(finding, NotApplicable):
            yield _skipped(definition, str(finding))
        else:
            yield _check(definition, finding, now - started)
        started = now


def _check(definition: Definition, finding: Finding, seconds: float) -> Check:
    return Check(
        name=definition.name,
        group=definition.group,
        subject=finding.subject,
        question=definition.question,
        method=definition.method,
        metric=definition.metric,
        value=finding.value,
        control=finding.control,
        control_range=finding.control_range,
        chance=finding.chance,
        verdict=finding.verdict,
        rule=definition.rule,
        remedy=definition.remedy,
        details={
            name: printable(value, 200).replace("\n", " ") if isinstance(value, str) else value
            for name, value in finding.details.items()
        },
        notes=list(finding.notes),
        seconds=seconds,
    )


def _skipped(definition: Definition, reason: str) -> Skipped:
    return Skipped(
        name=definition.name, group=definition.group, question=definition.question, reason=reason
    )
