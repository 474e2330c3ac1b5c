"""A small data set that is learnt in a few epochs: two blocks of users and items."""

from __future__ import annotations

from pathlib import Path

import numpy as np


def write_two_blocks(folder: Path) -> np.random.Generator:
    """Write `two/two.inter` in MMRec's layout: 40 users, 24 items, with split labels.

    Returns:
        the generator of the interactions, for features drawn after them.
    """
    rng = np.random.default_rng(0)
    lines = ["userID\titemID\tx_label"]
    for user in range(40):
        items = rng.permutation(12) + 12 * (user % 2)
        labels = [0] * 8 + [1, 2]
        lines += [f"{user}\t{i}\t{y}" for i, y in zip(items, labels, strict=False)]
    (folder / "two").mkdir()
    (folder / "two" / "two.inter").write_text("\n".join(lines) + "\n")
    return rng
