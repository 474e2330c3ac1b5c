"""The verb `suite`: run the cells of a suite and report."""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alignrec_recbole.errors import SettingError
from alignrec_recbole.runs.record import Run
from alignrec_recbole.suites.scheduler import (
    RECORDED,
    SHOWN_ERROR,
    _done,
    _run_all,
    _status,
    _written_down,
    key_of,
)
from alignrec_recbole.suites.schema import Cell, read_suite, suite_names
from alignrec_recbole.suites.status import CellStatus, write_status


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
        raise SettingError("There is no work without a process.", found=f"--jobs {options.jobs}")
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
        from alignrec_recbole.reports.build import build

        print(build(options.output)[-1])
    return int(counts["finished"] < len(status))


def child() -> None:
    """The process of one cell; it is told what to do, and that its parent lives, on stdin."""
    order = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    cell = Cell.model_validate(order["cell"])
    sys.argv = ["run_benchmark.py", *order["arguments"]]  # the command that records keep
    begun = time.perf_counter()
    found: dict[str, Any] = {"status": "finished"}
    try:
        from alignrec_recbole.cli import run
        from alignrec_recbole.runs.spec import Interrupted

        try:
            records = run.run_cell(run.parser().parse_args(order["arguments"]))
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
