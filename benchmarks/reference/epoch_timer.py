"""Seconds of a training epoch, measured whole or told from its first steps."""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any


def epoch_seconds(
    run: Callable[[Iterable[Any]], Any], batches: Any, steps: int | None = None
) -> float:
    """Seconds of `run(batches)`.

    With fewer `steps` than batches only these are run. What comes before the second step is counted
    once: an epoch's draws, a graph that its first step builds. The mean of the later steps stands
    for those that are left out.

    Args:
        run: goes through what it is given, once.
        batches: sized and iterable.
        steps: at least 2; None: all.
    """
    marks: list[float] = []

    def first() -> Iterator[Any]:
        for batch in itertools.islice(batches, steps):
            marks.append(time.perf_counter())
            yield batch
        marks.append(time.perf_counter())

    started = time.perf_counter()
    if steps is None or steps >= len(batches):
        run(batches)
        return time.perf_counter() - started
    run(first())
    step = (marks[-1] - marks[1]) / (steps - 1)
    return marks[1] - started + step * (len(batches) - 1)


def add_steps(parser: argparse.ArgumentParser) -> None:
    """Add `--steps N`, what `epoch_seconds` takes."""

    def steps(text: str) -> int:
        if not text.isdecimal() or int(text) < 2:
            raise argparse.ArgumentTypeError(f"{text}: an epoch is told from 2 steps or more")
        return int(text)

    parser.add_argument("--steps", type=steps, help="tell an epoch's seconds from its first N")
