"""Graphs against dense twins."""

import copy

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from alignrec_recbole import graphs
from alignrec_recbole.kernels import take_rows


@pytest.fixture
def square():
    matrix = sp.random(40, 40, 0.1, random_state=0)
    return matrix + matrix.T


def dense_mean(matrix, start, layers):
    total = layer = start
    for _ in range(layers):
        layer = matrix @ layer
        total = total + layer
    return total / (layers + 1)


@pytest.mark.parametrize("layers", [0, 1, 3])
@pytest.mark.parametrize("rows", [None, [0, 3, 3, 39]])
def test_layer_mean_equals_the_dense_sum_and_has_its_gradient(square, layers, rows):
    graph = graphs.SparseOperator(square, symmetric=True)
    dense = torch.from_numpy(square.toarray())
    rows = None if rows is None else torch.tensor(rows)
    start = torch.randn(40, 3, dtype=torch.float64, requires_grad=True)
    ours = graphs.layer_mean(graph, start, layers, rows)
    twin = dense_mean(dense, start, layers)
    twin = twin if rows is None else twin[rows]
    torch.testing.assert_close(ours, twin)
    weight = torch.randn_like(twin)
    expected = torch.autograd.grad((twin * weight).sum(), start)[0]
    torch.testing.assert_close(torch.autograd.grad((ours * weight).sum(), start)[0], expected)


def test_an_unsymmetric_operator_uses_its_transpose_backwards():
    matrix = sp.random(30, 20, 0.2, random_state=1)
    operator = graphs.SparseOperator(matrix)
    x = torch.randn(20, 2, dtype=torch.float64, requires_grad=True)
    rows = torch.tensor([5, 5, 0, 29])
    assert torch.autograd.gradcheck(lambda value: operator @ value, (x,))
    assert torch.autograd.gradcheck(lambda value: operator.rows(rows, value), (x,))
    torch.testing.assert_close(operator.rows(rows, x), torch.from_numpy(matrix.toarray()[rows]) @ x)


def test_rows_without_edges_are_zero():
    operator = graphs.SparseOperator(sp.csr_matrix((5, 5)))
    assert not (operator @ torch.ones(5, 2)).any()
    assert not operator.rows(torch.tensor([1, 4]), torch.ones(5, 2)).any()


def test_deep_copies_share_the_matrix(square):
    operator = graphs.SparseOperator(square, symmetric=True)
    assert copy.deepcopy(operator) is operator


def test_take_rows_adds_repeated_rows():
    table = torch.randn(6, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda t: take_rows(t, torch.tensor([2, 2, 0])), (table,))


def test_normalised_interactions_count_a_repeated_pair_once():
    once = graphs.normalised_interactions((np.array([1, 1]), np.array([1, 2])), (3, 3))
    twice = graphs.normalised_interactions((np.array([1, 1, 1]), np.array([1, 2, 2])), (3, 3))
    assert (once != twice).nnz == 0


def slow_neighbours(features, k):
    unit = features / np.where((n := np.linalg.norm(features, axis=1, keepdims=True)) > 0, n, 1)
    similar = unit @ unit.T
    dead = ~features.any(1)
    similar[:, dead] = -np.inf
    return [[] if dead[i] else list(np.argsort(-row, kind="stable")[:k]) for i, row in
            enumerate(similar)]  # fmt: skip


@pytest.mark.parametrize("memory", [1, 4000, 1 << 20])
def test_neighbours_in_blocks_equal_the_slow_twin(memory):
    features = np.random.default_rng(0).normal(size=(50, 8))
    features[[0, 7]] = 0
    values, indices = graphs.nearest_neighbours(torch.from_numpy(features), 5, memory_bytes=memory)
    for mine, slow in zip(indices.tolist(), slow_neighbours(features, 5), strict=True):
        assert [i for i in mine if i >= 0] == slow
    assert (values[indices < 0] == 0).all()


def test_item_graph_by_hand():
    # PAD, two equal items, one at 60 degrees to them, one without features
    features = torch.tensor([[0.0, 0], [1, 0], [2, 0], [0.5, 3**0.5 / 2], [0, 0]])
    graph = graphs.item_graph(features.double(), 2).toarray()
    assert not graph[0].any()  # PAD has no edge
    assert graph[4].tolist() == [0, 0, 0, 0, 1]  # nothing known: itself alone
    np.testing.assert_allclose(graph[1], [0, 0.5, 0.5, 0, 0])  # W row (1, 1), D = 2
    # item 3: itself 1 and one of its two equal neighbours .5; D = 1.5
    assert graph[3, 3] == pytest.approx(1 / 1.5)
    assert max(graph[3, 1], graph[3, 2]) == pytest.approx(0.5 / (1.5 * 2) ** 0.5)


def test_k_larger_than_the_items_is_cut():
    values, indices = graphs.nearest_neighbours(torch.eye(4)[:, :3], 10)
    assert indices.shape == (4, 3)  # the fourth row is zero
    assert not values[3].any()


def test_no_dense_item_matrix():
    n = 3000
    features = torch.randn(n, 4)
    largest = 0

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            nonlocal largest
            out = function(*args, **(kwargs or {}))
            for tensor in out if isinstance(out, (tuple, list)) else [out]:
                if isinstance(tensor, torch.Tensor):
                    largest = max(largest, tensor.numel())
            return out

    with Watch():
        graphs.nearest_neighbours(features, 5, memory_bytes=1 << 20)
    assert largest < n * n / 4
