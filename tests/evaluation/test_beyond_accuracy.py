"""Coverage, concentration, popularity, novelty and distance of lists: by hand, and by RecBole."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from recbole.evaluator import metrics as recbole_metrics

from alignrec_recbole.evaluation import beyond_accuracy as module
from alignrec_recbole.evaluation.beyond_accuracy import (
    Lists,
    beyond_accuracy,
    entropy,
    gini,
    per_user,
    places_of,
    profile_popularity,
    tail_of,
)
from alignrec_recbole.protocols.beyond_accuracy import by_history

CUTOFFS = [1, 3, 5, 10]


def random_lists(seed: int, users: int = 40, items: int = 30, k: int = 10, full: bool = False):
    """Lists without repeats, some shorter than k; items that nobody took or without content."""
    rng = np.random.default_rng(seed)
    history = sp.csr_matrix(rng.random((users + 5, items + 1)) < rng.random(items + 1) * 0.5)
    history = history.astype(float).tolil()
    history[:, 0] = 0
    history[3] = 0  # a user without training items
    history = history.tocsr()
    history.eliminate_zeros()
    counts = np.asarray(history.sum(0)).ravel().astype(np.int64)
    lists = np.array([rng.permutation(items)[:k] + 1 for _ in range(users)])
    if not full:
        for row, length in enumerate(rng.integers(0, k + 1, users)):
            lists[row, length:] = -1
    vectors = rng.normal(size=(items + 1, 4))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[[0, 2, 7]] = 0
    ranked = np.arange(users)
    return Lists(
        items=lists,
        hits=(lists >= 0) & (rng.random(lists.shape) < 0.2),
        counts=counts,
        users=int((np.diff(history.indptr) > 0).sum()),
        profile=profile_popularity(history, counts)[ranked],
        tail=tail_of(counts, rng.permutation(items + 1)),
        vectors=vectors,
    ), history


def by_hand(lists: Lists, history, k: int) -> dict[str, float]:
    """The formulas, list by list and item by item."""
    shown = [[int(i) for i in row[:k] if i >= 0] for row in lists.items]
    places = Counter(i for row in shown for i in row)
    n, total = len(lists.counts) - 1, sum(places.values())
    ordered = sorted([*places.values(), *[0] * (n - len(places))])
    popularity = [sum(lists.counts[i] for i in row) / len(row) for row in shown if row]
    lifted, own = [], []
    for user, row in enumerate(shown):
        taken = history[user].indices
        if row and len(taken):
            lifted.append(sum(lists.counts[i] for i in row) / len(row))
            own.append(sum(lists.counts[i] for i in taken) / len(taken))
    novelty, distance = [], []
    for row, hits in zip(shown, lists.hits, strict=True):
        gains = [1 / math.log2(rank + 2) for rank in range(len(row))]
        if row:
            found = [
                gain * (1 - lists.counts[i] / lists.users) if hit else 0.0
                for gain, i, hit in zip(gains, row, hits, strict=False)
            ]
            novelty.append(sum(found) / sum(gains))
        known = [i for i in row if lists.vectors[i].any()]
        pairs = [
            1 - float(lists.vectors[a] @ lists.vectors[b]) for a in known for b in known if a != b
        ]
        if pairs:
            distance.append(sum(pairs) / len(pairs))
    # Gini as half the relative mean absolute difference: another form than the one computed
    mean = total / n
    differences = sum(abs(a - b) for a in ordered for b in ordered)
    return {
        "coverage": len(places) / n,
        "Gini": differences / (2 * n * n * mean),
        "entropy": -sum(c / total * math.log(c / total) for c in places.values()),
        "popularity": sum(popularity) / len(popularity),
        "lift": (sum(lifted) / len(lifted)) / (sum(own) / len(own)) - 1,
        "tail": np.mean([np.mean([lists.tail[i] for i in row]) for row in shown if row]),
        "EPC": sum(novelty) / len(novelty),
        "ILD": sum(distance) / len(distance),
    }


def by_hand_of(lists: Lists, history, members: np.ndarray, k: int) -> dict[str, float]:
    """The same of some users, whose lists alone are there."""
    return {f"{n}@{k}": v for n, v in by_hand(lists.of(members), history[members], k).items()}


@pytest.mark.parametrize("seed", range(6))
def test_figures_equal_their_slow_twins(seed: int) -> None:
    lists, history = random_lists(seed)
    found = beyond_accuracy(lists, CUTOFFS[1:])
    for k in CUTOFFS[1:]:
        for name, expected in by_hand(lists, history, k).items():
            assert found[f"{name}@{k}"] == pytest.approx(expected, abs=1e-12), (name, k)


class Answers(dict):
    """What RecBole's evaluator hands to its metrics."""

    def get(self, key):  # type: ignore[override]
        return self[key]


@pytest.mark.parametrize("seed", range(6))
def test_figures_equal_recboles(seed: int) -> None:
    """RecBole divides the entropy by the number of listed items and may count PAD as an item."""
    lists, _ = random_lists(seed, full=True)
    threshold = 4  # RecBole's tail: items with at most so many interactions
    given = Answers(
        {
            "rec.items": torch.from_numpy(lists.items),
            "data.num_items": len(lists.counts) - 1,
            "data.count_items": {i: int(c) for i, c in enumerate(lists.counts) if i},
        }
    )
    config = {"topk": CUTOFFS, "metric_decimal_place": 12, "tail_ratio": threshold}

    def theirs(name: str) -> dict[str, float]:
        return getattr(recbole_metrics, name)(config).calculate_metric(given)

    own = Lists(
        **{**vars(lists), "tail": (lists.counts <= threshold) & (np.arange(len(lists.counts)) > 0)}
    )
    found = beyond_accuracy(own, CUTOFFS)
    for ours, name in (
        ("coverage", "ItemCoverage"),
        ("Gini", "GiniIndex"),
        ("popularity", "AveragePopularity"),
        ("tail", "TailPercentage"),
        ("entropy", "ShannonEntropy"),
    ):
        for k in CUTOFFS:
            expected = theirs(name)[f"{name.lower()}@{k}"]
            if ours == "entropy":
                expected *= len(np.unique(lists.items[:, :k]))
            assert found[f"{ours}@{k}"] == pytest.approx(expected, abs=1e-9), (name, k)


