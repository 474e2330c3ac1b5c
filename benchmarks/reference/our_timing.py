"""The actions of our harness that timings compare: a training epoch, a validation."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from alignrec_recbole.runs import prepare, tasks
from alignrec_recbole.runs.spec import RunSpec
from benchmarks.reference.epoch_timer import epoch_seconds


def actions(
    spec: RunSpec, steps: int | None = None, names: Iterable[str] = ("epoch", "evaluation")
) -> dict[str, Callable[[], Any]]:
    """Prepare a run up to its first step; each call of an action is one epoch or one ranking.

    The action `step` is an epoch, too: its mean seconds per step.

    Args:
        spec: of the run.
        steps: extrapolate the epoch's seconds from so many (`epoch_seconds`).
        names: of the actions that are wanted.
    """
    prepared = prepare.prepare_run(spec)
    trainer = tasks.build_trainer(prepared, None)
    batches = tasks.train_data(prepared)
    task = tasks.valid_task(prepared)

    def epoch() -> float:
        return epoch_seconds(lambda part: trainer._run_epoch(part, 0), batches, steps)

    every: dict[str, Callable[[], Any]] = {
        "epoch": epoch,
        "evaluation": lambda: trainer._metrics(trainer.rank(task, max(trainer.cutoffs))),
        "step": lambda: epoch() / len(batches),
    }
    return {name: every[name] for name in names}
