"""The hidden verb `run-spec`: one run, as `runs.at_once` orders it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cloup

from alignrec_recbole.cli._child import give_answer, read_order


@cloup.command(name="run-spec", hidden=True)
def run_spec() -> int:
    """Make the run that a line of JSON on standard input describes, and answer with its record."""
    order = read_order()
    from alignrec_recbole.runs import at_once

    spec = replace(at_once.SPECS.validate_python(order["spec"]), output=Path(order["output"]))
    return give_answer(at_once.answer_of(spec, order["overwrite"], order["command"]))
