"""What the settings of each row of a table cost to choose, and whether rows had the same chance.

A record says so itself (`budget`). For records from before, the trials are found among those under
tuning/: the ones that differ from the record in nothing but the keys that its `tuned_on` names,
and have one of the values there.
What cannot be found is unknown.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from alignrec_recbole.reports.grouping import GRIDS, SeedGroup, flatten
from alignrec_recbole.runs.config_hash import complete
from alignrec_recbole.runs.record import Run, RunRecord

FACTOR = 1.5  # budgets that differ by more are marked
MARK = "†"
UNKNOWN = "unknown"
AS_JSON = {"None": "null", "True": "true", "False": "false"}


@dataclass(frozen=True)
class Budget:
    """A search, as records tell it.

    Attributes:
        trials: points that were tried; pruned and failed ones included.
        curve: epochs, seconds, score and state of each trial, in order.
        source: record, or tuning for what was found among stored trials.
    """

    trials: int
    pruned: int
    failed: int
    epochs: int
    seconds: float
    patience: int | None
    sampler: str
    pruner: str
    chosen_on: str
    study: str
    curve: tuple[Mapping[str, Any], ...]
    source: str

    @property
    def best(self) -> float | None:
        """The score of the choice."""
        return max((p["score"] for p in self.curve if is_whole(p)), default=None)


def is_whole(point: Mapping[str, Any]) -> bool:
    """Whether a trial of a curve was completed with a score."""
    return point["state"] == "complete" and point["score"] is not None


def budgets_of(members: Sequence[SeedGroup], tuning: Sequence[Run] = ()) -> dict[str, Budget]:
    """Name of a group → its budget, where that is known."""
    found = {group.name: budget_of(group, tuning) for group in members}
    return {name: budget for name, budget in found.items() if budget is not None}


def budget_of(group: SeedGroup, tuning: Sequence[Run]) -> Budget | None:
    """The budget of a group by its records, else by the stored trials; None if unknown."""
    for record in group.records:
        if record.budget is not None:
            return _of_record(record.budget)
    chosen = next((record for record in group.records if record.tuned_on), None)
    return _of_trials(chosen, tuning) if chosen is not None else None


def _of_record(stored: Mapping[str, Any]) -> Budget:
    return Budget(
        trials=stored["trials"],
        pruned=stored.get("pruned", 0),
        failed=stored.get("failed", 0),
        epochs=stored["epochs"],
        seconds=stored["seconds"],
        patience=stored.get("patience"),
        sampler=stored["sampler"],
        pruner=stored.get("pruner", "none"),
        chosen_on=stored["chosen_on"],
        study=stored["study"],
        curve=tuple(stored["curve"]),
        source="record",
    )


def _of_trials(chosen: RunRecord, tuning: Sequence[Run]) -> Budget | None:
    grids = {key: _values(text) for key, text in GRIDS.findall(chosen.tuned_on or "")}
    keys = set(grids)
    fixed = _fixed(chosen, keys)
    same = [
        run.record
        for run in tuning
        if (run.record.model, run.record.features, run.record.dataset, run.record.setting)
        == (chosen.model, chosen.features, chosen.dataset, chosen.setting)
        and run.record.data.get("files") == chosen.data.get("files")
        and _fixed(run.record, keys) == fixed
        and _is_point(run.record, grids)
    ]
    if not keys or not same:
        return None
    same.sort(key=lambda record: record.started_utc)
    curve: list[dict[str, Any]] = []
    best: float | None = None
    for number, record in enumerate(same):
        score = record.selection.get("best_score")
        if score is not None:
            best = score if best is None else max(best, score)
        history = record.history
        spent = sum(e["seconds"] + e.get("evaluate_seconds", 0.0) for e in history)
        curve.append(
            {
                "trial": number,
                "state": "complete",
                "score": score,
                "best": best,
                "epochs": record.epochs,
                "seconds": spent if history else record.seconds["total"],
            }
        )
    return Budget(
        trials=len(same),
        pruned=0,
        failed=0,
        epochs=sum(record.epochs for record in same),
        seconds=math.fsum(point["seconds"] for point in curve),
        patience=same[0].config.get("stopping_step"),
        sampler="grid",
        pruner="none",
        chosen_on=f"{chosen.selection.get('metric')} on validation, seed {same[0].seed}",
        study="grid",
        curve=tuple(curve),
        source="tuning",
    )


def _values(text: str) -> set[str]:
    """The values of a grid, as `flatten` writes them.

    >>> sorted(_values("0.1, None, 'sum'"))
    ['0.1', 'null', 'sum']
    """
    values = (value.strip().strip("'\"") for value in text.split(","))
    return {AS_JSON.get(value, value) for value in values}


def _is_point(record: RunRecord, grids: Mapping[str, set[str]]) -> bool:
    """Whether a trial has values of these grids; another grid of the same keys may be stored."""
    config = flatten(complete(record.config))
    return all(config.get(key) in values for key, values in grids.items())


def _fixed(record: RunRecord, keys: set[str]) -> dict[str, str]:
    """The settings that were not searched."""
    config = flatten(complete(record.config))
    return {key: value for key, value in config.items() if key not in keys}


def differs(budget: Budget | None, target: Budget | None) -> bool:
    """Whether a row had clearly more or fewer trials than the target.

    >>> made = dict(pruned=0, failed=0, epochs=1, seconds=1.0, patience=20, sampler="grid")
    >>> made |= dict(pruner="none", chosen_on="", study="", curve=(), source="record")
    >>> [differs(Budget(n, **made), Budget(4, **made)) for n in (2, 3, 4, 6, 7)]
    [True, False, False, False, True]
    """
    if budget is None or target is None:
        return False
    return max(budget.trials, target.trials) > FACTOR * min(budget.trials, target.trials)


def expected_maximum(scores: Sequence[float]) -> list[float]:
    r"""The expected best of the first n of the scores in random order, n = 1 … N.

    E_n = Σ_i s_(i) · C(i − 1, n − 1) / C(N, n), with s_(1) ≤ … ≤ s_(N): s_(i) is the best of n
    if the other n − 1 are among the i − 1 below it.
    Source: Dodge et al., "Show Your Work", EMNLP 2019, section 3, who draw with replacement; in
    this unbiased form Tang et al., "Showing Your Work Doesn't Always Work", ACL 2020, section 3.

    >>> [round(value, 4) for value in expected_maximum([1.0, 3.0, 2.0])]
    [2.0, 2.6667, 3.0]
    """
    ordered = np.sort(np.asarray(scores, dtype=np.float64))
    total = len(ordered)
    below = np.arange(total)
    weights = np.full(total, 1 / max(total, 1))  # C(below, n − 1) / C(total, n), from n = 1 on
    out = []
    for n in range(1, total + 1):
        out.append(float(ordered @ weights))
        if n < total:
            weights = weights * np.maximum(below - n + 1, 0) / n * (n + 1) / (total - n)
    return out


def curve_values(budget: Budget) -> list[dict[str, float | int | str | None]]:
    """A row per trial: what was spent and found until then, and the expected maximum."""
    scores = [
        (point["score"] or 0.0) if point["state"] != "failed" else 0.0 for point in budget.curve
    ]
    expected = expected_maximum(scores)
    epochs, seconds, best = 0, 0.0, None
    rows: list[dict[str, float | int | str | None]] = []
    for place, point in enumerate(budget.curve):
        epochs += point["epochs"]
        seconds += point["seconds"]
        if is_whole(point):
            best = point["score"] if best is None else max(best, point["score"])
        rows.append(
            {
                "trials": place + 1,
                "epochs": epochs,
                "seconds": seconds,
                "state": point["state"],
                "score": point["score"],
                "best": best,
                "expected maximum": expected[place],
            }
        )
    return rows
