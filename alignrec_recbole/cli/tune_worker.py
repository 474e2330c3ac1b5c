"""The hidden verb `tune-worker`: one worker of a search, as `search.workers` orders it."""

from __future__ import annotations

import sys
from pathlib import Path

import cloup

from alignrec_recbole.cli._child import give_answer, read_order


@cloup.command(name="tune-worker", hidden=True)
def tune_worker() -> int:
    """Work on the search that a line of JSON on standard input describes, until it has ended."""
    order = read_order()
    sys.argv = order["command"]  # the command that records name
    from alignrec_recbole.search import workers

    return give_answer(workers.answer_of(order["order"], Path(order["output"])))
