"""Ranking metrics per user from hit matrices, in full precision.

Notation: `hits` [users, k] is True where the item at that rank is a target; `targets` [users] is
the number of targets |T| > 0. Every function returns one value per user; means are taken by the
caller. Definitions are RecBole's and MMRec's (evaluator/metrics.py, utils/metrics.py).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Metric = Callable[[np.ndarray, np.ndarray, int], np.ndarray]


def recall(hits: np.ndarray, targets: np.ndarray, k: int) -> np.ndarray:
    """Hits in the first k ÷ |T|.

    >>> recall(np.array([[False, True, True, False]]), np.array([2]), 2)
    array([0.5])
    """
    return np.asarray(hits[:, :k].sum(1) / targets)


def precision(hits: np.ndarray, targets: np.ndarray, k: int) -> np.ndarray:
    """Hits in the first k ÷ k.

    >>> precision(np.array([[False, True, True, False]]), np.array([2]), 4)
    array([0.5])
    """
    return np.asarray(hits[:, :k].sum(1) / k)


def hit(hits: np.ndarray, targets: np.ndarray, k: int) -> np.ndarray:
    """1 if any of the first k is a target, else 0.

    >>> hit(np.array([[False, True]]), np.array([2]), 1)
    array([0.])
    """
    return np.asarray(hits[:, :k].any(1), dtype=np.float64)


def ndcg(hits: np.ndarray, targets: np.ndarray, k: int) -> np.ndarray:
    """Σ_j rel_j / log2(j+1) ÷ the same sum for min(k, |T|) hits at the top.

    >>> ndcg(np.array([[False, True, True, False]]), np.array([2]), 4).round(4)
    array([0.6934])
    """
    gain = 1 / np.log2(np.arange(2, k + 2))
    ideal = np.concatenate([[0.0], gain.cumsum()])
    return (hits[:, :k] * gain).sum(1) / ideal[np.minimum(targets, k)]


def average_precision(hits: np.ndarray, targets: np.ndarray, k: int) -> np.ndarray:
    """Σ_j rel_j · precision at j ÷ min(k, |T|).

    >>> average_precision(np.array([[False, True, True, False]]), np.array([2]), 4).round(4)
    array([0.5833])
    """
    first = hits[:, :k]
    precisions = first.cumsum(1) / np.arange(1, k + 1)
    return (precisions * first).sum(1) / np.minimum(targets, k)


def reciprocal_rank(hits: np.ndarray, targets: np.ndarray, k: int) -> np.ndarray:
    """1 ÷ rank of the first hit, 0 if there is none.

    >>> reciprocal_rank(np.array([[False, True, True]]), np.array([2]), 3)
    array([0.5])
    """
    first = hits[:, :k]
    return np.where(first.any(1), 1 / (first.argmax(1) + 1), 0.0)


METRICS: dict[str, Metric] = {
    "Recall": recall,
    "NDCG": ndcg,
    "Precision": precision,
    "MAP": average_precision,
    "Hit": hit,
    "MRR": reciprocal_rank,
}
