"""Seconds of a training epoch, measured whole or extrapolated from its first steps."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any


def epoch_seconds(
    run: Callable[[Iterable[Any]], Any], batches: Any, steps: int | None = None
) -> float:
    """Seconds of `run(batches)`.

    With fewer `steps` than batches only these are run, and the mean time of the second to the last
    is used for those that are not. What precedes the second step is counted once: sampling an
    epoch, a graph that the first step builds.

    Args:
        run: goes through what it is given, once.
        batches: sized and iterable.
        steps: at least 2; None: all.
    """
    starts: list[float] = []

    def first_steps() -> Iterator[Any]:
        for batch in itertools.islice(batches, steps):
            starts.append(time.perf_counter())
            yield batch
        starts.append(time.perf_counter())

    started = time.perf_counter()
    if steps is None or steps >= len(batches):
        run(batches)
        return time.perf_counter() - started
    run(first_steps())
    step = (starts[-1] - starts[1]) / (steps - 1)
    return starts[1] - started + step * (len(batches) - 1)
