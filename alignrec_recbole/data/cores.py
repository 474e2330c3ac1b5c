"""k-cores of a bipartite graph of users and items."""

from __future__ import annotations

import numpy as np


def k_core(users: np.ndarray, items: np.ndarray, user_k: int, item_k: int) -> np.ndarray:
    """Mask of the largest set of rows in which users have `user_k` rows each and items `item_k`.

    Args:
        users, items: numbers of a row's user and item, from 0.
        user_k, item_k: rows that each has at least; 0 and 1 leave all.

    Returns:
        bool [rows].

    >>> k_core(np.array([0, 0, 1, 1, 2]), np.array([0, 1, 0, 1, 1]), 2, 2).tolist()
    [True, True, True, True, False]
    """
    rows = np.arange(len(users))
    while len(rows):
        enough = np.ones(len(rows), dtype=bool)
        for numbers, least in ((users, user_k), (items, item_k)):
            if least > 1:
                of_rows = numbers[rows]
                enough &= np.bincount(of_rows)[of_rows] >= least
        if enough.all():
            break
        rows = rows[enough]
    mask = np.zeros(len(users), dtype=bool)
    mask[rows] = True
    return mask
