"""The outcome of a suite's cells: one JSON file per cell under `<output>/suites/<suite>/`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from alignrec_recbole.errors import RecordError
from alignrec_recbole.io.files import atomic_write

Key = tuple[str, str, str, str, int]  # dataset, protocol, model, config_sha256, seed


class CellStatus(BaseModel):
    """One cell. `records` are the keys of its records; `error` ends with the traceback."""

    model_config = ConfigDict(extra="forbid")

    name: str
    arguments: list[str]
    status: Literal["missing", "finished", "failed"]
    error: str = ""
    seconds: float = 0.0
    records: list[Key] = []


def write_status(path: Path, status: CellStatus) -> None:
    """Write a status whole or not at all."""
    with atomic_write(path, "w") as handle:
        handle.write(status.model_dump_json(indent=1) + "\n")


def read_cell(path: Path) -> CellStatus:
    """Read one status.

    Raises:
        RecordError: the file is damaged.
    """
    try:
        return CellStatus.model_validate_json(path.read_bytes())
    except (ValidationError, OSError) as error:
        raise RecordError(
            f"{path.name} is not the status of a suite's cell.",
            found=str(error).splitlines()[0],
            hint="delete the file; the cell is then checked again",
        ) from error


def read_status(folder: Path) -> dict[str, list[CellStatus]]:
    """Suite → its cells, for every suite in an output folder."""
    out: dict[str, list[CellStatus]] = {}
    for path in sorted(folder.glob("*/*.json")):
        out.setdefault(path.parent.name, []).append(read_cell(path))
    return out
