"""The tables of the Markdown files, each a view of committed results (see readme_tables.py)."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from tabulate import tabulate

from alignrec_recbole.data.rekeyed_names import shown_name
from alignrec_recbole.reports.audit_marks import AuditMarks
from alignrec_recbole.reports.budgets import budgets_of
from alignrec_recbole.reports.comparisons import comparisons
from alignrec_recbole.reports.escaping import as_markdown
from alignrec_recbole.reports.formats.text import highlight
from alignrec_recbole.reports.grouping import (
    COLUMNS,
    PRIMARY_METRIC,
    ComparisonKey,
    SeedGroup,
    comparable_groups,
)
from alignrec_recbole.reports.leaderboards import leaderboard, marked
from alignrec_recbole.reports.reference_results import reference_results, reproduction_status
from alignrec_recbole.reports.table import DATA_MARK, MISSING, Table, mean_sd_cell
from alignrec_recbole.runs.record import Run, read_runs
from benchmarks import ablations, equal_budgets, filled, knock_out, rekeyed, two_stage_report
from benchmarks.speed import report as speed

ROOT = Path(__file__).resolve().parent.parent
SHIPPED = ROOT / "results" / "shipped"
SHORT = ("model", "features", "seeds", *COLUMNS, "over best baseline", "reproduction")
SIDES = "ours", "reference"
SHOWN_EPOCHS = (1, 8)
USUAL_RATE = 0.001  # RecBole's and MMRec's, of models whose YAML names none
NDCG = "NDCG@20"
BEST = 8  # models with features in README's table, beside all those without


class Results(NamedTuple):
    """The committed results of a folder.

    Attributes:
        tested: groups of test results by block.
        tuning: runs of grid points, scored on validation alone.
        folder: where parity, speed and pre-training files are stored.
    """

    tested: dict[ComparisonKey, list[SeedGroup]]
    tuning: list[Run]
    folder: Path = SHIPPED


def read(folder: Path) -> Results:
    """The results of committed code; runs of modified code are not shown in a README."""
    tuning = clean(read_runs(folder / "tuning")) if (folder / "tuning").is_dir() else []
    return Results(
        comparable_groups(clean(read_runs(folder / "runs"))),
        tuning,
        SHIPPED,
    )


def clean(runs: Iterable[Run]) -> list[Run]:
    """Runs of committed code."""
    return [run for run in runs if not run.record.code.get("dirty")]


# Trained models ----------------------------------------------------------------------------------


def leaderboards(results: Results) -> str:
    """The leaderboard of every data set's trained models, in few columns."""
    parts, marks = [], AuditMarks.read(results.folder)
    for block, members in results.tested.items():
        if block.protocol == "full":
            table = marked(leaderboard(block, members, comparisons(members)), members, marks)
            shown = [i for i, name in enumerate(table.header) if name in SHORT]
            rows = [[row[i] for i in shown] for row in table.rows]
            header = [table.header[i] for i in shown]
            mark = f" {DATA_MARK}" if table.footnote else ""
            parts.append(f"**{table.title}**{mark}")
            parts.append(_markdown(Table(table.title, header, rows)))
            if table.footnote:
                parts.append(f"{DATA_MARK} {as_markdown(table.footnote)}")
    return "\n\n".join(parts)


def best_on_sports(results: Results) -> str:
    """The best models as they are, those without features and what was published for the latter."""
    members = [
        group
        for block, several in results.tested.items()
        if block.dataset == "sports" and block.protocol == "full"
        for group in several
        if not group.non_default_settings
    ]
    members.sort(key=lambda group: -(group.mean(PRIMARY_METRIC) or 0.0))
    with_features = [group for group in members if group.first.features != "none"][:BEST]
    without = [group for group in members if group.first.features == "none"]
    anchors = {row.model: row for row in reference_results("sports")}
    rows = []
    for group in with_features + without:
        anchor = anchors.get(group.first.model) if group in without else None
        rows.append(
            [
                group.label,
                group.first.features,
                len(group.runs),
                _spread(group, PRIMARY_METRIC),
                _spread(group, NDCG),
                f"{anchor.values[PRIMARY_METRIC]:.4f}" if anchor else "—",
            ]
        )
    return _github(
        ["model", "features", "seeds", PRIMARY_METRIC, NDCG, f"reference {PRIMARY_METRIC}"], rows
    )


