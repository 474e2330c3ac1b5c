"""`run_benchmark.py --suite NAME`: many runs from one YAML file, cell by cell, in processes.

A cell is one command line of run_benchmark.py. Its status is a file of its own, so that a suite
that was stopped, even killed, goes on with the cells that are left, and a run inside a cell from
its last saved epoch. A failed cell is recorded with its traceback and the others go on.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import hashlib
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from tqdm import tqdm

from alignrec_recbole.data.feature_store import find_file
from alignrec_recbole.errors import AlignRecError, SettingError, UnknownNameError
from alignrec_recbole.files import inside, sha256_file
from alignrec_recbole.locate import find_dataset
from benchmarks.groups import Run, read_runs
from benchmarks.suite_status import CellStatus, Key, read_cell, write_status

FOLDER = Path(__file__).parent / "suites"
LATER = {"mask-modality", "long-tail"}  # they read what the protocol `full` left
GROWING = {"long-tail"}  # has more to do whenever there are more rankings
CHILD = "from benchmarks.suites import child; child()"
RECORDED = 3  # exit status of a child that wrote down its own failure
SHOWN_ERROR = 12_000  # last characters of a cell's output that are kept


class CellGroup(BaseModel):
    """Models × data sets × features × protocols × seeds with the same settings."""

    model_config = ConfigDict(extra="forbid")

    models: list[str] = []  # empty: the protocols train nothing
    datasets: list[str] = Field(min_length=1)
    features: list[str] = []  # "a,b" is one set of two; empty: the default
    protocols: list[str] = ["full"]
    seeds: list[int] = []
    setting: str | None = None
    epochs: int | None = None
    set: dict[str, Any] = {}
    grid: dict[str, list[Any]] = {}  # chosen on validation with the first seed

    def cells(self) -> Iterator[Cell]:
        """One cell a combination; with a grid the seeds stay together, since the first chooses."""
        seeds = [",".join(map(str, self.seeds))] if self.grid else [str(s) for s in self.seeds]
        for protocol, dataset, model, features, seed in itertools.product(
            self.protocols,
            self.datasets,
            self.models or [""],
            self.features or [""],
            seeds or [""],
        ):
            given = {
                "--model": model,
                "--dataset": dataset,
                "--features": features,
                "--protocol": protocol,
                "--setting": self.setting,
                "--seeds": seed,
                "--epochs": self.epochs,
            }
            arguments = [
                f"{key}={value}" for key, value in given.items() if value not in ("", None)
            ]
            arguments += [f"--set={key}={_plain(value)}" for key, value in self.set.items()]
            arguments += [
                f"--grid={key}={','.join(map(_plain, values))}" for key, values in self.grid.items()
            ]
            yield Cell(arguments=arguments, dataset=dataset, protocol=protocol)


class Cell(BaseModel):
    """One command line."""

    arguments: list[str]
    dataset: str
    protocol: str

    @property
    def name(self) -> str:
        """The command line without the names of its options."""
        return " ".join(argument.split("=", 1)[1] for argument in self.arguments)

    @property
    def stem(self) -> str:
        """File name of the status: readable, and one for each command line."""
        digest = hashlib.sha256("\n".join(self.arguments).encode()).hexdigest()[:8]
        return f"{re.sub(r'[^A-Za-z0-9.+-]+', '_', self.name)[:80]}-{digest}"


class Suite(BaseModel):
    """A YAML file of benchmarks/suites."""

    model_config = ConfigDict(extra="forbid")

    output: Path = Path("results")
    cells: list[CellGroup] = Field(min_length=1)

    @cached_property
    def expanded(self) -> list[Cell]:
        """All cells, those that read what others leave last."""
        cells = [cell for group in self.cells for cell in group.cells()]
        return sorted(cells, key=lambda cell: cell.protocol in LATER)


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def suite_names() -> list[str]:
    """The suites there are."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def read_suite(name: str) -> Suite:
    """Read a suite by name, or one's own from a YAML file.

    Raises:
        UnknownNameError, SettingError: there is no such suite, or its file is wrong.
    """
    path = Path(name) if name.endswith(".yaml") else inside(FOLDER, f"{name}.yaml")
    if not path.is_file():
        raise UnknownNameError(
            f"There is no suite {name!r}.",
            came=name,
            expected=f"one of {', '.join(suite_names())}, or a .yaml file",
        )
    try:
        return Suite.model_validate(yaml.safe_load(path.read_text("utf-8")))
    except (ValidationError, yaml.YAMLError) as error:
        raise SettingError(f"Suite {name!r} cannot be read.", came=str(error)) from error


