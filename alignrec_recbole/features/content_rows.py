"""Feature sets as one row per item, of length 1, with what places further items among them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

SAME = 1e-6  # relative length below which a centred row is rounding: all items are the same

Set = tuple[np.ndarray, np.ndarray]  # values [n, f], which rows are present bool [n]


def rows_and_means(sets: Sequence[Set], *, centre: bool) -> tuple[np.ndarray, np.ndarray]:
    """Feature sets as one float32 matrix [n, Σ f_m], and the means subtracted, float64 [Σ f_m].

    Every set's rows are divided by their norm; with `centre` the mean row of the items that have
    the set is subtracted and the rest divided by its norm again. Of M sets each is divided by √M,
    so that the row of an item with all of them has length 1. Missing rows stay zero, and so do rows
    of which only rounding is left after the mean is subtracted: constant features say nothing.
    """
    parts, means = [], []
    for values, present in sets:
        rows = unit(np.asarray(values, dtype=np.float64))
        here = np.asarray(present) & rows.any(1)
        mean = rows[here].mean(0) if centre and here.any() else np.zeros(rows.shape[1])
        parts.append(_placed(rows, here, mean, centre) / np.sqrt(len(sets)))
        means.append(mean)
    matrix = np.ascontiguousarray(np.concatenate(parts, axis=1), dtype=np.float32)
    return matrix, np.concatenate(means)


def further_rows(sets: Sequence[np.ndarray], means: np.ndarray, *, centre: bool) -> np.ndarray:
    """Rows of further items [n, Σ f_m] beside those that `rows_and_means` made; zero: missing."""
    parts, start = [], 0
    for values in sets:
        stop = start + values.shape[1]
        rows = unit(np.asarray(values, dtype=np.float64))
        here = np.asarray(rows.any(1))
        parts.append(_placed(rows, here, means[start:stop], centre) / np.sqrt(len(sets)))
        start = stop
    return np.ascontiguousarray(np.concatenate(parts, axis=1), dtype=np.float32)


def _placed(rows: np.ndarray, here: np.ndarray, mean: np.ndarray, centre: bool) -> np.ndarray:
    if centre and here.any():
        rows[here] -= mean
        rows[np.linalg.norm(rows, axis=1) < SAME] = 0.0
        rows = unit(rows)
    rows[~here] = 0.0
    return rows


def divided_by_norm(rows: np.ndarray) -> np.ndarray:
    """`unit` by one division where squares neither overflow nor vanish; its last bits differ."""
    with np.errstate(over="ignore", under="ignore"):
        norm = np.linalg.norm(rows, axis=1, keepdims=True)
    out = rows / np.where(norm > 0, norm, 1)
    vanishing = (norm[:, 0] < np.sqrt(np.finfo(norm.dtype).tiny)) & rows.any(1)
    odd = np.isinf(norm[:, 0]) | vanishing
    if odd.any():
        out[odd] = unit(rows[odd])
    return out


def unit(rows: np.ndarray) -> np.ndarray:
    """Rows divided by their norm; zero rows stay zero."""
    largest = np.abs(rows).max(1, keepdims=True)
    scaled = rows / np.where(largest > 0, largest, 1.0)  # squares neither overflow nor vanish
    norm = np.linalg.norm(scaled, axis=1, keepdims=True)
    return scaled / np.where(norm > 0, norm, 1.0)
