"""The engine of Dask: cells run by the workers of a scheduler, on any number of machines.

A cell whose worker dies is given to another one by the scheduler. When the scheduler itself ends,
the cells that have no answer yet are sent again to the next one at its address; runs that have
finished in the meantime are only read then.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, wait
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from distributed import Client, LocalCluster
from distributed.client import FutureCancelledError
from distributed.scheduler import KilledWorker

from alignrec_recbole.engines import on_worker
from alignrec_recbole.engines.base import Answer, CellDied, EngineError, Work
from alignrec_recbole.engines.child import STOPPED
from alignrec_recbole.engines.local import Printer
from alignrec_recbole.errors import Interrupted, printable
from alignrec_recbole.io.files import atomic_write, inside

FIRST_SECONDS = 30.0  # for an answer of the scheduler
AGAIN_SECONDS = 600.0  # for a scheduler that has ended
TRY_SECONDS = 5.0
LOOK_SECONDS = 1.0  # between looks for cells that wait for a worker, after a stop
MEMORY = "memory"  # resource in bytes, where workers declare it
RECORDS = ("runs/", "tuning/")  # folders of records, in an output folder

Cluster = Callable[[], AbstractContextManager[str]]


@dataclass
class _Sent:
    """A cell without an answer."""

    order: on_worker.Order
    outcome: Future[Answer]
    future: Any = None  # of Dask
    times: int = 0  # that it was sent


def connect(jobs: int, address: str) -> DaskEngine:
    """The engine of a scheduler's address, or of a scheduler with `jobs` workers of its own."""
    if address:
        return DaskEngine(partial(_named, address))
    return DaskEngine(partial(_of_this_machine, jobs), jobs)


@contextmanager
def _named(address: str) -> Iterator[str]:
    yield address


@contextmanager
def _of_this_machine(jobs: int) -> Iterator[str]:
    """A scheduler and workers that end with this process."""
    with LocalCluster(
        n_workers=jobs,
        threads_per_worker=1,
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
        silence_logs=logging.CRITICAL,  # as it ends, each worker reports that others have ended
        preload="alignrec_recbole.engines.own_worker",
    ) as cluster:
        yield cluster.scheduler_address


