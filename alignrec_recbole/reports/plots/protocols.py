"""The primary metric of every row, a panel per protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from alignrec_recbole.protocols import PROTOCOLS, RANKER_NAMES
from alignrec_recbole.reports.colours import Colours
from alignrec_recbole.reports.escaping import as_label
from alignrec_recbole.reports.grouping import ComparisonKey, SeedGroup, primary_metric
from alignrec_recbole.reports.plots import intervals
from alignrec_recbole.reports.plots.style import (
    COLUMN,
    INK,
    LETTER,
    MAX_LINES,
    PAGE,
    Drawing,
    at_most,
    fold,
    leading,
    metric_label,
    needs,
    short_names,
    styled,
)
from alignrec_recbole.reports.significance import UserMeans

RANKED = ("full", "zero-shot", "item-cf", "cold-start")
ROW, LINE = 0.145, 0.14  # inches of a line of a row's name, and of a title
AROUND, LEGEND = 0.62, 0.25  # inches of a panel without rows and title, and of the legend
BOLD = 0.077  # inches of an average bold letter
BAR = 0.62


@styled
def protocol_bars(
    found: Mapping[ComparisonKey, Sequence[SeedGroup]],
    colours: Colours | None = None,
    user_means: UserMeans | None = None,
    width: float = PAGE,
) -> Drawing:
    """Bars of one height with 95 % intervals: thin over seeds, thick over users; dotted: chance.

    Of each model and feature set, the rows with the fewest unusual settings are drawn.

    Args:
        user_means: of the values beside the records; without it, intervals are over seeds alone.
    """
    by_protocol = {key.protocol: list(groups) for key, groups in found.items()}
    shown = {name: _shown(by_protocol[name]) for name in RANKED if by_protocol.get(name)}
    needs(shown, "no ranked protocol", "records of " + ", ".join(RANKED))
    at_most(max(map(len, shown.values())), MAX_LINES, "groups")
    colours = Colours() if colours is None else colours
    columns_of_page = 2 if width > COLUMN and len(shown) > 1 else 1
    letters = 24 if width > COLUMN else 22
    lines = {
        name: [fold(text, letters) for text in _names(name, groups)]
        for name, groups in shown.items()
    }
    across = width / columns_of_page
    titles = {
        name: fold(f"{name}: {PROTOCOLS[name].question}", int(across / BOLD) - 2) for name in shown
    }
    inside = {name: ROW * _count(texts) + 0.05 for name, texts in lines.items()}
    whole = {name: inside[name] + LINE * _count([titles[name]]) + AROUND for name in shown}
    columns = _columns(whole, columns_of_page)
    height = max(sum(whole[name] for name in names) for names in columns)
    height += LEGEND * (1 if width > COLUMN else 2)
    figure = Figure(figsize=(width, height))
    handles: dict[str, Any] = {}
    rows = []
    for place, names in enumerate(columns):
        used = max(len(line) for n in names for text in lines[n] for line in text.split("\n"))
        left = place * across + LETTER * used + 0.12
        top = height
        for name in names:
            title_at = top - 0.04
            bottom = top - LINE * _count([titles[name]]) - 0.1 - inside[name]
            size = ((place + 1) * across - 0.22 - left, inside[name])
            box = (left / width, bottom / height, size[0] / width, size[1] / height)
            axis = figure.add_axes(box)
            rows += _panel(axis, name, shown[name], lines[name], colours, user_means, handles)
            figure.text(
                (place * across + 0.04) / width,
                title_at / height,
                titles[name],
                va="top",
                fontweight="bold",
            )
            top -= whole[name]
    columns_of_legend = max(1, len(handles)) if width > COLUMN else 1
    figure.legend(
        list(handles.values()), list(handles), loc="lower center", ncols=columns_of_legend
    )
    return Drawing(figure, pd.DataFrame(rows))


def _count(texts: Sequence[str]) -> int:
    """Lines of all texts together."""
    return sum(text.count("\n") + 1 for text in texts)


def _shown(groups: Sequence[SeedGroup]) -> list[SeedGroup]:
    """Without variants of what is there with fewer settings that differ; best first."""
    metric = primary_metric(list(groups))
    return sorted(leading(groups), key=lambda group: -(group.mean(metric) or 0.0))


def _columns(heights: Mapping[str, float], most: int) -> list[list[str]]:
    """Panels from top to bottom, full first; the columns about equally high."""
    names = list(heights)
    if most == 1:
        return [names]
    cut = min(
        range(1, len(names)),
        key=lambda cut: max(
            sum(heights[name] for name in part) for part in (names[:cut], names[cut:])
        ),
    )
    return [names[:cut], names[cut:]]


def _names(protocol: str, groups: Sequence[SeedGroup]) -> list[str]:
    """What tells a row from the others of its panel."""
    if protocol not in (*RANKER_NAMES, "cold-start"):
        short = short_names(groups)
        return [short[group.name] for group in groups]
    if len({group.first.model for group in groups}) == 1:
        return [as_label(group.first.features) for group in groups]
    return [as_label(group.name) for group in groups]


def _panel(
    axis: Any,
    protocol: str,
    groups: Sequence[SeedGroup],
    names: Sequence[str],
    colours: Colours,
    user_means: UserMeans | None,
    handles: dict[str, Any],
) -> list[dict[str, Any]]:
    metric = primary_metric(list(groups))
    rows = []
    place, ticks = 0.0, []
    for group, name in zip(groups, names, strict=True):
        lines = name.count("\n") + 1
        at = place + (lines - 1) / 2
        place += lines
        ticks.append(at)
        values = list(group.values(metric).values())
        mean = group.mean(metric)
        trained = protocol == "full"
        colour = colours.of_row(group) if trained else colours.of_features(group.first.features)
        seeds, users = intervals.over(values), intervals.NONE
        count = None
        if user_means is not None and (of_users := user_means.of(group, metric)):
            users, count = intervals.over(of_users.values()), len(of_users)
        if mean is not None:
            axis.barh(at, mean, BAR, color=colour, alpha=0.85, linewidth=0)
            if not np.isnan(users.low):
                handles["95 % interval over users"] = axis.hlines(
                    at, *users, color=INK, linewidth=2.4, alpha=0.35
                )
            if not np.isnan(seeds.low):
                handles["95 % interval over seeds"] = axis.errorbar(
                    mean, at, xerr=intervals.arms([mean], [seeds]), color=INK, elinewidth=0.8
                )
        chance = (group.first.chance or {}).get(metric)
        rows.append(
            {
                "protocol": protocol,
                "row": group.name,
                metric: mean,
                "seeds": len(values),
                "low over seeds": seeds.low,
                "high over seeds": seeds.high,
                "users": count,
                "low over users": users.low,
                "high over users": users.high,
                "chance": chance,
            }
        )
    chances = [row["chance"] for row in rows if row["chance"] is not None]
    if chances:
        handles["chance"] = axis.axvline(chances[0], color=INK, linestyle=":", linewidth=1)
    axis.set_yticks(ticks, names)
    axis.set_ylim(place - 0.4, -0.6)
    axis.set_xlim(left=0)
    axis.grid(axis="y", visible=False)
    axis.tick_params(axis="y", length=0)
    axis.xaxis.set_major_locator(MaxNLocator(4))
    axis.set_xlabel(metric_label(metric))
    return rows
