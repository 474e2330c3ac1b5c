"""All models with the same budget: trials, patience and seeds are those of every row.

    python run_benchmark.py tune --model M,… --dataset D --features F --trials 8 --defaults-first \
        --pruner hyperband --set stopping_step=20 --seeds 999,1000,1001 --output OUT
    python -m benchmarks.equal_budgets --output OUT --dataset D

Reads the records of the chosen settings. Per model: what its search cost, the chosen settings,
Recall@20 and NDCG@20 of each seed, and the difference of the target, AlignRec, from it with p of
the paired t-test over seeds, Holm-corrected over the models. Writes FOLDER/<dataset>.json and
prints the table. Models that this file has and OUT has not stay in it, so that models may be
searched one after the other and on several machines. Other data or another budget are refused.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from alignrec_recbole.errors import RecordError
from alignrec_recbole.reports.budgets import Budget, budget_of
from alignrec_recbole.reports.comparisons import DEFAULT_TARGET
from alignrec_recbole.reports.grouping import (
    SeedGroup,
    chosen_settings,
    publishable,
    seed_groups,
)
from alignrec_recbole.reports.significance import Comparison, corrected, paired
from alignrec_recbole.reports.table import column_ranks
from alignrec_recbole.runs.record import read_runs
from benchmarks import command_line

FOLDER = Path("results/shipped/equal-budgets")
METRICS = ("Recall@20", "NDCG@20")
DEFAULTS = 0  # number of the trial with the model's own settings


def equal_budgets(output: Path, dataset: str) -> dict[str, Any]:
    """The rows of a data set and the data and budget that they share.

    Raises:
        RecordError: there are none, two of one model, or their budgets or data differ.
    """
    runs = list(publishable(read_runs(output / "runs" / dataset)))
    groups = seed_groups(run for run in runs if run.record.protocol == "full" and run.record.budget)
    if not groups:
        raise RecordError(
            f"There is no record of a search on {dataset!r}.",
            found=f"{len(runs)} records in {output / 'runs' / dataset}",
            expected="those of `tune` with the same --trials, --pruner and --seeds for every model",
        )
    models = [group.first.model for group in groups]
    twice = sorted({model for model in models if models.count(model) > 1})
    if twice:
        raise RecordError(
            f"{twice[0]} has records of two searches.", expected="one search per model in --output"
        )
    first, *others = groups
    budget = _budget(first)
    for group in others:
        _refuse_others(budget, _budget(group), f"{first.first.model} and {group.first.model}")
    return {"dataset": dataset, "budget": budget, "rows": [_row(group) for group in groups]}


def with_stored(new: dict[str, Any], path: Path) -> dict[str, Any]:
    """Results with the models of a stored file that are not in them.

    Raises:
        RecordError: the stored ones have other data or another budget.
    """
    if not path.is_file():
        return new
    old = json.loads(path.read_text("utf-8"))
    _refuse_others(old["budget"], new["budget"], f"the models in {path} and of --output")
    own = {row["model"] for row in new["rows"]}
    kept = [row for row in old["rows"] if row["model"] not in own]
    return {**new, "rows": [*kept, *new["rows"]]}


def compared(found: dict[str, Any], target: str = DEFAULT_TARGET) -> dict[str, Any]:
    """Results with their rows best first and the target's difference from each of the others.

    Raises:
        RecordError: there is no row of the target.
    """
    rows = sorted(found["rows"], key=lambda row: -_mean(row, METRICS[0]))
    of_target = [row for row in rows if row["model"] == target]
    if not of_target:
        raise RecordError(
            f"There is no search of {target}.", found=", ".join(row["model"] for row in rows)
        )
    for metric in METRICS:
        own = of_target[0][metric]["values"]
        tests = [
            paired(
                Comparison(target, row["model"], metric, "seeds", 0, None, None),
                own,
                row[metric]["values"],
            )
            for row in rows
            if row["model"] != target
        ]
        by_model = {test.baseline: test for test in corrected(tests)}
        for row in rows:
            row[metric] = {"values": row[metric]["values"]}
            if test := by_model.get(row["model"]):
                row[metric] |= {"target_minus_this": test.difference, "p_seeds": test.p}
                row[metric] |= {"p_seeds_holm": test.p_holm}
    return {**found, "target": target, "rows": rows}


def _budget(group: SeedGroup) -> dict[str, Any]:
    """What all rows have in common, as JSON stores it."""
    stored, data = group.first.budget or {}, group.first.data
    shared = {
        "limit": stored.get("limit"),
        "pruner": stored["pruner"],
        "sampler": stored["sampler"],
        "patience": stored["patience"],
        "chosen on": stored["chosen_on"],
        "seeds": sorted(record.seed for record in group.records),
        "setting": group.first.setting,
        "data": {name: value for name, value in data["files"].items() if name.endswith(".inter")},
        "split": data.get("split"),
    }
    return dict(json.loads(json.dumps(shared)))


def _refuse_others(one: dict[str, Any], other: dict[str, Any], which: str) -> None:
    if wrong := [key for key in one if one[key] != other.get(key)]:
        raise RecordError(
            f"The budgets of {which} differ.",
            found=f"{wrong[0]} {one[wrong[0]]} and {other.get(wrong[0])}",
            expected="the same for every model",
        )


def _row(group: SeedGroup) -> dict[str, Any]:
    budget = budget_of(group, ())
    assert isinstance(budget, Budget)
    stored = group.first.budget or {}
    row: dict[str, Any] = {
        "model": group.first.model,
        "features": group.first.features,
        "trials": budget.trials,
        "pruned": budget.pruned,
        "failed": budget.failed,
        "epochs": budget.epochs,
        "seconds": budget.seconds,
        "scores": [point["score"] for point in budget.curve],
        "chosen": stored["chosen"],
        "settings": chosen_settings(group.first),
        "best_on_validation": budget.best,
        "commits": sorted({str(record.code.get("commit")) for record in group.records}),
    }
    for metric in METRICS:
        row[metric] = {"values": {str(s): v for s, v in group.values(metric).items()}}
    return row


def read(folder: Path = FOLDER) -> list[dict[str, Any]]:
    """The stored tables, by data set."""
    return command_line.stored(folder)


def table(stored: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and cells, best and second best marked."""
    means = {metric: [_mean(row, metric) for row in stored["rows"]] for metric in METRICS}
    rows = []
    for place, row in enumerate(stored["rows"]):
        recall = row[METRICS[0]]
        rows.append(
            [
                row["model"],
                row["features"],
                *(_shown(row, metric, place, means[metric]) for metric in METRICS),
                _p(recall.get("p_seeds_holm")),
                f"{row['best_on_validation']:.4f}",
                "its own" if row["chosen"] == DEFAULTS else str(row["chosen"]),
                str(row["pruned"]),
                f"{row['epochs']:,}",
                f"{row['seconds']:,.0f}",
            ]
        )
    header = ["model", "features", *METRICS, "p"]
    return [*header, "validation", "trial", "pruned", "epochs", "seconds"], rows


def _mean(row: dict[str, Any], metric: str) -> float:
    return float(np.mean([*row[metric]["values"].values()]))


def _shown(row: dict[str, Any], metric: str, place: int, means: Sequence[float]) -> str:
    values = [*row[metric]["values"].values()]
    spread = f" ± {np.std(values, ddof=1):.4f}" if len(set(values)) > 1 else ""
    text = f"{means[place]:.4f}{spread}"
    rank = column_ranks(means)[place]
    return {1: f"**{text}**", 2: f"<u>{text}</u>"}.get(rank, text)


def _p(value: float | None) -> str:
    if value is None:
        return "—"
    return "< 0.001" if value < 1e-3 else f"{value:.2g}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare, store and print."""
    parser = command_line.parser("equal_budgets", __doc__, FOLDER)
    parser.add_argument("--target", default=DEFAULT_TARGET, help="model tested against the others")
    options = parser.parse_args(arguments)
    path = options.folder / f"{options.dataset}.json"
    new = equal_budgets(options.output, options.dataset)
    found = compared(with_stored(new, path), options.target)
    command_line.store(path, found)
    header, cells = table(found)
    command_line.show(header, cells)
    return 0


if __name__ == "__main__":
    command_line.end(main)
