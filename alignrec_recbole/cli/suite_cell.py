"""The hidden verb `suite-cell`: one cell of a suite, as `suites.scheduler` starts it."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

import cloup


@cloup.command(name="suite-cell", hidden=True)
def suite_cell() -> int:
    """Run the cell that a line of JSON on standard input describes, and write its status.

    Standard input stays open while the parent lives: without it, nobody would read the result.
    """
    from alignrec_recbole.errors import Interrupted
    from alignrec_recbole.suites.scheduler import EXIT_INTERRUPTED, EXIT_RECORDED, SHOWN_ERROR
    from alignrec_recbole.suites.schema import Cell
    from alignrec_recbole.suites.status import CellStatus, write_status

    order = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    cell = Cell.model_validate(order["cell"])
    sys.argv = ["run_benchmark.py", *order["arguments"]]  # the command that records name
    started = time.perf_counter()
    try:
        found: dict[str, Any] = {"status": "finished", "records": _records(order["arguments"])}
    except (Interrupted, KeyboardInterrupt):
        return EXIT_INTERRUPTED
    except (Exception, SystemExit):
        traceback.print_exc()
        found = {"status": "failed", "error": traceback.format_exc()[-SHOWN_ERROR:]}
    write_status(
        Path(order["status"]),
        CellStatus(
            name=cell.name,
            arguments=cell.arguments,
            seconds=time.perf_counter() - started,
            **found,
        ),
    )
    return EXIT_RECORDED if found["status"] == "failed" else 0


def _records(arguments: list[str]) -> list[Any]:
    """Keys of the records of a command line."""
    from alignrec_recbole.cli import _names, _run
    from alignrec_recbole.cli.run import parse
    from alignrec_recbole.runs.record import Run
    from alignrec_recbole.suites.scheduler import key_of

    options = parse(arguments)
    _names.check(options)
    return [key_of(Run(Path(), record)) for record in _run.run_cell(options)]


def _end_with_parent() -> None:
    """Standard input closes when the parent ends, even if it was killed."""
    sys.stdin.read()
    os._exit(1)
