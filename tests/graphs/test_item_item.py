"""Item graphs against slow and dense twins."""

import numpy as np
import pytest
import torch

from alignrec_recbole.graphs import item_item
from alignrec_recbole.ops import neighbours


def slow_neighbours(features, k):
    unit = features / np.where((n := np.linalg.norm(features, axis=1, keepdims=True)) > 0, n, 1)
    similar = unit @ unit.T
    dead = ~features.any(1)
    similar[:, dead] = -np.inf
    return [[] if dead[i] else list(np.argsort(-row, kind="stable")[:k]) for i, row in
            enumerate(similar)]  # fmt: skip


@pytest.mark.parametrize(
    ("n", "memory"), [(50, 1), (50, 4000), (50, 1 << 20), (700, 1 << 20), (700, 1 << 23)]
)
def test_neighbours_in_blocks_equal_the_slow_twin(n, memory):
    features = np.random.default_rng(0).normal(size=(n, 8))
    features[[0, 7]] = 0
    values, indices = item_item.nearest_neighbours(
        torch.from_numpy(features), 5, memory_bytes=memory
    )
    for mine, slow in zip(indices.tolist(), slow_neighbours(features, 5), strict=True):
        assert [i for i in mine if i >= 0] == slow
    assert (values[indices < 0] == 0).all()


def test_item_graph_by_hand():
    # PAD, two equal items, one at 60 degrees to them, one without features
    features = torch.tensor([[0.0, 0], [1, 0], [2, 0], [0.5, 3**0.5 / 2], [0, 0]])
    graph = item_item.item_graph(features.double(), 2).toarray()
    assert not graph[0].any()  # PAD has no edge
    assert graph[4].tolist() == [0, 0, 0, 0, 1]  # nothing known: itself alone
    np.testing.assert_allclose(graph[1], [0, 0.5, 0.5, 0, 0])  # W row (1, 1), D = 2
    # item 3: itself 1 and one of its two equal neighbours .5; D = 1.5
    assert graph[3, 3] == pytest.approx(1 / 1.5)
    assert max(graph[3, 1], graph[3, 2]) == pytest.approx(0.5 / (1.5 * 2) ** 0.5)


def test_k_larger_than_the_items_is_cut():
    values, indices = item_item.nearest_neighbours(torch.eye(4)[:, :3], 10)
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
        item_item.nearest_neighbours(features, 5, memory_bytes=1 << 20)
    assert largest < n * n / 4


def test_unweighted_item_graph_by_hand():
    # PAD, two equal items, one at 60 degrees to them, one without features
    features = torch.tensor([[0.0, 0], [1, 0], [2, 0], [0.5, 3**0.5 / 2], [0, 0]])
    graph = item_item.item_graph(features.double(), 2, weighted=False).toarray()
    assert not graph[0].any()  # PAD has no edge
    assert graph[4].tolist() == [0, 0, 0, 0, 1]  # nothing known: itself alone
    np.testing.assert_allclose(graph[1], [0, 0.5, 0.5, 0, 0])  # every degree is k = 2
    assert graph[3, 3] == pytest.approx(0.5)
    assert graph[3, 1:3].sum() == pytest.approx(0.5)


NEIGHBOURS = torch.tensor([[0, 2, -1], [3, 3, 1], [-1, -1, -1], [2, 0, 1]])


@pytest.mark.parametrize("rows", [1, 3, 512])
def test_neighbour_products_and_sums_equal_dense_ones_with_gradients(rows, monkeypatch):
    monkeypatch.setattr(neighbours, "BLOCK_ROWS", rows)
    x = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    kept = NEIGHBOURS >= 0
    dense = (x @ x.T).gather(1, NEIGHBOURS.clamp(min=0)) * kept
    torch.testing.assert_close(neighbours.neighbour_products(x, NEIGHBOURS), dense)
    matrix = torch.zeros(4, 4, dtype=torch.float64)
    matrix = matrix.scatter_add(1, NEIGHBOURS.clamp(min=0), weights * kept)
    torch.testing.assert_close(neighbours.neighbour_sums(weights, NEIGHBOURS, x), matrix @ x)
    assert torch.autograd.gradcheck(lambda v: neighbours.neighbour_products(v, NEIGHBOURS), (x,))
    assert torch.autograd.gradcheck(
        lambda w, v: neighbours.neighbour_sums(w, NEIGHBOURS, v), (weights, x)
    )


