"""How far two results are apart."""

from __future__ import annotations

import numpy as np


def relative_error(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Largest difference divided by the largest reference value.

    >>> relative_error(np.array([1.0, 4.5]), np.array([1.0, -5.0]))
    1.9
    """
    return float(np.abs(ours - theirs).max() / max(np.abs(theirs).max(), 1e-300))
