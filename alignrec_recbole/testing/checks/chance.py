"""Seeds and stored weights: equal fits from one seed, other fits from another."""

from __future__ import annotations

import torch

from alignrec_recbole.testing.checks.outcomes import assert_equal_fits
from alignrec_recbole.testing.testbed import SMOKE_EPOCHS, Testbed


def check_save_load_equal(testbed: Testbed) -> None:
    """Another instance with the saved weights scores the same, also after it scored before."""
    fit = testbed.smoke_fit()
    path = testbed.folder / f"{testbed.under_test.name}.weights.pt"
    torch.save(fit.model.state_dict(), path)
    other = testbed.build(seed=7)
    other.scores()  # fills a cache, which loading weights must clear
    other.model.load_state_dict(torch.load(path, weights_only=True))
    assert torch.equal(fit.scores(), other.scores()), "loaded weights give other scores"


def check_same_seed_equal(testbed: Testbed) -> None:
    """Two fits with one seed are equal bit by bit."""
    assert_equal_fits(testbed.smoke_fit(), testbed.fresh_fit(epochs=SMOKE_EPOCHS), "a second fit")


def check_other_seed_differs(testbed: Testbed) -> None:
    """The seed is not ignored: first weights and drawn negatives follow it."""
    first, second = testbed.build(seed=1).model, testbed.build(seed=2).model
    assert any(
        not torch.equal(one, other)
        for one, other in zip(first.parameters(), second.parameters(), strict=True)
    ), "another seed gives the same first weights"
    one, other = testbed.smoke_fit(), testbed.smoke_fit(seed=2)
    assert not torch.equal(one.scores_by_position(), other.scores_by_position()), (
        "another seed gives the same model"
    )
    assert one.losses != other.losses, "another seed gives the same losses"
