"""Orders of a data set's items by their tokens, whatever their internal ids and file rows.

Among equals, such as items with equal scores, numbers would be a bias: they follow a file that may
be grouped by product. So equals are in one fixed random order, `tie_ranks`, everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

TIE_SEED = 20240319


def canonical_order(tokens: Sequence[str]) -> np.ndarray:
    """Internal item ids without PAD [n], sorted by the length and spelling of their tokens.

    For the itemIDs 0 … n−1 this is their numerical order.

    Args:
        tokens: item token by internal id; tokens[0] is PAD.

    >>> canonical_order(["[PAD]", "10", "9", "8"]).tolist()
    [3, 2, 1]
    """
    names = [str(token) for token in tokens[1:]]
    by_name = sorted(range(len(names)), key=lambda i: (len(names[i]), names[i]))
    return 1 + np.array(by_name, dtype=np.int64)


def seeded_order(tokens: Sequence[str], seed: int) -> np.ndarray:
    """The canonical order permuted by PCG64(seed).permutation(n).

    >>> seeded_order(["[PAD]", "10", "9", "8"], 0).tolist()
    [1, 3, 2]
    """
    generator = np.random.Generator(np.random.PCG64(seed))
    return canonical_order(tokens)[generator.permutation(len(tokens) - 1)]


def tie_ranks(tokens: Sequence[str], seed: int = TIE_SEED) -> np.ndarray:
    """Position of each item, or user, among equals [item_num]: `seeded_order`; PAD is last.

    >>> tie_ranks(["[PAD]", "a", "b", "c"]).tolist()
    [3, 0, 1, 2]
    """
    ranks = np.full(len(tokens), len(tokens) - 1, dtype=np.int64)
    ranks[seeded_order(tokens, seed)] = np.arange(len(tokens) - 1)
    return ranks
