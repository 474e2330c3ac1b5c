"""`run_benchmark.py --suite NAME`: many runs from one YAML file, cell by cell, in processes.

A cell is one command line of run_benchmark.py. Its status is a file of its own, so that a suite
that was stopped, even killed, goes on with the cells that are left, and a run inside a cell from
its last saved epoch. A failed cell is recorded with its traceback and the others go on.
"""

from __future__ import annotations

import argparse
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
from pathlib import Path

from tqdm import tqdm

from alignrec_recbole.data.dataset_paths import find_dataset
from alignrec_recbole.encoders.cache import find_file
from alignrec_recbole.errors import AlignRecError
from alignrec_recbole.io.files import sha256_file
from alignrec_recbole.runs.record import Run, read_runs
from alignrec_recbole.suites.schema import GROWING, LATER, Cell, Suite
from alignrec_recbole.suites.status import CellStatus, Key, read_cell, write_status

CHILD = "from alignrec_recbole.cli.suite import child; child()"
RECORDED = 3  # exit status of a child that wrote down its own failure
SHOWN_ERROR = 12_000  # last characters of a cell's output that are kept


def _written_down(todo: list[Cell], suite: Suite, folder: Path) -> list[Cell]:
    """All cells to run, each with a status file; those of cells the suite no longer has go."""
    for path in folder.glob("*.json"):
        if path.stem not in {cell.stem for cell in suite.expanded}:
            path.unlink()
    if todo:
        todo = [cell for cell in suite.expanded if cell in todo or cell.protocol in GROWING]
    for cell in todo:
        write_status(folder / f"{cell.stem}.json", _status(cell, folder, again=True))
    return todo


def _status(cell: Cell, folder: Path, again: bool) -> CellStatus:
    """What the cell's file says; missing without one, or if a finished cell is to run again."""
    path = folder / f"{cell.stem}.json"
    found = read_cell(path) if path.is_file() else None
    if found is None or (again and found.status == "finished"):
        return CellStatus(name=cell.name, arguments=cell.arguments, status="missing")
    return found


def _done(cell: Cell, options: argparse.Namespace) -> bool:
    """Whether the cell's records are all there, made on the data and features that lie here."""
    path = options.output / "suites" / options.suite / f"{cell.stem}.json"
    if not path.is_file():
        return False
    status = read_cell(path)
    if status.status != "finished":
        return False
    if not hasattr(options, "records"):
        options.records = {key_of(run): run for run in read_runs(options.output / "runs")}
        options.sha256 = functools.cache(sha256_file)  # many cells share their files
    found = [options.records.get(key) for key in status.records]
    return bool(found) and all(run is not None and _same_data(run, options) for run in found)


def key_of(run: Run) -> Key:
    """What tells a record from every other."""
    record = run.record
    return (record.dataset, record.protocol, record.model, record.config_sha256, record.seed)


def _same_data(run: Run, options: argparse.Namespace) -> bool:
    try:
        folder = find_dataset(run.record.dataset, options.data_path)
        features = {
            find_file(name, folder, options.features_path): file["sha256"]
            for name, file in run.record.feature_files.items()
        }
    except AlignRecError:
        return False
    files = {folder / name: digest for name, digest in run.record.data["files"].items()}
    files |= {path: digest for path, digest in features.items() if path}  # the rest is encoded
    return all(path.is_file() and options.sha256(path) == h for path, h in files.items())


def _run_all(todo: Sequence[Cell], folder: Path, options: argparse.Namespace) -> bool:
    """Run the cells; whether it was interrupted."""
    stop = threading.Event()
    with (
        tqdm(total=len(todo), desc=options.suite, unit="cell", disable=options.quiet) as bar,
        ThreadPoolExecutor(options.jobs) as pool,
    ):

        def work(cell: Cell) -> None:
            if not stop.is_set():
                _in_process(cell, folder, options)
                bar.update()

        try:
            for later in (False, True):
                list(pool.map(work, [c for c in todo if (c.protocol in LATER) == later]))
        except KeyboardInterrupt:  # the processes got it too: they save their state and end
            stop.set()
            print("\nstopping; the same command goes on", file=sys.stderr)
    return stop.is_set()


def _in_process(cell: Cell, folder: Path, options: argparse.Namespace) -> None:
    """Run a cell in a process with its share of the cores; a dead process is a failed cell."""
    from alignrec_recbole.runtime.hardware import available_cores

    path, log = folder / f"{cell.stem}.json", folder / f"{cell.stem}.log"
    given = {
        "--data-path": options.data_path,
        "--features-path": options.features_path,
        "--output": options.output,
        "--device": options.device,
    }
    arguments = cell.arguments + [f"{k}={v}" for k, v in given.items() if v is not None]
    arguments += ["--quiet", *(["--overwrite"] if options.overwrite else [])]
    order = {"cell": cell.model_dump(), "arguments": arguments, "status": str(path)}
    share = str(max(1, available_cores() // options.jobs))
    begun = time.perf_counter()
    with log.open("w", encoding="utf-8") as handle:
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD],
            stdin=subprocess.PIPE,
            stdout=handle,
            stderr=subprocess.STDOUT,
            env={"OMP_NUM_THREADS": share, **os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            text=True,
        )
        assert child.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # dead before it could listen: see its code
            child.stdin.write(json.dumps(order) + "\n")
            child.stdin.flush()  # and kept open: the child ends when it closes
        code = child.wait()
    if code not in (0, RECORDED, 130):
        reason = signal.Signals(-code).name if code < 0 else f"exit status {code}"
        tail = log.read_text("utf-8", errors="replace")[-SHOWN_ERROR:]
        write_status(
            path,
            CellStatus(
                name=cell.name,
                arguments=cell.arguments,
                status="failed",
                error=f"{tail}\nthe process ended: {reason}",
                seconds=time.perf_counter() - begun,
            ),
        )
