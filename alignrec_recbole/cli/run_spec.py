"""The hidden verb `run-spec`: one run, as `runs.at_once` starts it."""

from __future__ import annotations

import json
import os
import sys
import threading
from typing import Any

import cloup


@cloup.command(name="run-spec", hidden=True)
def run_spec() -> int:
    """Make the run that a line of JSON on standard input describes, and answer with its record.

    Standard input stays open while the parent lives: without it, nobody would read the answer.
    """
    order: dict[str, Any] = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    from alignrec_recbole.runs import at_once

    spec = at_once.SPECS.validate_python(order["spec"])
    answer = at_once.answer_of(spec, order["overwrite"], order["command"])
    print(at_once.ANSWER + json.dumps(answer), flush=True)
    return 0


def _end_with_parent() -> None:
    """Standard input closes when the parent ends, even if it was killed."""
    sys.stdin.read()
    os._exit(1)
