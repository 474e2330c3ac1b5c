"""Graphs against dense twins."""

import copy
from unittest import mock

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from alignrec_recbole.graphs import user_item
from alignrec_recbole.ops import propagation, sparse
from alignrec_recbole.ops.rows import gather_rows


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


def as_on_a_gpu(monkeypatch):
    """Whole products and torch's CSR kernel, on the CPU."""
    monkeypatch.setattr(sparse.SparseOperator, "row_edges", lambda *_: None)

    def product(matrix, dense):
        return sparse.csr_tensor(matrix, len(dense)) @ dense.detach()

    for module in (sparse, propagation):
        monkeypatch.setattr(module, "spmm", product)


@pytest.mark.parametrize("gpu", [False, True])
@pytest.mark.parametrize("layers", [0, 1, 3])
@pytest.mark.parametrize("rows", [None, [0, 3, 3, 39]])
def test_layer_mean_equals_the_dense_sum_and_has_its_gradient(
    square, layers, rows, gpu, monkeypatch
):
    if gpu:
        as_on_a_gpu(monkeypatch)
    graph = sparse.SparseOperator(square, symmetric=True)
    dense = torch.from_numpy(square.toarray())
    rows = None if rows is None else torch.tensor(rows)
    start = torch.randn(40, 3, dtype=torch.float64, requires_grad=True)
    twin = dense_mean(dense, start, layers)
    twin = twin if rows is None else twin[rows]
    weight = torch.randn_like(twin)
    expected = torch.autograd.grad((twin * weight).sum(), start)[0]
    for ours, times in ((propagation.layer_mean, 1), (propagation.layer_sum, layers + 1)):
        found = ours(graph, start, layers, rows)
        torch.testing.assert_close(found, twin * times)
        gradient = torch.autograd.grad((found * weight).sum(), start)[0]
        torch.testing.assert_close(gradient, expected * times)


@pytest.mark.parametrize("share", [0.0, 2.0])  # whole products, and only what the rows reach
@pytest.mark.parametrize("layers", [1, 2, 3, 4])
@pytest.mark.parametrize("also_return", [None, slice(5, None), torch.tensor([1, 1, 30])])
def test_the_two_hops_of_the_rows_are_enough(square, share, layers, also_return, monkeypatch):
    monkeypatch.setattr(sparse, "MAX_EDGE_FRACTION", 2.0)
    graph = sparse.SparseOperator(sp.triu(square))  # not symmetric
    dense = torch.from_numpy(sp.triu(square).toarray())
    start = torch.randn(40, 3, dtype=torch.float64, requires_grad=True)
    rows = torch.tensor([7, 0, 7, 39, 12])
    edges = graph.row_edges(rows, start).edges
    monkeypatch.setattr(sparse, "MAX_EDGE_FRACTION", share)
    assert (graph.two_hop_subgraph(edges, start) is None) == (share == 0)
    assert (graph.row_edges(rows, start) is None) == (share == 0)
    ours = propagation.layer_mean(graph, start, layers, rows, also_return)
    twin = dense_mean(dense, start, layers)[rows]
    ours = (ours,) if also_return is None else ours
    twins = (twin,) if also_return is None else (twin, start[also_return])
    loss = expected = torch.zeros((), dtype=torch.float64)
    for mine, other in zip(ours, twins, strict=True):
        torch.testing.assert_close(mine, other)
        weight = torch.randn_like(mine)
        loss, expected = loss + (mine * weight).sum(), expected + (other * weight).sum()
    torch.testing.assert_close(
        torch.autograd.grad(loss, start)[0], torch.autograd.grad(expected, start)[0]
    )


