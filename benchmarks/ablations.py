"""What each part of AlignRec gives: runs without it, paired with runs that have it.

    python run_benchmark.py suite paper-ablation --data-path DIR --output OUT
    python -m benchmarks.ablations --output OUT --dataset ml-100k
    python -m benchmarks.ablations --output OUT --dataset ml-100k --ica beit3,beit3-untrained

Reads records of AlignRec and the values per user beside them. A run without CCA, UIA or REG has
the weight 0 and else the settings of the whole model; a run without ICA has the features of the
same encoder before its pre-training (`--ica WITH,WITHOUT`). Pairs are runs of equal seeds: their
initial weights and batches are the same. Per part and metric, the difference without − whole: its
mean and 95 % interval over seeds, the p of the paired t-test over seeds, and of the one over users
(each user's mean over the common seeds). Holm's correction is over the parts of one feature set and
metric of a call; with --ica that is ICA alone, which is not corrected with the others. The test
over users does not know that another training moves many users together, so it rejects more often
than the other. Writes FOLDER/<dataset>.json, or with --ica FOLDER/<dataset>-ica.json, and
prints the table.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from alignrec_recbole.errors import RecordError
from alignrec_recbole.reports.grouping import SeedGroup, flatten, publishable, seed_groups
from alignrec_recbole.reports.significance import UserMeans, holm, paired_p
from alignrec_recbole.runs.record import read_runs
from benchmarks import command_line

FOLDER = Path("results/shipped/ablations")
METRICS = ("Recall@20", "NDCG@20")
WEIGHTS = {"cca_weight": "CCA", "uia_weight": "UIA", "reg_sim_weight": "REG"}
LEVEL = 0.95


@dataclass(frozen=True)
class Ablation:
    """A part of the model, with and without it.

    Attributes:
        whole, without: seed → value, of the seeds that both have.
        difference: mean over seeds of without − whole.
        interval, p_seeds: over seeds; None with fewer than two.
        users, p_users: over users; 0 and None without values per user.
        p_seeds_holm, p_users_holm: corrected over the parts of a call, per feature set and metric.
        epochs: trained at most.
        seconds: of all the runs.
        commits: of the code.
    """

    part: str
    features: str
    metric: str
    whole: dict[int, float]
    without: dict[int, float]
    difference: float
    interval: tuple[float, float] | None
    p_seeds: float | None
    users: int
    p_users: float | None
    epochs: int
    seconds: float
    commits: list[str]
    p_seeds_holm: float | None = None
    p_users_holm: float | None = None


def ablations(output: Path, dataset: str, ica: tuple[str, str] | None = None) -> list[Ablation]:
    """The parts that have runs with and without them.

    Raises:
        RecordError: there is none.
    """
    runs = publishable(read_runs(output / "runs" / dataset))
    groups = seed_groups(
        run for run in runs if (run.record.model, run.record.protocol) == ("AlignRec", "full")
    )
    pairs = _without_weight(groups) if ica is None else _without_ica(groups, *ica)
    out = [_ablation(*pair, metric) for pair in pairs for metric in METRICS]
    found = [one for one in out if one is not None]
    if not found:
        raise RecordError(
            f"No part of AlignRec has runs with and without it on {dataset!r}.",
            found=f"{len(groups)} settings in {output / 'runs' / dataset}",
            expected="runs of the suite paper-ablation",
        )
    return _corrected(found)


def _without_weight(groups: Sequence[SeedGroup]) -> Iterable[tuple[str, SeedGroup, SeedGroup]]:
    """Pairs whose settings differ in one weight, which is 0 in the second."""
    for whole in groups:
        settings = flatten(whole.first.config)
        if not all(float(settings[key]) for key in WEIGHTS):
            continue
        for key, part in WEIGHTS.items():
            for without in groups:
                other = flatten(without.first.config)
                same = {**other, key: ""} == {**settings, key: ""}
                same = same and without.first.features == whole.first.features
                if same and not float(other[key]):
                    yield part, whole, without


def _without_ica(
    groups: Sequence[SeedGroup], one: str, other: str
) -> Iterable[tuple[str, SeedGroup, SeedGroup]]:
    """Pairs of the two feature sets with else the same settings."""
    for whole in groups:
        for without in groups:
            if (whole.first.features, without.first.features) == (one, other):
                settings = [flatten(g.first.config) for g in (whole, without)]
                for each in settings:
                    for key in [key for key in each if key.startswith("features")]:
                        del each[key]
                if settings[0] == settings[1]:
                    yield "ICA", whole, without


def _ablation(part: str, whole: SeedGroup, without: SeedGroup, metric: str) -> Ablation | None:
    values = [group.values(metric) for group in (whole, without)]
    seeds = sorted(values[0].keys() & values[1].keys())
    if not seeds:
        return None
    groups = [
        replace(g, runs=tuple(r for r in g.runs if r.record.seed in seeds))
        for g in (whole, without)
    ]
    before, after = (np.array([each[seed] for seed in seeds]) for each in values)
    interval = p_seeds = None
    if len(seeds) > 1:
        test = stats.ttest_rel(after, before)
        interval = tuple(map(float, test.confidence_interval(LEVEL)))
        p_seeds = paired_p(after, before)
    first, second = (UserMeans().of(group, metric) for group in groups)
    users, p_users = 0, None
    if first is not None and second is not None and first.keys() == second.keys():
        users = len(first)
        p_users = paired_p([second[user] for user in first], [*first.values()])
    records = [record for group in groups for record in group.records]
    return Ablation(
        part=part,
        features=whole.first.features,
        metric=metric,
        whole=dict(zip(seeds, before.tolist(), strict=True)),
        without=dict(zip(seeds, after.tolist(), strict=True)),
        difference=float((after - before).mean()),
        interval=interval,  # type: ignore[arg-type]
        p_seeds=p_seeds,
        users=users,
        p_users=p_users,
        epochs=max(record.epochs for record in records),
        seconds=sum(record.seconds["total"] for record in records),
        commits=sorted({str(record.code.get("commit")) for record in records}),
    )


def _corrected(found: Sequence[Ablation]) -> list[Ablation]:
    """The same with Holm's correction over the parts, per feature set and metric."""
    out = list(found)
    families: dict[tuple[str, str], list[int]] = {}
    for place, one in enumerate(out):
        families.setdefault((one.features, one.metric), []).append(place)
    for name in ("p_seeds", "p_users"):
        for family in families.values():
            tested = [i for i in family if getattr(out[i], name) is not None]
            fixed = holm([getattr(out[i], name) for i in tested])
            for place, p in zip(tested, fixed.tolist(), strict=True):
                out[place] = replace(out[place], **{f"{name}_holm": p})
    return out


