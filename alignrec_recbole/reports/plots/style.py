"""The style that all figures share: sizes, text, panels, axes, names."""

from __future__ import annotations

import functools
import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, LogLocator, MaxNLocator, NullLocator
from matplotlib.transforms import Bbox

from alignrec_recbole.errors import RecordError
from alignrec_recbole.reports import escaping
from alignrec_recbole.reports.colours import GREY
from alignrec_recbole.reports.grouping import SeedGroup

COLUMN, PAGE = 3.3, 7.0  # inches: a column of a two-column page, and the whole width
WIDTHS = {"column": COLUMN, "page": PAGE}
TEXT = 8  # points, of all text at the size of print
INK = "#1b1e23"  # the site puts its own text colour in its place
MARKERS = "os^DvPX<>*"
MAX_LINES = 300  # groups in one figure; a page has no more room
MAX_PANELS = 60
LETTER, HANDLE = 0.068, 0.5  # inches of an average letter, and of an entry of a legend beside them
STYLE: dict[Any, Any] = {
    "font.family": ["sans-serif"],  # the same on every machine, whatever its matplotlibrc says
    "font.sans-serif": mpl.rcParamsDefault["font.sans-serif"],
    "figure.dpi": 100,
    "font.size": TEXT,
    "axes.titlesize": TEXT,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.labelsize": TEXT,
    "xtick.labelsize": TEXT,
    "ytick.labelsize": TEXT,
    "legend.fontsize": TEXT,
    "figure.titlesize": TEXT,
    "figure.labelsize": TEXT,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "lines.linewidth": 1.1,
    "lines.markersize": 4,
    "errorbar.capsize": 1.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": INK,
    "grid.alpha": 0.1,
    "grid.linewidth": 0.5,
    "legend.frameon": False,
    "legend.borderpad": 0.2,
    "legend.borderaxespad": 0.3,
    "legend.labelspacing": 0.3,
    "legend.handlelength": 1.4,
    "legend.columnspacing": 1.2,
    "svg.fonttype": "none",
    "text.parse_math": False,  # a name with $ is no formula
    "text.hinting": "none",  # letters of a PNG file are where they are in the others
    "axes.titley": 1.0,  # else each drawing measures all names of ticks once more for it
    "svg.hashsalt": "alignrec",
    "pdf.fonttype": 42,
    **{f"{part}.color": INK for part in ("text", "xtick", "ytick")},
    **{f"axes.{part}": INK for part in ("edgecolor", "labelcolor", "titlecolor")},
}


class EmptyPlotError(RecordError):
    """There is nothing to draw."""


@dataclass(frozen=True)
class Drawing:
    """A figure and the data that it shows, one row per point."""

    figure: Figure
    data: pd.DataFrame


def styled(draw: Callable[..., Drawing]) -> Callable[..., Drawing]:
    """Draw in the common style, and compute the layout once for all formats."""

    @functools.wraps(draw)
    def inner(*arguments: Any, **keywords: Any) -> Drawing:
        with mpl.rc_context(STYLE):
            drawing = draw(*arguments, **keywords)
            freeze(drawing.figure)
            return drawing

    return inner


def freeze(figure: Figure) -> None:
    """Give the axes their final place."""
    engine = figure.get_layout_engine()
    if engine is None:
        return
    FigureCanvasAgg(figure)
    engine.execute(figure)
    if not _as_measured(figure):  # other ticks fit into the sizes that the layout gave
        engine.execute(figure)
    figure.set_layout_engine("none")


def _as_measured(figure: Figure) -> bool:
    """Whether all axes have the names of ticks that they had when the layout measured them."""
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        before = [tick.label1.get_text() for tick in axis.majorTicks]
        now = [label.get_text() for label in axis.get_ticklabels()]
        if before[: len(now)] != now:
            return False
    return True


# What cannot be drawn ----------------------------------------------------------------------------


def needs(found: Any, what: str, expected: str) -> None:
    """Refuse a figure of nothing."""
    if not len(found):
        raise EmptyPlotError(
            f"There is nothing to draw: {what}.", found="no such record", expected=expected
        )


def at_most(count: int, limit: int, what: str) -> None:
    """Refuse a figure that would be too large to be drawn or read."""
    if count > limit:
        raise EmptyPlotError(
            f"There is nothing to draw: more than {limit} {what}.",
            found=str(count),
            expected=f"at most {limit}",
        )


# Panels ------------------------------------------------------------------------------------------