class DaskEngine:
    """Sends cells to a scheduler.

    Args:
        cluster: inside, there is a scheduler at the address.
        places: cells at a time; None: as many as the workers there have threads now.
    """

    places_by_size = True

    def __init__(self, cluster: Cluster, places: int | None = None) -> None:
        self._cluster = cluster
        self._given, self.places = places, places or 1
        self._name = f"alignrec-{uuid.uuid4().hex[:12]}"
        self._open: dict[int, _Sent] = {}
        self._count = 0
        self._marks: dict[Path, Path] = {}
        self._lock = threading.RLock()
        self._lost, self._left = threading.Event(), False
        self._stops = 0
        self._client: Any = None
        self._largest = 0.0  # memory that a worker declares
        self._printer = Printer()

    def __enter__(self) -> DaskEngine:
        with ExitStack() as stack:
            self._address = stack.enter_context(self._cluster())
            self._connect(FIRST_SECONDS)
            self._stack = stack.pop_all()
        self._keeper = threading.Thread(target=self._keep_connected, daemon=True)
        self._keeper.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and (not self._stops or kind is KeyboardInterrupt):
            self.stop()
        try:
            if kind is not KeyboardInterrupt:
                wait([sent.outcome for sent in list(self._open.values())])
        finally:
            self._left = True
            self._lost.set()
            self._keeper.join(2 * TRY_SECONDS)
            for mark in self._marks.values():
                mark.unlink(missing_ok=True)
            with suppress(Exception):  # of a scheduler that has ended
                self._client.close(timeout=TRY_SECONDS)
            self._stack.close()

    def submit(self, work: Work) -> Future[Answer]:
        """Run a cell as soon as a worker has a place for it."""
        folder = Path(os.path.abspath(work.output))
        log = Path(os.path.abspath(work.log)) if work.log else None
        order = on_worker.Order(
            replace(work, log=log),
            self._name,
            str(self._mark(folder)),
            os.getcwd(),
            on_worker.environment_of_command(),
        )
        sent = _Sent(order, Future())
        sent.outcome.set_running_or_notify_cancel()
        with self._lock:
            number = self._count = self._count + 1
            self._open[number] = sent
            if self._stops:
                self._end(number, Interrupted(STOPPED))
            elif not self._lost.is_set():
                self._send(number)
        return sent.outcome

    def stop(self) -> None:
        """Begin no more cells; those that run save their state and end."""
        self._stops += 1
        if self._lost.is_set() or self._client is None:
            return  # the cells have ended with the workers of their scheduler
        with suppress(Exception):  # a scheduler that has just ended
            known = self._client.get_metadata([on_worker.STOPPED], default=[])
            self._client.set_metadata([on_worker.STOPPED], [*known, self._name])
            self._client.run(on_worker.stop, self._name, on_error="ignore")

    def _mark(self, folder: Path) -> Path:
        """A file by which workers see that they share an output folder."""
        if folder not in self._marks:
            folder.mkdir(parents=True, exist_ok=True)
            self._marks[folder] = folder / f".{self._name}"
            with atomic_write(self._marks[folder], "w") as handle:
                handle.write("Workers that see this file write to this folder themselves.\n")
        return self._marks[folder]

    def _send(self, number: int) -> None:
        sent = self._open[number]
        sent.times += 1
        size = min(sent.order.work.bytes, self._largest)
        sent.future = self._client.submit(
            on_worker.run_cell,
            sent.order,
            key=f"{self._name}-{number}-{sent.times}",
            pure=False,
            resources={MEMORY: size} if size else None,
        )
        sent.future.add_done_callback(partial(self._answered, number, sent.times))

    def _answered(self, number: int, times: int, future: Any) -> None:
        """Called by a thread of Dask when a cell has ended, or is lost with its scheduler."""
        with self._lock:
            sent = self._open.get(number)
            if sent is None or sent.times != times:
                return
        if future.status == "finished":
            try:
                outcome = future.result(timeout=TRY_SECONDS)
            except Exception:  # lost between its end and here
                self._lost.set()
                return
            self._end(number, outcome)
        elif future.status == "error":
            self._end(number, _failure(sent.order.work, future.exception()))
        else:
            self._lost.set()

    def _end(self, number: int, outcome: Answer | Exception) -> None:
        with self._lock:
            sent = self._open.pop(number, None)
        if sent is None:
            return
        try:
            if isinstance(outcome, Exception):
                raise outcome
            if "error" in outcome:
                raise on_worker.error_of(outcome)
            if "interrupted" in outcome:
                raise Interrupted(STOPPED)
            if not outcome["shared"]:
                _write(sent.order.work, outcome["files"])
        except Exception as error:
            sent.outcome.set_exception(error)
        else:
            sent.outcome.set_result(outcome["answer"])

    def _connect(self, seconds: float) -> None:
        """Connect, and say where the dashboard is.

        Raises:
            EngineError: nothing answers at the address.
        """
        deadline, said = time.monotonic() + seconds, False
        while True:
            try:
                client = Client(self._address, timeout=TRY_SECONDS, set_as_default=False)
                break
            except (OSError, ValueError, TypeError, ImportError) as error:
                over = isinstance(error, OSError) and time.monotonic() < deadline
                if not over or self._left or self._stops:
                    raise EngineError(
                        f"No Dask scheduler can be reached at {self._address!r}.",
                        found=str(error) or type(error).__name__,
                        expected="an address that `dask scheduler` prints, such as "
                        "tcp://10.0.0.5:8786",
                    ) from None
                if not said:
                    _say(f"waiting for a Dask scheduler at {self._address}")
                    said = True
                time.sleep(min(1.0, TRY_SECONDS))
        workers = client.scheduler_info(n_workers=-1)["workers"].values()
        self._largest = max((w["resources"].get(MEMORY, 0.0) for w in workers), default=0.0)
        client.subscribe_topic(self._name, lambda event: self._printer.line(*event[1]))
        places = sum(worker["nthreads"] for worker in workers)
        self.places = self._given or max(1, places)
        link = client.dashboard_link
        _say(f"Dask: {len(workers)} workers, {places} cells at a time; dashboard: {link}")
        self._client = client

    def _keep_connected(self) -> None:
        """Connect again when the scheduler is lost, and send what has no answer."""
        waiting: set[int] = set()
        while True:
            if not self._lost.wait(LOOK_SECONDS):
                if self._stops:
                    waiting = self._end_what_waits(waiting)
                continue
            if self._left:
                return
            _say("the Dask scheduler has ended: cells without an answer are sent to the next one")
            with contextlib.suppress(Exception):
                self._client.close(timeout=TRY_SECONDS)
            try:
                self._connect(AGAIN_SECONDS)
            except EngineError as error:
                stopped = Interrupted(STOPPED) if self._stops else error
                for number in list(self._open):
                    self._end(number, stopped)
                continue
            with self._lock:
                self._lost.clear()
                for number in list(self._open):
                    if self._stops:
                        self._end(number, Interrupted(STOPPED))
                    else:
                        self._send(number)

    def _end_what_waits(self, before: set[int]) -> set[int]:
        """After `stop`: end the cells that no worker has, now and when this was called before."""
        with suppress(Exception):  # of a scheduler that has just ended
            taken = {key for keys in self._client.processing().values() for key in keys}
            with self._lock:
                now = {n for n, sent in self._open.items() if sent.future.key not in taken}
                for number in now & before:
                    self._end(number, Interrupted(STOPPED))
            return now - before
        return set()


