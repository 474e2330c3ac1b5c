"""The result of an audit: one `Check` per question, in a report that is stored as JSON."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from alignrec_recbole.data.cards import Verdict
from alignrec_recbole.errors import RecordError
from alignrec_recbole.io.files import atomic_write
from alignrec_recbole.io.opening import read_bytes
from alignrec_recbole.runs.record import record_paths
from alignrec_recbole.runs.record_fields import (
    CodeDict,
    Count,
    DataDict,
    Duration,
    FeatureFiles,
    Label,
    Name,
    Number,
    Sha256,
    Text,
    first_problem,
)

SCHEMA_VERSION = 1
MAX_REPORT_BYTES = 16 << 20
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)  # mildest first
Group = Literal["numbering", "split", "features", "models"]
GROUPS: tuple[Group, ...] = get_args(Group)
OF_DATA: tuple[Group, ...] = ("numbering", "split")  # without features and models
CheckName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,59}$")]


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Check(_Closed):
    """What one check found.

    Attributes:
        name: of the check; with `subject` unique in a report.
        group: what is audited.
        subject: the feature set or model; empty for the data set.
        question: that the figure answers.
        method: how the figure is computed.
        metric: of value, control and chance, such as Recall@20.
        value: the figure; None where the check compares without one.
        control: the same figure where nothing can be known, mean over several draws.
        control_range: its smallest and largest value.
        chance: expected figure of a random order.
        verdict: clean, suspicious or leak.
        rule: how the verdict follows from the figures.
        remedy: what to do where it is not clean.
        details: further figures, by name.
        notes: what a reader must know next to the figures.
        seconds: of CPU time that the check took.
    """

    name: CheckName
    group: Group
    subject: Label = ""
    question: Text
    method: Text
    metric: Label
    value: Number | None
    control: Number | None = None
    control_range: tuple[Number, Number] | None = None
    chance: Number | None = None
    verdict: Verdict
    rule: Text
    remedy: Text
    details: dict[Label, Count | Number | Label] = {}
    notes: list[Text] = []
    seconds: Duration = 0


class Skipped(_Closed):
    """A check that was not made, and why."""

    name: CheckName
    group: Group
    question: Text
    reason: Text


class AuditReport(_Closed):
    """The checks of one data set, with features and a model where these were named.

    Attributes:
        dataset: name of the data set.
        features: names of the feature sets that were audited.
        model: that was audited.
        data: counts, split and SHA-256 of the files, as in a run's record.
        split_sha256: of the split, see `data.cards.split_sha256`.
        feature_files: name → manifest summary, as in a run's record.
        checks: in the order of the registry.
        skipped: checks that were not made.
        notes: what a reader must know next to the figures.
        seconds: of CPU time, of all checks.
    """

    schema_version: Literal[1] = 1
    dataset: Name
    features: list[Label] = []
    model: Label | None = None
    data: DataDict
    split_sha256: Sha256
    feature_files: FeatureFiles = {}
    checks: list[Check]
    skipped: list[Skipped] = []
    notes: list[Text] = []
    seconds: Duration
    command: Text = ""
    code: CodeDict = {}

    @property
    def verdict(self) -> Verdict:
        """The worst verdict of all checks."""
        return worst(check.verdict for check in self.checks)

    def verdict_of(self, groups: Collection[Group]) -> Verdict:
        """The worst verdict of these groups of checks."""
        return worst(check.verdict for check in self.checks if check.group in groups)

    def not_clean(self, groups: Collection[Group] = GROUPS) -> list[Check]:
        """The checks with another verdict than clean, the worst first."""
        found = [c for c in self.checks if c.verdict != "clean" and c.group in groups]
        return sorted(found, key=lambda check: -VERDICTS.index(check.verdict))


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """The worst of several verdicts; clean if there are none.

    >>> worst(["clean", "leak", "suspicious"]), worst([])
    ('leak', 'clean')
    """
    return max(verdicts, key=VERDICTS.index, default="clean")


def report_path(output: Path, report: AuditReport) -> Path:
    """Where a report is stored: `<output>/audit/<data set>[-<model>][-<features>]-<hash>.json`.

    The hash is of the data files and the names of the features.
    """
    parts = [f"{name} {sha}" for name, sha in sorted(report.data["files"].items())]
    text = "\n".join([*parts, report.split_sha256, *report.features, report.model or ""])
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    kinds = [report.model or "", "features" if report.features else ""]
    stem = "-".join([report.dataset, *filter(None, kinds), digest])
    return output / "audit" / f"{stem}.json"


def write_audit(path: Path, report: AuditReport) -> None:
    """Write a report whole or not at all."""
    with atomic_write(path, "w") as handle:
        handle.write(report.model_dump_json(indent=1) + "\n")


def read_audits(
    folder: Path, skipped: Callable[[Path, RecordError], None] | None = None
) -> list[tuple[Path, AuditReport]]:
    """All reports in a folder, in the order of their names.

    Args:
        skipped: called for every file that cannot be used; without it, the first one is raised.

    Raises:
        RecordError: a report cannot be used, and `skipped` is not given.
    """
    out = []
    for path in record_paths(folder):
        try:
            out.append((path, read_audit(path)))
        except RecordError as error:
            if skipped is None:
                raise
            skipped(path, error)
    return out


def read_audit(path: Path) -> AuditReport:
    """Read a stored report.

    Raises:
        RecordError: the file is damaged or no audit.
    """
    data = read_bytes(path, what="audit", error=RecordError, max_bytes=MAX_REPORT_BYTES)
    try:
        return AuditReport.model_validate_json(data)
    except ValidationError as error:
        raise RecordError(
            f"{path.name} is not the report of an audit.",
            found=first_problem(error),
            expected=f"JSON of schema version {SCHEMA_VERSION}, as `audit` writes it",
            hint="audit again, or delete it",
        ) from None
