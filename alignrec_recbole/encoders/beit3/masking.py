"""Masks of pre-training: words of texts, blocks of patches. Pure functions of a generator.

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
UNCHANGED, REPLACED = 0.1, 0.1  # of the chosen words; the others become <mask>


def generator(*numbers: int) -> np.random.Generator:
    """A generator for these numbers, so that draws do not depend on the order of items."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([n + 1 for n in numbers])))


def mask_text(
    ids: Sequence[int], ratio: float, mask: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Mask words: the ids with <mask> or random ones in place, and bool where one is predicted.

    <s> and </s> are never chosen. At least one word is chosen, and of several at least one is not.
    Of the chosen, 80 % become <mask>, 10 % a random word, and 10 % stay unchanged.

    >>> masked, chosen = mask_text([0, 7, 8, 9, 6, 2], 0.5, 11, generator(0))
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
    out[places[lot < 1 - UNCHANGED - REPLACED]] = mask
    random = places[lot >= 1 - REPLACED]
    out[random] = rng.integers(UNK, mask, len(random))
    return out, chosen


def mask_patches(grid: int, ratio: float, rng: np.random.Generator) -> np.ndarray:
    """bool [grid²], ⌊ratio · grid²⌋ of them True, in blocks as far as they fit.

    Blocks have an area of at least SMALLEST_BLOCK and sides that differ by LONGEST_SIDE at most;
    each may mask no more patches than remain to be masked. The rest is masked one by one.

    >>> int(mask_patches(14, 0.4, generator(0)).sum())
    78
    """
    total = int(ratio * grid * grid)
    masked = np.zeros((grid, grid), dtype=bool)
    count, added = 0, 1
    smallest = min(SMALLEST_BLOCK, max(1, grid * grid // 12))
    while count < total and added:
        added = 0
        for _ in range(TRIES):
            area = rng.uniform(smallest, max(smallest, total - count))
            shape = math.exp(rng.uniform(-math.log(LONGEST_SIDE), math.log(LONGEST_SIDE)))
            h, w = round(math.sqrt(area * shape)), round(math.sqrt(area / shape))
            if not (0 < h < grid and 0 < w < grid):
                continue
            top, left = rng.integers(0, grid - h + 1), rng.integers(0, grid - w + 1)
            block = masked[top : top + h, left : left + w]
            added = block.size - int(block.sum())
            if 0 < added <= total - count:
                block[:] = True
                count += added
                break
            added = 0
    flat = masked.reshape(-1)
    if count < total:
        flat[rng.choice(np.flatnonzero(~flat), total - count, replace=False)] = True
    return flat
