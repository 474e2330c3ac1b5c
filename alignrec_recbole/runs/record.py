"""One JSON record per run: typed, versioned, written once. Tables and plots are made of records."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, FiniteFloat, ValidationError

from alignrec_recbole.errors import RecordError
from alignrec_recbole.io.files import atomic_write

SCHEMA_VERSION = 1
NUMBERS_EPOCH = 1  # raised when a change moves results; a table shows one epoch only


# finite: JSON has no NaN, and a record that cannot be read back blocks its folder
Metrics = dict[str, FiniteFloat]


class RunRecord(BaseModel):
    """What was run, on what data, how it went and the results. Floats are unrounded.

    The field names are those of stored records and therefore fixed.
    """

    model_config = ConfigDict(extra="forbid")

    schema_version: Literal[1] = 1
    numbers_epoch: int = NUMBERS_EPOCH
    status: Literal["finished", "failed"]
    error: str | None = None
    model: str
    dataset: str
    features: str  # names joined by "+", or "none"
    protocol: str
    setting: str  # mmrec or recbole
    seed: int
    config: dict[str, Any]  # effective configuration
    config_sha256: str  # of all that decides the result but the seed: config_hash.py
    tuned_on: str | None  # how hyper-parameters were chosen, if they were
    data: dict[str, Any]  # counts, split, file hashes
    feature_files: dict[str, Any]  # name → manifest summary
    selection: dict[str, Any]  # metric, split, best epoch, why training stopped
    valid_metrics: Metrics
    metrics: Metrics  # test; empty where the test split was not scored
    groups: dict[str, dict[str, Metrics]] | None = None  # kind → group → metrics, sizes
    curve: list[dict[str, Any]] | None = None  # points: what was varied, "metrics"
    chance: Metrics | None = None  # expected metrics of a random order, same candidates
    per_user: dict[str, str] | None  # file and sha256 of per-user values and top-K lists
    epochs: int
    history: list[dict[str, Any]]
    parameters: int
    seconds: dict[str, float]
    peak_rss_bytes: int
    peak_gpu_bytes: int
    code: dict[str, Any]
    machine: dict[str, Any]
    command: str
    started_utc: str
    notes: list[str]  # what a reader must know next to the numbers


def write_record(path: Path, record: RunRecord) -> None:
    """Write a record whole or not at all."""
    with atomic_write(path, "w") as handle:
        handle.write(record.model_dump_json(indent=1) + "\n")


def read_record(path: Path) -> RunRecord:
    """Read and check a record.

    Raises:
        RecordError: the file is damaged or of another schema.
    """
    try:
        return RunRecord.model_validate_json(Path(path).read_bytes())
    except (ValidationError, UnicodeDecodeError, OSError) as error:
        raise RecordError(
            f"{Path(path).name} is not a run record.",
            found=str(error).splitlines()[0],
            expected=f"JSON of schema version {SCHEMA_VERSION}",
            hint="delete it and run again, or restore it",
        ) from error


class Run(NamedTuple):
    """A record and its path."""

    path: Path
    record: RunRecord


def read_runs(folder: Path) -> list[Run]:
    """All records under a folder, in the order of their paths.

    Raises:
        RecordError: one of them is damaged.
    """
    return [Run(path, read_record(path)) for path in sorted(Path(folder).rglob("*.json"))]
