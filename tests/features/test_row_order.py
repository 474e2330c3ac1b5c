"""Whether rows are recognised as those of their items, and rows of other items as such."""

from __future__ import annotations

import numpy as np
import pytest

from alignrec_recbole.features.row_order import SURE, RowOrder, row_order

USERS, ITEMS, KINDS = 300, 200, 20


@pytest.fixture(scope="module")
def chosen() -> tuple[np.ndarray, np.ndarray]:
    """Five items of one kind for each user; neighbouring numbers are of one kind."""
    rng = np.random.default_rng(0)
    kinds = np.arange(ITEMS) * KINDS // ITEMS
    items = [rng.permutation(np.flatnonzero(kinds == user % KINDS))[:5] for user in range(USERS)]
    order = rng.permutation(5 * USERS)  # rows in no order
    return np.repeat(np.arange(USERS), 5)[order], np.concatenate(items)[order]


def rows_of_kinds(noise: float) -> np.ndarray:
    """Rows near the centre of their item's kind, far from zero as those of many encoders."""
    rng = np.random.default_rng(1)
    centres = rng.normal(size=(KINDS, 16))[np.arange(ITEMS) * KINDS // ITEMS]
    return (centres + noise * rng.normal(size=(ITEMS, 16)) + 100).astype(np.float32)


def test_rows_of_their_items_are_confirmed(chosen) -> None:
    found = row_order(rows_of_kinds(0.5), *chosen)
    assert found.is_confirmed
    assert not found.is_contradicted
    assert found.errors > 10 * SURE
    assert found.pairs == 4 * USERS


@pytest.mark.parametrize("shift", [-1, 1, 2])
def test_rows_of_the_next_items_are_contradicted_by_the_shift_that_is_better(chosen, shift) -> None:
    found = row_order(np.roll(rows_of_kinds(0.5), shift, axis=0), *chosen)
    assert found.shift == shift
    assert found.errors > SURE, "neighbours are of one kind, so the wrong rows fit as well"
    assert found.errors_at_shift > found.errors + SURE
    assert found.is_contradicted
    assert not found.is_confirmed


def test_permuted_rows_are_neither(chosen) -> None:
    values = rows_of_kinds(0.5)[np.random.default_rng(2).permutation(ITEMS)]
    found = row_order(values, *chosen)
    assert abs(found.errors) < SURE
    assert not found.is_confirmed
    assert not found.is_contradicted


def test_a_better_shift_counts_from_six_standard_errors_on() -> None:
    assert not RowOrder(100, 6.0, 1, 11.9).is_contradicted
    assert RowOrder(100, 6.0, 1, 12.0).is_contradicted
    assert not RowOrder(100, -9.0, 1, 5.9).is_contradicted
    assert RowOrder(100, 6.0, 0, 6.0).is_confirmed
    assert not RowOrder(100, 5.9, 0, 5.9).is_confirmed
