"""The known answer of the synthetic world: the right item first, with and without features."""

from __future__ import annotations

import numpy as np
import torch

from alignrec_recbole.testing.checks.outcomes import assert_equal_fits
from alignrec_recbole.testing.testbed import FittedModel, Testbed


def check_right_top_item(testbed: Testbed) -> None:
    """The only warm item of a user's block outside training and validation is ranked first."""
    share = top_item_share(testbed.fit())
    assert share >= 0.9, f"the right item is first for {share:.1%} of the users"


def top_item_share(fit: FittedModel) -> float:
    """Share of users whose best warm item outside train and valid is their test item."""
    world, scores = fit.world, fit.scores_by_position()
    for split in ("train", "valid"):
        users, items = world.rows[split].T
        scores[users, items] = -torch.inf
    scores[:, torch.from_numpy(world.cold)] = -torch.inf
    users, items = world.rows["test"].T
    return float(np.mean(scores.argmax(1).numpy()[users] == items))


def cold_auc(fit: FittedModel) -> float:
    """Share of pairs of a cold item of the own block and one of another, ordered correctly."""
    world = fit.world
    scores = fit.scores_by_position().numpy()[:, world.cold]
    own = world.user_block[:, None] == world.item_block[world.cold]
    return float(
        np.mean([np.mean(s[o][:, None] > s[~o]) for s, o in zip(scores, own, strict=True)])
    )


def check_features_matter(testbed: Testbed) -> None:
    """Models with features lose their answer when items swap features; others notice nothing."""
    shuffled = testbed.world.with_shuffled_features()
    if not testbed.under_test.uses_features:
        assert_equal_fits(testbed.smoke_fit(), testbed.smoke_fit(shuffled), "features")
        return
    if not testbed.under_test.scores_cold_items:
        one, other = testbed.smoke_fit(), testbed.smoke_fit(shuffled)
        assert not torch.equal(one.scores(), other.scores()), "shuffled features change nothing"
        return
    right, wrong = cold_auc(testbed.fit()), cold_auc(testbed.one_batch_fit(shuffled))
    assert right >= 0.95, f"cold AUC {right:.3f} with the right features, expected 0.95 or more"
    assert wrong <= 0.75, f"cold AUC {wrong:.3f} with shuffled features, expected 0.75 or less"


def check_missing_modality(testbed: Testbed) -> None:
    """A quarter of the images missing, all missing, no image features at all: still correct."""
    quarter = testbed.world.with_missing("image", 0.25)
    fit = testbed.one_batch_fit(quarter)
    table = fit.splits[0].features["image"]
    missing = np.zeros(len(table.present), dtype=bool)
    missing[0], missing[fit.item_ids[list(quarter.missing["image"])]] = True, True
    assert np.array_equal(table.present, ~missing), "the presence mask is not the manifest's"
    both = quarter.with_missing("text", 0.25, seed=2)
    cases = {
        "a quarter of the images missing": fit,
        "no image at all": testbed.one_batch_fit(testbed.world.with_missing("image", 1.0)),
        "only text": testbed.one_batch_fit(features=["text"]),
    }
    for what, case in cases.items():
        assert torch.isfinite(case.scores()[:, 1:]).all(), f"{what}: scores are not finite"
        assert top_item_share(case) >= 0.9, f"{what}: top-1 {top_item_share(case):.2f}"
    fit = testbed.smoke_fit(both)
    assert torch.isfinite(fit.scores()[:, 1:]).all(), "items without any modality: not finite"
