"""The child processes that run cells: one place that starts, watches, stops and hears them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from alignrec_recbole.engines.base import Answer, CellDied, Work
from alignrec_recbole.errors import Interrupted
from alignrec_recbole.runtime.threads import SHARE

COMMAND = ("-m", "alignrec_recbole")  # arguments of Python before the verb
ANSWER = "answer: "  # begins the line of standard output that has the result
LAST_LINES = 200  # of a process that died, for its error
STOPPED = "Interrupted: runs that had begun have saved their state; run the same command to resume."

Show = Callable[[str], None]


class Children:
    """The child processes of one engine that this process has started."""

    def __init__(self) -> None:
        self._running: set[subprocess.Popen[str]] = set()
        self._lock = threading.Lock()
        self.stopped = False

    def stop(self) -> None:
        """Send SIGTERM: the first lets a run finish its epoch and save its state."""
        with self._lock:
            self.stopped = True
            for child in self._running:
                child.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL to the children and what they have started: nothing more is saved."""
        with self._lock:
            self.stopped = True
            for child in self._running:
                if child.poll() is None:
                    os.killpg(child.pid, signal.SIGKILL)

    def run(
        self,
        work: Work,
        show: Show,
        cores: int,
        environment: Mapping[str, str | None] | None = None,
        folder: Path | None = None,
    ) -> Answer:
        """Run a cell in a process of its own and wait for its answer.

        Args:
            show: called with each line that it prints, unless the cell has a log.
            cores: that it may use.
            environment: variables that are set, or removed where None, beside this process's.
            folder: where it is started; None: where this process is.

        Raises:
            CellDied: it ended without an answer.
            Interrupted: `stop` was called.
        """
        began = time.perf_counter()
        given = {**os.environ, **(environment or {}), SHARE: str(cores)}
        variables = {name: value for name, value in given.items() if value is not None}
        with _log(work, show) as write, self._started(work.verb, variables, folder) as child:
            assert child.stdin
            assert child.stdout
            assert child.stderr
            printed: deque[str] = deque(maxlen=LAST_LINES)

            def hear(stream: IO[str]) -> None:
                for line in stream:
                    if line.strip():
                        printed.append(line.rstrip())
                        write(line.rstrip())

            listener = threading.Thread(target=hear, args=(child.stderr,), daemon=True)
            listener.start()
            answer = None
            with contextlib.suppress(BrokenPipeError):  # it died before: see its exit status
                child.stdin.write(json.dumps({**work.order, "output": str(work.output)}) + "\n")
                child.stdin.flush()  # and stays open: the child ends when it closes
            for line in child.stdout:
                if line.startswith(ANSWER):
                    answer = line.removeprefix(ANSWER)
                elif line.strip():
                    printed.append(line.rstrip())
                    write(line.rstrip())
            code = child.wait()
            listener.join()
        if answer is None:
            if self.stopped:
                raise Interrupted(STOPPED)
            error = _died(work, code)
            error.printed, error.seconds = "\n".join(printed), time.perf_counter() - began
            raise error
        found: Answer = json.loads(answer)
        return found

    @contextmanager
    def _started(
        self, verb: str, variables: dict[str, str], folder: Path | None
    ) -> Iterator[subprocess.Popen[str]]:
        with self._lock:
            if self.stopped:
                raise Interrupted(STOPPED)
            child = subprocess.Popen(
                [sys.executable, *COMMAND, verb],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={**variables, "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))},
                cwd=folder,
                text=True,
                encoding="utf-8",
                errors="replace",
                start_new_session=True,  # a Ctrl-C reaches this process, which passes it on once
            )
            self._running.add(child)
        try:
            yield child
        finally:
            with self._lock:
                self._running.discard(child)
            child.kill()
            child.wait()
            for stream in (child.stdin, child.stdout, child.stderr):
                with contextlib.suppress(OSError):
                    stream.close()  # type: ignore[union-attr]


@contextmanager
def _log(work: Work, show: Show) -> Iterator[Show]:
    """What takes the lines of a cell: its log, or `show`."""
    if work.log is None:
        yield show
        return
    work.log.parent.mkdir(parents=True, exist_ok=True)
    if work.log.is_symlink():  # opening it would write to another file
        work.log.unlink()
    lock = threading.Lock()
    with Path(work.log).open("w", encoding="utf-8") as handle:

        def write(line: str) -> None:
            with lock:
                handle.write(line + "\n")
                handle.flush()

        yield write


def _died(work: Work, code: int) -> CellDied:
    hint = "what it printed is above; --jobs 1 runs one after the other"
    if code == -signal.SIGKILL:
        hint = (
            "the system ends a process in this way when memory runs out: fewer --jobs, or smaller "
            "tables"
        )
    return CellDied(
        f"The run {work.name} ended without a result.",
        found=signal.Signals(-code).name if code < 0 else f"exit status {code}",
        hint=hint,
    )
