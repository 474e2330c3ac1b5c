"""The engine of one machine: a pool of threads, each of which waits for one child process.

A child that dies takes no other with it, as a broken pool of processes would.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

from alignrec_recbole.engines.base import Answer, Work
from alignrec_recbole.engines.child import Children
from alignrec_recbole.engines.gpus import Gpus, visible_gpus
from alignrec_recbole.errors import printable
from alignrec_recbole.runtime import threads


class Printer:
    """Prints the lines of cells on standard error, whole lines with the cell's name."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def of(self, name: str) -> Callable[[str], None]:
        """What prints the lines of one cell."""
        return partial(self.line, name)

    def line(self, name: str, line: str) -> None:
        """Print one line."""
        with self._lock:
            print(f"[{name}] {printable(line)}", file=sys.stderr, flush=True)


class LocalEngine:
    """Runs `jobs` cells at a time, each with its share of the cores that are free now."""

    places_by_size = False

    def __init__(self, jobs: int) -> None:
        self.places = jobs
        self._cores = max(1, threads.free_cores() // jobs)
        self._gpus = Gpus(visible_gpus())
        self._children = Children()
        self._printer = Printer()

    def __enter__(self) -> LocalEngine:
        self._pool = ThreadPoolExecutor(self.places)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and (not self._children.stopped or kind is KeyboardInterrupt):
            self.stop()
        try:
            self._pool.shutdown(cancel_futures=True)
        except KeyboardInterrupt:
            self.stop()
            raise

    def submit(self, work: Work) -> Future[Answer]:
        """Run a cell as soon as one of the `jobs` is free."""
        return self._pool.submit(self._run, work)

    def stop(self) -> None:
        """Begin no more cells; those that run save their state and end."""
        self._children.stop()

    def kill(self) -> None:
        """Begin no more cells and end those that run at once; nothing more is saved."""
        self._children.kill()

    def _run(self, work: Work) -> Answer:
        with self._gpus.one(work.device) as environment:
            return self._children.run(work, self._printer.of(work.name), self._cores, environment)