@pytest.mark.parametrize("memory", [1, 1 << 20])
@pytest.mark.parametrize("shrink", [0.0, 10.0])
def test_shrunk_neighbours_equal_the_dense_twin(memory, shrink):
    features = torch.from_numpy(np.random.default_rng(0).normal(size=(30, 6)))
    features[[0, 9]] = 0
    norm = features.norm(dim=1)
    similar = features @ features.T / (torch.outer(norm, norm) + shrink)
    similar[:, [0, 9]] = -torch.inf
    best, where = similar.topk(4, dim=1)
    dense = torch.zeros(30, 30, dtype=torch.float64).scatter(1, where, best)
    dense[[0, 9]] = 0
    graph = item_item.item_knn(features, 4, shrink, memory_bytes=memory)
    np.testing.assert_allclose(graph.toarray(), dense)


@pytest.mark.parametrize("scale", [1e-40, 1e-25, 1e25, 1e37])
@pytest.mark.parametrize("shrink", [0.0, 10.0])
def test_shrunk_neighbours_of_extreme_rows(scale, shrink):
    rows = torch.from_numpy(np.random.default_rng(0).normal(size=(30, 6)))
    rows[:12] *= scale
    rows[[0, 9]] = 0
    features = rows.float()
    exact = features.double()
    expected = item_item.item_knn(exact, 4, shrink).toarray()
    norm = exact.norm(dim=1)
    direct = (exact @ exact.T / (torch.outer(norm, norm) + shrink)).numpy()
    found = item_item.item_knn(features, 4, shrink).toarray()
    own = np.nonzero(found > 1e-6)
    np.testing.assert_allclose(found[own], direct[own], rtol=1e-4)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def dense_agreement(tables, k):
    """The same on whole matrices, row by row."""
    cosines = [torch.nn.functional.normalize(table, dim=1) for table in tables]
    cosines = [rows @ rows.T for rows in cosines]
    has = [table.any(1) for table in tables]
    means = [c[h][:, h].mean() for c, h in zip(cosines, has, strict=True)]
    out = []
    for cosine, present in zip(cosines, has, strict=True):
        n = len(cosine)
        graph = np.zeros((n, n))
        for i in range(1, n):
            alike = [
                j for j in range(n)
                if present[i] and present[j] and all(
                    not (h[i] and h[j]) or c[i, j] >= m
                    for c, h, m in zip(cosines, has, means, strict=True)
                )
            ]  # fmt: skip
            graph[i, sorted(alike, key=lambda j: -cosine[i, j])[:k] or [i]] = 1
        root = np.divide(1, np.sqrt(graph.sum(1)), where=graph.sum(1) > 0, out=np.zeros(n))
        out.append(root[:, None] * graph * root)
    return out


@pytest.mark.parametrize("memory", [1, 1 << 20])
@pytest.mark.parametrize("k", [3, 12])
def test_agreed_graphs_equal_the_dense_twin(memory, k):
    generator = torch.Generator().manual_seed(k)
    tables = [torch.randn(40, f, generator=generator) for f in (5, 7, 3)]
    for number, table in enumerate(tables):
        table[0] = table[3 * number + 1 : 3 * number + 6] = 0  # item 6 is without two, 7 and 8 too
    ours = item_item.agreed_item_graphs(tables, k, memory_bytes=memory)
    for mine, expected in zip(ours, dense_agreement(tables, k), strict=True):
        np.testing.assert_allclose(mine.toarray(), expected, atol=1e-12)
        assert np.diff(mine.indptr)[1:].min() == 1  # a self edge
        assert np.diff(mine.indptr)[9:].max() <= k


def test_items_that_are_all_alike_are_all_similar():
    tables = [torch.full((30, 3), 0.1), torch.full((30, 2), 0.7)]
    for table in tables:
        table[0] = 0
    for graph in item_item.agreed_item_graphs(tables, 40):
        np.testing.assert_allclose(graph.toarray()[1:, 1:], 1 / 29)


def test_items_with_equally_many_common_users_are_ordered_by_place():
    pairs = np.array([1, 1, 2, 2, 3, 3]), np.array([1, 2, 1, 2, 1, 2])  # items, users
    for place, other in (([3, 0, 1, 2], 2), ([3, 0, 2, 1], 3)):
        graph = item_item.common_user_graph(pairs, (4, 3), 1, np.array(place)).toarray()
        assert np.flatnonzero(graph[1]).tolist() == [1, other]
    graph = item_item.common_user_graph(pairs, (4, 3), 2, least=3).toarray()
    np.testing.assert_array_equal(graph[1:, 1:], np.eye(3))