def searches(results: Results) -> str:
    """Per model on lfm2k: its search by TPE, and the grid of the table of models."""
    header = ["model", "features", "chosen by", "trials", "pruned", "epochs", "seconds", "patience"]
    header += ["best on validation", "seeds", PRIMARY_METRIC, NDCG]
    rows = []
    for block, members in results.tested.items():
        if block.dataset != "lfm2k" or block.protocol != "full":
            continue
        budgets = budgets_of(members, results.tuning)
        searched = [g for g in members if g.name in budgets and budgets[g.name].sampler == "tpe"]
        for group in sorted(searched, key=lambda group: group.first.model):
            grids = [
                other
                for other in members
                if (other.first.model, other.first.features)
                == (group.first.model, group.first.features)
                and other.name in budgets
                and budgets[other.name].sampler == "grid"
                and not any(key.startswith("align.") for key in other.non_default_settings)
            ]
            for each in (*grids, group):
                budget = budgets[each.name]
                spent = f"{budget.epochs:,}", f"{budget.seconds:,.0f}"
                best = "—" if budget.best is None else f"{budget.best:.4f}"
                rows.append(
                    [
                        *(each.first.model, each.first.features, budget.sampler),
                        *(budget.trials, budget.pruned, *spent),
                        *(budget.patience, best, len(each.runs)),
                        *(_spread(each, PRIMARY_METRIC), _spread(each, NDCG)),
                    ]
                )
    return _github(header, rows)


def models_with_equal_budgets(results: Results) -> str:
    """Every model's search of one budget, best first."""
    (stored,) = equal_budgets.read(results.folder / "equal-budgets")
    return _github(*equal_budgets.table(stored))


def reproduction(results: Results) -> str:
    """Our means beside the reference figures, each seed in brackets."""
    rows = []
    for block, members in results.tested.items():
        anchors = {row.model: row for row in reference_results(block.dataset)}
        for group in members:
            anchor = anchors.get(group.first.model)
            judged = reproduction_status(group, list(anchors.values()))
            if anchor and judged:
                recall = list(group.values(PRIMARY_METRIC).values())
                each = f" ({', '.join(f'{v:.4f}' for v in recall)})" if len(recall) > 1 else ""
                rows.append(
                    [
                        group.label,
                        block.dataset,
                        len(recall),
                        f"{_mean(group, PRIMARY_METRIC)}{each}",
                        f"{anchor.values[PRIMARY_METRIC]:.4f}",
                        judged,
                        _mean(group, NDCG),
                        f"{anchor.values[NDCG]:.4f}",
                    ]
                )
    header = ["model", "data set", "seeds", PRIMARY_METRIC, "reference", "verdict", NDCG]
    return _github([*header, "reference"], rows)


def features_of_alignrec(results: Results) -> str:
    """AlignRec on ml-100k, trained alike with each feature set."""
    rows = [
        [group.first.features, _spread(group, PRIMARY_METRIC), _spread(group, NDCG)]
        for block, members in results.tested.items()
        if (block.dataset, block.protocol) == ("ml-100k", "full")
        for group in members
        if group.first.model == "AlignRec" and len(group.runs) > 1
    ]
    rows.sort(key=lambda row: row[1], reverse=True)
    return _github(["features", PRIMARY_METRIC, NDCG], rows)


# Protocols ---------------------------------------------------------------------------------------


def before_training(dataset: str) -> Callable[[Results], str]:
    """The figures of protocols that train nothing, one row per feature set of a data set."""

    def table(results: Results) -> str:
        found: dict[str, dict[str, SeedGroup]] = {}
        for block, members in results.tested.items():
            if block.dataset != dataset:
                continue
            for group in members:
                column = block.protocol
                if column == "cold-start" and group.first.model != "item-cf":
                    continue
                found.setdefault(group.first.features, {})[column] = group
        rows = []
        for features, by_protocol in found.items():
            if "zero-shot" in by_protocol:
                pairs = [
                    " / ".join(_mean(by_protocol.get(name), m) for m in (PRIMARY_METRIC, NDCG))
                    for name in ("zero-shot", "item-cf")
                ]
                rows.append(
                    [features, *pairs, _mean(by_protocol.get("cold-start"), PRIMARY_METRIC)]
                )
        rows.sort(key=lambda row: (row[0].startswith(("random", "shuffled")), row[0]))
        both = f"{PRIMARY_METRIC} / {NDCG}"
        return _github(
            ["features", f"zero-shot {both}", f"item-cf {both}", f"cold-start {PRIMARY_METRIC}"],
            rows,
        )

    return table


