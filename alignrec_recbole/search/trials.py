"""One trial of a search, and what a search has tried: the same for grids and for studies.

A trial is a `RunSpec` that never ranks the test split. It is plain data, so it can be made by
another process.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from alignrec_recbole.errors import DivergedError, Pruned
from alignrec_recbole.runs.record import RunRecord
from alignrec_recbole.runs.run import run_one
from alignrec_recbole.runs.spec import RunSpec

State = Literal["complete", "pruned", "failed"]
Watch = Callable[[int, float], None]  # epoch from 1, validation score; may raise Pruned


@dataclass(frozen=True)
class Outcome:
    """What a trial cost and found.

    Attributes:
        state: failed: the loss or the scores became infinite or NaN.
        score: on validation; of a pruned trial the best until then.
        epochs: trained.
        seconds: of training and validation.
        record: of a complete trial.
    """

    state: State
    score: float | None
    epochs: int
    seconds: float
    record: RunRecord | None = None


@dataclass(frozen=True)
class Trial:
    """A trial that has ended."""

    number: int
    parameters: dict[str, Any]
    outcome: Outcome


def outcome_of(record: RunRecord) -> Outcome:
    """The outcome of a complete trial by its record."""
    seconds = _seconds(record.history) if record.history else record.seconds["total"]
    return Outcome("complete", record.selection["best_score"], record.epochs, seconds, record)


def make_trial(spec: RunSpec, watch: Watch | None = None, overwrite: bool = False) -> Outcome:
    """Train and validate; the test split is not ranked.

    A trial that is finished already is read, and `watch` sees its epochs as if they were trained
    now: a study that meets the same settings again decides as it did before.

    Raises:
        Interrupted: it was stopped by a signal; its state is saved.
    """
    seen: list[dict[str, Any]] = []

    def on_epoch(history: list[dict[str, Any]]) -> None:
        for entry in history[len(seen) :]:
            seen.append(entry)
            if watch is not None and entry.get("valid") is not None:
                watch(entry["epoch"] + 1, entry["valid"])

    started = time.perf_counter()
    try:
        record = run_one(
            replace(spec, validation_only=True, tuned_on=None, budget=None),
            overwrite=overwrite,
            on_epoch=on_epoch,
        )
        on_epoch(record.history)
    except Pruned:
        scores = [entry["valid"] for entry in seen if entry.get("valid") is not None]
        return Outcome("pruned", max(scores, default=None), len(seen), _seconds(seen))
    except DivergedError:
        return Outcome("failed", None, len(seen), time.perf_counter() - started)
    return outcome_of(record)


def _seconds(history: Sequence[Mapping[str, Any]]) -> float:
    return sum(entry["seconds"] + entry.get("evaluate_seconds", 0.0) for entry in history)


def best_of(trials: Sequence[Trial]) -> Trial | None:
    """The complete trial with the best score, the first of equals; None without one.

    >>> outcomes = [Outcome("pruned", 0.9, 1, 1.0), Outcome("complete", 0.5, 9, 9.0)]
    >>> best_of([Trial(n, {}, outcome) for n, outcome in enumerate(outcomes)]).number
    1
    """
    complete = [t for t in trials if t.outcome.state == "complete" and t.outcome.score is not None]
    return max(complete, key=lambda trial: trial.outcome.score or 0.0, default=None)


def budget_of(trials: Sequence[Trial], chosen: Trial, **of_search: Any) -> dict[str, Any]:
    """The field `budget` of a record: what the choice cost and how it went.

    Args:
        trials: in their order.
        chosen: one of them.
        of_search: study, sampler, pruner, space_sha256, chosen_on, limit, patience.
    """
    curve = []
    for place, trial in enumerate(trials):
        best = best_of(trials[: place + 1])
        outcome = trial.outcome
        curve.append(
            {
                "trial": trial.number,
                "state": outcome.state,
                "score": outcome.score,
                "best": best.outcome.score if best else None,
                "epochs": outcome.epochs,
                "seconds": outcome.seconds,
                "parameters": trial.parameters,
            }
        )
    return {
        **of_search,
        "trials": len(trials),
        "pruned": sum(trial.outcome.state == "pruned" for trial in trials),
        "failed": sum(trial.outcome.state == "failed" for trial in trials),
        "epochs": sum(trial.outcome.epochs for trial in trials),
        "seconds": sum(trial.outcome.seconds for trial in trials),
        "chosen": chosen.number,
        "curve": curve,
    }
