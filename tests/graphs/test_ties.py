"""Among equally near items a given order decides, whatever the items' numbers."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from alignrec_recbole.features.item_order import tie_ranks
from alignrec_recbole.graphs import homogeneous, item_item, ties

ITEMS, K = 90, 6
TOKENS = ["[PAD]", *(f"item-{number}" for number in range(ITEMS))]


def renumbered(rows: np.ndarray) -> tuple[np.ndarray, list[str], np.ndarray]:
    """The rows and tokens under other numbers, and the new number by the old one."""
    order = np.concatenate([[0], 1 + np.random.default_rng(5).permutation(ITEMS)])
    return rows[order], [TOKENS[i] for i in order], np.argsort(order)


def kinds(kind: str) -> np.ndarray:
    """Features whose rows are equal in groups, all equal, orthogonal or partly missing."""
    generator = np.random.default_rng(1)
    rows = {
        "groups": np.repeat(generator.normal(size=(6, 5)), 15, 0),
        "constant": np.ones((ITEMS, 3)),
        "orthogonal": np.eye(ITEMS),
        "missing": np.repeat(generator.normal(size=(6, 5)), 15, 0),
    }[kind]
    if kind == "missing":
        rows[::4] = 0
    return np.concatenate([np.zeros((1, rows.shape[1])), rows]).astype(np.float32)


def graphs(rows: np.ndarray, tokens: list[str], memory: int) -> list[sp.csr_matrix]:
    """One of each search."""
    place, table = tie_ranks(tokens), torch.from_numpy(rows)
    return [
        item_item.item_graph(table, K, place=place, memory_bytes=memory),
        item_item.item_graph(table, K, weighted=False, place=place, memory_bytes=memory),
        item_item.item_knn(table, K, 1.0, place, memory_bytes=memory),
        item_item.largest_products(np.abs(rows), K, place, memory_bytes=memory),
        item_item.agreed_item_graphs([table], K, place, memory_bytes=memory)[0],
        homogeneous.cosine_graph(table, K, place=place, memory_bytes=memory),
    ]


@pytest.mark.parametrize("memory", [4000, 1 << 20])
@pytest.mark.parametrize("kind", ["groups", "constant", "orthogonal", "missing"])
def test_lists_are_the_same_under_other_numbers(kind: str, memory: int) -> None:
    rows = kinds(kind)
    other, tokens, new = renumbered(rows)
    for one, two in zip(graphs(rows, TOKENS, memory), graphs(other, tokens, memory), strict=True):
        np.testing.assert_allclose(two[new][:, new].toarray(), one.toarray(), atol=1e-6)


def test_items_with_equal_histories_are_taken_by_place() -> None:
    rows = kinds("constant")
    other, tokens, new = renumbered(rows)
    histories = sp.csr_matrix(np.concatenate([np.zeros((4, 1)), np.ones((4, ITEMS))], 1))
    one, two = (
        item_item.hybrid_knn(histories, table, K, 0.3, 1.0, tie_ranks(names))
        for table, names in ((rows, TOKENS), (other, tokens))
    )
    np.testing.assert_array_equal(two[new][:, new].toarray(), one.toarray())
    first = np.argsort(tie_ranks(TOKENS))[: K + 1]
    assert set(one.indices) <= set(first)  # those of the smallest places, but an item itself


def test_without_an_order_numbers_do_decide() -> None:
    rows = torch.from_numpy(kinds("constant"))
    one, two = (
        item_item.nearest_neighbours(rows, K, place=place)[1] for place in (None, tie_ranks(TOKENS))
    )
    assert set(two.ravel().tolist()) == {-1, *np.argsort(tie_ranks(TOKENS))[:K].tolist()}
    assert set(one.ravel().tolist()) != set(two.ravel().tolist())


@pytest.mark.parametrize("k", [1, 3, 7])
def test_the_first_k_are_those_of_a_full_sort(k: int) -> None:
    generator = np.random.default_rng(k)
    rows = generator.integers(0, 4, (50, 30)).astype(np.float32)
    place = generator.permutation(30)
    values, columns = ties.top_k_by_place(torch.from_numpy(rows), k, place)
    for row, mine, found in zip(rows, columns.tolist(), values.tolist(), strict=True):
        order = np.lexsort((place, -row))[:k]
        assert found == row[order].tolist()
        assert sorted(mine) == sorted(order.tolist())


def test_other_values_are_not_touched() -> None:
    rows = torch.from_numpy(np.random.default_rng(0).normal(size=(40, 60)).astype(np.float32))
    values, columns = ties.top_k_by_place(rows, 5, np.arange(60))
    expected = rows.topk(5, dim=1)
    assert torch.equal(values, expected.values)
    assert torch.equal(columns, expected.indices)