def read(folder: Path = FOLDER) -> dict[str, list[dict[str, Any]]]:
    """The stored ablations: data set → rows, those without ICA last."""
    found: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(folder.glob("*.json"), key=lambda path: path.stem):
        content = json.loads(path.read_text("utf-8"))
        found.setdefault(content["dataset"], []).extend(content["rows"])
    return found


def table(dataset: str, rows: Sequence[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Header and cells."""
    header = ["data set", "features", "epochs", "without", "seeds", "metric", "whole", "without it"]
    header += ["difference", "95 % interval", "p, seeds", "p, users"]
    return header, [
        [
            dataset,
            row["features"],
            str(row["epochs"]),
            row["part"],
            str(len(row["whole"])),
            row["metric"],
            f"{np.mean([*row['whole'].values()]):.4f}",
            f"{np.mean([*row['without'].values()]):.4f}",
            f"{row['difference']:+.4f}",
            "—" if row["interval"] is None else "{:+.4f} … {:+.4f}".format(*row["interval"]),
            *("—" if row[f"{p}_holm"] is None else f"{row[f'{p}_holm']:.2g}"
              for p in ("p_seeds", "p_users")),
        ]
        for row in rows
    ]  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare, store and print."""
    parser = command_line.parser("ablations", __doc__, FOLDER)
    parser.add_argument("--ica", help="WITH,WITHOUT: features with and without pre-training")
    options = parser.parse_args(arguments)
    ica = None
    if options.ica is not None:
        one, _, other = options.ica.partition(",")
        ica = one, other
    rows = [asdict(one) for one in ablations(options.output, options.dataset, ica)]
    stem = options.dataset + ("-ica" if ica else "")
    stored = {"dataset": options.dataset, "rows": rows}
    command_line.store(options.folder / f"{stem}.json", stored)
    header, cells = table(options.dataset, rows)
    command_line.show(header, cells)
    return 0


if __name__ == "__main__":
    command_line.end(main)
