"""Plots of run records: labelled axes, a palette for colour-blind readers, SVG, PDF, PNG.

Every function returns a figure or raises EmptyPlotError.
"""

from __future__ import annotations

import functools
import io
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from alignrec_recbole.errors import RecordError
from alignrec_recbole.features.control_names import is_control
from alignrec_recbole.io.files import atomic_write
from alignrec_recbole.protocols import RANKER_NAMES
from alignrec_recbole.protocols.robustness import robustness
from alignrec_recbole.reports.budgets import Budget, curve_values
from alignrec_recbole.reports.escaping import as_label
from alignrec_recbole.reports.grouping import (
    PRIMARY_METRIC,
    ComparisonKey,
    SeedGroup,
    flatten,
    primary_metric,
)
from alignrec_recbole.reports.knock_out import REAL, TWIN, knocked_out
from alignrec_recbole.reports.protocol_tables import mask_points, tail_values
from alignrec_recbole.runs.record import Run
from alignrec_recbole.runs.record_fields import LARGEST, SMALLEST

# Okabe and Ito, "Color Universal Design", 2008; yellow and black left out (too weak on white, ink).
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
MARKERS = "osD^vPX"
DASHES = ("-", "--", "-.", ":")
INK = "#1b1e23"  # the site puts its own text colour in its place
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": INK,
    "grid.alpha": 0.12,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "text.parse_math": False,  # a name with $ is no formula
    "svg.hashsalt": "alignrec",
    "pdf.fonttype": 42,
    **{f"{part}.color": INK for part in ("text", "xtick", "ytick")},
    **{f"axes.{part}": INK for part in ("edgecolor", "labelcolor", "titlecolor")},
}
CURVE = ["ranker", "features", "masked", "fill"]
MAX_LINES = 300  # groups in one figure; a page has no more room
MAX_PANELS = 40
MAX_TICKS = 12  # values of a grid that are all named
LEGEND_ROWS, LEGEND_ROW = 3, 0.19  # that a figure has room for; inches of each more
RANKED = ("zero-shot", "item-cf", "cold-start", "full")


class EmptyPlotError(RecordError):
    """There is nothing to draw."""


