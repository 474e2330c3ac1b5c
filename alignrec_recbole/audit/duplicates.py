"""Items that are the same under another id: pairs of equal or nearly equal texts or images.

Nothing of size items × items is computed, and equal texts or hashes are compared once. Two texts
of cosine t or more share one of the rarest terms of the first: those whose removal leaves a vector
shorter than t. Two hashes differ in at most two bits if one with at most one bit turned equals the
other with at most one bit turned.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import scipy.sparse as sp
from PIL import Image

from alignrec_recbole.data.images import UnreadableImage, open_image

SAME_TEXT = 0.95  # cosine of TF-IDF vectors
BLOCK = 1024  # texts compared with all others at a time
MOST_PAIRS = 5_000_000
MOST_OF_ONE = 50  # items; a text or an image that more have is a placeholder
SIDE = 8  # of a hash: 8 × 8 bits

Pairs = tuple[np.ndarray, np.ndarray]  # both orders of each pair


def same_texts(texts: Sequence[str], threshold: float = SAME_TEXT) -> tuple[Pairs, tuple[str, ...]]:
    """Pairs of texts whose TF-IDF vectors (scikit-learn's, words) have at least this cosine.

    Returns:
        the pairs, and notes on what was left out: texts that more than MOST_OF_ONE items have, and
        texts that were not compared after MOST_PAIRS pairs.

    Raises:
        ValueError: no text has a word.

    >>> (first, second), notes = same_texts(["red shoe", "green tea", "Red shoe!", ""])
    >>> first.tolist(), second.tolist(), notes
    ([0, 2], [2, 0], ())
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    table = sp.csr_matrix(TfidfVectorizer(dtype=np.float32).fit_transform(texts))
    group, rows = _equal_rows(table)
    sizes = np.bincount(group[group >= 0], minlength=len(rows))
    notes = []
    if (stand_ins := sizes > MOST_OF_ONE).any():
        notes.append(
            f"{sizes[stand_ins].sum():,} items have a text that more than {MOST_OF_ONE} items have."
        )
        number = np.where(stand_ins, -1, np.cumsum(~stand_ins) - 1)
        group = np.where(group < 0, -1, number[group])
        rows, sizes = rows[~stand_ins], sizes[~stand_ins]
    pairs, compared = _near(table[rows], threshold, sizes)
    if compared < len(rows):
        notes.append(
            f"More than {MOST_PAIRS:,} pairs of items have the same text: {compared:,} of "
            f"{len(rows):,} texts were compared with the others."
        )
    return _of_members(group, pairs), tuple(notes)


def _equal_rows(table: sp.csr_matrix) -> tuple[np.ndarray, np.ndarray]:
    """Number of each row among the distinct ones, −1 for rows of zeros, and a row of each."""
    table.sort_indices()
    known: dict[bytes, int] = {}
    rows: list[int] = []
    group = np.full(table.shape[0], -1)
    for row, (start, end) in enumerate(pairwise(table.indptr.tolist())):
        if start < end:
            key = table.indices[start:end].tobytes() + table.data[start:end].tobytes()
            group[row] = known.setdefault(key, len(known))
            if group[row] == len(rows):
                rows.append(row)
    return group, np.array(rows, dtype=np.int64)


def _near(table: sp.csr_matrix, threshold: float, sizes: np.ndarray) -> tuple[np.ndarray, int]:
    """Pairs [2, n] of distinct rows of at least this cosine, and how many rows were compared.

    Args:
        sizes: items with each row; after MOST_PAIRS pairs of items the search ends.
    """
    rare = _rarest(table, threshold)
    columns = sp.csc_matrix(table.T, copy=True)
    columns.data[:] = 1
    found = [np.empty((2, 0), dtype=np.int64)]
    count, total = 0, table.shape[0]
    for start in range(0, total, BLOCK):
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
        count += int((sizes[first[same]] * sizes[second[same]]).sum())
        if count > MOST_PAIRS:
            return np.concatenate(found, axis=1), min(start + BLOCK, total)
    return np.concatenate(found, axis=1), total


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


def _of_members(group: np.ndarray, pairs: np.ndarray) -> Pairs:
    """Pairs of the members of the same group, and of groups that are a pair, in both orders.

    Args:
        group: of each item; −1 for items in no pair.
        pairs: of groups [2, n].

    >>> first, second = _of_members(np.array([0, 1, 0, -1]), np.array([[1], [0]]))
    >>> first.tolist(), second.tolist()
    ([0, 0, 1, 1, 2, 2], [1, 2, 0, 2, 0, 1])
    """
    members = np.flatnonzero(group >= 0)
    count = int(group.max(initial=-1)) + 1
    ones = np.ones(len(members), dtype=bool)
    of_group = sp.csr_matrix((ones, (members, group[members])), shape=(len(group), count))
    both = np.concatenate([pairs, pairs[::-1], np.tile(np.arange(count), (2, 1))], axis=1)
    joined = sp.csr_matrix((np.ones(both.shape[1], dtype=bool), tuple(both)), shape=(count, count))
    same = sp.csr_matrix(of_group @ joined @ of_group.T)
    same.sort_indices()
    first, second = same.nonzero()
    apart = first != second
    return first[apart].astype(np.int64), second[apart].astype(np.int64)


def hash_of_image(path: Path) -> int | None:
    """64 bits: whether a pixel is brighter than its left neighbour, of a grey 9 × 8 thumbnail.

    None where the file is refused as an image, and where no pixel is brighter than its left
    neighbour: of one colour, or darker to the right. Such images are all alike to the hash.
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
    """Pairs of items whose images' hashes differ in at most two bits.

    >>> first, second = same_images([0b1011, None, 0b1010, 2**63 - 1])
    >>> first.tolist(), second.tolist()
    ([0, 2], [2, 0])
    """
    known = np.array([value is not None for value in hashes], dtype=bool)
    given = np.array([value for value in hashes if value is not None], dtype=np.uint64)
    values, group_of_known = np.unique(given, return_inverse=True)
    group = np.full(len(known), -1)
    group[known] = group_of_known
    turned = [values, *(values ^ np.uint64(1 << bit) for bit in range(SIDE * SIDE))]
    keys = np.concatenate(turned)
    order = np.argsort(keys, kind="stable")
    keys, owner = keys[order], order % max(1, len(values))
    found = [np.empty((2, 0), dtype=np.int64)]
    for ahead in range(1, len(turned)):
        equal = np.flatnonzero(keys[:-ahead] == keys[ahead:])
        if not len(equal):
            break
        found.append(np.stack([owner[equal], owner[equal + ahead]]))
    return _of_members(group, np.concatenate(found, axis=1))