def test_an_example_on_paper() -> None:
    """Two users, four items taken by 4, 2, 1 and 0 of four users."""
    lists = Lists(
        items=np.array([[1, 3], [1, 2]]),
        hits=np.array([[False, True], [True, False]]),
        counts=np.array([0, 4, 2, 1, 0]),
        users=4,
        profile=np.array([2.0, 3.0]),
        tail=np.array([False, False, False, True, True]),
        vectors=np.array([[0, 0], [1, 0], [0, 1], [0.6, 0.8], [0, 0]]),
    )
    found = beyond_accuracy(lists, [2])
    assert found["coverage@2"] == 3 / 4
    assert found["Gini@2"] == pytest.approx((-3 * 0 - 1 * 1 + 1 * 1 + 3 * 2) / (4 * 4))
    assert found["entropy@2"] == pytest.approx(0.5 * math.log(2) + 2 * 0.25 * math.log(4))
    assert found["popularity@2"] == (2.5 + 3) / 2
    assert found["lift@2"] == pytest.approx(2.75 / 2.5 - 1)
    assert found["tail@2"] == 0.25
    second = 1 / math.log2(3)
    assert found["EPC@2"] == pytest.approx((second * 0.75 / (1 + second) + 0) / 2)
    assert found["ILD@2"] == pytest.approx((0.4 + 1) / 2)


def test_a_group_of_users_has_the_figures_of_its_own_lists() -> None:
    lists, history = random_lists(2)
    taken = np.diff(history.indptr)[: len(lists.items)]
    groups = by_history(lists, taken, [5])
    for label, low, high in (("<=3", 0, 3), ("4-7", 4, 7), ("8-15", 8, 15)):
        members = np.flatnonzero((low <= taken) & (taken <= high))
        assert groups[label].pop("users") == len(members)
        assert groups[label] == pytest.approx(by_hand_of(lists, history, members, 5), abs=1e-12)
    assert groups["16-31"] == groups[">=32"] == {"users": 0}


@pytest.mark.parametrize("seed", range(3))
def test_blocks_of_users_change_nothing(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    lists, _ = random_lists(seed)
    whole = per_user(lists, CUTOFFS)
    monkeypatch.setattr(module, "BLOCK_BYTES", 8 * 4 * 3)
    for name, column in per_user(lists, CUTOFFS).items():
        np.testing.assert_array_equal(column, whole[name])


def test_what_does_not_exist_is_absent() -> None:
    lists, _ = random_lists(0)
    without = Lists(**{**vars(lists), "vectors": None})
    assert not [name for name in beyond_accuracy(without, [5]) if name.startswith("ILD")]
    empty = lists.of(np.flatnonzero((lists.items < 0).all(1))[:1])
    assert len(empty.items) == 1
    assert beyond_accuracy(empty, [5]) == {}


def test_extremes() -> None:
    assert gini(np.array([3, 3, 3])) == 0
    assert gini(np.array([0, 0, 9])) == pytest.approx(2 / 3)
    assert entropy(np.full(8, 5)) == pytest.approx(math.log(8))
    assert entropy(np.array([0, 7])) == 0
    assert places_of(np.full((2, 3), -1), 4).tolist() == [0, 0, 0, 0]


def test_the_order_of_users_changes_nothing() -> None:
    lists, _ = random_lists(1)
    order = np.random.default_rng(0).permutation(len(lists.items))
    one, other = beyond_accuracy(lists, CUTOFFS), beyond_accuracy(lists.of(order), CUTOFFS)
    assert one == pytest.approx(other, abs=1e-12)


def test_the_tail_is_what_the_head_leaves() -> None:
    counts = np.array([0, 5, 3, 1, 1, 0])
    assert np.flatnonzero(tail_of(counts, np.arange(6))).tolist() == [3, 4, 5]
    by_place = tail_of(np.array([0, 2, 2, 2]), np.array([3, 2, 1, 0]), 0.5)
    assert np.flatnonzero(by_place).tolist() == [1]  # of equals the last in the fixed order


# Libraries that are not installed with the development extras ------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_gini_equals_lenskits(seed: int) -> None:
    lenskit = pytest.importorskip("lenskit.metrics", reason="needs the package lenskit")
    from lenskit.data import ItemList

    lists, _ = random_lists(seed, full=True)
    metric = lenskit.ListGini(items=len(lists.counts) - 1)
    parts = [
        metric.compute_list_data(ItemList(item_ids=row, ordered=True), None) for row in lists.items
    ]
    found = beyond_accuracy(lists, [10])["Gini@10"]
    assert found == pytest.approx(metric.global_aggregate(parts), abs=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_distance_equals_rexmexs_similarity(seed: int) -> None:
    ranking = pytest.importorskip("rexmex.metrics.ranking", reason="needs the package rexmex")
    lists, _ = random_lists(seed, full=True)
    lists.vectors[[2, 7]] = lists.vectors[[1, 3]]  # rexmex takes a zero row for an item
    similar = ranking.intra_list_similarity(lists.items[:, :5].tolist(), lists.vectors)
    assert beyond_accuracy(lists, [5])["ILD@5"] == pytest.approx(1 - similar, abs=1e-9)
