"""The metric against what recommended lists are like."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator

from alignrec_recbole.reports.colours import Colours
from alignrec_recbole.reports.grouping import PRIMARY_METRIC, SeedGroup
from alignrec_recbole.reports.plots import intervals
from alignrec_recbole.reports.plots.labels import label_points
from alignrec_recbole.reports.plots.style import (
    INK,
    MAX_LINES,
    PAGE,
    Drawing,
    at_most,
    fold,
    freeze,
    is_grey,
    leading,
    metric_label,
    needs,
    panels,
    short_names,
    styled,
)

AXES = {
    "coverage@20": "coverage@20: share of items in any list",
    "Gini@20": "Gini@20: 0 if items are listed evenly",
    "lift@20": "lift@20: popularity above the users' own",
    "ILD@20": "ILD@20: distance within lists",
}


class _Dot(NamedTuple):
    """A point and its intervals."""

    across: float
    up: float
    sideways: intervals.Ends
    upwards: intervals.Ends


@styled
def beyond_accuracy_panels(
    members: Sequence[SeedGroup],
    metric: str = PRIMARY_METRIC,
    colours: Colours | None = None,
    width: float = PAGE,
) -> Drawing:
    """A dot per row with 95 % intervals over seeds, a panel per property; variants are small."""
    shown = {name: label for name, label in AXES.items() if any(g.values(name) for g in members)}
    groups = [group for group in members if group.values(metric)]
    needs(groups if shown else [], "no described lists", "records of protocol beyond-accuracy")
    at_most(len(groups), MAX_LINES, "groups")
    colours = Colours() if colours is None else colours
    names = short_names(groups)
    named = {group.name for group in leading(groups)}
    figure, axes = panels(len(shown), width, 2.4, 3.0)
    rows, to_label = [], []
    for axis, (name, label) in zip(axes, shown.items(), strict=True):
        points, bars = [], []
        alike: dict[tuple[bool, bool, str], list[_Dot]] = defaultdict(list)
        for group in groups:
            across, up = group.mean(name), group.mean(metric)
            if across is None or up is None:
                continue
            ends = intervals.over(group.values(metric).values())
            sideways = intervals.over(group.values(name).values())
            colour = colours.of_row(group)
            large = group.name in named
            alike[not is_grey(colour), large, colour].append(_Dot(across, up, sideways, ends))
            bars += [[(across, end) for end in ends]] if np.isfinite(ends.low) else []
            bars += [[(end, up) for end in sideways]] if np.isfinite(sideways.low) else []
            bars += [] if large else [[(across, up)] * 2]
            if large or not is_grey(colour):
                text = INK if is_grey(colour) else colour
                points.append((across, up, fold(names[group.name], 20), text))
            rows.append(
                {
                    "row": group.name,
                    "property": name,
                    "value": across,
                    "value low": sideways.low,
                    "value high": sideways.high,
                    metric: up,
                    f"{metric} low": ends.low,
                    f"{metric} high": ends.high,
                    "seeds": len(group.values(metric)),
                }
            )
        for (_, large, colour), dots in sorted(alike.items()):  # colours above grey
            axis.errorbar(
                [dot.across for dot in dots],
                [dot.up for dot in dots],
                xerr=intervals.arms([dot.across for dot in dots], [dot.sideways for dot in dots]),
                yerr=intervals.arms([dot.up for dot in dots], [dot.upwards for dot in dots]),
                fmt="o",
                color=colour,
                markersize=4.5 if large else 2.5,
                elinewidth=0.7,
            )
        axis.set_xlabel(label)
        axis.set_ylabel(metric_label(metric))
        axis.margins(0.12, 0.18)  # names go above the best
        axis.xaxis.set_major_locator(MaxNLocator(5))
        points.sort(key=lambda point: (point[3] == INK, -point[1]))
        to_label.append((axis, points, bars))
    freeze(figure)
    for each in to_label:
        label_points(*each)
    return Drawing(figure, pd.DataFrame(rows))
