"""Robustness curves: a metric over the mask ratio, from records' points alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from alignrec_recbole.errors import RecordError


@dataclass(frozen=True)
class Curve:
    """One metric over the mask ratio.

    Attributes:
        ratios: [n], ascending.
        mean: [n], over mask seeds.
        low, high: [n], 95 % t-interval of the mean; NaN with one seed.
        retention: [n], mean / mean at the first ratio.
        area: of the retention, divided by the range of the ratios.
    """

    ratios: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    retention: np.ndarray
    area: float


def area_under_retention(points: Sequence[tuple[float, float]]) -> float:
    """Area under the retention by trapezoids, divided by the range of the ratios.

    Raises:
        RecordError: see `robustness`.

    >>> area_under_retention([(0.0, 0.4), (0.5, 0.2), (0.5, 0.4), (1.0, 0.0)])
    0.625
    """
    ratios, values = _by_ratio(points)
    return _area(ratios, np.array([v.mean() for v in values]))


def robustness(points: Sequence[tuple[float, float]]) -> Curve:
    """The curve of (ratio, value) points, several values per ratio.

    Raises:
        RecordError: ratio 0 is absent or its value is 0, or there is but one ratio.

    >>> robustness([(0.0, 0.4), (0.5, 0.2), (0.5, 0.4), (1.0, 0.0)]).area
    0.625
    """
    ratios, values = _by_ratio(points)
    mean = np.array([v.mean() for v in values])
    area = _area(ratios, mean)
    width = np.array([_half_width(v) for v in values])
    return Curve(ratios, mean, mean - width, mean + width, mean / mean[0], area)


def _by_ratio(points: Sequence[tuple[float, float]]) -> tuple[np.ndarray, list[np.ndarray]]:
    ratios = np.array(sorted({ratio for ratio, _ in points}))
    return ratios, [np.array([v for ratio, v in points if ratio == wanted]) for wanted in ratios]


def _area(ratios: np.ndarray, mean: np.ndarray) -> float:
    if len(ratios) < 2 or ratios[0] != 0 or mean[0] == 0:
        raise RecordError(
            "There is no robustness curve of these points.",
            found=", ".join(f"{r:g}: {m:.4g}" for r, m in zip(ratios, mean, strict=True)),
            expected="a value above 0 at ratio 0, and at least one more ratio",
            hint="run the protocol with ratio 0; features at zero have nothing to lose",
        )
    retention = mean / mean[0]
    trapezoids = np.diff(ratios) * (retention[1:] + retention[:-1]) / 2.0
    return float(trapezoids.sum() / (ratios[-1] - ratios[0]))


def _half_width(values: np.ndarray) -> float:
    """Half of the 95 % t-interval of a mean; 0 where all values agree (ratio 0 or 1)."""
    if np.ptp(values) == 0:
        return 0.0 if len(values) > 1 else float("nan")
    from scipy import stats

    spread = values.std(ddof=1) / np.sqrt(len(values))
    return float(stats.t.ppf(0.975, len(values) - 1) * spread)


def curve_points(
    curve: Iterable[dict[str, Any]], modality: str, metric: str
) -> list[tuple[float, float]]:
    """(ratio, value) of the points of a record's `curve`."""
    return [(p["ratio"], p["metrics"][metric]) for p in curve if p["modality"] == modality]
