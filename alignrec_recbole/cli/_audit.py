"""The work of the verb `audit`: from its options to a report and its files."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from alignrec_recbole.audit.registry import audit
from alignrec_recbole.audit.report import VERDICTS, Verdict, report_path, write_audit
from alignrec_recbole.audit.subject import open_subject
from alignrec_recbole.cli._overrides import Pair
from alignrec_recbole.errors import printable
from alignrec_recbole.io.files import atomic_write
from alignrec_recbole.registry.models import resolve
from alignrec_recbole.reports.audit_tables import as_markdown, as_terminal
from alignrec_recbole.runs.spec import DataSpec
from alignrec_recbole.runtime.progress import shown
from alignrec_recbole.settings import nested


def run(
    *,
    dataset: str,
    features: tuple[str, ...],
    model: str | None,
    overrides: Sequence[Pair],
    controls: int,
    fail_on: Verdict | None,
    data_path: Path | None,
    features_path: Path | None,
    output: Path,
    json_file: Path | None,
    device: str,
    progress: bool,
) -> int:
    """Audit, print the table and write the files; returns the exit status."""
    if model is not None:
        model = resolve(model).name
    spec = DataSpec(
        dataset=dataset,
        features=features,
        data_path=data_path,
        features_path=features_path,
        output=output,
        overrides=nested(overrides),
        device=device,
    )
    with shown(progress):
        subject = open_subject(
            spec,
            model=model,
            seeds=tuple(range(controls)),
            progress=progress and sys.stderr.isatty(),
        )
        report = audit(subject)
    path = report_path(output, report)
    write_audit(path, report)
    with atomic_write(path.with_suffix(".md"), "w") as handle:
        handle.write(as_markdown(report))
    if json_file is not None:
        write_audit(json_file, report)
    print(as_terminal(report))
    print(printable(f"\n{path}"))
    return int(fail_on is not None and VERDICTS.index(report.verdict) >= VERDICTS.index(fail_on))
