"""Edges with learnt weights against dense twins."""

import numpy as np
import pytest
import torch

from alignrec_recbole.ops.edge_weights import EdgeWeights, gathered_dot


@pytest.fixture
def edges():
    rng = np.random.default_rng(3)
    users, items = np.nonzero(rng.random((9, 7)) < 0.4)
    kept = (users != 4) & (items != 2)  # a user and an item without edges
    users, items = users[kept], items[kept]
    again = rng.permutation(np.r_[np.arange(len(users)), 0, 1])  # two pairs twice, any order
    return EdgeWeights((users[again], items[again]), (9, 7)), len(users)


def test_edges_are_sorted_and_know_their_reverse(edges):
    edges, pairs = edges
    assert len(edges.sender) == 2 * pairs
    assert (edges.receiver.diff() >= 0).all()
    assert (edges.receiver[:pairs] < 9).all()
    assert torch.equal(edges.sender[edges.reverse], edges.receiver)
    assert torch.equal(edges.receiver[edges.reverse], edges.sender)
    assert torch.equal(edges.offsets.diff(), torch.bincount(edges.receiver, minlength=16))
    assert not edges.state_dict()


@pytest.mark.parametrize("block", [4, 1 << 15])
@pytest.mark.parametrize("into_users", [False, True])
def test_both_ways_to_products_agree(edges, block, into_users, monkeypatch):
    monkeypatch.setattr("alignrec_recbole.ops.edge_weights.GATHER_BLOCK_EDGES", block)
    edges, pairs = edges
    left, right = torch.randn(2, 16, 3, dtype=torch.float64)
    some = slice(pairs if into_users else None)
    gathered = gathered_dot(edges.receiver[some], edges.sender[some], left, right)
    assert len(gathered) == (pairs if into_users else 2 * pairs)
    torch.testing.assert_close(edges.pairwise_dot(left, right, into_users=into_users), gathered)


def test_edge_operations_equal_dense_ones_and_have_their_gradients(edges):
    edges, _ = edges
    x = torch.randn(16, 3, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(len(edges.sender), dtype=torch.float64, requires_grad=True)
    place = edges.receiver, edges.sender

    def dense(values):
        return torch.zeros(16, 16, dtype=torch.float64).index_put(place, values)

    torch.testing.assert_close(edges.dot(x), (x @ x.T)[place])
    torch.testing.assert_close(edges.aggregate(weights, x), dense(weights) @ x)
    full = torch.full((16, 16), -torch.inf, dtype=torch.float64).index_put(place, weights)
    torch.testing.assert_close(edges.softmax(weights), torch.softmax(full, 1)[place])
    assert torch.autograd.gradcheck(edges.dot, (x,))
    assert torch.autograd.gradcheck(edges.aggregate, (weights, x))
    assert torch.autograd.gradcheck(edges.softmax, (weights,))
    assert not edges.aggregate(weights, x)[[4, 11]].any()
