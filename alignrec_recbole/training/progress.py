"""How far a training is, how long an epoch takes and when it can end at the earliest.

In a terminal and in a notebook this is one bar; elsewhere a line after the second epoch and then
one per minute.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections import deque
from collections.abc import Iterator
from typing import Any, NamedTuple

from tqdm.auto import tqdm

from alignrec_recbole.errors import printable
from alignrec_recbole.runtime.progress import duration, in_notebook
from alignrec_recbole.training.early_stopping import EarlyStopping

LINE_EVERY_SECONDS = 60.0
RECENT = 10  # epochs whose median is the time of an epoch


class EarliestEnd(NamedTuple):
    """The earliest possible end of a training.

    Attributes:
        epoch: its last epoch, counted from 1.
        by_early_stopping: otherwise the maximum number of epochs is reached before.
    """

    epoch: int
    by_early_stopping: bool


def earliest_end(done: int, epochs: int, eval_step: int, stopping: EarlyStopping) -> EarliestEnd:
    """When a training ends if no further evaluation is an improvement.

    Args:
        done: epochs so far.
        epochs: the maximum.
        eval_step: epochs from one evaluation to the next.
        stopping: of the training.

    >>> fresh = EarlyStopping("Recall@20", larger_is_better=True, patience=20)
    >>> earliest_end(2, 1000, 5, fresh), earliest_end(2, 20, 5, fresh)
    (EarliestEnd(epoch=105, by_early_stopping=True), EarliestEnd(epoch=20, by_early_stopping=False))
    """
    evaluations = done // eval_step + stopping.patience + 1 - stopping.misses
    last = evaluations * eval_step
    return EarliestEnd(min(last, epochs), last <= epochs)


class TrainingProgress:
    """The progress of one training.

    Args:
        name: of the model.
        start: epochs of earlier sessions.
        epochs: the maximum.
        eval_step: epochs from one evaluation to the next.
        stopping: of the training.
        shown: False: nothing is printed.
    """

    def __init__(
        self,
        name: str,
        start: int,
        epochs: int,
        eval_step: int,
        stopping: EarlyStopping,
        shown: bool,
    ) -> None:
        self.name, self.done, self.epochs = printable(name), start, epochs
        self.eval_step, self.stopping = eval_step, stopping
        has_bar = sys.stderr.isatty() or in_notebook()
        self.lines = shown and not has_bar
        self.bar = tqdm(
            initial=start,
            total=epochs,
            disable=not (shown and has_bar),
            desc=self.name,
            dynamic_ncols=True,
            bar_format="{desc}: epoch {n} of at most {total} [{elapsed}{postfix}]",
        )
        self._recent: deque[float] = deque(maxlen=RECENT)
        self._next_line = 0.0

    def __enter__(self) -> TrainingProgress:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def steps(self) -> Iterator[int]:
        """The epochs that are left, from 0."""
        yield from range(self.done, self.epochs)

    def update(self, entry: dict[str, Any]) -> None:
        """Count an epoch and show it; `entry` is its part of the history."""
        self.done += 1
        self._recent.append(entry["seconds"] + entry.get("evaluate_seconds", 0.0))
        self.bar.set_postfix_str(self._short(), refresh=False)
        self.bar.update()
        now = time.monotonic()
        if self.lines and len(self._recent) > 1 and now >= self._next_line:
            self._next_line = now + LINE_EVERY_SECONDS
            tqdm.write(self.line(), file=sys.stderr)

    def line(self) -> str:
        """The state in one line."""
        return (
            f"{self.name}: epoch {self.done} of at most {self.epochs}, "
            f"{duration(self.seconds)} per epoch; {self._end()}{self._best()}"
        )

    @property
    def seconds(self) -> float:
        """Of an epoch with its evaluation: the median of the last ones."""
        return statistics.median(self._recent)

    def _end(self) -> str:
        end = earliest_end(self.done, self.epochs, self.eval_step, self.stopping)
        rest = duration(self.seconds * (end.epoch - self.done))
        if end.by_early_stopping:
            return f"early stopping after epoch {end.epoch} at the earliest, in {rest}"
        return f"the end is epoch {end.epoch}, in {rest}"

    def _best(self) -> str:
        stopping = self.stopping
        if stopping.best_epoch is None:
            return ""
        return (
            f"; best validation {stopping.metric} {stopping.best_score:.4f} "
            f"after epoch {stopping.best_epoch + 1}"
        )

    def _short(self) -> str:
        """The state for a bar of 80 columns; what matters most comes first."""
        end = earliest_end(self.done, self.epochs, self.eval_step, self.stopping)
        rest = duration(self.seconds * (end.epoch - self.done))
        earliest = "earliest end" if end.by_early_stopping else "end"
        best = self.stopping.best_epoch
        score = "" if best is None else f", best {self.stopping.best_score:.4f} at {best + 1}"
        return f"{duration(self.seconds)} each, {earliest} {end.epoch} in {rest}{score}"