# AlignRec's terms in other models ----------------------------------------------------------------


def alignment_grid(results: Results) -> str:
    """Validation scores of the grid points of AlignRec's terms, and of the models as they are."""
    chosen = {("lfm2k", "FREEDOM"): 0.001, ("lfm2k", "LATTICE"): 0.001, ("lfm2k", "MGCN"): 0.0001,
              ("sports", "FREEDOM"): 0.001, ("sports", "LATTICE"): 0.0001,
              ("sports", "MGCN"): 0.0001}  # fmt: skip
    rows: dict[tuple[str, str, Any], dict[Any, float]] = {}
    plain: dict[tuple[str, str], float] = {}
    for record in (run.record for run in results.tuning):
        key, config = (record.dataset, record.model), record.config
        if key not in chosen or config.get("reg_weight") != chosen[key]:
            continue
        score, terms = record.selection["best_score"], config.get("align")
        if terms:
            point = terms["uia"], terms["reg"]
            rows.setdefault((*key, terms["cca"]), {})[point] = score
        else:
            plain[key] = max(score, plain.get(key, 0.0))
    points = [(0.001, 0.001), (0.001, 0.1), (0.1, 0.001), (0.1, 0.1)]
    cells = [
        [model, dataset, cca, f"{plain[dataset, model]:.4f}"]
        + [f"{scores[point]:.4f}" if point in scores else "—" for point in points]
        for (dataset, model, cca), scores in sorted(rows.items())
    ]
    header = ["model", "data set", "CCA", "without terms"]
    return _github([*header, *(f"UIA {uia}, REG {reg}" for uia, reg in points)], cells)


# Reference code ----------------------------------------------------------------------------------


def official(results: Results) -> str:
    """AlignRec trained by the official code and by ours, seed by seed."""
    entry = json.loads((results.folder / "parity" / "alignrec_lfm2k.json").read_text())
    rows: list[list[object]] = [
        [side, *(" ".join(f"{v:.4f}" for v in entry[side][m]) for m in (PRIMARY_METRIC, NDCG))]
        for side in ("official", "ours")
    ]
    off = [f"{100 * entry['relative_difference'][m]:+.1f} %" for m in (PRIMARY_METRIC, NDCG)]
    return _github(["", PRIMARY_METRIC, NDCG], [*rows, ["means, ours against official", *off]])


def trained(results: Results) -> str:
    """Recall@20 of each seed of both sides, from `benchmarks.parity.baselines`."""
    rows = []
    stored = json.loads((results.folder / "parity" / "baselines_lfm2k.json").read_text())
    for model, entry in stored.items():
        off = entry["relative_difference"]
        rows.append(
            [
                model,
                entry["settings"].get("learning_rate", USUAL_RATE),
                *(
                    " ".join(f"{v:.4f}" for v in entry[f"{side} {PRIMARY_METRIC}"])
                    for side in SIDES
                ),
                *(f"{100 * off[metric]:+.1f} %" for metric in (PRIMARY_METRIC, NDCG)),
                ", ".join(map(str, entry["our_epochs"])),
                ", ".join(map(str, entry["reference_epochs"])),
            ]
        )
    header = ["model", "learning rate", f"{PRIMARY_METRIC}, ours", "reference", "difference"]
    return _github([*header, f"{NDCG} difference", "epochs, ours", "reference"], rows)


def same_start(results: Results) -> str:
    """Both sides from equal initial weights, from `benchmarks.parity.same_start`: some epochs."""
    rows = []
    stored = json.loads((results.folder / "parity" / "same_start_lfm2k.json").read_text())
    for model, entry in stored.items():
        spread = max(max(ratio, 1 / ratio) for ratio in entry["initial spread"].values())
        for seen in (row for row in entry["epochs"] if row["epoch"] in SHOWN_EPOCHS):
            rows.append(
                [
                    model,
                    entry["learning_rate"],
                    f"{spread:.2f}",
                    seen["epoch"],
                    *(f"{seen[f'worst loss{by}']:.1e}" for by in ("", " by rounding")),
                    *(f"{seen[f'{side} {PRIMARY_METRIC}']:.4f}" for side in (*SIDES, "rounded")),
                ]
            )
    header = ["model", "learning rate", "spread", "epoch", "loss, at most", "by rounding",
              f"{PRIMARY_METRIC}, ours", "reference", "ours, rounded"]  # fmt: skip
    return _github(header, rows)


