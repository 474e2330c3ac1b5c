"""What models score on a released split and on the same split re-keyed, with the same seeds.

    python run_benchmark.py suite rekeyed --data-path DIR --output OUT
    python -m benchmarks.rekeyed --data-path DIR --output OUT --dataset baby --seed 1

Reads the records of both data sets and the values per user beside them, and joins users by the
mapping of the re-keyed data set. Per model and metric:

- the mean over the seeds that both sides have, and the difference (re-keyed − released);
- where both have at least two seeds, Welch's t-test of the seeds' values and the 95 % interval of
  the difference of their means: each seed draws other vectors for the same user on the two sides,
  so seeds are not pairs;
- a paired t-test over users of each user's mean over seeds, and how many users have other values.
  It does not know that a training with another draw moves many users together, so it rejects more
  often than the first.

Of a model that draws nothing only the second is asked, and all that may differ are places of items
with equal scores and, of its neighbours, equally near ones. Writes `FOLDER/<dataset>-<seed>.json`
and prints the table. Models that the file has and OUT has not stay in it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats
from tabulate import tabulate

from alignrec_recbole.data.dataset_paths import find_dataset
from alignrec_recbole.data.rekey import USERS, read_mapping_back
from alignrec_recbole.data.rekeyed_names import rekeyed_name
from alignrec_recbole.errors import RecordError
from alignrec_recbole.reports.grouping import SeedGroup, flatten, publishable, seed_groups
from alignrec_recbole.reports.significance import UserMeans, paired_p
from alignrec_recbole.runs.record import read_runs
from benchmarks import command_line

FOLDER = Path("results/shipped/rekeyed")
METRICS = ("Recall@20", "NDCG@20")
LEVEL = 0.95


@dataclass(frozen=True)
class Pair:
    """A model on both splits.

    Attributes:
        released, rekeyed: seed → value.
        difference: of the means, re-keyed − released.
        p_seeds: of Welch's test; None with fewer than two seeds on a side.
        interval: of the difference of the means over seeds.
        users: that both sides ranked; 0 without values per user.
        users_that_differ: by more than 1e-9 in the mean over seeds.
        p_users: of the paired test.
        epochs: trained at most.
        commits: of the code.
    """

    model: str
    features: str
    metric: str
    released: dict[int, float]
    rekeyed: dict[int, float]
    difference: float
    p_seeds: float | None
    interval: tuple[float, float] | None
    users: int
    users_that_differ: int
    p_users: float | None
    epochs: int
    commits: list[str]


def pairs(output: Path, folder: Path, dataset: str, seed: int) -> list[Pair]:
    """The models with runs of the same settings on both splits.

    Args:
        output: with the records of both.
        folder: of the re-keyed data set.

    Raises:
        RecordError: there is none.
    """
    sides = [_groups(output, name) for name in (dataset, rekeyed_name(dataset, seed))]
    back = read_mapping_back(folder / USERS)
    out = [
        _pair(sides[0][key], sides[1][key], metric, back)
        for key in sides[0]
        if key in sides[1]
        for metric in METRICS
    ]
    if not out:
        raise RecordError(
            f"No model has runs on {dataset!r} and on its re-keyed form.",
            found=f"{len(sides[0])} and {len(sides[1])} models in {output / 'runs'}",
            expected="runs with the same settings on both",
        )
    return out


def _groups(output: Path, dataset: str) -> dict[Any, SeedGroup]:
    """The groups of a data set by model, features and settings."""
    runs = publishable(read_runs(output / "runs" / dataset))
    groups = seed_groups(run for run in runs if run.record.protocol == "full")
    return {
        (g.first.model, g.first.features, tuple(sorted(flatten(g.first.config).items()))): g
        for g in groups
    }


def _pair(released: SeedGroup, rekeyed: SeedGroup, metric: str, back: dict[str, str]) -> Pair:
    values = [group.values(metric) for group in (released, rekeyed)]
    common = sorted(values[0].keys() & values[1].keys())
    if not common:
        raise RecordError(
            f"The two splits have no seed of {released.first.model} in common.",
            found=f"seeds {sorted(values[0])} and {sorted(values[1])} with {metric}",
            expected="runs with the same seeds on both",
        )
    before, after = (np.array([each[seed] for seed in common]) for each in values)
    released, rekeyed = (_of_seeds(group, common) for group in (released, rekeyed))
    test = interval = None
    if len(common) > 1 and (np.ptp(before) or np.ptp(after)):
        test = stats.ttest_ind(after, before, equal_var=False)
        interval = tuple(map(float, test.confidence_interval(LEVEL)))
    users, differ, p_users = _users(released, rekeyed, metric, back)
    return Pair(
        model=released.first.model,
        features=released.first.features,
        metric=metric,
        released=dict(zip(common, before.tolist(), strict=True)),
        rekeyed=dict(zip(common, after.tolist(), strict=True)),
        difference=float(after.mean() - before.mean()),
        p_seeds=None if test is None else float(test.pvalue),
        interval=interval,  # type: ignore[arg-type]
        users=users,
        users_that_differ=differ,
        p_users=p_users,
        epochs=max(record.epochs for group in (released, rekeyed) for record in group.records),
        commits=sorted(
            {str(r.code.get("commit")) for group in (released, rekeyed) for r in group.records}
        ),
    )


def _of_seeds(group: SeedGroup, seeds: Sequence[int]) -> SeedGroup:
    return replace(group, runs=tuple(run for run in group.runs if run.record.seed in seeds))


def _users(
    released: SeedGroup, rekeyed: SeedGroup, metric: str, back: dict[str, str]
) -> tuple[int, int, float | None]:
    means = UserMeans()
    before, after = means.of(released, metric), means.of(rekeyed, metric)
    if before is None or after is None:
        return 0, 0, None
    old = {back[user]: value for user, value in after.items()}
    if old.keys() != before.keys():
        raise RecordError(
            "The two splits have other users.",
            found=f"{len(before)} and {len(old)} users with values",
            expected="the same users under two numbers",
        )
    one = np.array([before[user] for user in before])
    two = np.array([old[user] for user in before])
    differ = int((np.abs(two - one) > 1e-9).sum())
    return len(one), differ, paired_p(two, one)


def write(path: Path, dataset: str, seed: int, found: Sequence[Pair]) -> list[dict[str, Any]]:
    """Store the comparison with the rows of other models that are stored; all rows by model."""
    rows = [asdict(pair) for pair in found]
    if path.is_file():
        own = {pair.model for pair in found}
        stored = json.loads(path.read_text("utf-8"))["rows"]
        rows += [row for row in stored if row["model"] not in own]
    rows.sort(key=lambda row: row["model"])
    command_line.store(path, {"dataset": dataset, "seed": seed, "rows": rows})
    return rows


def read(folder: Path = FOLDER) -> dict[str, list[dict[str, Any]]]:
    """The stored comparisons: name of the re-keyed data set → rows."""
    found = {}
    for path in sorted(folder.glob("*.json")):
        content = json.loads(path.read_text("utf-8"))
        found[rekeyed_name(content["dataset"], content["seed"])] = content["rows"]
    return found


def table(rows: Sequence[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Header and cells of the comparison."""
    header = [
        "model",
        "features",
        "seeds",
        "epochs",
        "metric",
        "released",
        "re-keyed",
        "difference",
        "95 % interval",
        "p, seeds",
        "users that differ",
        "p, users",
    ]
    return header, [
        [
            row["model"],
            row["features"],
            str(len(row["released"])),
            str(row["epochs"] or "—"),
            row["metric"],
            _spread(row["released"]),
            _spread(row["rekeyed"]),
            f"{row['difference']:+.4f}",
            "—" if row["interval"] is None else "{:+.4f} to {:+.4f}".format(*row["interval"]),
            _p(row["p_seeds"]),
            f"{row['users_that_differ']:,} of {row['users']:,}" if row["users"] else "—",
            _p(row["p_users"]),
        ]
        for row in rows
    ]


def _spread(values: dict[Any, float]) -> str:
    found = np.array(list(values.values()))
    spread = f" ± {found.std(ddof=1):.4f}" if len(found) > 1 else ""
    return f"{found.mean():.4f}{spread}"


def _p(value: float | None) -> str:
    if value is None:
        return "—"
    return "< .0001" if value < 1e-4 else f"{value:.4f}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare, write and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rekeyed")
    parser.add_argument("--dataset", required=True, help="the released data set")
    parser.add_argument("--seed", type=int, default=1, help="of the new numbers")
    parser.add_argument("--data-path", type=Path)
    parser.add_argument("--output", type=Path, default=Path("results"), help="with the records")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="of the result")
    options = parser.parse_args(arguments)
    name = rekeyed_name(options.dataset, options.seed)
    folder = find_dataset(name, options.data_path)
    found = pairs(options.output, folder, options.dataset, options.seed)
    path = options.folder / f"{options.dataset}-{options.seed}.json"
    header, cells = table(write(path, options.dataset, options.seed, found))
    print(tabulate(cells, header, tablefmt="simple", disable_numparse=True))
    return 0


if __name__ == "__main__":
    command_line.end(main)
