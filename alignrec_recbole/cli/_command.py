"""The command line as it was typed, to be shown again."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence

import click

from alignrec_recbole.errors import printable


def program_name() -> str:
    """The program's name in help and errors."""
    return "run_benchmark.py" if "run_benchmark" in sys.argv[0] else "alignrec-bench"


def as_typed(arguments: Sequence[str]) -> str:
    """The command that a person types to go on; `--overwrite` would start again."""
    name = program_name()
    start = ["python", name] if name.endswith(".py") else [name]
    going_on = [argument for argument in arguments if argument != "--overwrite"]
    return printable(shlex.join([*start, *going_on]))


def given_arguments() -> list[str]:
    """The arguments of the command that is running."""
    return list(click.get_current_context().find_root().obj or [])


def without_option(arguments: Sequence[str], option: str) -> list[str]:
    """The arguments without an option that has one value.

    >>> without_option(["--model", "BPR", "--epochs", "5", "--epochs=6"], "--epochs")
    ['--model', 'BPR']
    """
    out, skip = [], False
    for argument in arguments:
        if skip:
            skip = False
        elif argument == option:
            skip = True
        elif not argument.startswith(f"{option}="):
            out.append(argument)
    return out
