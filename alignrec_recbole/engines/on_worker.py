"""What runs in a Dask worker: a cell in a child process, with the worker's share of its machine.

Functions of this module are called by name, so a worker needs this package in the same version.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
from distributed import get_worker
from distributed.utils import sync

from alignrec_recbole._version import __version__
from alignrec_recbole.engines.base import Answer, CellDied, EngineError, Work
from alignrec_recbole.engines.child import Children
from alignrec_recbole.engines.gpus import Gpus, visible_gpus
from alignrec_recbole.errors import AlignRecError, Interrupted
from alignrec_recbole.runtime import threads

STOPPED = "alignrec-stopped"  # metadata of the scheduler: the engines that were stopped
LOOKS = 5  # for the mark of a shared folder, which a network file system may show late
LOOK_SECONDS = 0.5
ANSWER_SECONDS = 30  # for the scheduler
RETURNED = ("models", "runs", "tuning")  # of an output folder; a record after its model
LOG = "log.txt"  # beside them, where a cell has a log


@dataclass(frozen=True)
class Order:
    """A cell with what a worker needs to know of the command that wants it.

    Attributes:
        engine: of that command; also the topic of lines.
        mark: a file in the output folder, by its absolute path: workers that see it share it.
        folder: where the command runs.
        environment: variables of its children, None for those that must not be set.
    """

    work: Work
    engine: str
    mark: str
    folder: str
    environment: dict[str, str | None]
    version: str = __version__


class Room:
    """The memory of a worker: a cell that does not fit beside the running ones waits.

    >>> room = Room(100)
    >>> with room.of(60), room.of(40):
    ...     room.used
    100
    """

    def __init__(self, size: int) -> None:
        self.size, self.used = size, 0
        self._change = threading.Condition()

    @contextmanager
    def of(self, needed: int) -> Iterator[None]:
        """Wait for so many bytes and hold them; a cell that never fits runs alone."""
        with self._change:
            self._change.wait_for(lambda: not self.used or self.used + needed <= self.size)
            self.used += needed
        try:
            yield
        finally:
            with self._change:
                self.used -= needed
                self._change.notify_all()


class _Worker:
    """What all cells of one worker process share; made with the first cell."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.children: dict[str, Children] = defaultdict(Children)
        self.room: Room | None = None
        self.gpus: Gpus | None = None

    def shared(self, limit: int, number: int) -> tuple[Room, Gpus]:
        with self.lock:
            self.room = self.room or Room(limit)
            self.gpus = self.gpus or Gpus(visible_gpus(), number)
            return self.room, self.gpus


_here = _Worker()


def stop(engine: str) -> None:
    """Let the cells of an engine that run in this process save their state and end."""
    _here.children[engine].stop()


def run_cell(order: Order) -> Answer:
    """Run a cell: {"answer": …, "files": …}, {"interrupted": True} or {"error": …}."""
    try:
        return _run(order)
    except Interrupted:
        return {"interrupted": True}
    except AlignRecError as error:
        parts = {name: getattr(error, name) for name in ("found", "expected", "hint")}
        return {
            "error": type(error).__name__,
            "problem": error.problem,
            "parts": parts,
            "printed": getattr(error, "printed", ""),
            "seconds": getattr(error, "seconds", 0.0),
        }


def error_of(outcome: Answer) -> AlignRecError:
    """The exception of such an answer, in the process of the command."""
    kind = CellDied if outcome["error"] == CellDied.__name__ else EngineError
    error = kind(outcome["problem"], **outcome["parts"])
    if isinstance(error, CellDied):
        error.printed, error.seconds = outcome["printed"], outcome["seconds"]
    return error


def _run(order: Order) -> Answer:
    worker = get_worker()
    if order.version != __version__:
        raise EngineError(
            f"The worker {worker.address} has another version of this package.",
            found=f"alignrec-recbole {__version__}",
            expected=order.version,
            hint="install the same version where the command and where the workers run",
        )
    if order.engine in _ask(worker.scheduler.get_metadata, keys=[STOPPED], default=[]):
        raise Interrupted("")
    neighbours = _neighbours(worker)
    total = sum(count for _, count in neighbours)
    cores = max(1, threads.available_cores() // max(1, total))
    number = next((n for n, (name, _) in enumerate(neighbours) if name == worker.address), 0)
    limit = worker.memory_manager.memory_limit or psutil.virtual_memory().total
    room, gpus = _here.shared(limit, number)
    work = order.work

    def show(line: str) -> None:
        worker.log_event(order.engine, [work.name, line])

    with room.of(work.bytes), gpus.one(work.device) as gpu, _place(order, worker) as (here, files):
        folder = Path(order.folder)
        answer = _here.children[order.engine].run(
            here,
            show,
            cores,
            {**order.environment, **gpu},
            folder if folder.is_dir() else None,
        )
        return {"answer": answer, "files": files(), "shared": here is work}


@contextmanager
def _place(order: Order, worker: Any) -> Iterator[tuple[Work, Any]]:
    """The cell with its output folder, and what returns the files to send back.

    Where the output folder is shared, it is the command's own, and nothing is sent.
    """
    if _is_shared(Path(order.mark)):
        yield order.work, dict
        return
    if order.work.reads_records:
        raise EngineError(
            f"{order.work.name} reads records that the worker {worker.address} does not see.",
            found=f"no {order.mark} there",
            expected="an output folder that all workers share",
            hint="pass --output with such a folder, or run this cell with --engine local",
        )
    folder = Path(tempfile.mkdtemp(prefix="alignrec-", dir=worker.local_directory))
    try:
        log = folder / LOG if order.work.log else None
        yield replace(order.work, output=folder, log=log), lambda: _files(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _is_shared(mark: Path) -> bool:
    for look in range(LOOKS):
        if look:
            time.sleep(LOOK_SECONDS)
        with contextlib.suppress(OSError):
            if mark.is_file():
                return True
    return False


def _files(folder: Path) -> dict[str, bytes]:
    """Results in a folder: path in it → content."""
    found = [path for name in RETURNED for path in sorted((folder / name).rglob("*"))]
    found += [folder / LOG]
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in found
        if path.is_file() and not path.is_symlink()
    }


def _neighbours(worker: Any) -> list[tuple[str, int]]:
    """The workers of this machine, in one order for all: address and threads."""
    own = [(worker.address, worker.state.nthreads)]
    try:
        known = _ask(worker.scheduler.identity)["workers"]
    except (OSError, TimeoutError):  # the scheduler has ended: this cell will be run again
        return own
    host = known.get(worker.address, {}).get("host")
    here = [(name, w["nthreads"]) for name, w in known.items() if w["host"] == host]
    return sorted(here) or own


def _ask(call: Any, **arguments: Any) -> Any:
    """Ask the scheduler from the thread of a cell."""
    return sync(get_worker().loop, call, callback_timeout=ANSWER_SECONDS, **arguments)


def environment_of_command() -> dict[str, str | None]:
    """Variables that a cell has from the command that wants it, wherever it runs.

    A Dask worker sets numbers of threads and an option of the allocator for its own work; a cell
    has its own rule for these, unless the command was given them.
    """
    own = {name: value for name, value in os.environ.items() if name.startswith("ALIGNREC_")}
    return {**own, **{name: os.environ.get(name) for name in _SET_BY_DASK}}


_SET_BY_DASK = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MALLOC_TRIM_THRESHOLD_",
)
