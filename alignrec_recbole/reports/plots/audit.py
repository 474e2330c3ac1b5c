"""What the checks of an audit found, beside what they find where nothing can be known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from alignrec_recbole.audit.report import AuditReport, Check
from alignrec_recbole.data.cards import Verdict
from alignrec_recbole.reports.colours import GREY
from alignrec_recbole.reports.escaping import as_label
from alignrec_recbole.reports.plots.style import (
    INK,
    MAX_LINES,
    PAGE,
    Drawing,
    at_most,
    fold,
    legend,
    metric_label,
    needs,
    styled,
)

# Colour and marker of a verdict: no model or feature set has these colours.
LOOKS: dict[Verdict, tuple[str, str]] = {
    "clean": (INK, "o"),
    "suspicious": ("#b06000", "^"),
    "leak": ("#b00020", "s"),
}
ROW, AXIS_ROWS = 0.19, 3  # inches of a row; rows that an axis takes
NARROWEST = 2.9  # inches of a panel with the names of its checks
SHARE = "share"  # metrics of this kind have one panel


@styled
def audit_dots(reports: Sequence[AuditReport], width: float = PAGE) -> Drawing:
    """A row per check with its figure, the control's mean and range, and chance.

    Panels are metrics; those of shares have one. Checks without a control and chance compare
    nothing and are in the report alone. Of checks that several reports of a data set have, the
    first is drawn.
    """
    checks: dict[tuple[str, str], Check] = {}
    for report in reports:
        for check in report.checks:
            if check.value is not None and (check.control, check.chance) != (None, None):
                checks.setdefault((check.name, check.subject), check)
    needs(checks, "no check with a control", "audits of the data set")
    at_most(len(checks), MAX_LINES, "checks")
    by_metric: dict[str, list[Check]] = {}
    for check in checks.values():
        kind = SHARE if check.metric.startswith(SHARE) else check.metric
        by_metric.setdefault(kind, []).append(check)
    figure, axes = _stacked({metric: len(members) for metric, members in by_metric.items()}, width)
    handles: dict[str, Any] = {}
    data = []
    for metric, members in by_metric.items():
        axis = axes[metric]
        for place, check in enumerate(members):
            _draw(axis, place, check, handles)
            low, high = check.control_range or (None, None)
            data.append(
                {
                    "check": check.name,
                    "about": check.subject or None,
                    "metric": check.metric,
                    "value": check.value,
                    "control": check.control,
                    "control low": low,
                    "control high": high,
                    "chance": check.chance,
                    "verdict": check.verdict,
                }
            )
        axis.set_yticks(range(len(members)), list(map(_name, members)))
        axis.set_ylim(len(members) - 0.5, -0.5)
        axis.grid(axis="y", visible=False)
        name = metric if "@" not in metric else metric_label(metric)
        axis.set_xlabel("share" if metric == SHARE else name)
        axis.margins(x=0.08)
        axis.xaxis.set_major_locator(MaxNLocator(4))
    legend(figure, {name: handles[name] for name in sorted(handles, key=_place)})
    return Drawing(figure, pd.DataFrame(data))


def _draw(axis: Any, place: int, check: Check, handles: dict[str, Any]) -> None:
    if check.control_range is not None:
        axis.plot(check.control_range, [place, place], color=GREY, linewidth=2.5, alpha=0.5)
    if check.control is not None:
        (handle,) = axis.plot(
            check.control, place, "o", color=GREY, markerfacecolor="white", markersize=6.5
        )
        handles.setdefault("control, with its range", handle)
    if check.chance is not None:
        (handle,) = axis.plot(check.chance, place, "|", color=INK, markersize=8, linestyle="none")
        handles.setdefault("chance", handle)
    colour, shape = LOOKS[check.verdict]
    (handle,) = axis.plot(check.value, place, shape, color=colour, markersize=4, zorder=3)
    handles.setdefault(check.verdict, handle)


def _name(check: Check) -> str:
    return check.name + (f" ({fold(as_label(check.subject), 30)})" if check.subject else "")


def _stacked(rows: dict[str, int], width: float) -> tuple[Figure, dict[str, Any]]:
    """A panel per metric, as high as its rows need; on a page, shares are beside the others."""
    others = [metric for metric in rows if metric != SHARE]
    beside = SHARE in rows and others and width >= 2 * NARROWEST
    columns = [others, [SHARE]] if beside else [[*others, *([SHARE] if SHARE in rows else [])]]
    heights = [sum(rows[metric] + AXIS_ROWS for metric in column) for column in columns]
    figure = Figure(figsize=(width, ROW * max(heights)), layout="constrained")
    grid = figure.add_gridspec(1, len(columns))
    axes: dict[str, Any] = {}
    for place, column in enumerate(columns):
        shares = [rows[metric] + AXIS_ROWS / 2 for metric in column]
        if rest := max(heights) - heights[place]:
            shares.append(rest)
        inner = grid[place].subgridspec(len(shares), 1, height_ratios=shares)
        axes |= {metric: figure.add_subplot(inner[i]) for i, metric in enumerate(column)}
    return figure, axes


def _place(name: str) -> int:
    order = [*LOOKS, "control, with its range", "chance"]
    return order.index(name)
