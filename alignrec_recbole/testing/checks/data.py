"""The data: other tokens, orders, numbers and held-out rows, and degenerate worlds."""

from __future__ import annotations

from dataclasses import replace

import torch

from alignrec_recbole.errors import FeatureError
from alignrec_recbole.testing import renumbering
from alignrec_recbole.testing.checks.answers import top_item_share
from alignrec_recbole.testing.checks.outcomes import assert_equal_fits, must_raise
from alignrec_recbole.testing.synthetic import BlockWorld
from alignrec_recbole.testing.testbed import Testbed


def check_feature_rows_by_token(testbed: Testbed) -> None:
    """Rows of a feature file may be in any order; an item without a row is an error."""
    reordered = testbed.world.with_other_feature_order()
    assert_equal_fits(
        testbed.smoke_fit(),
        testbed.smoke_fit(reordered),
        "feature rows in another order",
    )
    short = replace(testbed.world, feature_order=testbed.world.feature_order[1:])
    absent = testbed.world.items[testbed.world.feature_order[0]]
    must_raise(
        FeatureError,
        lambda: testbed.build(short),
        "an item without a feature row went unnoticed",
        naming=repr(absent),
    )


def check_renaming_items_is_harmless(testbed: Testbed) -> None:
    """Other item tokens, same order: the same model bit by bit."""
    renamed = testbed.world.with_other_tokens()
    assert_equal_fits(testbed.smoke_fit(), testbed.smoke_fit(renamed), "renamed items")


def check_row_order_is_harmless(testbed: Testbed) -> None:
    """Training rows in another order: still right; models that don't learn score the same."""
    other = testbed.one_batch_fit(testbed.world.with_other_row_order())
    if not testbed.under_test.learns:
        scores = testbed.fit().scores_by_position(), other.scores_by_position()
        assert torch.allclose(*scores, rtol=1e-4, atol=1e-5), "the order of rows changes scores"
        return
    share = top_item_share(other)
    assert share >= 0.9, f"other order of rows: the right item is first for {share:.1%}"


def check_renumbering_is_harmless(testbed: Testbed) -> None:
    """Other numbers for all users, items and rows: the same losses and scores up to rounding."""
    one, other = renumbering.both_outcomes(testbed)
    for what, difference in renumbering.differences(one, other).items():
        assert difference <= renumbering.TOLERANCE, (
            f"under other numbers of users and items, {what} differ by {difference:.1e}"
        )
    if one.unknown | other.unknown:
        figures = renumbering.figures_by_seed(testbed)
        p = renumbering.p_value(figures)
        assert p >= renumbering.SURE, (
            f"under other numbers, five seeds have the figures {figures[1].round(4).tolist()}, "
            f"before {figures[0].round(4).tolist()}: p = {p:.1e}"
        )


def check_ties_do_not_follow_numbers(testbed: Testbed) -> None:
    """Items with equal scores are listed in an order that does not depend on their numbers."""
    share = renumbering.lists_that_follow_numbers(testbed)
    assert share == 0, f"{share:.1%} of the lists of equal scores follow the numbers of the items"
    if not testbed.under_test.learns:
        share = renumbering.share_by_number(testbed)
        assert abs(share - 0.5) < 0.45, (
            f"of two items with the same rows and features, the one with the larger number has the "
            f"larger score in {share:.1%} of the cases"
        )


def check_other_users_of_a_batch_are_harmless(testbed: Testbed) -> None:
    """A user's scores are the same whoever is scored together with them, and in which order."""
    difference = renumbering.difference_by_batch(testbed.smoke_fit())
    assert difference <= renumbering.TOLERANCE, (
        f"in batches of other users, scores differ by up to {difference:.1e} of their spread"
    )


def check_held_out_rows_unused(testbed: Testbed) -> None:
    """Other validation and test rows: the same training bit by bit."""
    other = testbed.smoke_fit(testbed.world.with_other_held_out_rows())
    assert_equal_fits(testbed.smoke_fit(), other, "other held-out rows")


def check_degenerate_inputs(testbed: Testbed) -> None:
    """A user with one item, an item with one user, items without users, constant features."""
    world = degenerate_world(testbed.world)
    fit = testbed.smoke_fit(world)
    assert torch.isfinite(fit.scores()[:, 1:]).all(), "scores are not finite"
    n_items = fit.splits[0].item_num
    ranking = fit.trainer.rank(fit.task("test", ["train"]), n_items + 5)
    assert (ranking.items[:, n_items - 1 :] == -1).all(), "more items listed than there are"


def degenerate_world(world: BlockWorld) -> BlockWorld:
    """User 0 has a single training item; another item, formerly also theirs, has a single user."""
    rows = world.rows["train"]
    users, items = rows.T
    own = items[users == 0]
    rare = own[1]
    keeper = users[(items == rare) & (users != 0)][0]
    retained = ((users != 0) | (items == own[0])) & ((items != rare) | (users == keeper))
    return replace(world.with_constant_features(), rows={**world.rows, "train": rows[retained]})
