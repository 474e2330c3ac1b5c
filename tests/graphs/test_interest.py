"""Graphs of SOIL against their definition on whole matrices."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from alignrec_recbole.graphs import interest

USERS, ITEMS = 12, 30


def tables() -> list[torch.Tensor]:
    """Two modalities; items 4 to 6 have none of the first, 6 to 8 none of the second."""
    generator = torch.Generator().manual_seed(3)
    out = [torch.randn(ITEMS, width, generator=generator) + 0.5 for width in (9, 6)]
    for number, table in enumerate(out):
        table[0] = table[4 + 2 * number : 7 + 2 * number] = 0
    return out


def interactions() -> np.ndarray:
    """User 0 is PAD, user 3 has nothing, users 5 and 6 have two and one items."""
    own = np.random.default_rng(1).random((USERS, ITEMS)) < 0.2
    own[0] = own[:, 0] = own[3] = own[5] = own[6] = False
    own[5, [2, 9]] = own[6, 6] = True
    return own


def cosines(table: torch.Tensor) -> np.ndarray:
    unit = F.normalize(table.double(), dim=1)
    return (unit @ unit.T).numpy()


def second_order(own: np.ndarray, k: int) -> np.ndarray:
    """Pair by pair; equal pairs share what is left of the k places."""
    alike = [cosines(table) for table in tables()]
    has = [table.any(1).numpy() for table in tables()]
    out = own.astype(float)
    for user in range(USERS):
        found = {}
        for i, j in itertools.product(np.flatnonzero(own[user]), range(ITEMS)):
            both = [c[i, j] for c, h in zip(alike, has, strict=True) if h[i] and h[j]]
            if i != j and both and np.prod(both) > 0:
                found[i, j] = round(float(np.prod(both)), 6)
        last = sorted(found.values(), reverse=True)[k - 1] if len(found) >= k else 0.0
        above = [pair for pair, weight in found.items() if weight > last]
        equal = [pair for pair, weight in found.items() if weight == last]
        for i, j in above:
            out[user, j] += found[i, j]
        for i, j in equal:
            out[user, j] += found[i, j] * (k - len(above)) / len(equal)
    return out


@pytest.mark.parametrize("memory", [1, 1 << 20])
@pytest.mark.parametrize("k", [1, 2, 5, ITEMS + 4])
def test_second_order_equals_the_definition(k, memory):
    own = interactions()
    ours = interest.second_order_interactions(
        tables(), own.nonzero(), own.shape, k, memory_bytes=memory
    )
    np.testing.assert_allclose(ours.toarray(), second_order(own, k), atol=1e-5)


def test_two_own_items_that_are_most_like_each_other_share_the_place():
    alike = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
    pairs = np.array([1, 1]), np.array([1, 2])
    ours = interest.second_order_interactions([alike], pairs, (2, 4), 1).toarray()
    np.testing.assert_allclose(ours[1], [0, 1.4, 1.4, 0], atol=1e-6)


@pytest.mark.parametrize("memory", [1, 1 << 20])
@pytest.mark.parametrize("k", [2, 4])  # with 1, both items of user 5 are equally near
def test_interest_graphs_equal_the_definition(k, memory):
    own, alike = interactions(), [cosines(table) for table in tables()]
    has = [table.any(1).numpy() for table in tables()]
    counts = np.zeros((ITEMS, ITEMS))
    for user in range(USERS):
        liked = set()
        for cosine, present in zip(alike, has, strict=True):
            score = np.where(present, cosine[own[user]].sum(0), -np.inf)
            if present[own[user]].any():
                liked |= set(np.argsort(-score)[:k].tolist())
        counts[np.ix_(own[user], sorted(liked))] += 1
    ours = interest.interest_graphs(tables(), own.nonzero(), own.shape, k, memory_bytes=memory)
    for graph, cosine in zip(ours, alike, strict=True):
        expected = counts * cosine.clip(min=0)
        degree = expected.sum(1)
        root = np.divide(1, np.sqrt(degree), out=np.zeros(ITEMS), where=degree > 0)
        np.testing.assert_allclose(
            graph.toarray(), root[:, None] * expected * root, rtol=1e-4, atol=1e-6
        )


@pytest.mark.parametrize("scale", [2.0**-90, 2.0**90])
def test_the_length_of_extreme_rows_says_nothing(scale):
    own = interactions()
    pairs, shape, scaled = own.nonzero(), own.shape, [table * scale for table in tables()]
    ours, same = (
        interest.second_order_interactions(rows, pairs, shape, 3) for rows in (scaled, tables())
    )
    np.testing.assert_allclose(ours.toarray(), same.toarray(), rtol=1e-6)
    for graph, other in zip(
        *(interest.interest_graphs(rows, pairs, shape, 2) for rows in (scaled, tables())),
        strict=True,
    ):
        np.testing.assert_allclose(graph.toarray(), other.toarray(), rtol=1e-6)
