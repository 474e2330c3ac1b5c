"""The result of a check of a leaderboard, as typed values that are stored as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from alignrec_recbole.errors import printable

Check = Literal[
    "file",  # something that is no record, or a link
    "record",  # schema, place and hash of the configuration
    "hash",  # of the values per user beside it
    "results version",
    "code",  # of a modified checkout
    "names",  # model, data set, protocol
    "data",  # other counts than the registered data set's
    "values",  # figures that do not fit each other
    "duplicate",  # of a run
    "copy",  # the epochs of another run
    "budget",  # absent, or not what the search chose
]
State = Literal["agrees", "differs", "not run again"]


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Finding(_Closed):
    """Something that is wrong with a file.

    Attributes:
        path: under the folder.
        problem: in a sentence.
    """

    path: str
    check: Check
    problem: str


class Pair(_Closed):
    """A metric of a record, and of the run that was made again."""

    stored: float
    again: float

    @property
    def difference(self) -> float:
        """|stored − again| relative to the larger one.

        >>> Pair(stored=0.1, again=0.09).difference, Pair(stored=0.0, again=0.0).difference
        (0.1, 0.0)
        """
        largest = max(abs(self.stored), abs(self.again))
        return round(abs(self.stored - self.again) / largest, 12) if largest else 0.0


class Rerun(_Closed):
    """One record of the sample.

    Attributes:
        reason: why it was not run again, or what differs most.
        metrics: test metrics by name.
    """

    path: str
    state: State
    reason: str = ""
    seconds: float = 0.0
    metrics: dict[str, Pair] = {}


class BoardReport(_Closed):
    """What was checked, found and run again.

    Attributes:
        records: that were looked at.
        sound: those without a finding.
        findings: at most `MAX_FINDINGS`.
        found: the number of all findings.
        wanted: records that were to be run again.
        sample_seed: of the choice.
        candidates: records that could be run again.
        tolerance: largest difference relative to the larger value that counts as agreement.
        reruns: the sample.
    """

    schema_version: Literal[1] = 1
    records: int
    sound: int
    findings: list[Finding]
    found: int
    wanted: int = 0
    sample_seed: int = 0
    candidates: int = 0
    tolerance: float = 0.0
    reruns: list[Rerun] = []

    @property
    def passed(self) -> bool:
        """Whether nothing was found and no re-run differs."""
        return not self.found and all(rerun.state != "differs" for rerun in self.reruns)


def name_in(folder: Path, path: Path) -> str:
    """What a report calls a file.

    >>> name_in(Path("board"), Path("board/runs/toy/BPR/x.json"))
    'runs/toy/BPR/x.json'
    """
    return printable(path.relative_to(folder).as_posix(), 400)
