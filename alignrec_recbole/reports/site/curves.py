"""Curves of one training as small SVG drawings, in the classes of the style sheet."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from alignrec_recbole.runs.record import RunRecord

WIDTH, HEIGHT = 340, 190
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 26, 34
MAX_POINTS = 400


def curves(record: RunRecord) -> list[dict[str, Any]]:
    """The validation metric and the loss by epoch; without the curves that have no point."""
    metric = str(record.selection.get("metric", "validation"))
    best = record.selection.get("best_epoch")
    best = best + 1 if isinstance(best, int) else None  # the first epoch is 1, as in figures
    found = []
    for key, name, dotted in (("valid", f"{metric}, validation", True), ("loss", "loss", False)):
        points = [
            (int(entry["epoch"]) + 1, float(entry[key]))
            for entry in record.history
            if isinstance(entry.get(key), int | float) and math.isfinite(entry[key])
        ]
        if points:
            found.append(_drawn(name, points, best if dotted else None))
    return found


def _drawn(name: str, points: Sequence[tuple[int, float]], best: Any) -> dict[str, Any]:
    low, high = min(p[1] for p in points), max(p[1] for p in points)
    first, last = points[0][0], points[-1][0]
    middle = (low + high) / 2

    def x(epoch: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (epoch - first) / max(last - first, 1)

    def y(value: float) -> float:
        share = (value - low) / (high - low) if high > low else 0.5
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * share

    step = math.ceil(len(points) / MAX_POINTS)
    drawn = [*points[::step], *([points[-1]] if (len(points) - 1) % step else [])]
    dot = next(((x(e), y(v)) for e, v in points if e == best), None)
    ticks = dict.fromkeys((first, (first + last) // 2, last))
    levels = dict.fromkeys((low, middle, high))
    return {
        "name": name,
        "label": f"{name}: from {points[0][1]:.4g} to {points[-1][1]:.4g} in epochs {first} to "
        f"{last}" + (f", epoch {best} was ranked" if dot else ""),
        "line": " ".join(f"{x(e):.1f},{y(v):.1f}" for e, v in drawn),
        "dot": dot and (f"{dot[0]:.1f}", f"{dot[1]:.1f}"),
        "x": [(f"{x(e):.1f}", str(e)) for e in ticks],
        "y": [(f"{y(v):.1f}", f"{v:.4g}") for v in levels],
        "size": (WIDTH, HEIGHT, LEFT, WIDTH - RIGHT, HEIGHT - BOTTOM),
    }
