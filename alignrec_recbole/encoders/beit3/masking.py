"""What is hidden from the model: words of texts, blocks of patches. Pure functions of a generator.

Source: the BEiT-3 paper, section 2.2 (50 % of a pair's text tokens, 40 % of its patches in blocks);
the 80/10/10 rule of BERT; block shapes of BEiT.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from alignrec_recbole.encoders.beit3.tokenizer import UNK

SMALLEST_BLOCK = 16  # patches; BEiT v2's command line
LONGEST_SIDE = 1 / 0.3  # of a block, to its other side
TRIES = 10
KEPT, REPLACED = 0.1, 0.1  # of the chosen words; the others become <mask>


def generator(*numbers: int) -> np.random.Generator:
    """A generator of its own for each item of each epoch, so that the order of items is free."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([n + 1 for n in numbers])))


def mask_text(
    ids: Sequence[int], ratio: float, mask: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Hide words: ids with <mask> or random ones in them, and bool where one is to be predicted.

    <s> and </s> are never chosen; at least one word is, if there is any, and at least one of two
    stays. Of the chosen, 80 % become <mask>, 10 % a random word, 10 % stay as they are.

    >>> hidden, chosen = mask_text([0, 7, 8, 9, 6, 2], 0.5, 11, generator(0))
    >>> int(chosen.sum()), bool(chosen[0] or chosen[-1])
    (2, False)
    """
    out = np.array(ids, dtype=np.int64)
    chosen = np.zeros(len(out), dtype=bool)
    words = len(out) - 2
    if words < 1:
        return out, chosen
    count = max(1, min(int(ratio * words + 0.5), words - 1))
    places = 1 + rng.permutation(words)[:count]
    chosen[places] = True
    lot = rng.random(count)
    out[places[lot < 1 - KEPT - REPLACED]] = mask
    random = places[lot >= 1 - REPLACED]
    out[random] = rng.integers(UNK, mask, len(random))
    return out, chosen


def mask_patches(grid: int, ratio: float, rng: np.random.Generator) -> np.ndarray:
    """bool [grid²], ⌊ratio · grid²⌋ of them True, in blocks as far as they fit.

    Blocks have an area of at least SMALLEST_BLOCK and sides that differ by LONGEST_SIDE at most;
    each may add no more than what is left to hide. What blocks leave over is hidden singly.

    >>> int(mask_patches(14, 0.4, generator(0)).sum())
    78
    """
    total = int(ratio * grid * grid)
    masked = np.zeros((grid, grid), dtype=bool)
    hidden, added = 0, 1
    smallest = min(SMALLEST_BLOCK, max(1, grid * grid // 12))
    while hidden < total and added:
        added = 0
        for _ in range(TRIES):
            area = rng.uniform(smallest, max(smallest, total - hidden))
            shape = math.exp(rng.uniform(-math.log(LONGEST_SIDE), math.log(LONGEST_SIDE)))
            h, w = round(math.sqrt(area * shape)), round(math.sqrt(area / shape))
            if not (0 < h < grid and 0 < w < grid):
                continue
            top, left = rng.integers(0, grid - h + 1), rng.integers(0, grid - w + 1)
            block = masked[top : top + h, left : left + w]
            added = block.size - int(block.sum())
            if 0 < added <= total - hidden:
                block[:] = True
                hidden += added
                break
            added = 0
    flat = masked.reshape(-1)
    if hidden < total:
        flat[rng.choice(np.flatnonzero(~flat), total - hidden, replace=False)] = True
    return flat
