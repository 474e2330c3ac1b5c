"""Quality against time and memory, machine by machine."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator

from alignrec_recbole.reports.colours import Colours
from alignrec_recbole.reports.escaping import as_label
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
    legend,
    log_axis,
    metric_label,
    needs,
    panels,
    short_names,
    styled,
)
from alignrec_recbole.runs.record import RunRecord

COSTS = {"seconds": "time of a run (s)", "memory": "peak memory of a run (GiB)"}


@styled
def quality_against_cost(
    members: Sequence[SeedGroup],
    metric: str = PRIMARY_METRIC,
    colours: Colours | None = None,
    width: float = PAGE,
) -> Drawing:
    """A metric against seconds and memory of a run, a pair of panels per machine.

    Seconds of different machines are not comparable, so no panel has two of them; a machine with
    one row has no panel if others have more. A line joins the Pareto front: what no cheaper run
    equals. Variants of a row are small dots, named on the front. Error bars: 95 % intervals over
    seeds.
    """
    members = [group for group in members if group.mean(metric) is not None]
    needs(members, "no ranked run", "records of protocol full")
    at_most(len(members), MAX_LINES, "groups")
    colours = Colours() if colours is None else colours
    data = _points(members, metric)
    count = data["machine"].value_counts()  # the machine with most rows first
    machines = [m for m in count.index if count[m] > 1 or count.max() == 1]
    data = data[data["machine"].isin(machines)].reset_index(drop=True)
    figure, axes = panels(2 * len(machines), width, 2.8, 2.9)
    names = short_names(members)
    named = {group.name for group in leading(members)}
    names |= {g.name: f"{g.first.model} variant" for g in members if g.name not in named}
    rows = {group.name: group for group in members}
    to_label = []
    for place, machine in enumerate(machines):
        here = data[data["machine"] == machine]
        for axis, (cost, label) in zip(axes[2 * place :], COSTS.items(), strict=False):
            to_label.append((axis, *_panel(axis, here, cost, rows, colours, named)))
            log_axis(axis, "x")
            axis.set_xlabel(label)
            axis.set_ylabel(metric_label(metric))
            axis.set_title(fold(machine, 44))
            axis.margins(0.12, 0.18)  # names go above the best
            axis.yaxis.set_major_locator(MaxNLocator(6))
    handles = axes[0].lines[-1:]
    legend(figure, {"Pareto front: no cheaper run is as good": handles[0]} if handles else {})
    freeze(figure)
    for axis, points, bars in to_label:
        folded = [(x, y, fold(names[name], 20), colour) for x, y, name, colour in points]
        label_points(axis, folded, [_corners(axis.lines[-1]), *bars])
    return Drawing(figure, data)


def _points(members: Sequence[SeedGroup], metric: str) -> pd.DataFrame:
    """A row per group and machine, with the median cost of the seeds that ran there."""
    out = []
    for group in members:
        by_machine: dict[str, list[RunRecord]] = defaultdict(list)
        for record in group.records:
            by_machine[machine_of(record)].append(record)
        values = group.values(metric).values()
        ends = intervals.over(values)
        for machine, records in by_machine.items():
            out.append(
                {
                    "row": group.name,
                    "machine": machine,
                    metric: group.mean(metric),
                    "low": ends.low,
                    "high": ends.high,
                    "seeds": len(values),
                    "seconds": float(np.median([r.seconds["total"] for r in records])),
                    "memory": float(
                        np.median([(r.peak_gpu_bytes or r.peak_rss_bytes) / 2**30 for r in records])
                    ),
                }
            )
    data = pd.DataFrame(out)
    for cost in COSTS:
        data[f"front of {cost}"] = False
        for _, here in data.groupby("machine"):
            front = pareto(here[cost].tolist(), here[metric].tolist())
            data.loc[here.index[front], f"front of {cost}"] = True
    return data


def machine_of(record: RunRecord) -> str:
    """The device that a run used: a GPU, or a CPU and its threads."""
    machine = record.machine
    device = str(machine.get("device", "cpu"))
    if device != "cpu":
        return as_label(device)
    threads = machine.get("threads")
    counted = "" if threads is None else f", {threads} thread{'s' * (threads != 1)}"
    return as_label(f"{machine.get('cpu', 'CPU')}{counted}")


def _panel(
    axis: Any,
    here: pd.DataFrame,
    cost: str,
    rows: dict[str, SeedGroup],
    colours: Colours,
    named: set[str],
) -> tuple[list[tuple[float, float, str, str]], list[list[tuple[float, float]]]]:
    """Draw the points and the front.

    Returns what is to be labelled, the most important first, and the ends of what names avoid:
    error bars and small points.
    """
    metric = here.columns[2]
    points, bars = [], []
    alike: dict[tuple[bool, bool, str], list[dict[str, Any]]] = defaultdict(list)
    for entry in here.to_dict("records"):
        group = rows[entry["row"]]
        colour = colours.of_row(group)
        small = group.name not in named and is_grey(colour)
        alike[not is_grey(colour), not small, colour].append(entry)
        if not small and np.isfinite(entry["low"]):
            bars.append([(entry[cost], entry[end]) for end in ("low", "high")])
        if small:
            bars.append([(entry[cost], entry[metric])] * 2)
        if not small or entry[f"front of {cost}"]:
            text = INK if is_grey(colour) else colour
            points.append((entry[f"front of {cost}"], entry, text))
    for (_, large, colour), entries in sorted(alike.items()):  # colours above grey
        ends = [intervals.Ends(each["low"], each["high"]) for each in entries]
        axis.errorbar(
            [each[cost] for each in entries],
            [each[metric] for each in entries],
            yerr=intervals.arms([each[metric] for each in entries], ends) if large else None,
            fmt="o",
            markersize=4.5 if large else 2.5,
            color=colour,
            elinewidth=0.7,
        )
    points.sort(key=lambda each: (each[2] == INK, not each[0], -each[1][metric]))
    front = here[here[f"front of {cost}"]].sort_values(cost)
    axis.step(
        front[cost], front[metric], where="post", color=INK, linewidth=0.8, linestyle=":", zorder=0
    )
    return [(each[cost], each[metric], each["row"], colour) for _, each, colour in points], bars


def _corners(step: Any) -> list[tuple[float, float]]:
    """The corners of a line that is drawn in steps."""
    xs, ys = step.get_xdata(), step.get_ydata()
    corners = [(xs[0], ys[0])] if len(xs) else []
    for before, x, y in zip(ys[:-1], xs[1:], ys[1:], strict=True):
        corners += [(x, before), (x, y)]
    return corners


def pareto(cost: Sequence[float], quality: Sequence[float]) -> list[int]:
    """Places of the points that no cheaper point equals in quality, by cost.

    >>> pareto([1.0, 2.0, 3.0], [0.1, 0.05, 0.2])
    [0, 2]
    """
    front: list[int] = []
    for place in sorted(range(len(cost)), key=lambda i: (cost[i], -quality[i])):
        if not front or quality[place] > quality[front[-1]]:
            front.append(place)
    return front
