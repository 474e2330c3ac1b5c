"""Labels beside points, without overlap."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text
from matplotlib.transforms import Bbox

REACHES = (5, 8, 12, 17, 23, 30, 38, 47, 57, 68, 80, 95, 110)  # points between point and name
DIRECTIONS = (0, 180, 90, 270, 45, 315, 135, 225, 22, 338, 158, 202, 67, 293, 113, 247)

SIDES = {"left": 0.0, "right": 1.0, "center": 0.5, "bottom": 0.0, "top": 1.0}


def _places() -> Iterator[tuple[float, float, str, str]]:
    """Offset in points and how the text is aligned there, the best places first."""
    for reach in REACHES:
        for angle in DIRECTIONS:
            x, y = math.cos(math.radians(angle)), math.sin(math.radians(angle))
            across = "left" if x > 0.3 else "right" if x < -0.3 else "center"
            up = "bottom" if y > 0.3 else "top" if y < -0.3 else "center"
            yield reach * x, reach * y, across, up


NEAR = 8  # points; a label farther away has a line to its point


def label_points(
    axis: Any,
    points: Sequence[tuple[float, float, str, str]],
    lines: Sequence[Sequence[tuple[float, float]]] = (),
) -> list[str]:
    """Write names beside points, each in the first place that is free, the first points first.

    Names do not touch each other, points or, if there is a place without, lines. The axis must have
    its final size. Returns the names for which no place was free.

    Args:
        points: x, y, name, colour.
        lines: corners of lines along the axes.
    """
    renderer = FigureCanvasAgg(axis.get_figure()).get_renderer()
    inside = axis.get_window_extent(renderer)
    spots = [axis.transData.transform(point[:2]) for point in points]
    taken = [Bbox.from_bounds(x - 4, y - 4, 8, 8) for x, y in spots]
    along = [box for line in lines for box in _segments(axis.transData.transform(line))]
    left = []
    for (x, y, name, colour), own in zip(points, list(taken), strict=True):
        for avoided, place in itertools.product((along, []), _places()):
            text = _written(axis, (x, y), name, colour, place)
            box = _of(text, renderer)
            others = [*(other for other in taken if other is not own), *avoided]
            if _within(box, inside) and not any(box.overlaps(other) for other in others):
                taken.append(box)
                break
            text.remove()
        else:
            left.append(name)
    return left


def _written(
    axis: Any,
    at: tuple[float, float],
    name: str,
    colour: str,
    place: tuple[float, float, str, str],
) -> Any:
    right, up, across, upwards = place
    line = {
        "arrowstyle": "-",
        "color": colour,
        "linewidth": 0.4,
        "shrinkA": 0,
        "shrinkB": 2,
        "relpos": (SIDES[across], SIDES[upwards]),
    }
    return axis.annotate(
        name,
        at,
        (right, up),
        textcoords="offset points",
        ha=across,
        va=upwards,
        color=colour,
        arrowprops=line if math.hypot(right, up) > NEAR else None,
    )


def _segments(corners: Any) -> list[Bbox]:
    pairs = itertools.pairwise(corners)
    return [
        Bbox([(min(a, c), min(b, d)), (max(a, c), max(b, d))]).padded(1) for (a, b), (c, d) in pairs
    ]


def _within(box: Bbox, outer: Bbox) -> bool:
    return bool(
        outer.x0 <= box.x0 and box.x1 <= outer.x1 and outer.y0 <= box.y0 and box.y1 <= outer.y1
    )


def _of(text: Any, renderer: Any) -> Bbox:
    """The box of an annotation's text without its line."""
    text.update_positions(renderer)
    return Text.get_window_extent(text, renderer)
