"""Marks of data sets whose audit is not clean, as footnotes of the tables of their runs.

An audit is found by what it was made of: the SHA-256 of the interactions, and the split. The
footnote states the figure of a check and the same figure where nothing can be known.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignrec_recbole.audit.report import OF_DATA, VERDICTS, AuditReport, Check, read_audits
from alignrec_recbole.errors import RecordError

FOLDER = "audit"  # of an output folder
SHOWN = 2  # checks of a footnote
BY_USER_NUMBER = "numbering-users"  # the bound ranker

_Key = tuple[tuple[str, ...], str]


@dataclass(frozen=True)
class AuditMarks:
    """Footnotes by data.

    Attributes:
        notes: hash of interactions and split → footnote.
    """

    notes: dict[_Key, str]

    @classmethod
    def of(cls, reports: Iterable[AuditReport]) -> AuditMarks:
        """The footnotes of the reports whose data is not clean; of several of the same data, one.

        That is the report with the worst verdict; features and models are not looked at.
        """
        worst: dict[_Key, AuditReport] = {}
        for report in reports:
            key = _key(report.data)
            if key not in worst or _rank(report) > _rank(worst[key]):
                worst[key] = report
        found = {key: footnote(report) for key, report in worst.items()}
        return cls({key: note for key, note in found.items() if note})

    @classmethod
    def read(
        cls, output: Path, skipped: Callable[[Path, RecordError], None] | None = None
    ) -> AuditMarks:
        """The footnotes of the audits in an output folder.

        Args:
            skipped: called for every file that cannot be used.
        """
        return cls.of(report for _, report in read_audits(output / FOLDER, skipped))

    def footnote(self, data: Iterable[dict[str, Any]]) -> str:
        """The footnote of a table by the data of its records; "" if all that is known is clean."""
        found = dict.fromkeys(self.notes.get(_key(each), "") for each in data if each.get("files"))
        return " ".join(note for note in found if note)


def footnote(report: AuditReport) -> str:
    """What a reader must know of a data set, in one or two sentences; "" if it is clean."""
    checks = report.not_clean(OF_DATA)
    first = [check for check in checks if check.name == BY_USER_NUMBER]
    shown = [*first, *(check for check in checks if check not in first)][:SHOWN]
    if not shown:
        return ""
    more = len(checks) - len(shown)
    return (
        "Audit of this split: "
        + "; ".join(map(_sentence, shown))
        + (f"; {more} more in its report." if more else ".")
    )


def _sentence(check: Check) -> str:
    """The figure of a check and of its control, in words."""
    if check.value is None:
        return f"{check.name}: {check.verdict}"
    against = "" if check.control is None else f", {check.control:.4f} under the control"
    if check.name == BY_USER_NUMBER:
        against = (
            "" if check.control is None else f", {check.control:.4f} after a random renumbering"
        )
        return (
            "a ranker that reads user numbers and training rows alone has "
            f"{check.metric} {check.value:.4f}{against} ({check.verdict})"
        )
    return f"{check.name}, {check.metric} {check.value:.4f}{against} ({check.verdict})"


def _rank(report: AuditReport) -> tuple[int, int]:
    return VERDICTS.index(report.verdict_of(OF_DATA)), len(report.not_clean(OF_DATA))


def _key(data: dict[str, Any]) -> _Key:
    """The interactions, whatever their files are called, and the split where rows are drawn."""
    files = sorted(sha for name, sha in data.get("files", {}).items() if name.endswith(".inter"))
    split = data.get("split", {})
    drawn = split if split.get("kind") == "ratio" else {}  # labels are in the files
    return tuple(files), json.dumps(drawn, sort_keys=True)
