"""Labels beside points, without overlap."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg

# Points between a point and its name.
REACHES = (5, 8, 12, 17, 23, 30, 38, 47, 57, 68, 80, 95, 110, 130, 155)
DIRECTIONS = (0, 180, 90, 270, 45, 315, 135, 225, 22, 338, 158, 202, 67, 293, 113, 247)
NEAR = 8  # points; a label farther away has a line to its point
MARGIN = 3  # pixels between a name and the frame, or by which its own point is nearer than others
TOUCHING, CROSSING, MISTAKEN = 20, 40, 40  # as bad as so many points of distance
AROUND = np.array([-MARGIN, 0, MARGIN, 0])  # what stays free beside a name

# Which part of a text is at the end of its offset: 0 for the left or the bottom, 1 for the other.
SIDES = {"left": 0.0, "right": 1.0, "center": 0.5, "bottom": 0.0, "top": 1.0}


class _Place(NamedTuple):
    """Offset in points, and how the text is aligned there."""

    right: float
    up: float
    across: str
    upwards: str


def _place(reach: int, angle: int) -> _Place:
    x, y = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    across = "left" if x > 0.3 else "right" if x < -0.3 else "center"
    upwards = "bottom" if y > 0.3 else "top" if y < -0.3 else "center"
    return _Place(reach * x, reach * y, across, upwards)


PLACES = [_place(reach, angle) for reach in REACHES for angle in DIRECTIONS]  # the best ones first
OFFSETS = np.array([(place.right, place.up) for place in PLACES])
DISTANCES = np.hypot(*OFFSETS.T)
ALIGNED = np.array([(SIDES[place.across], SIDES[place.upwards]) for place in PLACES])


def label_points(
    axis: Any,
    points: Sequence[tuple[float, float, str, str]],
    lines: Sequence[Sequence[tuple[float, float]]] = (),
) -> list[str]:
    """Write names beside points, each in the best place that is free, the first points first.

    Names do not touch each other, points or the frame. Near places are better, and so are those
    where a name touches no line, where no line from a point to its name crosses another name or
    point, and where the name is not nearer to another point of its colour. The axis must have its
    final size. Returns the names for which no place was free.

    Args:
        points: x, y, name, colour.
        lines: corners of lines along the axes.
    """
    figure = axis.get_figure()
    renderer = FigureCanvasAgg(figure).get_renderer()
    inside = axis.get_window_extent(renderer).padded(-MARGIN)
    hues = np.array([point[3] for point in points])
    spots = np.array([axis.transData.transform(point[:2]) for point in points]).reshape(-1, 2)
    taken = np.hstack([spots - 4, spots + 4])
    along = [box for line in lines for box in _segments(axis.transData.transform(line))]
    avoided = np.array(along).reshape(-1, 4)
    drawn = np.empty((0, 4))  # lines to names, from x and y to x and y
    far = DISTANCES > NEAR
    left = []
    for number, (x, y, name, colour) in enumerate(points):
        size = _size(figure, name, renderer)
        ends = spots[number] + OFFSETS * figure.dpi / 72
        low = ends - ALIGNED * size
        boxes = np.hstack([low, low + size])
        free = (low >= inside.min).all(axis=1) & (low + size <= inside.max).all(axis=1)
        others = np.delete(taken, number, axis=0)
        free &= ~_touch(boxes, others).any(axis=1)
        if not free.any():
            left.append(name)
            continue
        to_name = np.hstack([np.broadcast_to(spots[number], ends.shape), ends])
        distance = _distance(boxes, spots)
        rivals = (hues == colour) & (np.arange(len(points)) != number)
        mistaken = (distance[:, rivals] < distance[:, [number]] + MARGIN).any(axis=1)
        crossing = far & _cross(to_name, others).any(axis=1) | _cross(drawn, boxes).any(axis=0)
        touching = _touch(boxes, avoided).any(axis=1)
        cost = DISTANCES + MISTAKEN * (mistaken & ~far) + CROSSING * crossing + TOUCHING * touching
        best = int(np.where(free, cost, np.inf).argmin())
        _write(axis, (x, y), name, colour, PLACES[best])
        taken = np.vstack([taken, boxes[best] + AROUND])
        if far[best]:
            drawn = np.vstack([drawn, to_name[best]])
    return left


def _size(figure: Any, name: str, renderer: Any) -> tuple[float, float]:
    """Width and height of a name in pixels."""
    text = figure.text(0, 0, name)
    box = text.get_window_extent(renderer)
    text.remove()
    return float(box.width), float(box.height)


def _distance(boxes: np.ndarray, points: np.ndarray) -> np.ndarray:
    """From each box to each point; 0 inside.

    >>> _distance(np.array([[0, 0, 2, 1]]), np.array([[1, 1], [5, 5]]))
    array([[0., 5.]])
    """
    beyond = np.maximum(boxes[:, None, :2] - points, points - boxes[:, None, 2:])
    return np.asarray(np.hypot(*np.moveaxis(np.maximum(beyond, 0), 2, 0)))


def _touch(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Which boxes (left, bottom, right, top) touch which others."""
    mine, theirs = boxes[:, None], others[None]
    meet = (mine[..., :2] <= theirs[..., 2:]) & (theirs[..., :2] <= mine[..., 2:])
    return np.asarray(meet.all(axis=2))


def _cross(lines: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Which straight lines (from x and y to x and y) cross which boxes.

    They do where both have a part of each axis in common and the corners of the box are not all on
    one side of the line.

    >>> _cross(np.array([[0, 0, 4, 4]]), np.array([[1, 1, 2, 2], [3, 0, 4, 1], [5, 5, 6, 6]]))
    array([[ True, False, False]])
    """
    start, end = lines[:, None, :2], lines[:, None, 2:]
    around = np.concatenate([np.minimum(start, end), np.maximum(start, end)], axis=2)[:, 0]
    corners = boxes[:, [[0, 1], [0, 3], [2, 1], [2, 3]]]
    along, off = (end - start)[:, :, None], corners[None] - start[:, :, None]
    side = along[..., 0] * off[..., 1] - along[..., 1] * off[..., 0]
    return np.asarray(_touch(around, boxes) & (side.min(axis=2) <= 0) & (side.max(axis=2) >= 0))


def _write(axis: Any, at: tuple[float, float], name: str, colour: str, place: _Place) -> None:
    line = {
        "arrowstyle": "-",
        "color": colour,
        "linewidth": 0.4,
        "shrinkA": 0,
        "shrinkB": 2,
        "relpos": (SIDES[place.across], SIDES[place.upwards]),
    }
    axis.annotate(
        name,
        at,
        (place.right, place.up),
        textcoords="offset points",
        ha=place.across,
        va=place.upwards,
        color=colour,
        arrowprops=line if math.hypot(place.right, place.up) > NEAR else None,
    )


def _segments(corners: np.ndarray) -> list[tuple[float, float, float, float]]:
    """The boxes of the segments of a line, a pixel wider."""
    return [
        (min(a, c) - 1, min(b, d) - 1, max(a, c) + 1, max(b, d) + 1)
        for (a, b), (c, d) in itertools.pairwise(corners)
    ]
