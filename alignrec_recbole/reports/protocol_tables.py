"""Tables of the protocols with more than one ranking: mask-modality, long-tail, diagnostics."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

from alignrec_recbole.errors import RecordError
from alignrec_recbole.protocols.robustness import area_under_retention, curve_points
from alignrec_recbole.reports.grouping import (
    PRIMARY_METRIC,
    ComparisonKey,
    SeedGroup,
    primary_metric,
)
from alignrec_recbole.reports.notes import candidates_note, seeds_note, table_title
from alignrec_recbole.reports.table import BEST, Cell, Table, column_ranks, mean_sd_cell, text_cell

EXPOSURE = "exposure@20"
OF_A_CURVE = ("feature_mask.", "protocol.fill=", "protocol.second_files")  # shown as columns


class MaskPoint(NamedTuple):
    """One value of a robustness curve; the first four fields identify the curve."""

    ranker: str
    features: str
    masked: str
    fill: str
    ratio: float
    value: float

    @property
    def curve(self) -> tuple[str, str, str, str]:
        """What tells its curve from the others."""
        return self[:4]


class TailValue(NamedTuple):
    """A metric of one group of users or items in one record."""

    label: str
    features: str
    group: str
    seed: int
    value: float | None


def mask_points(members: Sequence[SeedGroup], metric: str = PRIMARY_METRIC) -> list[MaskPoint]:
    """Points of every curve, of the records that have the metric.

    Settings that differ from the usual ones make another curve: a model's are shown with its name,
    a protocol's with the fill.
    """
    points = []
    for group, record in ((own, record) for own in members for record in own.records):
        differing = group.non_default_settings
        rest = ", ".join(entry for entry in differing if not entry.startswith(OF_A_CURVE))
        ranker = record.model
        if metric not in record.metrics:
            continue
        if record.curve is None:  # a trained model: one record per ratio and seed
            mask = record.config["feature_mask"]
            found = [(mask["modality"], mask["ratio"], record.metrics[metric])]
            fill = mask["fill"]
            ranker += f" ({rest})" if rest else ""
        else:
            frozen = record.config["protocol"]  # fused features are encoded again, not filled
            fill = "re-encoded" if frozen.get("second_files") else frozen["fill"]
            fill += f", {rest}" if rest else ""
            found = [
                (modality, *point)
                for modality in dict.fromkeys(entry["modality"] for entry in record.curve)
                for point in curve_points(record.curve, modality, metric)
            ]
        for modality, ratio, value in found:
            points.append(MaskPoint(ranker, record.features, modality, fill, ratio, value))
    return points


def tail_values(members: Sequence[SeedGroup], kind: str, metric: str) -> list[TailValue]:
    """A metric by group of users or items, in the order of the groups; None for an empty group."""
    return [
        TailValue(group.label, record.features, name, record.seed, values.get(metric))
        for group in members
        for record in group.records
        for name, values in (record.groups or {}).get(kind, {}).items()
    ]


def mask_tables(key: ComparisonKey, members: Sequence[SeedGroup]) -> list[Table]:
    """The primary metric by mask ratio, and the area under the retention."""
    metric = primary_metric(members)
    points = sorted(mask_points(members, metric), key=lambda point: point.curve)
    ratios = sorted({point.ratio for point in points})
    rows = []
    for curve, own in itertools.groupby(points, key=lambda point: point.curve):
        values = [(point.ratio, point.value) for point in own]
        by_ratio: dict[float, list[float]] = {}
        for ratio, value in values:
            by_ratio.setdefault(ratio, []).append(value)
        cells = [mean_sd_cell(by_ratio.get(ratio, [])) for ratio in ratios]
        rows.append([*map(text_cell, curve), *cells, _area(values)])
    return [
        Table(
            table_title(key),
            ["ranker", "features", "masked", "fill", *(f"{r:g}" for r in ratios), "area"],
            rows,
            f"{metric} by the share of items whose modality is masked, mean ± sd over mask "
            "seeds. Area: of the value relative to that at 0, over the ratios. "
            f"{candidates_note(members, metric)}".rstrip(),
        )
    ]


def _area(points: Sequence[tuple[float, float]]) -> Cell:
    try:
        area = area_under_retention(points)
    except RecordError:  # not all ratios have been run, or the value at 0 is 0
        return text_cell("")
    return Cell(f"{area:.3f}", area)


def long_tail_tables(key: ComparisonKey, members: Sequence[SeedGroup]) -> list[Table]:
    """Users by history length, items by popularity, exposure."""
    metric = primary_metric(members)
    titles = {
        ("history", metric): f"{metric} of users by their training items",
        ("popularity", metric): f"{metric} of targets by their training interactions",
        ("popularity", EXPOSURE): "share of top-20 places by training interactions",
    }
    tables = []
    for (kind, shown), title in titles.items():
        values = tail_values(members, kind, shown)
        names = list(dict.fromkeys(entry.group for entry in values))
        lines = sorted({(entry.label, entry.features) for entry in values})
        cells: dict[str, list[Cell]] = {}
        for name in names:
            columns = [
                [v.value for v in values if v[:3] == (*line, name) and v.value is not None]
                for line in lines
            ]
            means = [sum(column) / len(column) if column else None for column in columns]
            places = column_ranks(means) if shown == metric else [0] * len(means)
            cells[name] = [mean_sd_cell(*each) for each in zip(columns, places, strict=True)]
        rows = [
            [*map(text_cell, line), *(cells[name][place] for name in names)]
            for place, line in enumerate(lines)
        ]
        if rows:
            header = ["model", "features", *names]
            note = seeds_note(rows)
            if shown == metric:
                note += f"{BEST} {candidates_note(members, metric)}"
            tables.append(Table(f"{table_title(key)}: {title}", header, rows, note.rstrip()))
    return tables


def diagnostics_table(key: ComparisonKey, members: Sequence[SeedGroup]) -> list[Table]:
    """One row per feature set or pair of sets."""
    rows: dict[str, dict[str, float]] = {}
    for record in (record for group in members for record in group.records):
        rows[record.features] = record.metrics
        for values in (record.groups or {}).values():
            for name, figures in values.items():
                rows.setdefault(name, figures)
    columns = list(dict.fromkeys(name for values in rows.values() for name in values))
    return [
        Table(
            table_title(key),
            ["features", *columns],
            [
                [text_cell(name), *(_figure(values.get(column)) for column in columns)]
                for name, values in sorted(rows.items())
            ],
            "Properties of the features, without any ranking; no figure is better by itself.",
        )
    ]


def _figure(value: float | None) -> Cell:
    return text_cell("") if value is None else Cell(f"{value:.4g}", value)


TABLES: dict[str, Callable[[ComparisonKey, Sequence[SeedGroup]], list[Table]]] = {
    "mask-modality": mask_tables,
    "long-tail": long_tail_tables,
    "diagnostics": diagnostics_table,
}
