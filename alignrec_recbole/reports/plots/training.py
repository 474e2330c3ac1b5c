"""Curves of training: validation metric and loss by epoch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from alignrec_recbole.reports.colours import GREY, Colours
from alignrec_recbole.reports.grouping import SeedGroup, primary_metric
from alignrec_recbole.reports.plots.style import (
    MAX_LINES,
    PAGE,
    Drawing,
    at_most,
    epoch_axis,
    is_grey,
    legend,
    log_axis,
    metric_label,
    needs,
    panels,
    short_names,
    styled,
)

ALL_COLOURED = 1  # of so few groups none is grey
COLUMNS = ("valid", "loss")


@styled
def training_curves(
    members: Sequence[SeedGroup], colours: Colours | None = None, width: float = PAGE
) -> Drawing:
    """The mean over seeds with a band from the lowest to the highest seed; dots: epochs ranked.

    The target and the best four others have colours, the rest are grey. A mean ends with the first
    seed that ends.
    """
    trained = [g for g in members if any(record.history for record in g.records)]
    needs(trained, "no model that trains", "records with a history")
    at_most(len(trained), MAX_LINES, "groups")
    colours = Colours() if colours is None else colours
    figure, axes = panels(2, width, 2.1, 3.0)
    names = short_names(trained)
    shown: dict[str, Any] = {}
    rows: list[pd.DataFrame] = []
    alone = len(trained) == ALL_COLOURED
    grey = 0
    grey_first = sorted(trained, key=lambda group: not is_grey(colours.of_row(group)))
    for group in grey_first:
        colour = "#0072B2" if alone else colours.of_row(group)
        table = _curves(group)
        table.insert(0, "row", group.name)
        rows.append(table)
        front = {"zorder": 2 if colour == GREY else 3}
        for axis, column in zip(axes, COLUMNS, strict=True):
            line = table.dropna(subset=[column])
            (handle,) = axis.plot(
                line["epoch"],
                line[column],
                color=colour,
                linewidth=0.7 if colour == GREY else 1.3,
                alpha=0.7 if colour == GREY else 1.0,
                **front,
            )
            if len(group.runs) > 1 and colour != GREY:
                band = (line[f"{column} lowest"], line[f"{column} highest"])
                axis.fill_between(
                    line["epoch"], *band, color=colour, alpha=0.18, linewidth=0, **front
                )
        best = table[table["ranked"]].dropna(subset=["valid"])
        axes[0].plot(best["epoch"], best["valid"], "o", color=colour, markersize=3, **front)
        if colour == GREY:
            grey += 1
            shown[""] = handle
        else:
            shown[names[group.name]] = handle
    rest = shown.pop("", None)
    best_first = sorted(trained, key=lambda group: -(group.mean(primary_metric(trained)) or 0.0))
    shown = {
        names[group.name]: shown[names[group.name]]
        for group in best_first
        if names[group.name] in shown
    }
    if rest is not None:
        shown[f"{grey} others" if shown else f"{grey} models"] = rest
    metric = str(trained[0].first.selection["metric"])
    last = int(max(table["epoch"].max() for table in rows))
    labels = (metric_label(metric, "validation"), "training loss")
    for axis, label in zip(axes, labels, strict=True):
        epoch_axis(axis, last)
        axis.set_ylabel(label)
    if all(np.nanmin(line.get_ydata(), initial=1) > 0 for line in axes[1].lines):
        log_axis(axes[1], "y")
    if not alone:
        legend(figure, shown)
    return Drawing(figure, pd.concat(rows, ignore_index=True))


def _curves(group: SeedGroup) -> pd.DataFrame:
    """Epoch, mean, lowest and highest of each column, and whether a seed was ranked with it."""
    tables = [pd.DataFrame(record.history) for record in group.records if record.history]
    last = min(table["epoch"].max() for table in tables)
    both = pd.concat(tables)
    both = both[both["epoch"] <= last]
    out = pd.DataFrame({"epoch": sorted(both["epoch"].unique())})
    for column in COLUMNS:
        if column not in both:
            both[column] = np.nan
        by_epoch = both.groupby("epoch")[column]
        out[column] = by_epoch.mean().to_numpy()
        out[f"{column} lowest"] = by_epoch.min().to_numpy()
        out[f"{column} highest"] = by_epoch.max().to_numpy()
    best = {record.selection.get("best_epoch") for record in group.records}
    out["ranked"] = out["epoch"].isin(best)
    out["epoch"] += 1
    return out
