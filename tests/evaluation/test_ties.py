"""Items with equal scores are in one fixed random order, whatever their numbers."""

import numpy as np
import pytest
import torch

from alignrec_recbole.evaluation.ranking import EvalTask, rank
from alignrec_recbole.evaluation.ties import best_in_order
from alignrec_recbole.features.item_order import tie_ranks

KINDS = {
    "continuous": lambda rng, shape: rng.normal(size=shape),
    "whole numbers": lambda rng, shape: rng.integers(0, 9, size=shape),
    "all equal": lambda rng, shape: np.ones(shape),
    "mostly zero": lambda rng, shape: rng.normal(size=shape) * (rng.random(shape) < 0.02),
    "few candidates": lambda rng, shape: np.where(rng.random(shape) < 0.02, 1.0, -np.inf),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("k", [1, 20, 299])
@pytest.mark.parametrize("across", [False, True])
def test_lists_are_those_of_a_whole_sort(kind, k, across):
    rng = np.random.default_rng(5)
    scores = KINDS[kind](rng, (40, 300)).astype(np.float32)
    place = rng.permutation(300)
    table = torch.from_numpy(scores)
    given = table.T.contiguous().T if across else table.clone()
    values, columns = best_in_order(given, k, torch.from_numpy(place))
    for row, best, listed in zip(scores, values.numpy(), columns.numpy(), strict=True):
        expected = np.lexsort((place, -row))[:k]
        np.testing.assert_array_equal(best, row[expected])
        finite = np.isfinite(best)
        np.testing.assert_array_equal(listed[finite], expected[finite])


@pytest.mark.parametrize("kind", ["whole numbers", "all equal", "mostly zero"])
def test_lists_do_not_depend_on_the_numbers_of_the_items(kind):
    rng = np.random.default_rng(6)
    tokens = [f"item {i}" for i in range(120)]
    scores = KINDS[kind](rng, (30, 120)).astype(np.float32)
    order = rng.permutation(120)

    def lists(numbering):
        table = np.concatenate([np.full((30, 1), 1e9, np.float32), scores[:, numbering]], 1)
        names = ["[PAD]", *(tokens[i] for i in numbering)]
        users = np.arange(30)
        task = EvalTask.from_pairs((users, np.ones(30, dtype=int)), [], (30, 121), tie_ranks(names))
        found = rank(lambda ids: torch.from_numpy(table)[ids].clone(), task, 20, "cpu")
        return [[names[item] for item in row] for row in found.items]

    assert lists(np.arange(120)) == lists(order)


def test_shorter_lists_begin_longer_ones():
    table = torch.zeros(3, 200)
    place = torch.from_numpy(np.random.default_rng(7).permutation(200))
    longest = best_in_order(table, 200, place)[1]
    for k in (1, 7, 50, 199):
        assert torch.equal(best_in_order(table, k, place)[1], longest[:, :k])


def test_a_task_without_tokens_has_a_fixed_order_that_is_not_the_numbers():
    users = np.arange(4)
    task = EvalTask.from_pairs((users, np.ones(4, dtype=int)), [], (4, 50))
    first, second = (rank(lambda ids: torch.ones(len(ids), 50), task, 10, "cpu") for _ in range(2))
    assert np.array_equal(first.items, second.items)
    assert (first.items == first.items[0]).all()
    assert (np.diff(first.items[0]) < 0).any()
