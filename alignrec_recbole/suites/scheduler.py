"""Run the cells of a suite in processes of their own, several at a time.

A cell is one command line of the verb `run`. Its status is a file of its own, so that a suite that
was stopped or killed continues with the cells that remain, and a run inside a cell continues from
its last saved epoch. A failed cell is recorded with its traceback; the others still run.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError, Future, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from alignrec_recbole.data.dataset_paths import find_dataset
from alignrec_recbole.encoders.lookup import find_file
from alignrec_recbole.engines import DEFAULT, open_engine
from alignrec_recbole.engines.base import Answer, CellDied, Engine, Work
from alignrec_recbole.errors import AlignRecError, Interrupted, RecordError
from alignrec_recbole.io.files import sha256_file
from alignrec_recbole.io.opening import is_regular_file
from alignrec_recbole.protocols import RANKER_NAMES
from alignrec_recbole.runs.record import Run, read_runs
from alignrec_recbole.runtime.stop_signals import stop_on_signal
from alignrec_recbole.suites.defaults import defaults_hash
from alignrec_recbole.suites.job_count import choose_jobs, needed_bytes
from alignrec_recbole.suites.schema import AFTER_TRAINING, ALWAYS_RERUN, Cell, Suite
from alignrec_recbole.suites.status import CellStatus, Key, is_status_name, read_cell, write_status

VERB = "suite-cell"  # the hidden verb that runs one cell
SHOWN_ERROR = 12_000  # last characters of a cell's output that its status holds


@dataclass(frozen=True)
class SuiteOptions:
    """Where and how a suite runs.

    Attributes:
        name: folder of the statuses under `<output>/suites`.
        jobs: processes at a time; None: as many as cores and memory allow.
        engine: where the cells run, as `engines.open_engine` takes it.
        overwrite: whether finished cells run again.
    """

    name: str
    output: Path
    jobs: int | None = 1
    engine: str = DEFAULT
    data_path: Path | None = None
    features_path: Path | None = None
    device: str = "auto"
    overwrite: bool = False
    progress: bool = True


class Scheduler:
    """The cells of a suite, or of a part of it: which are finished, and running the others."""

    def __init__(
        self, suite: Suite, options: SuiteOptions, part: Sequence[Cell] | None = None
    ) -> None:
        self.suite, self.options = suite, options
        self.cells = suite.expanded if part is None else part
        self.folder = options.output / "suites" / options.name
        self._sha256 = functools.cache(sha256_file)  # many cells share their files
        self._defaults = functools.cache(defaults_hash)

    def pending(self) -> list[Cell]:
        """The cells to run: all with `overwrite`, else those that are not complete."""
        overwrite = self.options.overwrite
        return [cell for cell in self.cells if overwrite or not self._is_complete(cell)]

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
        options, interrupted = self.options, False
        todo = self._reset_status(pending)
        places: dict[str, Any] = {
            "data_path": options.data_path,
            "features_path": options.features_path,
            "output": options.output,
            "device": options.device,
        }
        jobs = options.jobs or choose_jobs(todo, **places)
        bar = tqdm(total=len(todo), desc=options.name, unit="cell", disable=not options.progress)
        engine = open_engine(options.engine, jobs)
        sizes = needed_bytes(todo, **places) if engine.places_by_size else [0] * len(todo)
        needed = dict(zip([cell.stem for cell in todo], sizes, strict=True))
        try:
            with stop_on_signal(engine.stop, "stopping after the running epochs"), bar, engine:
                for after in (False, True):
                    cells = [cell for cell in todo if (cell.protocol in AFTER_TRAINING) == after]
                    for outcome in self._run_cells(engine, cells, needed):
                        interrupted |= not outcome
                        bar.update()
        except KeyboardInterrupt:
            interrupted = True
        if interrupted:
            print("\nstopped; the same command continues", file=sys.stderr)
        return interrupted

    def _run_cells(
        self, engine: Engine, cells: Sequence[Cell], needed: dict[str, int]
    ) -> Iterator[bool]:
        """Run cells and note their outcomes; of each, whether it has one."""
        futures = {engine.submit(self._work(cell, needed[cell.stem])): cell for cell in cells}
        for future in as_completed(futures):
            found = self._outcome(futures[future], future)
            if found is not None:
                write_status(self._status_path(futures[future]), found)
            yield found is not None

    def _outcome(self, cell: Cell, future: Future[Answer]) -> CellStatus | None:
        """The status of a cell that has ended; None if it was interrupted."""
        named: dict[str, Any] = {
            "name": cell.name,
            "arguments": cell.arguments,
            "defaults_sha256": self._defaults_of(cell),
        }
        try:
            answer = future.result()
        except (Interrupted, CancelledError):
            return None
        except CellDied as error:
            reason = f"{error.printed[-SHOWN_ERROR:]}\nthe process ended: {error.found}"
            return CellStatus(**named, status="failed", error=reason, seconds=error.seconds)
        except AlignRecError as error:  # of the engine
            reason = f"{type(error).__name__}: {error}"
            return CellStatus(**named, status="failed", error=reason)
        return None if "interrupted" in answer else CellStatus(**named, **answer)

    def _status_path(self, cell: Cell) -> Path:
        return self.folder / f"{cell.stem}.json"

    def _reset_status(self, pending: Sequence[Cell]) -> list[Cell]:
        """All cells to run, each with a status file; those of cells no longer in the suite go."""
        known = {cell.stem for cell in self.suite.expanded}
        for path in self._own_files():
            if path.stem not in known:
                path.unlink()
        todo = list(pending)
        if todo:
            asked = {cell.stem for cell in pending}
            todo = [c for c in self.cells if c.stem in asked or c.protocol in ALWAYS_RERUN]
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
        """Whether all records of the cell exist, of the present data, features and defaults."""
        path = self._status_path(cell)
        if not is_regular_file(path):
            return False
        status = read_cell(path)
        if status.status != "finished" or status.arguments != cell.arguments:
            return False
        if status.defaults_sha256 not in ("", self._defaults_of(cell)):
            return False
        found = [self._records.get(key) for key in status.records]
        return bool(found) and all(run is not None and self._same_data(run) for run in found)

    def _defaults_of(self, cell: Cell) -> str:
        model = cell.given("--model")
        return self._defaults("" if model in RANKER_NAMES else model, cell.dataset)

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

    def _work(self, cell: Cell, needed: int) -> Work:
        """A cell as an engine takes it; the command line has its options in this order."""
        options = self.options
        places = {"--data-path": options.data_path, "--features-path": options.features_path}
        given = [f"{name}={value}" for name, value in places.items() if value is not None]
        last = [f"--device={options.device}", "--quiet"]
        return Work(
            name=cell.name,
            verb=VERB,
            order={
                "arguments": [*cell.arguments, *given],
                "last": [*last, *(["--overwrite"] if options.overwrite else [])],
            },
            output=options.output,
            log=self.folder / f"{cell.stem}.log",
            bytes=needed,
            device=options.device,
            reads_records=cell.protocol in AFTER_TRAINING,
            overwrite=options.overwrite,
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
