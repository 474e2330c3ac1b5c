"""A metric by group of users and of items."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from alignrec_recbole.features.derived_names import is_control
from alignrec_recbole.protocols import RANKER_NAMES
from alignrec_recbole.reports.colours import GREY, Colours
from alignrec_recbole.reports.escaping import as_label
from alignrec_recbole.reports.grouping import PRIMARY_METRIC, SeedGroup, row_name
from alignrec_recbole.reports.plots import intervals
from alignrec_recbole.reports.plots.style import (
    MAX_LINES,
    MAX_PANELS,
    PAGE,
    Drawing,
    at_most,
    legend,
    marker,
    metric_label,
    needs,
    panels,
    styled,
)
from alignrec_recbole.reports.protocol_tables import tail_values

KINDS = {
    "history": "training items of the user",
    "popularity": "training users of the item",
}
COUNTS = {"history": "users", "popularity": "items"}
MOST_NAMED = 6  # grey rows with a name each


@styled
def long_tail_dots(
    members: Sequence[SeedGroup],
    metric: str = PRIMARY_METRIC,
    colours: Colours | None = None,
    width: float = PAGE,
) -> Drawing:
    """Dots with 95 % intervals over seeds, and the number of users or items of each group.

    Trained models and each ranker without training have panels of their own.
    """
    colours = Colours() if colours is None else colours
    columns = ["label", "features", "group", "seed", "value"]
    parts: list[tuple[str, str, pd.DataFrame]] = []
    free = sorted({g.first.model for g in members if g.first.model in RANKER_NAMES})
    by_ranker = [("trained", [g for g in members if g.first.model not in RANKER_NAMES])]
    by_ranker += [(name, [g for g in members if g.first.model == name]) for name in free]
    for name, groups in by_ranker:
        for kind in KINDS:
            table = pd.DataFrame(tail_values(groups, kind, metric), columns=columns)
            table = table[table.groupby("group")["value"].transform("count") > 0]
            if not table.empty:
                parts.append((name, kind, table))
    needs(parts, "no groups of users or items", "records of protocol long-tail")
    at_most(len(members), MAX_LINES, "groups")
    at_most(len(parts), MAX_PANELS, "panels")
    sizes = _sizes(members)
    figure, axes = panels(len(parts), width, 2.0, 3.0)
    handles: dict[str, Any] = {}
    rows: list[dict[str, Any]] = []
    for axis, (name, kind, table) in zip(axes, parts, strict=True):
        rows += _panel(axis, name, kind, table, colours, handles)
        shown = list(dict.fromkeys(table["group"]))
        axis.set_xticks(range(len(shown)), [_group_label(each, kind, sizes) for each in shown])
        axis.set_xlim(-0.6, len(shown) - 0.4)
        highest = axis.dataLim.y1
        axis.set_ylim(-0.03 * highest, 1.08 * highest)
        axis.grid(axis="x", visible=False)
        axis.set_xlabel(KINDS[kind])
        axis.set_ylabel(metric_label(metric))
        axis.set_title("trained models" if name == "trained" else as_label(name))
    last = sorted(handles, key=lambda name: name.endswith((" others", " controls")))
    legend(figure, {name: handles[name] for name in last})
    data = pd.DataFrame(rows)
    data["n"] = [sizes.get((row["kind"], row["group"])) for row in rows]
    return Drawing(figure, data.rename(columns={"value": metric}))


def _sizes(members: Sequence[SeedGroup]) -> dict[tuple[str, str], int]:
    """(kind, group) → number of users or items in it."""
    return {
        (kind, name): int(values[count])
        for kind, count in COUNTS.items()
        for group in members
        for name, values in (group.first.groups or {}).get(kind, {}).items()
        if count in values
    }


def _group_label(group: str, kind: str, sizes: Mapping[tuple[str, str], int]) -> str:
    shown = as_label(group).replace("<=", "≤ ").replace(">=", "≥ ")
    size = sizes.get((kind, group))
    return shown if size is None else f"{shown}\nn={_thousands(size)}"


def _thousands(size: int) -> str:
    """A count in at most four letters.

    >>> _thousands(950), _thousands(2_060), _thousands(118_357)
    ('950', '2.1k', '118k')
    """
    return str(size) if size < 1000 else f"{size / 1000:.{2 if size < 100_000 else 3}g}k"


def _panel(
    axis: Any,
    ranker: str,
    kind: str,
    table: pd.DataFrame,
    colours: Colours,
    handles: dict[str, Any],
) -> list[dict[str, Any]]:
    trained = ranker == "trained"
    names = list(dict.fromkeys(table["group"]))
    lines = list(table.groupby(["label", "features"], sort=True))
    hues = {
        key: (
            colours.of_model(str(key[0]).partition(" (")[0], str(key[1]))
            if trained
            else colours.of_features(str(key[1]))
        )
        for key, _ in lines
    }
    used = [*zip(table["label"], table["features"], strict=True), *colours.models]
    sets = Counter(label for label, _ in dict.fromkeys(used))  # here or in other figures
    grey = [key for key, hue in hues.items() if hue == GREY]
    step = 0.7 / max(1, len(lines))
    rows = []
    for place, (key, line) in enumerate(lines):
        label, features = map(str, key)
        hue = hues[key]
        means, several = [], []
        for group in names:
            values = line.loc[line["group"] == group, "value"].dropna().tolist()
            mean = float(np.mean(values)) if values else np.nan
            ends = intervals.over(values)
            means.append(mean)
            several.append(ends)
            rows.append(
                {
                    "ranker": ranker,
                    "kind": kind,
                    "group": group,
                    "model": label,
                    "features": features,
                    "value": mean,
                    "seeds": len(values),
                    "low": ends.low,
                    "high": ends.high,
                }
            )
        shape = marker(grey.index(key) if hue == GREY and len(grey) <= MOST_NAMED else 0)
        handle = axis.errorbar(
            np.arange(len(names)) + step * (place - (len(lines) - 1) / 2),
            means,
            yerr=intervals.arms(means, several),
            fmt=shape,
            color=hue,
            markersize=3.5,
            elinewidth=0.7,
            markerfacecolor="white" if not trained and is_control(features) else hue,
            zorder=2 if hue == GREY else 3,
        )
        name = row_name(label, features) if sets[label] > 1 else label
        if not trained:
            name = features
        if hue == GREY and len(grey) > MOST_NAMED:
            name = f"{len(grey)} others" if trained else f"{len(grey)} controls"
        handles.setdefault(as_label(name), handle)
    return rows
