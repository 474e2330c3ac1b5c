"""Negatives are exact and uniform; an epoch holds every pair once."""

from types import SimpleNamespace

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings

from alignrec_recbole.errors import DataError
from alignrec_recbole.training.batches import PairBatches
from alignrec_recbole.training.sampler import PairSampler

USERS = np.array([1, 1, 1, 2, 2, 3])
ITEMS = np.array([1, 2, 3, 1, 5, 9])


def test_an_epoch_holds_every_pair_once_and_no_training_item_as_negative():
    seen = set(zip(USERS.tolist(), ITEMS.tolist(), strict=True))
    sampler = PairSampler(USERS, ITEMS)
    generator = np.random.default_rng(0)
    for _ in range(200):
        users, items, negatives = sampler.epoch(generator)
        assert len(users) == len(items) == len(negatives) == len(sampler) == 6
        assert set(zip(users.tolist(), items.tolist(), strict=True)) == seen
        assert not seen & set(zip(users.tolist(), negatives.tolist(), strict=True))
        assert set(negatives) <= set(ITEMS)


def test_batches_are_full_but_the_last():
    table = {"u": torch.from_numpy(USERS), "i": torch.from_numpy(ITEMS)}
    names = {"u": [f"user {i}" for i in range(10)]}
    split = SimpleNamespace(uid_field="u", iid_field="i", inter_feat=table, field2id_token=names)
    config = {"NEG_PREFIX": "neg_", "train_neg_sample_args": None, "train_batch_size": 4,
              "embedding_size": 8, "device": "cpu", "seed": 0}  # fmt: skip
    batches = PairBatches(split, config)
    drawn = list(batches)
    assert [len(batch["u"]) for batch in drawn] == [4, 2]
    assert len(batches) == 2
    assert sorted(torch.cat([batch["i"] for batch in drawn]).tolist()) == sorted(ITEMS.tolist())


def test_negatives_are_uniform():
    sampler = PairSampler(USERS, ITEMS, negatives=3)
    drawn = sampler.sample_negatives(np.full(4000, 2), np.random.default_rng(0))
    assert drawn.shape == (4000, 3)
    items, counts = np.unique(drawn, return_counts=True)
    assert items.tolist() == [2, 3, 9]
    assert abs(counts / 12000 - 1 / 3).max() < 0.02


def test_a_user_with_all_items_but_few_is_soon_served():
    """Each round of rejections would serve two of 20,000 pairs."""
    n = 20_000
    users = np.concatenate([np.full(n - 2, 1), [2, 2, 3]])
    items = np.concatenate([np.arange(1, n - 1), [n - 1, n, 7]])
    asked = []

    class Counting:
        def __init__(self, seed):
            self.inner = np.random.default_rng(seed)

        def integers(self, *given, **named):
            asked.append(1)
            return self.inner.integers(*given, **named)

    drawn = PairSampler(users, items).sample_negatives(users, Counting(0))
    assert len(asked) <= 110
    of_first = drawn[users == 1]
    assert set(of_first) == {n - 1, n}
    assert abs((of_first == n).mean() - 0.5) < 0.02
    seen = set(zip(users.tolist(), items.tolist(), strict=True))
    assert not seen & set(zip(users.tolist(), drawn.tolist(), strict=True))


def test_a_user_with_every_item_is_an_error():
    with pytest.raises(DataError, match="internal user id 1 with 2 items"):
        PairSampler(np.array([1, 1, 2]), np.array([1, 2, 1]))


def test_no_rows_is_an_error():
    with pytest.raises(DataError, match="no training interactions"):
        PairSampler(np.array([]), np.array([]))


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 6), st.integers(1, 9)), min_size=1, max_size=25),
    st.integers(1, 3),
    st.integers(0, 2**32 - 1),
)
def test_no_negative_is_a_training_item_of_its_user(pairs, negatives, seed):
    users, items = map(np.array, zip(*pairs, strict=True))
    candidates = set(items.tolist())
    seen = {user: set(items[users == user].tolist()) for user in users.tolist()}
    assume(all(len(own) < len(candidates) for own in seen.values()))
    sampler = PairSampler(users, items, negatives=negatives)
    drawn_users, positives, drawn = sampler.epoch(np.random.default_rng(seed))
    assert sorted(zip(drawn_users.tolist(), positives.tolist(), strict=True)) == sorted(pairs)
    for user, row in zip(drawn_users.tolist(), drawn.reshape(len(users), -1).tolist(), strict=True):
        assert len(row) == negatives
        assert set(row) <= candidates - seen[user]


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_negatives_are_uniform_over_the_candidates(seed):
    """χ² with 6 degrees of freedom is above 40 once in two million draws."""
    users, items = np.zeros(3, int), np.array([1, 2, 3])
    others = np.arange(4, 11)  # seven candidates
    sampler = PairSampler(
        np.append(users, np.ones(7, int)), np.append(items, others), negatives=1000
    )
    drawn_users, _, drawn = sampler.epoch(np.random.default_rng(seed))
    count = np.bincount(drawn[drawn_users == 0].ravel(), minlength=11)[4:]
    expected = count.sum() / 7
    assert count.sum() == 3000
    assert ((count - expected) ** 2 / expected).sum() < 40
