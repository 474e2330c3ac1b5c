"""Trials of broken, odd and hostile input: what a right answer is, and how many were tried."""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from alignrec_recbole.cli._endings import UNEXPECTED
from alignrec_recbole.cli.main import main
from alignrec_recbole.errors import printable

SECONDS = 60.0  # the longest that an answer may take, on a busy machine


@dataclass
class Count:
    """Trials of one area."""

    tried: int = 0
    right: int = 0
    seconds: float = 0.0
    wrong: list[str] = field(default_factory=list)


COUNTS: dict[str, Count] = {}


@contextlib.contextmanager
def trial(area: str, name: str = "") -> Iterator[None]:
    """Count one trial; right if the block ends without an error, in bounded time."""
    count, start = COUNTS.setdefault(area, Count()), time.perf_counter()
    count.tried += 1
    try:
        yield
        taken = time.perf_counter() - start
        assert taken < SECONDS, f"{name} took {taken:.0f} s"
        count.right += 1
    except BaseException:
        count.wrong.append(name)
        raise
    finally:
        count.seconds += time.perf_counter() - start


class Answer(NamedTuple):
    """What a command answered."""

    status: int
    output: str
    errors: str


def run_verb(*arguments: object) -> Answer:
    """Run a command in this process; `check_answered` fails for an error that is a defect."""
    output, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        status = main([str(argument) for argument in arguments])
    return Answer(status, output.getvalue(), errors.getvalue())


def check_refused(answer: Answer, *words: str, kind: str = "") -> None:
    """The command refused its input in a few printable lines that contain the words."""
    check_answered(answer)
    assert answer.status == 2, answer
    assert answer.errors.startswith(f"{kind}: " if kind else ""), answer.errors
    for word in words:
        assert word in answer.errors, answer.errors


def check_answered(answer: Answer) -> None:
    """The command was done or refused: no traceback, nothing unprintable, no wall of text."""
    assert answer.status in (0, 1, 2), answer
    assert "Traceback" not in answer.output + answer.errors
    assert UNEXPECTED not in answer.errors, answer.errors
    for text in (answer.output, answer.errors):
        lines = text.replace("\r", "\n").split("\n")  # progress bars end in carriage returns
        assert all(
            printable(line.replace("\t", " "), len(line)) == line.replace("\t", " ")
            for line in lines
        )
    assert answer.status == 0 or len(answer.errors) < 4000, "an error is to be read"