@pytest.mark.parametrize("density", [0.0, 0.02, 0.1, 0.3, 0.6, 1.0])  # from empty to complete
@pytest.mark.parametrize("count", [0, 1, 7, 200])  # rows of the batch, most of them repeated
def test_rows_of_sparse_and_dense_graphs_are_those_of_the_dense_product(density, count):
    matrix = sp.random(40, 40, density, random_state=2, format="csr")
    graph, dense = sparse.SparseOperator(matrix), torch.from_numpy(matrix.toarray())
    rows = torch.from_numpy(np.random.default_rng(0).integers(0, 40, count))
    start = torch.randn(40, 3, dtype=torch.float64, requires_grad=True)
    part = graph.row_edges(rows, start)
    of_rows = np.diff(matrix.indptr)[np.unique(rows.numpy())].sum()
    assert (part is None) == (of_rows > 0.6 * matrix.nnz)
    assert part is None or part.rows[part.position].equal(rows)
    for layers in (1, 2, 3):
        for ours, twin in (
            (propagation.layer_mean(graph, start, layers, rows), dense_mean(dense, start, layers)),
            (graph.rows(rows, start), dense @ start),
        ):
            torch.testing.assert_close(ours, twin[rows])
            weight = torch.randn_like(ours)
            torch.testing.assert_close(
                torch.autograd.grad((ours * weight).sum(), start)[0],
                torch.autograd.grad((twin[rows] * weight).sum(), start)[0],
            )


@pytest.mark.parametrize("layers", [1, 2])
def test_a_batch_of_few_rows_needs_no_product_over_the_whole_graph(layers, monkeypatch):
    matrix = sp.random(400, 400, 0.005, random_state=3, format="csr")
    graph, start = sparse.SparseOperator(matrix), torch.randn(400, 2, requires_grad=True)
    for name in ("forward_product", "backward_product"):
        monkeypatch.setattr(graph, name, None)  # would fail if it were called
    propagation.layer_mean(graph, start, layers, torch.tensor([3, 9])).sum().backward()


def test_an_unsymmetric_operator_uses_its_transpose_backwards():
    matrix = sp.random(30, 20, 0.2, random_state=1)
    operator = sparse.SparseOperator(matrix)
    x = torch.randn(20, 2, dtype=torch.float64, requires_grad=True)
    rows = torch.tensor([5, 5, 0, 29])
    assert torch.autograd.gradcheck(lambda value: operator @ value, (x,))
    assert torch.autograd.gradcheck(lambda value: operator.rows(rows, value), (x,))
    torch.testing.assert_close(operator.rows(rows, x), torch.from_numpy(matrix.toarray()[rows]) @ x)