def styled(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Draw in the house style."""

    @functools.wraps(draw)
    def inner(*arguments: Any, **keywords: Any) -> Figure:
        with mpl.rc_context(STYLE):
            return draw(*arguments, **keywords)

    return inner


def as_svg(figure: Figure) -> str:
    """The figure as SVG with a transparent background."""
    buffer = io.StringIO()
    with mpl.rc_context(STYLE):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return buffer.getvalue()


def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write `<name>.svg`, `.pdf` and `.png`, equal bytes for equal figures."""
    paths = []
    for suffix, options in (
        ("svg", {"metadata": {"Date": None}}),
        ("pdf", {"metadata": {"CreationDate": None}}),
        ("png", {"dpi": 150}),
    ):
        path = folder / f"{name}.{suffix}"
        with mpl.rc_context(STYLE), atomic_write(path) as handle:
            figure.savefig(handle, format=suffix, **options)
        paths.append(path)
    return paths


def _needs(found: Any, what: str, expected: str) -> None:
    if not len(found):
        raise EmptyPlotError(
            f"There is nothing to draw: {what}.", found="no such record", expected=expected
        )


def _at_most(count: int, limit: int, what: str) -> None:
    """Refuse a figure that would be too large to be drawn or read."""
    if count > limit:
        raise EmptyPlotError(
            f"There is nothing to draw: more than {limit} {what}.",
            found=str(count),
            expected=f"at most {limit}",
        )


def _figure(columns: int = 1, width: float = 6.4, height: float = 3.8) -> tuple[Figure, Any]:
    figure = Figure(
        figsize=(width * columns if columns > 1 else width, height), layout="constrained"
    )
    return figure, figure.subplots(1, columns, squeeze=False)[0]


def _line(place: int) -> dict[str, Any]:
    """Colour, dash and marker: lines differ in print, too."""
    return {
        "color": PALETTE[place % len(PALETTE)],
        "linestyle": DASHES[place // len(PALETTE) % len(DASHES)],
        "marker": MARKERS[place % len(MARKERS)],
        "markersize": 4,
    }


def _log(axis: Any, which: str) -> None:
    """A logarithmic axis with plain numbers at 1, 2 and 5."""
    getattr(axis, f"set_{which}scale")("log")
    scale = getattr(axis, f"{which}axis")
    scale.set_major_locator(LogLocator(subs=(1, 2, 5)))
    scale.set_major_formatter(StrMethodFormatter("{x:g}"))
    scale.set_minor_formatter(NullFormatter())


def _legend(figure: Figure, axes: Any, columns: int = 2) -> None:
    """One legend of all panels; a line that only some of them have is in it too.

    The figure grows with it, so that the panels keep their height.
    """
    named: dict[str, Any] = {}
    for axis in axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            named.setdefault(label, handle)
    figure.legend(
        list(named.values()),
        list(named),
        loc="outside lower center",
        ncols=min(columns, len(named)),
    )
    rows = -(-len(named) // columns)
    figure.set_figheight(figure.get_figheight() + LEGEND_ROW * max(0, rows - LEGEND_ROWS))


@styled
def protocol_bars(found: dict[ComparisonKey, list[SeedGroup]]) -> Figure:
    """The primary metric of every feature set (ID-only models: none), one panel per protocol."""
    panels = {key.protocol: members for key, members in found.items() if key.protocol in RANKED}
    _needs(panels, "no ranked protocol", "records of " + ", ".join(RANKED))
    rows = max(len(members) for members in panels.values())
    _at_most(rows, MAX_LINES, "groups")
    sets = sorted({group.first.features for members in panels.values() for group in members})
    figure, axes = _figure(len(panels), 4.6, 1.3 + 0.3 * rows)
    for axis, (protocol, members) in zip(axes, panels.items(), strict=True):
        metric = primary_metric(members)
        order = sorted(members, key=lambda group: group.mean(metric) or 0.0)
        values = [list(group.values(metric).values()) for group in order]
        means = [np.mean(v) if v else np.nan for v in values]
        spread = [np.std(v, ddof=1) if len(v) > 1 else np.nan for v in values]
        names = [_bar_name(group, protocol) for group in order]
        axis.barh(
            range(len(order)),
            means,
            xerr=spread,
            color=[PALETTE[sets.index(g.first.features) % len(PALETTE)] for g in order],
            error_kw={"ecolor": INK, "capsize": 2},
        )
        axis.set_yticks(range(len(order)), names, fontsize=7)
        of_each = [group.first.chance or {} for group in order]
        chance = [values[metric] for values in of_each if metric in values]
        if chance:
            axis.axvline(chance[0], color=INK, linestyle=":", linewidth=1.2)
        axis.set_xlabel(f"{as_label(metric)} (test, share of targets)")
        axis.set_title(f"{protocol} (dotted: chance)" if chance else protocol)
        axis.grid(axis="y", visible=False)
    return figure


def _bar_name(group: SeedGroup, protocol: str) -> str:
    """What tells a bar from the others of its panel."""
    features = group.first.features
    if features == "none":
        return as_label(group.label)
    own = group.label.removeprefix(protocol).strip()  # a training-free protocol ranks by itself
    return f"{as_label(own)}\n{as_label(features)}" if own else as_label(features)


WORDS_OF_FILL = {"zero": "", "mean": ", mean fill"}  # others as they are


@styled
def robustness_curves(members: Sequence[SeedGroup], metric: str = PRIMARY_METRIC) -> Figure:
    """A metric over the share of masked items with 95 % t-bands over mask seeds.

    A column a modality, a row a ranker without training, all on one scale, and one for trained
    models. A feature set looks the same in every panel; controls are grey.
    """
    points = pd.DataFrame(mask_points(members, metric), columns=[*CURVE, "ratio", "value"])
    _needs(points, "no curve over the mask ratio", "records of protocol mask-modality")
    modalities = sorted(points["masked"].unique())
    free = [name for name in RANKER_NAMES if name in set(points["ranker"])]
    trained = points[~points["ranker"].isin(free)]
    rows = [(name, points[points["ranker"] == name]) for name in free]
    rows += [("trained again", trained)] if len(trained) else []
    figure = Figure(
        figsize=(5.2 * max(1.2, len(modalities)), 3.0 * len(rows) + 1), layout="constrained"
    )
    grid = figure.subplots(len(rows), len(modalities), squeeze=False, sharey="row")
    style = _set_styles(points)
    _at_most(len(style), MAX_LINES, "curves")
    for (row, part), axes in zip(rows, grid, strict=True):
        for axis, modality in zip(axes, modalities, strict=True):
            for key, line in part[part["masked"] == modality].groupby(CURVE, sort=False):
                ranker, features, _, fill = key
                label = features if row in free else f"{ranker}, {features}"
                label += WORDS_OF_FILL.get(fill, f", {fill}")
                who = "" if row in free else ranker
                _robustness_line(axis, line, as_label(label), style[who, features, fill])
            axis.set_xlabel("share of items masked")
            axis.set_ylabel(f"{as_label(metric)} (test)")
            axis.set_title(f"{row}, {modality} masked")
            axis.tick_params(labelleft=True)  # the panel on the left may be absent
            axis.set_visible(bool(axis.lines))
        axes[0].set_ylim(bottom=0)
    drawn = [axis for axis in grid.flat if axis.lines]
    _needs(drawn, "no curve with more than one ratio", "more records of mask-modality")
    top = max((axes[0].get_ylim()[1] for axes in grid[: len(free)]), default=0)
    for axes in grid[: len(free)]:
        axes[0].set_ylim(top=top)
    _legend(figure, drawn)
    return figure


def _set_styles(points: pd.DataFrame) -> dict[tuple[str, str, str], dict[str, Any]]:
    """(model or "", features, fill) → line; a set looks the same wherever it stands."""
    keys: list[tuple[str, str, str]] = []
    for ranker, features, fill in points[["ranker", "features", "fill"]].to_numpy():
        keys.append(("" if ranker in RANKER_NAMES else ranker, features, fill))
    names = list(dict.fromkeys(keys))
    controls = [key for key in names if is_control(key[1])]
    real = [key for key in names if key not in controls]
    grey = {
        key: {**_line(place), "color": "#8a8f98", "linestyle": DASHES[1 + place % 3]}
        for place, key in enumerate(controls)
    }
    return {key: _line(place) for place, key in enumerate(real)} | grey


def _robustness_line(axis: Any, line: pd.DataFrame, label: str, style: dict[str, Any]) -> None:
    unmasked = line.loc[line["ratio"] == 0, "value"]  # empty if that record is missing
    if line["ratio"].nunique() < 2 or unmasked.empty or unmasked.mean() == 0:
        return
    curve = robustness(list(zip(line["ratio"], line["value"], strict=True)))
    axis.plot(curve.ratios, curve.mean, label=label, **style)
    axis.fill_between(
        curve.ratios, curve.low, curve.high, color=style["color"], alpha=0.18, linewidth=0
    )


@styled
def long_tail_bars(members: Sequence[SeedGroup], metric: str = PRIMARY_METRIC) -> Figure:
    """A metric by user history and by item popularity, a bar a feature set.

    A ranker with several feature sets has panels of its own, the others stand together.
    """
    columns = ["label", "features", "group", "seed", "value"]
    tables = {
        kind: pd.DataFrame(tail_values(members, kind, metric), columns=columns)
        for kind in TAIL_AXES
    }
    tables = {kind: table for kind, table in tables.items() if not table.empty}
    _needs(tables, "no groups of users or items", "records of protocol long-tail")
    known = pd.concat(tables.values())[["label", "features"]].drop_duplicates()
    sets = known.groupby("label")["features"].nunique()
    several = list(sets.index[sets > 1])
    others = list(sets.index[sets == 1])
    rows = [[label] for label in several] + ([others] if others else [])
    _at_most(len(rows), MAX_PANELS, "rankers with several feature sets")
    _at_most(len(known), MAX_LINES, "groups")
    figure = Figure(figsize=(6.2 * len(tables), 2.9 * len(rows) + 0.4), layout="constrained")
    grid = figure.subplots(len(rows), len(tables), squeeze=False)
    for labels, panels in zip(rows, grid, strict=True):
        for axis, (kind, table) in zip(panels, tables.items(), strict=True):
            part = table[table["label"].isin(labels)]
            _tail_panel(axis, part, alone=labels[0] in several)
            axis.set_xlabel(TAIL_AXES[kind])
            axis.set_ylabel(f"{as_label(metric)} (test)")
            if labels[0] in several:
                axis.set_title(as_label(labels[0]))
        panels[-1].legend(loc="upper left", bbox_to_anchor=(1.01, 1.02), fontsize="small")
    return figure


@styled
def beyond_accuracy_panels(members: Sequence[SeedGroup], metric: str = PRIMARY_METRIC) -> Figure:
    """The metric against coverage, popularity lift, Gini and intra-list distance, a dot a row."""
    shown = {
        name: label for name, label in LIST_AXES.items() if any(g.values(name) for g in members)
    }
    rows = [group for group in members if group.values(metric)]
    _needs(rows if shown else [], "no described lists", "records of protocol beyond-accuracy")
    _at_most(len(rows), MAX_LINES, "groups")
    figure = Figure(figsize=(3.4 * len(shown), 3.9), layout="constrained")
    panels = figure.subplots(1, len(shown), squeeze=False, sharey=True)[0]
    for axis, (name, label) in zip(panels, shown.items(), strict=True):
        for place, group in enumerate(rows):
            across = group.mean(name)
            if across is not None:
                style = _line(place) | {"linestyle": "none", "markersize": 6}
                axis.plot([across], [group.mean(metric)], label=as_label(group.name), **style)
        axis.set_xlabel(label)
    panels[0].set_ylabel(f"{as_label(metric)} (test)")
    _legend(figure, panels)
    return figure


LIST_AXES = {
    "coverage@20": "item coverage@20",
    "Gini@20": "Gini@20 of the places",
    "lift@20": "popularity lift@20",
    "ILD@20": "intra-list distance@20",
}
TAIL_AXES = {"history": "training items of the user", "popularity": "training users of the item"}


def _tail_panel(axis: Any, table: pd.DataFrame, alone: bool) -> None:
    """Bars of each group; `alone`: of one ranker, so that the feature sets tell them apart."""
    names = list(dict.fromkeys(table.dropna(subset="value")["group"]))
    lines = list(table.groupby(["label", "features"], sort=True))
    width = 0.8 / max(1, len(lines))
    for place, ((label, features), line) in enumerate(lines):
        by_group = line.groupby("group")["value"]
        mean, spread = by_group.mean(), by_group.std(ddof=1)
        both = label if features == "none" else f"{label}, {features}"
        axis.bar(
            np.arange(len(names)) + width * (place - (len(lines) - 1) / 2),
            [mean.get(name, np.nan) for name in names],
            width,
            yerr=[spread.get(name, np.nan) for name in names],
            label=as_label(features if alone else both),
            color=PALETTE[place % len(PALETTE)],
            hatch="/" * (place // len(PALETTE)) * 3,
            error_kw={"ecolor": INK, "capsize": 2},
        )
    shown = [as_label(name).replace("<=", "≤ ").replace(">=", "≥ ") for name in names]
    axis.set_xticks(range(len(names)), shown)
    axis.set_xlim(-0.6, len(names) - 0.4)
    axis.set_ylim(bottom=0)
    axis.grid(axis="x", visible=False)


@styled
def knock_out_leads(members: Sequence[SeedGroup]) -> Figure:
    """How far every variant of a model is above its ID-only twin, with 95 % intervals.

    A panel per group of features, a row per model.
    """
    models = [model for model in knocked_out(members, lambda *_: None) if model.leads]
    _needs(models, "no model with a twin", "records of protocol knock-out, real and id-only")
    _at_most(len(models), MAX_LINES, "models")
    panels = list(dict.fromkeys(model.features for model in models))
    _at_most(len(panels), MAX_PANELS, "groups of features")
    rows = max(sum(model.features == each for model in models) for each in panels)
    names = [n for n in dict.fromkeys(n for m in models for n in m.variants) if n != TWIN]
    figure, axes = _figure(len(panels), 6.4, 1.6 + 0.1 * rows * (len(names) + 2))
    for axis, features in zip(axes, panels, strict=True):
        shown = [model for model in models if model.features == features]
        for place, name in enumerate(names):
            style = {**_line(place), "linestyle": "none", "capsize": 2}
            if name not in (REAL,) and not name.endswith(" only"):
                style["markerfacecolor"] = "white"
            found = [
                (row + 0.8 * (place + 0.5) / len(names) - 0.4, model.leads.over_twin[name])
                for row, model in enumerate(shown)
                if model.leads and name in model.leads.over_twin
            ]
            ends = [(max(0, i.value - i.low), max(0, i.high - i.value)) for _, i in found]
            axis.errorbar(
                [interval.value for _, interval in found],
                [height for height, _ in found],
                xerr=np.array(ends).reshape(-1, 2).T,
                label=as_label(name),
                **style,
            )
        axis.axvline(0, color=INK, linewidth=0.8)
        axis.set_yticks(range(len(shown)), [as_label(model.label) for model in shown])
        axis.set_ylim(len(shown) - 0.5, -0.5)
        axis.set_xlabel(f"{PRIMARY_METRIC} above the ID-only twin (test)")
        axis.set_title(as_label(features))
    _legend(figure, axes, columns=4)
    return figure


@styled
def training_curves(members: Sequence[SeedGroup]) -> Figure:
    """Validation metric and loss by epoch; thin lines are seeds, the best epoch is marked."""
    trained = [g for g in members if any(record.history for record in g.records)]
    _needs(trained, "no model that trains", "records with a history")
    _at_most(len(trained), MAX_LINES, "groups")
    figure, axes = _figure(2, 4.8, 4.0)
    for place, group in enumerate(trained):
        style = {**_line(place), "marker": ""}
        for number, record in enumerate(group.records):
            table = pd.DataFrame(record.history)
            name = as_label(group.name) if number == 0 else None
            for axis, column in zip(axes, ("valid", "loss"), strict=True):
                if column in table:
                    line = table[["epoch", column]].dropna()
                    axis.plot(
                        line["epoch"] + 1, line[column], label=name, linewidth=1, alpha=0.8, **style
                    )
            best = record.selection.get("best_epoch")
            marked = table[table["epoch"] == best] if "valid" in table else table[:0]
            axes[0].plot(marked["epoch"] + 1, marked.get("valid"), "o", color=style["color"], ms=4)
    metric = as_label(str(trained[0].first.selection["metric"]))
    for axis, label in zip(axes, (f"{metric} (validation, share of targets)", "loss"), strict=True):
        axis.set_xlabel("epoch")
        axis.set_ylabel(label)
    if all(value > 0 for axis_line in axes[1].lines for value in axis_line.get_ydata()):
        _log(axes[1], "y")
        axes[1].set_ylabel("loss (log scale)")
    _legend(figure, axes)
    return figure


@styled
def quality_against_cost(members: Sequence[SeedGroup], metric: str = PRIMARY_METRIC) -> Figure:
    """A metric against seconds and memory of a run; a line joins what nothing beats in both.

    Each kind of device has its line: seconds of a GPU and of a CPU are not comparable.
    """
    _needs(members, "no ranked run", "records of protocol full")
    _at_most(len(members), MAX_LINES, "groups")
    figure, axes = _figure(2, 4.8, 4.2)
    members = [group for group in members if group.mean(metric) is not None]
    quality = [group.mean(metric) or 0.0 for group in members]
    devices = [group.device for group in members]
    costs = (
        ("time of a whole run (s, log scale)", lambda r: r.seconds["total"]),
        (
            "peak memory of a run (GiB, log scale)",
            lambda r: (r.peak_gpu_bytes or r.peak_rss_bytes) / 2**30,
        ),
    )
    for axis, (label, cost) in zip(axes, costs, strict=True):
        spent = [float(np.median([cost(record) for record in g.records])) for g in members]
        for place, group in enumerate(members):
            style = {**_line(place), "linestyle": "none", "markersize": 6}
            name = f"{group.name} ({devices[place]})" if len(set(devices)) > 1 else group.name
            axis.plot(spent[place], quality[place], label=as_label(name), **style)
        for kind in dict.fromkeys(devices):  # in a fixed order: equal figures, equal bytes
            of_kind = [i for i, device in enumerate(devices) if device == kind]
            front = pareto([spent[i] for i in of_kind], [quality[i] for i in of_kind])
            axis.step(
                [spent[of_kind[i]] for i in front],
                [quality[of_kind[i]] for i in front],
                where="post",
                color=INK,
                linewidth=0.8,
                linestyle=":",
                zorder=0,
            )
        _log(axis, "x")
        axis.set_xlabel(label)
        axis.set_ylabel(f"{as_label(metric)} (test, share of targets)")
    _legend(figure, axes)
    return figure


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


@styled
def search_curves(searches: Mapping[str, Budget]) -> Figure:
    """The best validation score by the epochs of a search, and what to expect of fewer trials.

    Left: in the order of the trials. Right: the expected best of so many trials in random order
    (`expected_maximum`); a pruned trial counts with its score until then, a diverged one with 0.
    """
    _needs(searches, "no search", "records of runs with --grid or of tune")
    _at_most(len(searches), MAX_LINES, "searches")
    figure, axes = _figure(2, 4.8, 4.0)
    for place, (name, budget) in enumerate(searches.items()):
        table = pd.DataFrame(curve_values(budget))
        style, label = _line(place), as_label(name)
        found = table.dropna(subset=["best"])
        axes[0].step(found["epochs"], found["best"], where="post", label=label, **style)
        axes[1].plot(table["trials"], table["expected maximum"], **style)
    chosen_on = as_label(next(iter(searches.values())).chosen_on.partition(" on ")[0])
    axes[0].set_xlabel("epochs of all trials until then")
    axes[0].set_ylabel(f"best {chosen_on} (validation)")
    axes[1].set_xlabel("trials, in random order")
    axes[1].set_ylabel(f"expected best {chosen_on} (validation)")
    _legend(figure, axes)
    return figure


@styled
def sensitivity(runs: Sequence[Run]) -> Figure:
    """Best validation score by every value that a grid tried, a panel a setting."""
    varied = _varied(runs)
    _needs(varied, "no setting was varied", "grid points under tuning/ (--grid)")
    _at_most(len(varied), MAX_PANELS, "settings vary")
    figure, axes = _figure(len(varied), 4.2, 3.6)
    for axis, (key, table) in zip(axes, varied.items(), strict=True):
        for place, (model, line) in enumerate(table.groupby("model")):
            best = line.groupby("value")["score"].max()
            numeric = _numbers(best.index)
            label = as_label(str(model))
            if numeric.isna().any():
                axis.plot(range(len(best)), best.to_numpy(), label=label, **_line(place))
                axis.set_xticks(range(len(best)), [as_label(str(value)) for value in best.index])
            else:
                order = np.argsort(numeric.to_numpy())
                at = numeric.to_numpy()[order]
                axis.plot(at, best.to_numpy()[order], label=label, **_line(place))
        tried = _numbers(table["value"]).dropna().unique()
        if len(tried) == table["value"].nunique():  # all of them numbers
            wide = min(tried) > 0 and max(tried) / min(tried) >= 10
            if wide:
                axis.set_xscale("log")
            if len(tried) <= MAX_TICKS:
                axis.set_xticks(sorted(tried), [f"{value:g}" for value in sorted(tried)])
            axis.xaxis.set_minor_formatter(NullFormatter())
            axis.set_xlabel(f"{as_label(key)} (log scale)" if wide else as_label(key))
        else:
            axis.set_xlabel(as_label(key))
        metric = as_label(str(table["metric"].iloc[0]))
        axis.set_ylabel(f"{metric} (validation, share of targets)")
        axis.legend()
    return figure


def _numbers(values: Any) -> pd.Series:
    """Values as numbers that have a place on an axis; NaN for others."""
    numeric = pd.to_numeric(pd.Series(values), errors="coerce").astype(float)
    size = numeric.abs()
    return numeric.where((size == 0) | ((size >= SMALLEST) & (size <= LARGEST)))


def _varied(runs: Sequence[Run]) -> dict[str, pd.DataFrame]:
    """Setting → model, value, score of the grid points in which it differs."""
    found: dict[str, list[tuple[str, str, float, str]]] = defaultdict(list)
    by_model: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        if run.record.selection.get("best_score") is not None:
            by_model[SeedGroup(run.record.model, (run,)).name].append(run)
    for model, points in by_model.items():
        configs = [flatten(point.record.config) for point in points]
        keys = dict.fromkeys(key for config in configs for key in config)
        for key in keys:
            if len({config.get(key) for config in configs}) > 1:
                for config, point in zip(configs, points, strict=True):
                    selection = point.record.selection
                    row = (model, config.get(key, "absent"))
                    found[key].append((*row, selection["best_score"], selection["metric"]))
    columns = ["model", "value", "score", "metric"]
    return {key: pd.DataFrame(rows, columns=columns) for key, rows in sorted(found.items())}
