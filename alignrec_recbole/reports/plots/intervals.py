"""95 % intervals of means, over seeds and over users."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np


class Ends(NamedTuple):
    """Both ends of an interval; NaN where there is none."""

    low: float
    high: float


NONE = Ends(float("nan"), float("nan"))


def over(values: Iterable[float]) -> Ends:
    """Student's t-interval of the mean; none of fewer than two values.

    >>> [round(end, 3) for end in over([0.1, 0.2, 0.3])]
    [-0.048, 0.448]
    """
    found = np.asarray(list(values), dtype=np.float64)
    if len(found) < 2:
        return NONE
    from scipy import stats  # a second of start-up

    mean = float(found.mean())
    half = float(stats.t.ppf(0.975, len(found) - 1) * found.std(ddof=1) / np.sqrt(len(found)))
    return Ends(mean - half, mean + half)


def arms(values: Sequence[float], ends: Sequence[Ends]) -> np.ndarray | None:
    """The lengths of intervals below and above, as matplotlib takes them; None if there is none.

    >>> arms([2.0, 3.0], [Ends(1.5, 3.0), NONE]).tolist()
    [[0.5, nan], [1.0, nan]]
    >>> arms([2.0], [NONE]) is None
    True
    """
    low, high = np.array(ends, dtype=np.float64).T
    lengths = np.maximum(0.0, [values - low, high - values])
    return None if np.isnan(lengths).all() else lengths