def pretraining(stem: str) -> Callable[[Results], str]:
    """Held-out losses of a pre-training run, next to its controls."""

    def table(results: Results) -> str:
        seen = json.loads((results.folder / "pretraining" / f"{stem}.json").read_text())
        first, last = seen["validation"][0], seen["validation"][-1]
        rows = [
            [
                name,
                *(f"{look[f'{loss} {kind}']:.3f}" if f"{loss} {kind}" in look else "—"
                  for look, kind in ((first, "true"), (last, "true"), (last, "shuffled"),
                                     (last, "blind"))),
            ]
            for loss, name in (("mlm", "words (MLM)"), ("mim", "patches (MIM)"))
        ]  # fmt: skip
        header = ["held-out loss", "untrained", "trained", "mismatched pair", "without image"]
        return _github(header, rows)

    return table


# Speed -------------------------------------------------------------------------------------------


def speed_table(results: Results) -> str:
    """Every committed timing."""
    folder = results.folder / "speed"
    return f"{speed.table(folder)}\n\nMeasured on: {speed.machine(folder)}."


def speed_short(results: Results) -> str:
    """Five comparisons; their machines stand below them."""
    found = speed.read(results.folder / "speed")
    named = {
        "alignrec": ("AlignRec, training epoch", "official code"),
        "lightgcn": ("LightGCN, training epoch", "RecBole"),
        "evaluation": ("full ranking of all users", "RecBole, its best batch size"),
        "beit3": ("BEiT-3 base, 8 items", "torchscale"),
    }
    rows = []
    for name, (what, peer) in named.items():
        entry = found[name]
        ours, theirs = f"{entry['ours_seconds']:.2f} s", f"{entry['peer_seconds']:.1f} s, {peer}"
        rows.append([what, ours, theirs, f"{entry['ratio']:.1f}×", _memory(entry)])
    baselines = found["baselines"]
    models = {
        f"baselines {name}": entry
        for name, entry in baselines["models"].items()
        if entry.get("dataset", baselines["dataset"]) == "sports"
    }
    ratios = [entry["ratio"] for entry in models.values()]
    peaks = statistics.median(e["ours_peak_bytes"] / e["peer_peak_bytes"] for e in models.values())
    times = f"{min(ratios):.1f}–{max(ratios):.1f}×, median {statistics.median(ratios):.1f}×"
    what = f"{len(models)} multimodal models, training epoch"
    smaller = f"median {peaks:.2f} of the peer's"
    rows.insert(2, [what, "", "MMRec, the authors' or a port", times, smaller])
    machines = {of for name, of in speed.machines(found).items() if name in {*named, *models}}
    header = ["on Sports' size, 2 cores", "ours", "peer", "ratio", "peak memory, ours / peer"]
    return f"{_github(header, rows)}\n\nMeasured on {'; '.join(sorted(machines))}."


def _memory(entry: dict[str, Any]) -> str:
    peaks = (f"{entry[f'{side}_peak_bytes'] / 2**30:.2f}" for side in ("ours", "peer"))
    return f"{' / '.join(peaks)} GiB"


# Cells -------------------------------------------------------------------------------------------


def _spread(group: SeedGroup, metric: str) -> str:
    return mean_sd_cell(group.values(metric).values()).text


def _mean(group: SeedGroup | None, metric: str) -> str:
    mean = group.mean(metric) if group is not None else None
    return "—" if mean is None else f"{mean:.4f}"


def _markdown(table: Table) -> str:
    return _github(table.header, highlight(table, "github"))


