"""Items that are the same under another id: pairs of equal or nearly equal texts or images.

Nothing of size items × items is computed. Two texts of cosine t or more share one of the rarest
terms of the first: those whose removal leaves a vector shorter than t. Two hashes that differ in
few bits agree in one of several parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import scipy.sparse as sp
from PIL import Image

from alignrec_recbole.data.images import UnreadableImage, open_image

SAME_TEXT = 0.95  # cosine of TF-IDF vectors
BLOCK = 1024  # texts compared with all others at a time
MOST_PAIRS = 5_000_000
SIDE = 8  # of a hash: 8 × 8 bits
SAME_IMAGE = 2  # bits that may differ
PARTS = 4  # of a hash; more than SAME_IMAGE

Pairs = tuple[np.ndarray, np.ndarray]  # both orders of each pair


def same_texts(texts: Sequence[str], threshold: float = SAME_TEXT) -> Pairs:
    """Pairs of texts whose TF-IDF vectors (scikit-learn's, words) have at least this cosine.

    Raises:
        ValueError: no text has a word.

    >>> first, second = same_texts(["red shoe", "green tea", "Red shoe!", ""])
    >>> first.tolist(), second.tolist()
    ([0, 2], [2, 0])
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    table = sp.csr_matrix(TfidfVectorizer(dtype=np.float32).fit_transform(texts))
    rare = _rarest(table, threshold)
    columns = sp.csc_matrix(table.T, copy=True)
    columns.data[:] = 1
    found: list[np.ndarray] = []
    count = 0
    for start in range(0, table.shape[0], BLOCK):
        shared = sp.coo_matrix(rare[start : start + BLOCK] @ columns)
        first, second = shared.row + start, shared.col
        keep = first != second
        first, second = first[keep], second[keep]
        same = np.empty(len(first), dtype=bool)
        for at in range(0, len(first), 1 << 18):
            part = slice(at, at + (1 << 18))
            product = table[first[part]].multiply(table[second[part]]).sum(1)
            same[part] = np.asarray(product).ravel() >= threshold - 1e-6
        found.append(np.stack([first[same], second[same]]))
        count += int(same.sum())
        if count > MOST_PAIRS:
            break
    return _both_ways(np.concatenate(found, axis=1))


def _rarest(table: sp.csr_matrix, threshold: float) -> sp.csr_matrix:
    """Ones at each row's rarest terms, without which the rest is shorter than the threshold."""
    frequency = np.bincount(table.indices, minlength=table.shape[1])
    row = np.repeat(np.arange(table.shape[0]), np.diff(table.indptr))
    order = np.lexsort((frequency[table.indices], row))
    squares = table.data[order].astype(np.float64) ** 2
    before = np.concatenate([[0.0], np.cumsum(squares)])[:-1]
    before -= np.repeat(
        before[np.minimum(table.indptr[:-1], len(before) - 1)], np.diff(table.indptr)
    )
    needed = before <= 1 - threshold**2 + 1e-6
    chosen = order[needed]
    ones = np.ones(len(chosen), dtype=np.float32)
    return sp.csr_matrix((ones, (row[needed], table.indices[chosen])), shape=table.shape)


def _both_ways(pairs: np.ndarray) -> Pairs:
    both = np.unique(np.concatenate([pairs, pairs[::-1]], axis=1), axis=1)
    return both[0].astype(np.int64), both[1].astype(np.int64)


def hash_of_image(path: Path) -> int | None:
    """64 bits: whether a pixel is brighter than its left neighbour, of a grey 9 × 8 thumbnail.

    None where the file is refused as an image, and where the image is of one colour.
    """
    try:
        image = open_image(path)
    except UnreadableImage:
        return None
    small = image.convert("L").resize((SIDE + 1, SIDE), Image.Resampling.BILINEAR)
    grey = np.asarray(small, dtype=np.int16)
    bits = np.packbits(grey[:, 1:] > grey[:, :-1])
    if not bits.any():
        return None
    return int.from_bytes(bits.tobytes(), "big")


def same_images(hashes: Sequence[int | None]) -> Pairs:
    """Pairs of items whose images' hashes differ in at most SAME_IMAGE bits.

    >>> first, second = same_images([0b1011, None, 0b1010, 2**63 - 1])
    >>> first.tolist(), second.tolist()
    ([0, 2], [2, 0])
    """
    known = np.flatnonzero([value is not None for value in hashes])
    values = np.array([value for value in hashes if value is not None], dtype=np.uint64)
    width = 64 // PARTS
    found = [np.empty((2, 0), dtype=np.int64)]
    for part in range(PARTS):
        bits = (values >> np.uint64(part * width)) & np.uint64(2**width - 1)
        order = np.argsort(bits, kind="stable")
        ends = np.flatnonzero(np.diff(bits[order])) + 1
        for group in np.split(order, ends):
            for at in range(0, len(group) - 1):
                other = group[at + 1 :]
                differ = _bits(values[group[at]] ^ values[other])
                same = other[differ <= SAME_IMAGE]
                found.append(np.stack([np.full(len(same), known[group[at]]), known[same]]))
    return _both_ways(np.concatenate(found, axis=1))


def _bits(values: np.ndarray) -> np.ndarray:
    """Ones of each 64-bit number."""
    return np.unpackbits(values.view(np.uint8).reshape(-1, 8), axis=1).sum(1)
