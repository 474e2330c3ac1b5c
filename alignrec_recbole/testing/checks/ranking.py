"""Scores and lists: PAD, masked items, agreement of both ways to score, no trace of scoring."""

from __future__ import annotations

import copy
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor

from alignrec_recbole.evaluation import ranking as ranking_module
from alignrec_recbole.testing.testbed import Testbed


def check_pad_never_recommended(testbed: Testbed) -> None:
    """PAD is in no list, even with the highest score; short lists are not filled up."""
    fit = testbed.fit()
    n_items = fit.splits[0].item_num
    original = fit.model.full_sort_predict

    def with_high_pad(interaction: Any) -> Tensor:
        scores = original(interaction).view(-1, n_items).clone()
        scores[:, 0] = 1e9
        return scores.view(-1)

    with mock.patch.object(fit.model, "full_sort_predict", with_high_pad):
        ranking = fit.trainer.rank(fit.task("valid", ["train"]), n_items - 1)
    assert not (ranking.items == 0).any(), f"PAD in {(ranking.items == 0).sum()} lists"
    listed = (ranking.items > 0).sum(1)
    seen = np.bincount(fit.pairs("train")[0], minlength=fit.splits[0].user_num)[ranking.users]
    assert np.array_equal(listed, n_items - 1 - seen), "lists don't hold every candidate once"


def check_seen_items_masked(testbed: Testbed) -> None:
    """No list holds a masked item, for any block size of the ranking."""
    fit = testbed.fit()
    n_items = fit.splits[0].item_num
    for target, masked in (("valid", ("train",)), ("test", ("train", "valid"))):
        with mock.patch.object(ranking_module, "BLOCK_BYTES", 4 * n_items * 7):
            ranking = fit.trainer.rank(fit.task(target, masked), n_items - 1)
        seen = {pair for split in masked for pair in zip(*fit.pairs(split), strict=True)}
        for user, items in zip(ranking.users, ranking.items, strict=True):
            wrong = [item for item in items if (user, item) in seen]
            assert not wrong, f"{target}: user {user} is offered {len(wrong)} masked items"
        sizes = np.bincount([user for user, _ in seen], minlength=fit.splits[0].user_num)
        listed = (ranking.items > 0).sum(1)
        assert np.array_equal(listed, n_items - 1 - sizes[ranking.users]), (
            f"{target}: too many items are masked"
        )


def check_scores_agree(testbed: Testbed) -> None:
    """`predict` equals the entries of `full_sort_predict`, which do not depend on the batch."""
    from recbole.data.interaction import Interaction

    fit = testbed.fit()
    everyone = fit.scores()
    users, items = (torch.from_numpy(ids) for ids in fit.pairs("valid"))
    row = {user: i for i, user in enumerate(fit.user_ids.tolist())}
    want = everyone[[row[user] for user in users.tolist()], items]
    dataset = fit.splits[0]
    batch = Interaction({dataset.uid_field: users, dataset.iid_field: items})
    with torch.no_grad():
        pairs = fit.model.predict(batch.to(fit.config["device"])).cpu()
    assert pairs.shape == want.shape, f"predict gives shape {tuple(pairs.shape)}"
    assert torch.allclose(pairs.to(want.dtype), want, rtol=1e-4, atol=1e-5), (
        f"predict and full_sort_predict differ by {float((pairs - want).abs().max()):.1e}"
    )
    for position in (0, len(fit.user_ids) - 1):
        alone = fit.scores(fit.user_ids[position : position + 1])[0]
        assert torch.allclose(alone, everyone[position], rtol=1e-4, atol=1e-5), (
            "a user scored alone gets other scores"
        )


def check_eval_is_pure(testbed: Testbed) -> None:
    """Scoring twice is equal, changes no weight and no generator, and leaves training as it is."""
    fit = testbed.fit()
    weights = copy.deepcopy(fit.model.state_dict())
    generators = torch.get_rng_state(), _numpy_state()
    first, second = fit.scores(), fit.scores()
    assert torch.equal(first, second), "scoring twice gives two answers"
    for name, value in fit.model.state_dict().items():
        assert torch.equal(value, weights[name]), f"scoring changed {name}"
    assert torch.equal(generators[0], torch.get_rng_state()), "scoring draws from torch's generator"
    assert generators[1] == _numpy_state(), "scoring draws from numpy's generator"
    if testbed.under_test.learns:
        alone, watched = (
            testbed.smoke_fit(),
            testbed.smoke_fit(validate=True),
        )
        assert alone.losses == watched.losses, (
            f"losses {alone.losses} without and {watched.losses} with validation in between"
        )


def _numpy_state() -> str:
    return repr(np.random.get_state(legacy=False)["state"])  # noqa: NPY002 (RecBole draws from it)