def panels(
    count: int, width: float, height: float, narrowest: float, **options: Any
) -> tuple[Figure, list[Any]]:
    """A figure of so many panels, wrapped so that none is narrower than asked; no cell is empty.

    Args:
        height: of a row of panels, in inches.
        narrowest: inches of a panel.
    """
    most = min(count, max(1, int(width // narrowest)))
    even = next((c for c in range(most, most // 2, -1) if count % c == 0), most)
    columns = even if count <= 2 * most else most
    rows = -(-count // columns)
    figure = Figure(figsize=(width, rows * height), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, **options)
    for axis in grid.flat[count:]:
        axis.remove()
    return figure, list(grid.flat[:count])


def legend(figure: Figure, entries: Mapping[str, Any]) -> None:
    """One legend under the panels, in as many columns as fit; the figure grows by its height."""
    if not entries:
        return
    width = figure.get_figwidth()
    shown = {fold(label, int(width * 13)): handle for label, handle in entries.items()}
    lengths = [max(map(len, label.split("\n"))) for label in shown]
    one_row = LETTER * sum(lengths) + HANDLE * len(shown) <= width
    fitting = int(width / (LETTER * max(lengths) + HANDLE))
    columns = len(shown) if one_row else max(1, min(len(shown), fitting))
    figure.legend(
        list(shown.values()),
        list(shown),
        loc="outside lower center",
        ncols=columns,
    )
    rows = -(-len(shown) // columns) + sum(label.count("\n") for label in shown) // columns
    figure.set_figheight(figure.get_figheight() + 0.15 * rows + 0.08)


def fold(text: str, letters: int) -> str:
    """A label in lines of about so many letters, broken after a comma or a plus."""
    lines = textwrap.wrap(
        text.replace("+", "+\u200b"),
        max(letters, 12),
        break_long_words=False,
        break_on_hyphens=False,
    ) or [""]
    folded: list[str] = []
    for line in lines:
        current = ""
        for part in line.split("\u200b"):
            if current and len(current) + len(part) > letters:
                folded.append(current)
                current = part
            else:
                current += part
        folded.append(current)
    return "\n".join(folded)


# Axes --------------------------------------------------------------------------------------------


def short(value: float) -> str:
    """A number in few letters.

    >>> [short(v) for v in (0.0, 1e-05, 0.0001, 0.01, 20.0, 2000000.0)]
    ['0', '1e-5', '1e-4', '0.01', '20', '2e6']
    """
    plain = f"{value:g}"
    if "e" not in plain and (len(plain) <= 5 or abs(value) >= 1):
        return plain
    digits, _, power = f"{value:e}".partition("e")
    return f"{float(digits):g}e{int(power)}"


def thin_ticks(axis: Any) -> None:
    """Take away names of ticks under an axis that would touch others; the ends stay first.

    The axis must have its final size (`freeze`).
    """
    labels = axis.get_xticklabels()
    first, *others = sorted(labels, key=lambda each: each.get_position()[0])
    kept: list[Bbox] = []
    for label in [first, *others[-1:], *others[:-1]]:
        box = label.get_window_extent().padded(1.5)
        if any(box.overlaps(other) for other in kept):
            label.set_text("")
        else:
            kept.append(box)
    axis.set_xticks(axis.get_xticks(), [label.get_text() for label in labels])


def log_axis(axis: Any, which: str) -> None:
    """A logarithmic axis with plain numbers: at 1, 2 and 5 if it is short, else at 1."""
    getattr(axis, f"set_{which}scale")("log")
    scale = getattr(axis, f"{which}axis")
    low, high = getattr(axis, f"get_{which}lim")()
    decades = math.log10(high / low)
    if decades < 0.7:
        scale.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    else:
        subs = (1, 2, 5) if decades < 1.7 else (1, 3) if decades < 2.5 else (1,)
        scale.set_major_locator(LogLocator(subs=subs, numticks=8))
    scale.set_major_formatter(lambda value, _: short(value))
    scale.set_minor_locator(NullLocator())


def epoch_axis(axis: Any, last: int) -> None:
    """An axis of whole epochs, the first of which is 1."""
    step = MaxNLocator(5, integer=True).tick_values(0, max(last, 2))
    gap = max(1, int(step[1] - step[0]))
    ticks = [1, *range(gap, last + 1, gap)] if gap > 1 else list(range(1, last + 1))
    axis.xaxis.set_major_locator(FixedLocator(ticks))
    axis.set_xlabel("epoch")


def metric_label(metric: str, split: str = "test") -> str:
    """The one name of a metric on axes."""
    return f"{escaping.as_label(metric)} ({split})"


def leading(groups: Sequence[SeedGroup]) -> list[SeedGroup]:
    """Per model and features, the rows with the fewest settings that differ from the usual ones."""
    fewest: dict[tuple[str, str], int] = {}
    for group in groups:
        key = (group.first.model, group.first.features)
        count = len(group.non_default_settings)
        fewest[key] = min(count, fewest.get(key, count))
    return [
        group
        for group in groups
        if len(group.non_default_settings) == fewest[group.first.model, group.first.features]
    ]


# Names -------------------------------------------------------------------------------------------


def short_names(groups: Sequence[SeedGroup]) -> dict[str, str]:
    """Name of a group → the shortest of its names that no other has here.

    In this order: the model; with its settings; with its features; with both.
    """
    forms = [
        (
            group.first.model,
            group.label,
            f"{group.first.model}, {group.first.features}",
            group.name,
        )
        for group in groups
    ]
    out = {}
    for group, own in zip(groups, forms, strict=True):
        for place, form in enumerate(own):
            if sum(other[place] == form for other in forms) == 1 or place == len(own) - 1:
                out[group.name] = escaping.as_label(form)
                break
    return out


def marker(place: int) -> str:
    """A marker; things differ in print, too."""
    return MARKERS[place % len(MARKERS)]


def is_grey(colour: str) -> bool:
    """Whether a thing has no colour of its own."""
    return colour == GREY
