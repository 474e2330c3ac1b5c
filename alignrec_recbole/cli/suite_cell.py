"""The hidden verb `suite-cell`: one cell of a suite, as `suites.scheduler` orders it."""

from __future__ import annotations

import sys
import time
import traceback
from pathlib import Path
from typing import Any

import cloup

from alignrec_recbole.cli._child import give_answer, read_order


@cloup.command(name="suite-cell", hidden=True)
def suite_cell() -> int:
    """Run the command line of a line of JSON on standard input, and answer with its status."""
    from alignrec_recbole.errors import Interrupted
    from alignrec_recbole.suites.scheduler import SHOWN_ERROR

    order = read_order()
    arguments = [*order["arguments"], f"--output={order['output']}", *order["last"]]
    sys.argv = ["run_benchmark.py", *arguments]  # the command that records name
    started = time.perf_counter()
    try:
        found: dict[str, Any] = {"status": "finished", "records": _records(arguments)}
    except (Interrupted, KeyboardInterrupt):
        return give_answer({"interrupted": True})
    except (Exception, SystemExit):
        traceback.print_exc()
        found = {"status": "failed", "error": traceback.format_exc()[-SHOWN_ERROR:]}
    return give_answer({**found, "seconds": time.perf_counter() - started})


def _records(arguments: list[str]) -> list[Any]:
    """Keys of the records of a command line."""
    from alignrec_recbole.cli import _names, _run
    from alignrec_recbole.cli.run import parse
    from alignrec_recbole.runs.record import Run
    from alignrec_recbole.suites.scheduler import key_of

    options = parse(arguments)
    _names.check(options)
    return [key_of(Run(Path(), record)) for record in _run.run_cell(options)]
