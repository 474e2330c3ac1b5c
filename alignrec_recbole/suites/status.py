"""The outcome of a suite's cells: one JSON file per cell under `<output>/suites/<suite>/`."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from alignrec_recbole.errors import RecordError, printable
from alignrec_recbole.io.files import atomic_write
from alignrec_recbole.io.opening import is_regular_file, read_bytes
from alignrec_recbole.runs.record_fields import first_problem

MAX_BYTES = 16 << 20

Key = tuple[str, str, str, str, int]  # dataset, protocol, model, config_sha256, seed


class CellStatus(BaseModel):
    """One cell. `records` are the keys of its records; `error` ends with the traceback.

    `defaults_sha256` is of the default settings that it had; "" in statuses from before.
    """

    model_config = ConfigDict(extra="forbid")

    name: str
    arguments: list[str]
    status: Literal["missing", "finished", "failed"]
    error: str = ""
    seconds: float = 0.0
    records: list[Key] = []
    defaults_sha256: str = ""

    @property
    def summary(self) -> str:
        """One line about a cell that is not finished: the first of its error.

        >>> text = "Traceback …\\n  File …\\na.errors.DataError: No file.\\n  hint      look"
        >>> CellStatus(name="a", arguments=[], status="failed", error=text).summary
        'DataError: No file.'
        """
        lines = [line for line in self.error.splitlines() if line.strip() and line[0] != " "]
        if not lines:
            return "not run yet"
        kind, colon, rest = lines[-1].partition(": ")
        return printable(f"{kind.rpartition('.')[2]}{colon}{rest}", 300)


def write_status(path: Path, status: CellStatus) -> None:
    """Write a status whole or not at all."""
    with atomic_write(path, "w") as handle:
        handle.write(status.model_dump_json(indent=1) + "\n")


def read_cell(path: Path) -> CellStatus:
    """Read one status.

    Raises:
        RecordError: the file is damaged.
    """
    data = read_bytes(path, what="status", error=RecordError, max_bytes=MAX_BYTES)
    try:
        return CellStatus.model_validate_json(data)
    except ValidationError as error:
        raise RecordError(
            f"{path.name} is not the status of a suite's cell.",
            found=f"{first_problem(error)} in {path}",
            hint="delete the file; the cell is then checked again",
        ) from error


def read_status(
    folder: Path, skipped: Callable[[Path, RecordError], None] | None = None
) -> dict[str, list[CellStatus]]:
    """Suite → its cells, for every suite in an output folder; other files are passed over.

    Args:
        skipped: called for every status that cannot be used; without it, the first one is raised.
    """
    out: dict[str, list[CellStatus]] = {}
    for path in sorted(folder.glob("*/*.json")):
        if not is_status_name(path.name) or not is_regular_file(path):
            continue
        try:
            cell = read_cell(path)
        except RecordError as error:
            if skipped is None:
                raise
            skipped(path, error)
        else:
            out.setdefault(path.parent.name, []).append(cell)
    return out


def is_status_name(name: str) -> bool:
    """Whether a file is named as the status of a cell is.

    >>> is_status_name("BPR_ml-100k_full_999-0f3a9c1e.json"), is_status_name("mine.json")
    (True, False)
    """
    return re.fullmatch(r"[A-Za-z0-9_.+-]{0,80}-[0-9a-f]{8}\.json", name) is not None