def _failure(work: Work, error: BaseException | None) -> Exception:
    """What a task that raised says to a user; cells themselves answer with their errors."""
    if isinstance(error, KilledWorker):
        return CellDied(
            f"The run {work.name} ended without a result.",
            found=f"{error.allowed_failures + 1} workers died while they ran it",
            hint="workers die when memory runs out: fewer threads per worker, or larger machines",
        )
    if isinstance(error, (ImportError, AttributeError)):
        return EngineError(
            "A Dask worker cannot import this package.",
            found=str(error),
            expected="the same version of alignrec-recbole where the workers run",
        )
    if isinstance(error, FutureCancelledError):
        return Interrupted(STOPPED)
    return EngineError(
        f"The run {work.name} failed in its Dask worker.", found=f"{type(error).__name__}: {error}"
    )


def _write(work: Work, files: dict[str, bytes]) -> None:
    """Write what a worker without the output folder has sent.

    A run whose record is there already keeps all its files, unless the cell overwrites.
    """
    places = {name: inside(work.output, name) for name in files if name != on_worker.LOG}
    finished = (
        () if work.overwrite else _own_files(name for name in places if places[name].exists())
    )
    for name, content in files.items():
        path = work.log if name == on_worker.LOG else places[name]
        if path is not None and not name.startswith(finished):
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(path) as handle:
                handle.write(content)


def _own_files(names: Iterable[str]) -> tuple[str, ...]:
    """What the files of runs begin with, given names of which some are records.

    >>> _own_files(["tuning/d/M/a.json", "runs/d/M/b.json", "runs/d/M/c.users.npz"])
    ('tuning/d/M/a.', 'runs/d/M/b.', 'models/d/M/b.')
    """
    records = [name for name in names if name.startswith(RECORDS) and name.endswith(".json")]
    own = [name.removesuffix("json") for name in records]
    models = [f"models/{name.removeprefix('runs/')}" for name in own if name.startswith("runs/")]
    return (*own, *models)


def _say(line: str) -> None:
    print(printable(line), file=sys.stderr, flush=True)
