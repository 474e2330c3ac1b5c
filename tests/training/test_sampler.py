"""Negatives are exact and uniform; an epoch holds every pair once."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

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
    split = SimpleNamespace(uid_field="u", iid_field="i", inter_feat=table)
    config = {"NEG_PREFIX": "neg_", "train_neg_sample_args": None, "train_batch_size": 4,
              "device": "cpu", "seed": 0}  # fmt: skip
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


def test_a_user_with_every_item_is_an_error():
    with pytest.raises(DataError, match="internal user id 1 with 2 items"):
        PairSampler(np.array([1, 1, 2]), np.array([1, 2, 1]))


def test_no_rows_is_an_error():
    with pytest.raises(DataError, match="no training interactions"):
        PairSampler(np.array([]), np.array([]))
