"""Rows of length 1, of ordinary numbers and of numbers whose squares are none."""

from __future__ import annotations

import numpy as np
import pytest

from alignrec_recbole.features.content_rows import divided_by_norm


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rows_are_divided_by_their_norm(dtype: type) -> None:
    rows = np.random.default_rng(0).normal(size=(50, 7)).astype(dtype)
    rows[3] = 0
    found = divided_by_norm(rows)
    norm = np.linalg.norm(rows, axis=1, keepdims=True)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, rows / np.where(norm > 0, norm, 1))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_squares_that_overflow_or_vanish(dtype: type) -> None:
    limits = np.finfo(dtype)
    sizes = np.array([limits.max / 4, limits.tiny * 4, 1], dtype=dtype)
    found = divided_by_norm(sizes[:, None] * np.array([[3, 4]], dtype=dtype) / 4)
    np.testing.assert_allclose(found, [[0.6, 0.8]] * 3, rtol=1e-6)
    assert divided_by_norm(np.zeros((2, 0), dtype)).shape == (2, 0)