@pytest.mark.parametrize("rows", [[3, 29, 3, 0], [], list(range(30))])
def test_rows_are_those_of_the_whole_product(rows, monkeypatch):
    operator = sparse.SparseOperator(sp.random(30, 20, 0.3, random_state=0))
    rows = torch.tensor(rows, dtype=torch.int64)
    x = torch.randn(20, 4, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(len(rows), 4, dtype=torch.float64)

    def found(value):
        return value, torch.autograd.grad((value * weight).sum(), x)[0]

    expected = found((operator @ x)[rows])
    torch.testing.assert_close(found(operator.rows(rows, x)), expected)
    as_on_a_gpu(monkeypatch)
    torch.testing.assert_close(found(operator.rows(rows, x)), expected)


def test_rows_without_edges_are_zero():
    operator = sparse.SparseOperator(sp.csr_matrix((5, 5)))
    assert not (operator @ torch.ones(5, 2)).any()
    assert not operator.rows(torch.tensor([1, 4]), torch.ones(5, 2)).any()


def test_deep_copies_share_the_matrix(square):
    operator = sparse.SparseOperator(square, symmetric=True)
    assert copy.deepcopy(operator) is operator


def test_take_rows_adds_repeated_rows():
    table = torch.randn(6, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda t: gather_rows(t, torch.tensor([2, 2, 0])), (table,))


def test_normalised_interactions_count_a_repeated_pair_once():
    once = user_item.normalised_interactions((np.array([1, 1]), np.array([1, 2])), (3, 3))
    twice = user_item.normalised_interactions((np.array([1, 1, 1]), np.array([1, 2, 2])), (3, 3))
    assert (once != twice).nnz == 0


def test_random_walk_adjacency_equals_its_dense_twin():
    users, items = np.array([1, 1, 2, 2]), np.array([1, 2, 2, 2])  # one pair twice
    dense = np.eye(6)
    for user, item in set(zip(users.tolist(), items.tolist(), strict=True)):
        dense[user, 3 + item] = dense[3 + item, user] = 1
    dense /= dense.sum(1, keepdims=True)
    graph = user_item.random_walk_adjacency((users, items), (3, 3))
    np.testing.assert_allclose(graph.csr.toarray(), dense)


def test_thinned_adjacency_keeps_a_share_and_its_own_degrees():
    rng = np.random.default_rng(0)
    users, items = np.nonzero(rng.random((20, 30)) < 0.3)
    whole = user_item.normalised_interactions((users, items), (20, 30))
    graph = user_item.sample_edges(whole, 0.25, torch.Generator().manual_seed(1)).csr
    again = user_item.sample_edges(whole, 0.25, torch.Generator().manual_seed(1)).csr
    other = user_item.sample_edges(whole, 0.25, torch.Generator().manual_seed(2)).csr
    assert (graph != again).nnz == 0
    assert (graph != other).nnz > 0
    assert graph.nnz == 2 * int(0.25 * len(users))
    block = graph[:20, 20:]
    assert set(zip(*block.nonzero(), strict=True)) <= set(zip(users, items, strict=True))
    degrees = [np.asarray((block > 0).sum(axis)).ravel() for axis in (1, 0)]
    row, column = block.nonzero()
    expected = (degrees[0][row] * degrees[1][column]) ** -0.5
    np.testing.assert_allclose(np.asarray(block[row, column]).ravel(), expected)


def test_thinning_drops_popular_edges_first():
    # one item that 60 users have, 60 items that one user each has
    users = np.arange(60).repeat(2)
    items = np.stack([np.zeros(60, int), np.arange(1, 61)], 1).ravel()
    whole = user_item.normalised_interactions((users, items), (60, 61))
    popular = [
        user_item.sample_edges(whole, 0.5, torch.Generator().manual_seed(seed)).csr[60].nnz
        for seed in range(20)
    ]
    assert np.mean(popular) < 15  # 30 if every edge were as likely as the others


def test_more_edges_than_torch_draws_from_are_drawn_alike(monkeypatch):
    weights = torch.rand(500, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    draw = user_item._without_replacement
    few = draw(weights, 60, torch.Generator().manual_seed(1))
    monkeypatch.setattr(user_item, "MULTINOMIAL_ROWS", 499)
    with mock.patch("torch.multinomial", side_effect=RuntimeError):
        many = draw(weights, 60, torch.Generator().manual_seed(1))
    assert set(many.tolist()) == set(few.tolist())


def slow_common_items(users, items, n_users, k):
    """The rule of MMRec's script: the k users with most items in common, smaller id first."""
    sets = [set(items[users == user].tolist()) for user in range(n_users)]
    dense = np.zeros((n_users, n_users))
    for user in range(n_users):
        common = [(len(sets[user] & sets[other]), -other) for other in range(n_users)]
        others = [(n, other) for n, other in common if n and other != -user]
        for number, other in sorted(others, reverse=True)[:k]:
            dense[user, -other] = number
    return dense


@pytest.mark.parametrize("k", [1, 4, 100])
@pytest.mark.parametrize(
    ("entries", "largest"), [(1, 1 << 62), (60, 1 << 62), (1 << 22, 1 << 62), (1 << 22, 2000)]
)
def test_co_interaction_graph_equals_its_slow_twin(k, entries, largest, monkeypatch):
    monkeypatch.setattr(user_item, "LARGEST", largest)
    rng = np.random.default_rng(0)
    users, items = np.nonzero(rng.random((25, 40)) < 0.12)
    kept = users > 0  # user 0 is PAD
    users, items = users[kept], items[kept]
    graph = user_item.user_cooccurrence_graph(
        (np.append(users, users[:5]), np.append(items, items[:5])), (25, 40), k, entries=entries
    )
    assert not graph[0].nnz
    np.testing.assert_array_equal(graph.toarray(), slow_common_items(users, items, 25, k))


def test_softmax_rows_equal_torch_where_a_row_has_entries():
    graph = sp.random(20, 20, 0.2, random_state=0, format="csr")
    graph.data *= 100
    dense = torch.from_numpy(graph.toarray())
    expected = torch.softmax(dense.masked_fill(dense == 0, -torch.inf), 1).nan_to_num()
    np.testing.assert_allclose(user_item.row_softmax(graph).toarray(), expected)


def test_extended_adjacency_equals_its_dense_twin():
    rng = np.random.default_rng(0)
    users, items = np.nonzero(rng.random((6, 8)) < 0.3)
    links = (rng.random((8, 8)) < 0.2).astype(float)
    dense = np.zeros((14, 14))
    dense[users, 6 + items] = dense[6 + items, users] = 1
    dense[6:, 6:] = links
    degree = dense.sum(1)
    root = np.where(degree > 0, np.maximum(degree, 1) ** -0.5, 0)
    graph = user_item.extended_adjacency((users, items), (6, 8), sp.csr_matrix(links))
    np.testing.assert_allclose(graph.toarray(), root[:, None] * dense * root)


def test_a_random_walk_without_loops_is_the_mean_of_neighbours():
    pairs = np.array([1, 1, 2]), np.array([1, 2, 1])
    graph = user_item.random_walk_adjacency(pairs, (4, 3), loops=False)
    dense = graph.csr.toarray()
    assert dense[1].tolist() == [0, 0, 0, 0, 0, 0.5, 0.5]
    assert dense[5].tolist() == [0, 0.5, 0.5, 0, 0, 0, 0]
    assert not dense[[0, 3, 4]].any()


def test_nodes_without_neighbours_have_rows_of_zeros():
    """Without a division by zero: user 3 and item 2 have no interactions."""
    pairs = np.array([1, 2]), np.array([1, 1])
    edges = sp.csr_matrix(([1.0], ([1], [2])), shape=(3, 3))  # item 2 is a neighbour, and has none
    with np.errstate(all="raise"):
        graphs = (
            user_item.bipartite_adjacency(user_item.normalised_interactions(pairs, (4, 3))).csr,
            user_item.random_walk_adjacency(pairs, (4, 3), loops=False).csr,
            user_item.extended_adjacency(pairs, (4, 3), edges),
        )
    for graph in graphs:
        rows = graph.toarray()
        assert np.isfinite(rows).all()
        assert not rows[[0, 3, 4, 6]].any()
        assert rows[[1, 2, 5]].any(1).all()


def test_softmax_of_rows_of_very_different_sizes():
    graph = user_item.row_softmax(sp.csr_matrix([[1000.0, 999.0], [2.0, 1.0]]))
    np.testing.assert_allclose(graph.toarray(), [[0.731059, 0.268941]] * 2, rtol=1e-5)


def test_neighbours_with_equal_counts_are_in_the_given_order():
    pairs = np.array([1, 2, 3, 4]), np.array([1, 1, 1, 1])
    nearest = {
        tuple(place): user_item.user_cooccurrence_graph(pairs, (5, 2), 1, np.array(place))
        for place in ([0, 1, 2, 3, 4], [4, 3, 2, 1, 0])
    }
    assert [graph.indices.tolist() for graph in nearest.values()] == [[2, 1, 1, 1], [4, 4, 4, 3]]
