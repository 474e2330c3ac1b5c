"""Agreement of lists against definitions written out."""

from __future__ import annotations

import numpy as np
import pytest

from alignrec_recbole.evaluation.list_agreement import common_items, overlap, rank_biased_overlap


def by_definition(one: list[int], other: list[int], p: float) -> float:
    """Webber et al. 2010, equation 23, term by term."""
    k = len(one)
    common = [len(set(one[:d]) & set(other[:d])) for d in range(1, k + 1)]
    total = sum(x / d * p**d for d, x in enumerate(common, 1))
    return common[-1] / k * p**k + (1 - p) / p * total


def test_random_lists_agree_with_the_definition() -> None:
    rng = np.random.default_rng(0)
    lists = [np.stack([rng.permutation(12)[:7] for _ in range(200)]) for _ in range(2)]
    found = rank_biased_overlap(*lists, persistence=0.8)
    expected = [by_definition(a, b, 0.8) for a, b in zip(*(x.tolist() for x in lists), strict=True)]
    assert found == pytest.approx(np.array(expected))
    shared = [len(set(a) & set(b)) / 7 for a, b in zip(*(x.tolist() for x in lists), strict=True)]
    assert overlap(*lists) == pytest.approx(np.array(shared))


def test_ends_of_the_scale() -> None:
    one = np.array([[1, 2, 3], [1, 2, 3], [-1, -1, -1], [4, 5, -1]])
    other = np.array([[1, 2, 3], [4, 5, 6], [-1, -1, -1], [5, 4, -1]])
    assert overlap(one, other).tolist() == [1, 0, 1, 1]
    assert rank_biased_overlap(one, other)[:2] == pytest.approx([1, 0])
    assert rank_biased_overlap(one, one)[3] == pytest.approx(1)  # a list that ends early
    short = rank_biased_overlap(one[3:, :2], other[3:, :2])
    assert rank_biased_overlap(one, other)[3] == pytest.approx(short[0])
    assert common_items(one, other)[3].tolist() == [0, 2, 2]


def test_a_shorter_list_agrees_as_if_other_items_followed() -> None:
    one, short = np.array([[1, 2, 3, 4]]), np.array([[2, 1, -1, -1]])
    for pair in ((one, short), (short, one)):
        assert overlap(*pair) == 2 / 4
        expected = by_definition([1, 2, 3, 4], [2, 1, 8, 9], 0.8)
        assert rank_biased_overlap(*pair, persistence=0.8) == pytest.approx(expected)
