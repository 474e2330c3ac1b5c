"""The numbers of users and items, drawn at random so that a number says nothing about its owner.

Numbers in the order of first appearance tell which interaction of a user or an item comes first in
the raw file, its test interactions included: a ranker that reads nothing else of the test set
finds them. Numbers drawn at random depend on the set of ids and the seed alone, not on the rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from alignrec_recbole.data.split_names import DEFAULT_SEED, Numbering


def number_ids(
    ids: Sequence[str],
    numbering: Numbering = "random",
    seed: int | Sequence[int] = DEFAULT_SEED,
) -> dict[str, int]:
    """A number from 0 to n − 1 for each id, in the order of the numbers.

    Args:
        ids: each id once, in the order of appearance.
        numbering: `random`: a permutation drawn from the seed, which the order of `ids` does not
            change; `appearance`: the order of `ids`.
        seed: of the permutation; several numbers are one seed.

    >>> number_ids(["b", "a", "c"]) == number_ids(["c", "b", "a"])
    True
    >>> number_ids(["b", "a", "c"], "appearance")
    {'b': 0, 'a': 1, 'c': 2}
    """
    if numbering == "appearance":
        return {token: number for number, token in enumerate(ids)}
    order = np.random.default_rng(seed).permutation(len(ids))
    tokens = sorted(ids)
    return {tokens[place]: number for number, place in enumerate(order)}