def parser() -> argparse.ArgumentParser:
    """Options of `run_benchmark.py --suite`."""
    out = argparse.ArgumentParser(
        prog="run_benchmark.py --suite",
        description=f"Run the cells of a suite ({', '.join(suite_names())}) and report.",
    )
    out.add_argument("--suite", required=True, metavar="NAME", help="or a .yaml file of one's own")
    out.add_argument("--jobs", type=int, default=1, metavar="N", help="processes at a time")
    out.add_argument("--list", action="store_true", help="only say what is finished and missing")
    out.add_argument("--data-path", type=Path, help="folder of data sets (or $ALIGNREC_DATA)")
    out.add_argument("--features-path", type=Path, help="folder searched first for features")
    out.add_argument("--output", type=Path, help="default: the suite's own, results or below it")
    out.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    out.add_argument("--overwrite", action="store_true", help="run finished cells again")
    out.add_argument("--quiet", action="store_true", help="no progress bar")
    return out


def main(given: Sequence[str]) -> int:
    """Run a suite; 0: all finished, 1: something failed or is missing, 130: interrupted."""
    options = parser().parse_args(given)
    if options.jobs < 1:
        raise SettingError("There is no work without a process.", came=f"--jobs {options.jobs}")
    suite = read_suite(options.suite)
    options.suite = Path(options.suite).stem
    options.output = options.output or suite.output
    folder = options.output / "suites" / options.suite
    todo = [cell for cell in suite.expanded if options.overwrite or not _done(cell, options)]
    stopped = False
    if not options.list:
        stopped = _run_all(_written_down(todo, suite, folder), folder, options)
    status = [_status(cell, folder, options.list and cell in todo) for cell in suite.expanded]
    counts = Counter(entry.status for entry in status)
    print(f"{options.suite}: " + ", ".join(f"{n} {kind}" for kind, n in sorted(counts.items())))
    for entry in status:
        if entry.status != "finished":
            last = entry.error.strip().splitlines()[-1:] or ["not run yet"]
            print(f"  {entry.status}: {entry.name}: {last[0]}")
    if stopped:
        return 130
    if not options.list and counts["finished"]:
        from benchmarks.report import build

        print(build(options.output)[-1])
    return int(counts["finished"] < len(status))


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
    from alignrec_recbole.process import available_cores

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


def child() -> None:
    """The process of one cell; it is told what to do, and that its parent lives, on stdin."""
    order = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    cell = Cell.model_validate(order["cell"])
    sys.argv = ["run_benchmark.py", *order["arguments"]]  # the command that records keep
    begun = time.perf_counter()
    found: dict[str, Any] = {"status": "finished"}
    try:
        from benchmarks import cli
        from benchmarks.runner import Interrupted

        try:
            records = cli.run_cell(cli.parser().parse_args(order["arguments"]))
            found["records"] = [key_of(Run(Path(), record)) for record in records]
        except (Interrupted, KeyboardInterrupt):
            raise SystemExit(130) from None
    except (Exception, SystemExit) as error:
        if isinstance(error, SystemExit) and error.code == 130:
            raise
        traceback.print_exc()
        found |= {"status": "failed", "error": traceback.format_exc()[-SHOWN_ERROR:]}
    write_status(
        Path(order["status"]),
        CellStatus(
            name=cell.name,
            arguments=cell.arguments,
            seconds=time.perf_counter() - begun,
            **found,
        ),
    )
    raise SystemExit(RECORDED if found["status"] == "failed" else 0)


def _end_with_parent() -> None:
    """Stdin closes when the parent is gone, even killed: nobody would record the result."""
    sys.stdin.read()
    os._exit(1)
