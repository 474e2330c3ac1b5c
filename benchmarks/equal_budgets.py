"""All models with the same budget: trials, patience and seeds are those of every row.

    python run_benchmark.py tune --model M,… --dataset D --features F --trials 8 --defaults-first \
        --pruner hyperband --set stopping_step=20 --seeds 999,1000,1001 --output OUT
    python -m benchmarks.equal_budgets --output OUT --dataset D

Reads the records of the chosen settings, and the values per user beside them. Per model: what its
search cost, the chosen settings, Recall@20 and NDCG@20 of each seed, and the difference of the
target, AlignRec, from it: its p over users (each user's mean over the seeds) and over seeds, both
Holm-corrected over the models. The test over users does not know that another training moves many
users together, so it rejects more often. Models whose budgets differ are refused. Writes
FOLDER/<dataset>.json and prints the table.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from alignrec_recbole.errors import RecordError
from alignrec_recbole.reports.budgets import Budget, budget_of
from alignrec_recbole.reports.comparisons import DEFAULT_TARGET, comparisons
from alignrec_recbole.reports.grouping import (
    SeedGroup,
    chosen_settings,
    publishable,
    seed_groups,
)
from alignrec_recbole.reports.significance import Comparison
from alignrec_recbole.runs.record import read_runs
from benchmarks import command_line

FOLDER = Path("results/shipped/equal-budgets")
METRICS = ("Recall@20", "NDCG@20")
DEFAULTS = 0  # number of the trial with the model's own settings


def equal_budgets(output: Path, dataset: str, target: str = DEFAULT_TARGET) -> dict[str, Any]:
    """The rows of a data set, best first, and the budget that they share.

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
    shared = _shared(groups)
    tests = {
        (test.baseline, test.metric, test.over): test for test in comparisons(groups, wanted=target)
    }
    order = sorted(groups, key=lambda group: -(group.mean(METRICS[0]) or 0.0))
    return {
        "dataset": dataset,
        "target": target,
        "budget": shared,
        "rows": [_row(group, tests) for group in order],
    }


def _shared(groups: Sequence[SeedGroup]) -> dict[str, Any]:
    """The budget of all rows."""
    models = [group.first.model for group in groups]
    twice = sorted({model for model in models if models.count(model) > 1})
    if twice:
        raise RecordError(
            f"{twice[0]} has records of two searches.", expected="one search per model in --output"
        )
    found: dict[str, dict[str, Any]] = {}
    for group in groups:
        stored = group.first.budget or {}
        found[group.first.model] = {
            "limit": stored.get("limit"),
            "pruner": stored["pruner"],
            "sampler": stored["sampler"],
            "patience": stored["patience"],
            "chosen on": stored["chosen_on"],
            "seeds": sorted(record.seed for record in group.records),
            "setting": group.first.setting,
            "data": group.first.data.get("split"),
        }
    first, budget = next(iter(found.items()))
    for model, other in found.items():
        if wrong := [key for key in budget if other[key] != budget[key]]:
            raise RecordError(
                f"The budgets of {first} and {model} differ.",
                found=f"{wrong[0]} {budget[wrong[0]]} and {other[wrong[0]]}",
                expected="the same for every model",
            )
    return {key: value for key, value in budget.items() if key != "data"}


def _row(group: SeedGroup, tests: dict[tuple[str, str, str], Comparison]) -> dict[str, Any]:
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
        entry: dict[str, Any] = {"values": {str(s): v for s, v in group.values(metric).items()}}
        for over in ("users", "seeds"):
            test = tests.get((group.name, metric, over))
            if test is not None:
                entry |= {"target_minus_this": test.difference, f"p_{over}_holm": test.p_holm}
        row[metric] = entry
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
                *(_p(recall.get(f"p_{over}_holm")) for over in ("users", "seeds")),
                f"{row['best_on_validation']:.4f}",
                "its own" if row["chosen"] == DEFAULTS else str(row["chosen"]),
                str(row["pruned"]),
                f"{row['epochs']:,}",
                f"{row['seconds']:,.0f}",
            ]
        )
    header = ["model", "features", *METRICS, "p, users", "p, seeds"]
    return [*header, "validation", "trial", "pruned", "epochs", "seconds"], rows


def _mean(row: dict[str, Any], metric: str) -> float:
    return float(np.mean([*row[metric]["values"].values()]))


def _shown(row: dict[str, Any], metric: str, place: int, means: Sequence[float]) -> str:
    values = [*row[metric]["values"].values()]
    spread = f" ± {np.std(values, ddof=1):.4f}" if len(set(values)) > 1 else ""
    text = f"{means[place]:.4f}{spread}"
    rank = sum(mean > means[place] for mean in means)
    return {0: f"**{text}**", 1: f"<u>{text}</u>"}.get(rank, text)


def _p(value: float | None) -> str:
    if value is None:
        return "—"
    return "< 0.001" if value < 1e-3 else f"{value:.2g}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare, store and print."""
    parser = command_line.parser("equal_budgets", __doc__, FOLDER)
    parser.add_argument("--target", default=DEFAULT_TARGET, help="model tested against the others")
    options = parser.parse_args(arguments)
    found = equal_budgets(options.output, options.dataset, options.target)
    command_line.store(options.folder / f"{options.dataset}.json", found)
    header, cells = table(found)
    command_line.show(header, cells)
    return 0


if __name__ == "__main__":
    command_line.end(main)
