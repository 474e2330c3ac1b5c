"""REARM's graphs of users and of items against their definition on whole matrices."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from alignrec_recbole.features.item_order import tie_ranks
from alignrec_recbole.graphs.homogeneous import (
    common_shares,
    cosine_graph,
    mean_over_items,
    same_items,
)


@pytest.fixture
def pairs():
    """12 users, 9 items; user 3 and item 4 have nothing, user 5 shares item 9 with nobody."""
    matrix = np.random.default_rng(3).random((13, 10)) < 0.3
    matrix[[0, 3, 5]] = matrix[:, [0, 4, 9]] = False
    matrix[5, 9] = True
    user, item = matrix.nonzero()
    again = np.concatenate([user, user[:4]]), np.concatenate([item, item[:4]])
    return again, matrix.astype(float)


def softmax(values):
    share = np.exp(values - values.max())
    return share / share.sum()


@pytest.mark.parametrize("side", ["users", "items"])
@pytest.mark.parametrize("k", [1, 3, 40])
def test_shares_are_those_of_the_nodes_with_most_in_common(pairs, side, k):
    (user, item), matrix = pairs
    ends = (user, item) if side == "users" else (item, user)
    matrix = matrix if side == "users" else matrix.T
    place = tie_ranks(["[PAD]", *map(str, range(1, len(matrix)))])
    found = common_shares(ends, matrix.shape, k, place).toarray()
    common, partners = matrix @ matrix.T, matrix.sum(1)
    expected = np.zeros_like(found)
    for node in range(1, len(matrix)):
        others = [n for n in range(len(matrix)) if n != node and common[node, n] > 0]
        others = sorted(others, key=lambda n: (-common[node, n], place[n]))[:k]
        if others:
            expected[node, others] = softmax(common[node, others])
        else:
            most = [n for n in np.flatnonzero(partners) if (partners >= partners[n]).sum() <= k]
            if most:
                expected[node, most] = softmax(partners[most] / partners[most].sum())
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_nodes_without_any_pair_at_all_have_no_edges():
    none = np.zeros(0, dtype=np.int64)
    assert common_shares((none, none), (3, 3), 2).nnz == 0


def test_alike_rows_weigh_their_cosine_also_a_negative_one():
    rows = torch.randn(7, 3, generator=torch.Generator().manual_seed(0))
    rows[[0, 4]] = 0
    unit = torch.nn.functional.normalize(rows, dim=1).numpy()
    cosine = unit @ unit.T
    found = cosine_graph(rows, 40).toarray()  # all others: 5 of them
    expected = cosine / 5
    expected[4, 4] = 1
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert (found < 0).any()
    near = cosine_graph(rows, 2).toarray()
    others = cosine.copy()
    np.fill_diagonal(others, -2)
    for row in (1, 2, 3, 5, 6):
        others[row, [0, 4]] = -2
        best = others[row].argmax()
        assert set(np.flatnonzero(near[row])) == {row, best}
        assert near[row, best] == pytest.approx(cosine[row, best] / 2, abs=1e-6)


def test_a_mean_is_over_the_items_that_are_present(pairs):
    ends, matrix = pairs
    present = np.arange(10) % 3 > 0
    found = mean_over_items(ends, matrix.shape, present).toarray()
    counts = (matrix * present).sum(1, keepdims=True)
    assert (counts == 0).sum() > 2
    np.testing.assert_allclose(found, matrix * present / np.maximum(counts, 1))


def test_users_are_alike_by_the_items_that_are_present_alone():
    pairs = np.array([1, 1, 2, 2, 3, 4, 4]), np.array([1, 2, 1, 3, 2, 3, 3])
    numbers = same_items(pairs, (5, 4), np.array([False, True, False, True]))
    groups = [np.flatnonzero(numbers == number).tolist() for number in np.unique(numbers)]
    assert sorted(groups) == [[0, 3], [1], [2], [4]]  # {}, {1}, {1, 3}, {3}


@pytest.mark.parametrize("k", [1, 2, 4, 5, 40])
def test_of_equal_rows_the_first_places_are_near(k):
    """Rows 1, 4 and 6 are equal, 2 and 5 too, 3 is zero."""
    distinct = torch.tensor([[0.0, 0], [1, 0], [0.6, 0.8], [0, 0]])
    same = np.array([0, 1, 2, 3, 1, 2, 1])
    place = np.array([6, 4, 1, 2, 0, 5, 3])
    found = cosine_graph(distinct[same], k, same=same, place=place).toarray()
    for row in (1, 2, 4, 5, 6):
        groups = ([4, 6, 1], [2, 5]) if same[row] == 1 else ([2, 5], [4, 6, 1])
        weights = {n: w for group, w in zip(groups, (1.0, 0.6), strict=True) for n in group}
        expected = np.zeros(7)
        for n in [*groups[0], *groups[1]][:k]:
            expected[n] = weights[n] / min(k, 5)
        np.testing.assert_allclose(found[row], expected, atol=1e-6)
    assert not found[0].any()
    assert found[3].tolist() == [0, 0, 0, 1, 0, 0, 0]
