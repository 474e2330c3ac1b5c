"""How far two results are apart."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np


def relative_error(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Largest difference divided by the largest reference value; inf where one is not finite.

    >>> relative_error(np.array([1.0, 4.5]), np.array([1.0, -5.0]))
    1.9
    """
    with np.errstate(invalid="ignore"):
        error = np.abs(ours - theirs).max() / max(np.abs(theirs).max(), 1e-300)
    return float(error) if np.isfinite(error) else np.inf


def largest(errors: Iterable[float]) -> float:
    """The largest error; inf if one is not a number, which `max` may pass over.

    >>> largest([0.5, float("nan")])
    inf
    """
    return max(float("inf") if np.isnan(error) else error for error in errors)
