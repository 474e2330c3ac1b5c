"""The actions of our harness that timings compare: a training epoch, a validation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from alignrec_recbole import process
from benchmarks import runner


def actions(spec: runner.RunSpec) -> dict[str, Callable[[], Any]]:
    """Prepare a run up to its first step; each call of an action is one epoch or one ranking."""
    prepared = runner.prepare(spec)
    trainer = runner.build_trainer(prepared, None)
    batches = trainer._batches(runner.train_data(prepared))
    task = runner.valid_task(prepared)
    settled: list[int] = []

    def settle() -> None:  # as the trainer does after its first epoch, before it ranks
        if not settled:
            settled.append(process.use_huge_pages())

    def epoch() -> None:
        trainer._run_epoch(batches, 0)
        settle()

    def evaluation() -> None:
        settle()
        trainer._metrics(trainer.rank(task, max(trainer.cutoffs)))

    return {"epoch": epoch, "evaluation": evaluation}
