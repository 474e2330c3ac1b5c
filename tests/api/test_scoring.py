"""Lists of a small saved model with equal scores, by hand."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from alignrec_recbole.api.scoring import Ranker
from alignrec_recbole.features.item_order import tie_ranks
from alignrec_recbole.runs.saved_model import ModelCard, SavedModel

ITEMS = np.array(["a", "b", "c", "d", "e"], dtype=object)
TIE_SEED = 3


def saved_model() -> SavedModel:
    """One user, whose score with every item is 1."""
    card = ModelCard(
        kind="vectors",
        model="BPR",
        dataset="few",
        features="",
        setting="mmrec",
        seed=1,
        users=1,
        items=len(ITEMS),
        list_length=3,
        tie_seed=TIE_SEED,
        metrics={},
        config={},
        config_sha256="0" * 64,
        package_version="0",
        sha256="0" * 64,
    )
    empty = sp.csr_matrix((2, len(ITEMS) + 1), dtype=bool)
    vectors = {
        name: np.ones((count, 1), np.float32) for name, count in (("users", 2), ("items", 6))
    }
    users = np.array(["u"], dtype=object)
    return SavedModel(card, users, ITEMS, empty, empty, np.array([1]), vectors)


@pytest.mark.parametrize("new", [0, 1, 3])
def test_among_equal_scores_new_items_come_last_in_their_order(new: int) -> None:
    ranker = Ranker(saved_model(), np.ones((new, 1), np.float32) if new else None)
    items, scores = ranker.lists(np.array([1]), 20, None, None)
    known = np.argsort(tie_ranks(["[PAD]", *ITEMS], TIE_SEED))[:-1]
    assert known.tolist() != sorted(known), "an order by number would pass"
    assert items.tolist() == [[*known, *range(6, 6 + new)]]
    assert scores.tolist() == [[1.0] * (5 + new)]
    assert sorted(ranker.tie_rank) == list(range(6 + new))


def test_a_better_new_item_comes_first() -> None:
    ranker = Ranker(saved_model(), np.array([[1.0], [2.0]], np.float32))
    items, scores = ranker.lists(np.array([1]), 2, None, None)
    assert items[0, 0] == 7
    assert scores.tolist() == [[2.0, 1.0]]