def _github(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    text = [[str(cell) for cell in row] for row in rows]
    return tabulate(text, headers=list(header), tablefmt="github", disable_numparse=True)


def geometry(results: Results) -> str:
    """AlignRec's views before, early in and at the end of training, by data set and form."""
    header = ["data set", "alignment terms", "epochs", "seeds", *GEOMETRY.values()]
    rows = []
    for dataset in ("lfm2k", "ml-100k"):
        for form, title in FORMS.items():
            paths = sorted((results.folder / "geometry").glob(f"{dataset}-{form}-s*.csv"))
            if not paths:
                continue
            runs = pd.concat([pd.read_csv(path) for path in paths])
            mean = runs.groupby("epoch").mean()
            for epoch in (-1, 9, int(mean.index.max())):
                figures = [mean.loc[epoch, list(names)] for names in GEOMETRY]
                cells = [" / ".join(f"{value:.2f}" for value in each) for each in figures]
                rows.append([dataset, title, epoch + 1, len(paths), *cells])
    return _github(header, rows)


def parts_of_alignrec(results: Results) -> str:
    """AlignRec without each of its parts, paired with the whole."""
    tables = [
        ablations.table(dataset, rows)
        for dataset, rows in ablations.read(results.folder / "ablations").items()
    ]
    return _github(tables[0][0], [row for _, rows in tables for row in rows])


def filled_rows(results: Results) -> str:
    """Masked texts filled in several ways, and random rows filled in the same."""
    tables = [filled.table(stored) for stored in filled.read(results.folder / "filled")]
    return _github(tables[0][0], [row for _, rows in tables for row in rows])


def two_stages(results: Results) -> str:
    """Two-stage and joint training: the arms, then where each series converged."""
    found = two_stage_report.read(results.folder / "two-stage")
    return "\n\n".join(_github(*of(found)) for of in (two_stage_report.arms, two_stage_report.when))


def content_explains(place: int) -> Callable[[Results], str]:
    """One of the tables of protocol knock-out, data sets below one another."""

    def made(results: Results) -> str:
        parts = []
        for stored in knock_out.read(results.folder / "knock-out"):
            header, rows = knock_out.table(stored, place)
            if "lead" in header:  # models without a twin have none
                rows = [row for row in rows if row[header.index("lead")] != MISSING]
            if "replaced by" in header:  # of several feature sets, what replaces all at once
                several = {row[0] for row in rows if row[1] == "all"}
                rows = [row for row in rows if row[0] not in several or row[1] == "all"]
            parts += [f"**{stored['dataset']}**", _github(header, rows)]
        return "\n\n".join(parts)

    return made


def rekeyed_scores(results: Results) -> str:
    """What models score on released and on re-keyed splits."""
    stored = rekeyed.read(results.folder / "rekeyed")
    found = {name: rekeyed.table(rows) for name, rows in stored.items()}
    header = next(iter(found.values()))[0]
    rows = [
        [shown_name(name), *row]
        for name, (_, rows) in found.items()
        for row in rows
        if row[header.index("metric")] == PRIMARY_METRIC
    ]
    return _github(["split", *header], rows)


FORMS = {"all": "CCA, UIA, REG", "no-reg": "without REG", "none": "none"}
_VIEWS = ("id", "mm", "sum")
GEOMETRY = {
    tuple(f"{view} alignment" for view in _VIEWS): "alignment",
    tuple(f"{view} uniformity items" for view in _VIEWS): "uniformity of items",
    tuple(f"{view} rank items" for view in _VIEWS): "effective rank of items",
    tuple(f"{view} neighbours@20" for view in _VIEWS): "neighbours@20 of the features",
    ("id | sum neighbours@20", "mm | sum neighbours@20"): "h's neighbours@20 of h_id / h_mm",
}
TABLES: dict[str, Callable[[Results], str]] = {
    "results": best_on_sports,
    "leaderboards": leaderboards,
    "reproduction": reproduction,
    "equal-budgets": models_with_equal_budgets,
    "searches": searches,
    "before-training-lfm2k": before_training("lfm2k"),
    "before-training-ml-100k": before_training("ml-100k"),
    "before-training-sports": before_training("sports"),
    "features-of-alignrec": features_of_alignrec,
    "alignment-grid": alignment_grid,
    "official": official,
    "trained": trained,
    "same-start": same_start,
    "pretraining": pretraining("history"),
    "pretraining-teacher": pretraining("teacher_history"),
    "ablations": parts_of_alignrec,
    "filled": filled_rows,
    "two-stage": two_stages,
    "knock-out": content_explains(0),
    "knock-out-variants": content_explains(1),
    "knock-out-interventions": content_explains(2),
    "rekeyed": rekeyed_scores,
    "geometry": geometry,
    "speed": speed_table,
    "speed-short": speed_short,
}
