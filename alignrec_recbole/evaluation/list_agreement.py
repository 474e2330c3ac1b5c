"""How alike two top-K lists of a user are: overlap, and rank-biased overlap.

Lists are rows of item ids [n, K], best first, −1 where a list ends. Every function returns one
value per row.
"""

from __future__ import annotations

import numpy as np

PERSISTENCE = 0.9  # of rank-biased overlap: the first ten ranks have 86 % of the weight


def common_items(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Number of common items in the first d ranks, for d = 1 … K [n, K].

    >>> common_items(np.array([[1, 2, 3]]), np.array([[2, 1, 4]])).tolist()
    [[0, 2, 2]]
    """
    length = one.shape[1]
    place = np.full(one.shape, length)  # rank of each item of `one` in `other`, K: in none
    for rank in range(length):
        same = (other[:, rank : rank + 1] == one) & (one >= 0)
        place = np.where(same, rank, place)
    both = np.maximum(place, np.arange(length))  # from this depth on the item is in both lists
    out = np.zeros(one.shape, dtype=np.int64)
    for depth in range(length):
        out[:, depth] = (both <= depth).sum(1)
    return out


def overlap(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """|A ∩ B| / max(|A|, |B|); 1 for two empty lists.

    >>> overlap(np.array([[1, 2, 3, 4]]), np.array([[2, 1, 5, 6]]))
    array([0.5])
    """
    size = np.maximum((one >= 0).sum(1), (other >= 0).sum(1))
    common = common_items(one, other)[:, -1]
    return np.asarray(np.where(size > 0, common / np.maximum(size, 1), 1.0))


def rank_biased_overlap(
    one: np.ndarray, other: np.ndarray, persistence: float = PERSISTENCE
) -> np.ndarray:
    """Overlap weighted by rank and extrapolated beyond the lists, in [0, 1]; 1 for equal lists.

    (X_K / K) p^K + (1 − p)/p · Σ_d (X_d / d) p^d, X_d the common items in the first d ranks. A list
    that ends before K is extrapolated from its end.

    Source: Webber, Moffat and Zobel, "A Similarity Measure for Indefinite Rankings", ACM TOIS 2010,
    equation 23 (lists of one length).

    >>> lists = np.array([[1, 2]]), np.array([[2, 1]])  # (2/2) 0.25 + 1 · (0 · 0.5 + 1 · 0.25)
    >>> rank_biased_overlap(*lists, persistence=0.5)
    array([0.5])
    """
    depth = np.arange(1, one.shape[1] + 1)
    length = np.maximum((one >= 0).sum(1), (other >= 0).sum(1)).clip(1)[:, None]
    place = np.minimum(depth, length)  # beyond the lists' end, the agreement there
    share = np.take_along_axis(common_items(one, other), place - 1, 1) / place
    weight = persistence**depth
    tail = share[:, -1] * persistence ** one.shape[1]
    return np.asarray(tail + (1 - persistence) / persistence * (share * weight).sum(1))
