"""What an engine is, and what it is given to do."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from alignrec_recbole.errors import AlignRecError

Answer = dict[str, Any]  # a JSON value


@dataclass(frozen=True)
class Work:
    """One cell, which any machine with this package and the data can run, again if need be.

    Attributes:
        name: what lines of output call it.
        verb: the hidden verb that runs it in a child process.
        order: a JSON value for that verb; the folder `output` is added to it.
        output: folder of records.
        log: file that gets what the cell prints; None: it is shown here line by line.
        bytes: memory that it will need, 0 if that is not known.
        device: its --device; `auto` and `cuda` get one of several GPUs to themselves.
        reads_records: whether it reads records that other cells have left in `output`.
        overwrite: whether records that are in `output` are replaced.
    """

    name: str
    verb: str
    order: dict[str, Any]
    output: Path
    log: Path | None = None
    bytes: int = 0
    device: str = "auto"
    reads_records: bool = field(default=False)
    overwrite: bool = field(default=False)


class CellDied(AlignRecError):
    """The process of a cell ended without an answer.

    Attributes:
        printed: the last lines that it printed.
        seconds: that it ran.
    """

    printed: str = ""
    seconds: float = 0.0


class EngineError(AlignRecError):
    """An engine that cannot be reached, or that cannot run a cell."""


class Engine(Protocol):
    """Runs cells in child processes, here or elsewhere.

    Attributes:
        places_by_size: whether the memory of a cell decides where and when it runs.
        places: cells that can run at a time; known once the engine is entered.
    """

    places_by_size: bool
    places: int

    def __enter__(self) -> Engine: ...

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Wait for what runs; after an error, or Ctrl-C, cells save their state and end first."""

    def submit(self, work: Work) -> Future[Answer]:
        """Run a cell as soon as there is a place for it.

        The future's errors: `CellDied`; `Interrupted` after `stop`; others of the engine.
        """

    def stop(self) -> None:
        """Begin no more cells; those that run save their state and end, at once if called again."""
