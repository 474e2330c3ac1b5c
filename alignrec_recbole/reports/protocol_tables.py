"""Tables of the protocols that have more to tell than one ranking: mask-modality, long-tail,
diagnostics."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pandas as pd

from alignrec_recbole.errors import RecordError
from alignrec_recbole.protocols.robustness import curve_points, robustness
from alignrec_recbole.reports.grouping import Block, Group
from alignrec_recbole.reports.reference_results import PRIMARY_METRIC
from alignrec_recbole.reports.tables import Cell, Table, block_title, number, ranks, text

LONG_TAIL_TABLES = {  # (kind of group, metric) → title
    ("history", PRIMARY_METRIC): f"{PRIMARY_METRIC} of users by their training items",
    ("popularity", PRIMARY_METRIC): f"{PRIMARY_METRIC} of targets by their training interactions",
    ("popularity", "exposure@20"): "share of top-20 places by training interactions",
}
CURVE = ["ranker", "features", "masked", "fill"]
OF_A_CURVE = ("feature_mask.", "protocol.fill=", "protocol.second_files")  # told in its columns


def mask_points(members: Sequence[Group], metric: str = PRIMARY_METRIC) -> pd.DataFrame:
    """Points of every curve: ranker, features, masked modality, fill, ratio, value.

    Other settings than the usual ones make a curve of their own: a model's stand behind its name,
    a protocol's behind the fill.
    """
    rows = []
    for group, record in ((own, record) for own in members for record in own.records):
        rest = ", ".join(entry for entry in group.odd if not entry.startswith(OF_A_CURVE))
        ranker = record.model
        if record.curve is None:  # a trained model: one record a ratio and seed
            mask = record.config["feature_mask"]
            points = [(mask["modality"], mask["ratio"], record.metrics[metric])]
            fill = mask["fill"]
            ranker += f" ({rest})" if rest else ""
        else:
            frozen = record.config["protocol"]  # a fused set is encoded again, nothing is filled
            fill = "re-encoded" if frozen.get("second_files") else frozen["fill"]
            fill += f", {rest}" if rest else ""
            points = [
                (modality, *point)
                for modality in dict.fromkeys(entry["modality"] for entry in record.curve)
                for point in curve_points(record.curve, modality, metric)
            ]
        for modality, ratio, value in points:
            rows.append((ranker, record.features, modality, fill, ratio, value))
    return pd.DataFrame(rows, columns=[*CURVE, "ratio", "value"])


def tail_values(members: Sequence[Group], kind: str, metric: str) -> pd.DataFrame:
    """A metric by group of users or items: label, features, group, seed, value, in group order."""
    rows = [
        (group.label, record.features, name, record.seed, values.get(metric))
        for group in members
        for record in group.records
        for name, values in (record.groups or {}).get(kind, {}).items()
    ]
    return pd.DataFrame(rows, columns=["label", "features", "group", "seed", "value"])


def masked(block: Block, members: Sequence[Group]) -> list[Table]:
    """Recall@20 by mask ratio, and the area under the retention."""
    points = mask_points(members)
    ratios = sorted(points["ratio"].unique())
    rows = []
    for key, curve in points.groupby(CURVE, sort=True):
        cells = [number(curve.loc[curve["ratio"] == ratio, "value"]) for ratio in ratios]
        rows.append([*map(text, key), *cells, _area(curve)])
    return [
        Table(
            block_title(block),
            [*CURVE, *(f"{ratio:g}" for ratio in ratios), "area"],
            rows,
            f"{PRIMARY_METRIC} by the share of items whose modality is masked, mean ± sd over mask "
            "seeds. Area: of the value relative to that at 0, over the ratios.",
        )
    ]


def _area(curve: pd.DataFrame) -> Cell:
    try:
        area = robustness(list(zip(curve["ratio"], curve["value"], strict=True))).area
    except RecordError:  # not all ratios are there yet, or nothing to lose
        return text("")
    return Cell(f"{area:.3f}", area)


def tails(block: Block, members: Sequence[Group]) -> list[Table]:
    """Who gains: users by history, items by popularity, exposure."""
    out = []
    for (kind, metric), title in LONG_TAIL_TABLES.items():
        values = tail_values(members, kind, metric)
        if values.empty:
            continue
        names = list(dict.fromkeys(values["group"]))
        lines = values.groupby(["label", "features"], sort=True)
        means = {
            name: [line.loc[line["group"] == name, "value"].dropna().mean() for _, line in lines]
            for name in names
        }
        best = {
            name: ranks([None if pd.isna(v) else v for v in column])
            if metric == PRIMARY_METRIC
            else [0] * len(column)
            for name, column in means.items()
        }
        rows = [
            [
                *map(text, key),
                *(
                    number(line.loc[line["group"] == name, "value"].dropna(), best[name][place])
                    for name in names
                ),
            ]
            for place, (key, line) in enumerate(lines)
        ]
        header = ["model", "features", *names]
        out.append(Table(f"{block_title(block)}: {title}", header, rows, "Mean ± sd over seeds."))
    return out


def diagnosed(block: Block, members: Sequence[Group]) -> list[Table]:
    """One row a feature set or pair of sets."""
    rows: dict[str, dict[str, float]] = {}
    for record in (record for group in members for record in group.records):
        rows[record.features] = record.metrics
        for values in (record.groups or {}).values():
            for name, figures in values.items():
                rows.setdefault(name, figures)
    columns = list(dict.fromkeys(name for values in rows.values() for name in values))
    return [
        Table(
            block_title(block),
            ["features", *columns],
            [
                [text(name), *(_figure(values.get(column)) for column in columns)]
                for name, values in sorted(rows.items())
            ],
            "What can be seen in the features without ranking; no figure is better by itself.",
        )
    ]


def _figure(value: float | None) -> Cell:
    return text("") if value is None else Cell(f"{value:.4g}", value)


TABLES: dict[str, Callable[[Block, Sequence[Group]], list[Table]]] = {
    "mask-modality": masked,
    "long-tail": tails,
    "diagnostics": diagnosed,
}
