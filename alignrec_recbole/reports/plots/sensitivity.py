"""Best validation score by the values that a grid tried."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.patches import Rectangle

from alignrec_recbole.reports.colours import TARGET, Colours
from alignrec_recbole.reports.escaping import as_label
from alignrec_recbole.reports.grouping import SeedGroup, flatten
from alignrec_recbole.reports.plots.style import (
    MAX_PANELS,
    PAGE,
    Drawing,
    at_most,
    fold,
    freeze,
    metric_label,
    needs,
    panels,
    short,
    short_names,
    styled,
    thin_ticks,
)
from alignrec_recbole.runs.record import Run
from alignrec_recbole.runs.record_fields import LARGEST, SMALLEST

MAX_TICKS = 5  # values that are named on an axis
MAX_CELLS = 12  # rows or columns of a heat map whose cells have their figures
DECIMALS, BETWEEN = (3, 2), 4  # of a cell's figure; pixels between two of them
FRAME = "#D55E00"
SHADES = LinearSegmentedColormap.from_list("shades", ["#ffffff", TARGET])


@styled
def sensitivity(
    runs: Sequence[Run], colours: Colours | None = None, width: float = PAGE
) -> Drawing:
    """A panel per model and setting; of two settings that vary together, one heat map.

    Where more settings vary, a point is the best over the others. Numbers are joined by lines on a
    linear, logarithmic or symmetrical logarithmic axis; other values are points.
    """
    found = _panels(runs)
    needs(found, "no setting was varied", "grid points under tuning/ (--grid)")
    at_most(len(found), MAX_PANELS, "panels")
    figure, axes = panels(len(found), width, 1.45, 1.6)
    groups = {group.name: group for group in (SeedGroup(r.record.model, (r,)) for r in runs)}
    names = short_names(list(groups.values()))
    rows = []
    for axis, (name, part, keys, table) in zip(axes, found, strict=True):
        axis.set_title(fold(names[name] + as_label(part), 16))
        metric = str(table["metric"].iloc[0])
        if len(keys) == 2:
            best = table.groupby(keys, as_index=False)["score"].max()
            _heat_map(axis, best, keys)
        else:
            best = table.groupby(keys[0], as_index=False)["score"].max()
            _line(axis, best, keys[0])
        for entry in best.to_dict("records"):
            settings = {f"setting {i + 1}": key for i, key in enumerate(keys)}
            values = {f"value {i + 1}": entry[key] for i, key in enumerate(keys)}
            rows.append(
                {"row": name + part, "metric": metric, **settings, **values, "best": entry["score"]}
            )
    metrics = dict.fromkeys(row["metric"] for row in rows)
    text = f"best {metric_label(', '.join(metrics), 'validation')}"
    figure.supylabel(text if figure.get_figheight() > 2 else text.replace(" (", "\n("))
    freeze(figure)
    for axis in axes:
        thin_ticks(axis)
        if axis.images:
            _write_cells(axis)
    return Drawing(figure, pd.DataFrame(rows))


def _panels(runs: Sequence[Run]) -> list[tuple[str, str, list[str], pd.DataFrame]]:
    """(model and features, its part, settings, their values and scores) of every panel.

    Points whose configurations have other keys, as of a model with a part more, are apart.
    """
    by_model: dict[str, dict[tuple[str, ...], list[Run]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        if run.record.selection.get("best_score") is not None:
            name = SeedGroup(run.record.model, (run,)).name
            by_model[name][tuple(sorted(flatten(run.record.config)))].append(run)
    out = []
    for model, variants in sorted(by_model.items()):
        common = set.intersection(*map(set, variants))
        for names, points in sorted(variants.items()):
            parts = dict.fromkeys(key.partition(".")[0] for key in names if key not in common)
            part = "".join(f" + {name}" for name in parts)
            configs = [flatten(point.record.config) for point in points]
            keys = [key for key in names if len({config[key] for config in configs}) > 1]
            table = pd.DataFrame({key: [config[key] for config in configs] for key in keys})
            table["score"] = [point.record.selection["best_score"] for point in points]
            table["metric"] = [point.record.selection["metric"] for point in points]
            if len(keys) == 2 and _is_grid(table, keys):
                out.append((model, part, keys, table))
            else:
                out += [(model, part, [key], table) for key in keys]
    return out


def _is_grid(table: pd.DataFrame, keys: list[str]) -> bool:
    """Whether two settings were varied together, so that a heat map is mostly filled."""
    first, second = (table[key].nunique() for key in keys)
    return 2 * len(table[keys].drop_duplicates()) > first * second and min(first, second) > 1


def numbers(values: Any) -> pd.Series:
    """Values as numbers that have a place on an axis; NaN for others."""
    numeric = pd.to_numeric(pd.Series(values), errors="coerce").astype(float)
    size = numeric.abs()
    return numeric.where((size == 0) | ((size >= SMALLEST) & (size <= LARGEST)))


def _line(axis: Any, best: pd.DataFrame, key: str) -> None:
    axis.set_xlabel(as_label(key))
    numeric = numbers(best[key])
    style = {"color": TARGET, "marker": "o", "markersize": 3.5}
    axis.margins(x=0.08, y=0.15)
    if numeric.isna().any():
        order = _in_order(best[key])
        scores = best.set_index(key)["score"][order]
        axis.plot(range(len(order)), scores, linestyle="none", **style)
        axis.set_xlim(-0.5, len(order) - 0.5)
        shown = _thinned(list(range(len(order))))
        axis.set_xticks(shown, [fold(_shown(order[place]), 12) for place in shown])
        return
    places = np.argsort(numeric.to_numpy())
    at = numeric.to_numpy()[places]
    axis.plot(at, best["score"].to_numpy()[places], **style)
    sizes = np.abs(at[at != 0])
    if sizes.max() / sizes.min() >= 10:
        if at.min() > 0:
            axis.set_xscale("log")
        else:
            axis.set_xscale("symlog", linthresh=sizes.min(), linscale=0.8)
    ticks = _thinned(at.tolist())
    axis.set_xticks(ticks, [short(value) for value in ticks])
    axis.set_xticks([], minor=True)


def _heat_map(axis: Any, best: pd.DataFrame, keys: list[str]) -> None:
    """Shades from the worst to the best; the best cell has a frame."""
    orders = [_in_order(best[key]) for key in keys]
    grid = best.pivot(index=keys[0], columns=keys[1], values="score")
    values = grid.loc[orders[0], orders[1]].to_numpy(dtype=float)
    low, high = np.nanmin(values), np.nanmax(values)
    axis.imshow(np.ma.masked_invalid(values), cmap=SHADES, aspect="auto", vmin=low, vmax=high)
    axis.set_box_aspect(None)
    row, column = np.unravel_index(np.nanargmax(values), values.shape)
    corner = (float(column) - 0.5, float(row) - 0.5)
    axis.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor=FRAME, linewidth=1.5))
    for which, key, order in zip("yx", keys, orders, strict=True):
        places = _thinned(list(range(len(order))))
        getattr(axis, f"set_{which}ticks")(places, [_shown(order[place]) for place in places])
        getattr(axis, f"set_{which}label")(as_label(key))
    axis.grid(visible=False)


def _write_cells(axis: Any) -> None:
    """Write the figures into the cells of a heat map, with as many decimals as fit."""
    (image,) = axis.images
    values = image.get_array()
    if max(values.shape) > MAX_CELLS:
        return
    room = axis.get_window_extent().width / values.shape[1]
    for decimals in DECIMALS:
        texts = [_write_cell(axis, image.norm, *cell, decimals) for cell in np.ndenumerate(values)]
        widest = max(text.get_window_extent().width for text in texts)
        if widest + BETWEEN <= room:
            return
        for text in texts:
            text.remove()


def _write_cell(axis: Any, norm: Any, place: tuple[int, int], value: float, decimals: int) -> Any:
    shown = f"{value:.{decimals}f}".removeprefix("0") if np.isfinite(value) else ""
    dark = norm(value) > 0.85
    return axis.text(
        place[1],
        place[0],
        shown,
        ha="center",
        va="center",
        color="#ffffff" if dark else "#000000",  # on the cell, whatever the page's
    )


def _in_order(values: pd.Series) -> list[str]:
    """Numbers by size, then other values as they come."""
    found = list(dict.fromkeys(values))
    size = dict(zip(found, numbers(found), strict=True))
    numeric = sorted((v for v in found if not np.isnan(size[v])), key=lambda v: size[v])
    return numeric + [value for value in found if np.isnan(size[value])]


def _shown(value: str) -> str:
    (number,) = numbers([value])
    return as_label(value) if np.isnan(number) else short(float(number))


def _thinned(values: list[Any]) -> list[Any]:
    """At most so many values that they can be named, the first and the last among them."""
    if len(values) <= MAX_TICKS:
        return values
    step = -(-(len(values) - 1) // (MAX_TICKS - 1))
    return values[::step]
