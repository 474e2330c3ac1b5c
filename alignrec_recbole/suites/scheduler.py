"""Run the cells of a suite in processes of their own, several at a time.

A cell is one command line of the verb `run`. Its status is a file of its own, so that a suite that
was stopped or killed continues with the cells that remain, and a run inside a cell continues from
its last saved epoch. A failed cell is recorded with its traceback; the others still run.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tqdm.auto import tqdm

from alignrec_recbole.data.dataset_paths import find_dataset
from alignrec_recbole.encoders.lookup import find_file
from alignrec_recbole.errors import AlignRecError, RecordError
from alignrec_recbole.io.files import sha256_file
from alignrec_recbole.io.opening import is_regular_file
from alignrec_recbole.runs.record import Run, read_runs
from alignrec_recbole.runtime.threads import SHARE, free_cores
from alignrec_recbole.suites.job_count import choose_jobs
from alignrec_recbole.suites.schema import AFTER_TRAINING, ALWAYS_RERUN, Cell, Suite
from alignrec_recbole.suites.status import CellStatus, Key, is_status_name, read_cell, write_status

CHILD = ("-m", "alignrec_recbole", "suite-cell")  # arguments of Python that run one cell
EXIT_RECORDED = 3  # exit status of a child that has recorded its own failure
EXIT_INTERRUPTED = 130
SHOWN_ERROR = 12_000  # last characters of a cell's output that its status holds


@dataclass(frozen=True)
class SuiteOptions:
    """Where and how a suite runs.

    Attributes:
        name: folder of the statuses under `<output>/suites`.
        jobs: processes at a time; None: as many as cores and memory allow.
        overwrite: whether finished cells run again.
    """

    name: str
    output: Path
    jobs: int | None = 1
    data_path: Path | None = None
    features_path: Path | None = None
    device: str = "auto"
    overwrite: bool = False
    progress: bool = True


class Scheduler:
    """The cells of a suite: which are finished, and running the others."""

    def __init__(self, suite: Suite, options: SuiteOptions) -> None:
        self.suite, self.options = suite, options
        self.folder = options.output / "suites" / options.name
        self._sha256 = functools.cache(sha256_file)  # many cells share their files
        self._cores = 1  # of a cell; more where fewer run at once

    def pending(self) -> list[Cell]:
        """The cells to run: all with `overwrite`, else those that are not complete."""
        overwrite = self.options.overwrite
        return [cell for cell in self.suite.expanded if overwrite or not self._is_complete(cell)]

    def status(self, cell: Cell, again: bool = False) -> CellStatus:
        """What the cell's file says; missing without one, or if a finished cell is to run again."""
        path = self._status_path(cell)
        found = read_cell(path) if is_regular_file(path) else None
        if (
            found is None
            or found.arguments != cell.arguments
            or (again and found.status == "finished")
        ):
            return CellStatus(name=cell.name, arguments=cell.arguments, status="missing")
        return found

    def run(self, pending: Sequence[Cell]) -> bool:
        """Run the cells; returns whether it was interrupted."""
        options, stop = self.options, threading.Event()
        todo = self._reset_status(pending)
        jobs = options.jobs or choose_jobs(
            todo,
            data_path=options.data_path,
            features_path=options.features_path,
            output=options.output,
            device=options.device,
        )
        self._cores = max(1, free_cores() // jobs)
        with (
            tqdm(
                total=len(todo), desc=options.name, unit="cell", disable=not options.progress
            ) as bar,
            ThreadPoolExecutor(jobs) as pool,
        ):

            def work(cell: Cell) -> None:
                if not stop.is_set():
                    self._run_in_process(cell)
                    bar.update()

            try:
                for after in (False, True):
                    cells = [cell for cell in todo if (cell.protocol in AFTER_TRAINING) == after]
                    list(pool.map(work, cells))
            except KeyboardInterrupt:  # the processes get the signal too, save their state and end
                stop.set()
                print("\nstopping; the same command continues", file=sys.stderr)
        return stop.is_set()

    def _status_path(self, cell: Cell) -> Path:
        return self.folder / f"{cell.stem}.json"

    def _reset_status(self, pending: Sequence[Cell]) -> list[Cell]:
        """All cells to run, each with a status file; those of cells no longer in the suite go."""
        for path in self._own_files():
            if path.stem not in {cell.stem for cell in self.suite.expanded}:
                path.unlink()
        todo = list(pending)
        if todo:
            todo = [
                cell
                for cell in self.suite.expanded
                if cell in todo or cell.protocol in ALWAYS_RERUN
            ]
        for cell in todo:
            write_status(self._status_path(cell), self.status(cell, again=True))
        return todo

    def _own_files(self) -> list[Path]:
        """Status files in the suite's folder that a suite wrote: their name fits their content.

        None in a folder that is reached through a symbolic link: it may be someone's data.
        """
        if self.folder.is_symlink() or self.folder.parent.is_symlink():
            return []
        return [path for path in self.folder.glob("*.json") if _is_own(path)]

    def _is_complete(self, cell: Cell) -> bool:
        """Whether all records of the cell exist, made with the present data and features."""
        path = self._status_path(cell)
        if not is_regular_file(path):
            return False
        status = read_cell(path)
        if status.status != "finished" or status.arguments != cell.arguments:
            return False
        found = [self._records.get(key) for key in status.records]
        return bool(found) and all(run is not None and self._same_data(run) for run in found)

    @functools.cached_property
    def _records(self) -> dict[Key, Run]:
        """The usable records; a cell whose record is damaged is run, and says so."""
        runs = read_runs(self.options.output / "runs", skipped=lambda path, error: None)
        return {key_of(run): run for run in runs}

    def _same_data(self, run: Run) -> bool:
        try:
            folder = find_dataset(run.record.dataset, self.options.data_path)
            features = {
                find_file(name, folder, self.options.features_path): file["sha256"]
                for name, file in run.record.feature_files.items()
            }
        except AlignRecError:
            return False
        files = {folder / name: digest for name, digest in run.record.data["files"].items()}
        files |= {path: digest for path, digest in features.items() if path}  # others are encoded
        return all(path.is_file() and self._sha256(path) == h for path, h in files.items())

    def _arguments(self, cell: Cell) -> list[str]:
        options = self.options
        given = {
            "--data-path": options.data_path,
            "--features-path": options.features_path,
            "--output": options.output,
            "--device": options.device,
        }
        arguments = cell.arguments + [f"{k}={v}" for k, v in given.items() if v is not None]
        return [*arguments, "--quiet", *(["--overwrite"] if options.overwrite else [])]

    def _run_in_process(self, cell: Cell) -> None:
        """Run a cell with its share of the cores; a process that dies is a failed cell."""
        path, log = self._status_path(cell), self.folder / f"{cell.stem}.log"
        order = {
            "cell": cell.model_dump(),
            "arguments": self._arguments(cell),
            "status": str(path),
        }
        started = time.perf_counter()
        if log.is_symlink():  # opening it would write to another file
            log.unlink()
        with log.open("w", encoding="utf-8") as handle:
            child = subprocess.Popen(
                [sys.executable, *CHILD],
                stdin=subprocess.PIPE,
                stdout=handle,
                stderr=subprocess.STDOUT,
                env={
                    SHARE: str(self._cores),
                    **os.environ,
                    "PYTHONPATH": os.pathsep.join(sys.path),
                },
                text=True,
            )
            assert child.stdin is not None
            with contextlib.suppress(BrokenPipeError):  # it died before: see its exit status
                child.stdin.write(json.dumps(order) + "\n")
                child.stdin.flush()  # and stays open: the child ends when it closes
            code = child.wait()
        if code not in (0, EXIT_RECORDED, EXIT_INTERRUPTED):
            reason = signal.Signals(-code).name if code < 0 else f"exit status {code}"
            tail = log.read_text("utf-8", errors="replace")[-SHOWN_ERROR:]
            write_status(
                path,
                CellStatus(
                    name=cell.name,
                    arguments=cell.arguments,
                    status="failed",
                    error=f"{tail}\nthe process ended: {reason}",
                    seconds=time.perf_counter() - started,
                ),
            )


def _is_own(path: Path) -> bool:
    if path.is_symlink() or not is_status_name(path.name) or not is_regular_file(path):
        return False
    try:
        status = read_cell(path)
    except RecordError:
        return False
    return Cell(arguments=status.arguments, dataset="", protocol="").stem == path.stem


def key_of(run: Run) -> Key:
    """What distinguishes a record from every other."""
    record = run.record
    return (record.dataset, record.protocol, record.model, record.config_sha256, record.seed)
