"""Checks that every registered model passes, usable for a model of your own:

    from alignrec_recbole.testing.testbed import Testbed
    from alignrec_recbole.testing.model_checks import model_checks

    testbed = Testbed("MyModel", tmp_path)
    for check in model_checks(testbed.under_test):
        check(testbed)

A check raises AssertionError with what it found. The thresholds fit the default world of
synthetic.py and the settings of testbed.py. Over ten worlds and seeds each, AlignRec, LightGCN and
BPR have a top-1 of 1.00 and a last loss of at most 0.18, 0.03 and 0.08 of the first; AlignRec's
cold AUC is at least 0.968 with the right features and at most 0.671 with shuffled ones.
"""

from __future__ import annotations

import ast
import contextlib
import copy
import inspect
import io
import math
import os
import sys
import textwrap
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from alignrec_recbole.errors import AlignRecError, DivergedError, FeatureError, SettingError
from alignrec_recbole.evaluation import ranking as ranking_module
from alignrec_recbole.models._base import PairwiseRecommender
from alignrec_recbole.settings import check_keys
from alignrec_recbole.testing import host_waits, renumbering
from alignrec_recbole.testing.synthetic import BlockWorld, make_blocks
from alignrec_recbole.testing.testbed import SMOKE_EPOCHS, FittedModel, ModelUnderTest, Testbed
from alignrec_recbole.training.trainer import losses_by_name

Check = Callable[[Testbed], None]

# (model, check) → reason. Strict: one that starts to pass must be removed from the list.
EXPECTED_FAILURES: dict[tuple[str, str], str] = {
    ("Pop", "check_right_top_item"): "popularity is the same for every user",
    **{
        (name, "check_memory_ceiling"): "its item-item matrix is dense by definition"
        for name in ("EASE", "CEASE", "AddEASE")
    },
}


def model_checks(under_test: ModelUnderTest) -> Iterator[Check]:
    """The checks that apply to a model."""
    yield check_right_top_item
    yield check_pad_never_recommended
    yield check_seen_items_masked
    yield check_scores_agree
    yield check_eval_is_pure
    yield check_save_load_equal
    yield check_same_seed_equal
    yield check_features_matter
    yield check_renaming_items_is_harmless
    yield check_row_order_is_harmless
    yield check_renumbering_is_harmless
    yield check_ties_do_not_follow_numbers
    yield check_other_users_of_a_batch_are_harmless
    yield check_held_out_rows_unused
    yield check_degenerate_inputs
    yield check_memory_ceiling
    yield check_device_is_followed
    yield check_config_is_closed
    yield check_prints_and_writes_nothing
    if under_test.learns:
        yield check_other_seed_differs
        yield check_loss_falls
        yield check_nan_is_refused
        yield check_gradients
        if issubclass(under_test.model_class, PairwiseRecommender):
            yield check_step_waits_for_nothing
    if under_test.uses_features:
        yield check_feature_rows_by_token
        yield check_missing_modality


# The known answer -------------------------------------------------------------------------------


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
    right, wrong = cold_auc(testbed.fit()), cold_auc(testbed.fit(shuffled))
    assert right >= 0.95, f"cold AUC {right:.3f} with the right features, expected 0.95 or more"
    assert wrong <= 0.75, f"cold AUC {wrong:.3f} with shuffled features, expected 0.75 or less"


def check_missing_modality(testbed: Testbed) -> None:
    """A quarter of the images missing, all missing, no image features at all: still correct."""
    quarter = testbed.world.with_missing("image", 0.25)
    fit = testbed.fit(quarter)
    table = fit.splits[0].features["image"]
    missing = np.zeros(len(table.present), dtype=bool)
    missing[0], missing[fit.item_ids[list(quarter.missing["image"])]] = True, True
    assert np.array_equal(table.present, ~missing), "the presence mask is not the manifest's"
    both = quarter.with_missing("text", 0.25, seed=2)
    cases = {
        "a quarter of the images missing": fit,
        "no image at all": testbed.fit(testbed.world.with_missing("image", 1.0)),
        "only text": testbed.fit(features=["text"]),
    }
    for what, case in cases.items():
        assert torch.isfinite(case.scores()[:, 1:]).all(), f"{what}: scores are not finite"
        assert top_item_share(case) >= 0.9, f"{what}: top-1 {top_item_share(case):.2f}"
    fit = testbed.smoke_fit(both)
    assert torch.isfinite(fit.scores()[:, 1:]).all(), "items without any modality: not finite"


# Ranking ----------------------------------------------------------------------------------------


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


# State and chance -------------------------------------------------------------------------------


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


def assert_equal_fits(one: FittedModel, other: FittedModel, what: str) -> None:
    """Losses and scores by position are equal bit by bit."""
    assert one.losses == other.losses, f"{what}: losses {one.losses} and {other.losses}"
    difference = (one.scores_by_position() - other.scores_by_position()).abs().max()
    assert difference == 0, f"{what}: scores differ by up to {float(difference):.1e}"


# Training ---------------------------------------------------------------------------------------


def check_loss_falls(testbed: Testbed) -> None:
    """The loss is finite, also by part, and ends below half of where it began, above its floor."""
    fit = testbed.fit(**_own_settings(testbed.under_test, "check_loss_falls"))
    for entry in fit.trainer.history:
        parts = entry["losses"]
        assert np.isfinite(list(parts.values())).all(), f"epoch {entry['epoch']}: {parts}"
    first, last = fit.losses[0], fit.losses[-1]
    floor, _ = LOSS_FLOORS.get(testbed.under_test.name, (0.0, ""))
    assert last - floor <= 0.5 * (first - floor), f"the loss went from {first:.4f} to {last:.4f}"


def check_nan_is_refused(testbed: Testbed) -> None:
    """A NaN weight ends training with an error, not with a result."""
    fit = testbed.build(epochs=1)
    with torch.no_grad():
        for parameter in fit.model.parameters():
            parameter.fill_(torch.nan)
    _must_raise(
        DivergedError,
        lambda: fit.trainer.fit(fit.batches(), None, saved=False, show_progress=False),
        "training went on with a NaN loss",
    )


def total_loss(fit: FittedModel) -> Tensor:
    """The sum of a model's loss terms on a first batch."""
    parts = losses_by_name(fit.model.calculate_loss(fit.batch()))
    return torch.stack([part.reshape(()) for part in parts.values()]).sum()


def check_gradients(testbed: Testbed) -> None:
    """Every parameter gets a finite gradient that is not all zero; what is frozen stays."""
    fit = testbed.build()
    frozen = {
        name: tensor.clone()
        for name, tensor in fit.model.named_buffers()
        if torch.is_tensor(tensor)
    }
    fit.model.train()
    total_loss(fit).backward()
    for name, parameter in fit.model.named_parameters():
        if not parameter.requires_grad:
            frozen[name] = parameter.detach().clone()
            continue
        assert parameter.grad is not None, f"{name} gets no gradient"
        assert torch.isfinite(parameter.grad).all(), f"the gradient of {name} is not finite"
        assert parameter.grad.any(), f"the gradient of {name} is zero"
    fit.trainer.optimizer.step()
    after = {**dict(fit.model.named_buffers()), **dict(fit.model.named_parameters())}
    for name, value in frozen.items():
        assert torch.equal(after[name], value), f"{name} is frozen but a step changed it"


def check_step_waits_for_nothing(testbed: Testbed) -> None:
    """On a GPU the host waits for nothing in a step, or `capture_refused` says why it does."""
    reason = testbed.under_test.model_class.capture_refused
    wait = host_waits.first_wait(testbed.smoke_fit())
    if reason:
        assert wait, f"capture_refused says {reason!r}, but a step waits for nothing"
    else:
        assert not wait, f"a step waits at {wait}"


# Data -------------------------------------------------------------------------------------------


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
    _must_raise(
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
    other = testbed.fit(testbed.world.with_other_row_order())
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


# Resources and manners --------------------------------------------------------------------------

_IN_BLOCKS = (
    "AlignRec", "COHESION", "DAMRS", "DRAGON", "FREEDOM", "GUME", "ItemKNNCBF", "ItemKNNHybrid",
    "LATTICE", "MENTOR", "MGCN", "MSCA", "PGL", "SMORE", "SOIL",
)  # fmt: skip
# (class, check) → settings of the check's own. The bound of a block of similarities is taken from
# the configuration. LGMRec contrasts sets whose memberships are drawn with noise of their own: here
# this term stays where chance puts it, three quarters of an epoch's loss; the rest must fall.
# REARM's graphs order these items before the first step: without them there is much to learn.
CHECK_SETTINGS: dict[tuple[str, str], dict[str, Any]] = {
    **{(name, "check_memory_ceiling"): {"knn_memory_mb": 1} for name in _IN_BLOCKS},
    ("MMGF", "check_memory_ceiling"): {"knn_memory_mb": 1, "knn_k": 20},  # k entries per item
    ("REARM", "check_memory_ceiling"): {
        "knn_memory_mb": 1, "embedding_size": 64, "train_batch_size": 256,
    },
    ("LGMRec", "check_loss_falls"): {"cl_weight": 0.0},
    ("REARM", "check_loss_falls"): {"n_ui_layers": 0, "n_mm_layers": 0, "n_user_layers": 0},
}  # fmt: skip

# model → what its loss cannot fall below, and why; the fall is measured above it.
LOSS_FLOORS: dict[str, tuple[float, str]] = {
    "SLMRec": (
        math.log(256 / 4),
        "softmax over a batch of 256 in which the users of each of 4 blocks are interchangeable",
    ),
}


def _own_settings(under_test: ModelUnderTest, check: str) -> dict[str, Any]:
    names = [kind.__name__ for kind in under_test.model_class.__mro__]
    return next(
        (CHECK_SETTINGS[name, check] for name in names if (name, check) in CHECK_SETTINGS), {}
    )


class LargestTensor(TorchDispatchMode):
    """Notes the largest dense tensor that an operation returns."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor) and leaf.layout == torch.strided:
                self.elements = max(self.elements, leaf.numel())
        return out


def check_memory_ceiling(testbed: Testbed) -> None:
    """Nothing dense in items × items, nor in users × items outside scoring."""
    world = make_blocks(users=150, items=500, likes=8)  # 600 users, 2,000 items
    n_users, n_items = len(world.users), len(world.items)
    settings = _own_settings(testbed.under_test, "check_memory_ceiling")
    config = testbed.config(world, 1, settings)
    splits = testbed.splits(config)
    if testbed.under_test.uses_features:
        assert splits[0].features, "the world has features"
    with LargestTensor():
        testbed.under_test.model_class(
            config, splits[0]
        )  # what a first build imports is not the model's
    tracemalloc.start()
    with LargestTensor() as build:
        model = testbed.under_test.model_class(config, splits[0]).to(config["device"])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert build.elements < n_items**2 / 4, f"building makes a tensor of {build.elements:,}"
    assert peak < 2 * n_items**2, f"building takes {peak:,} bytes in NumPy"  # items² / 2 floats
    trainer = testbed.under_test.trainer_class(config, model)
    fit = FittedModel(testbed.under_test, world, config, splits, model, trainer)
    if testbed.under_test.learns:
        with LargestTensor() as step:
            model.train()
            total_loss(fit).backward()
        assert step.elements < n_users * n_items, f"a step makes a tensor of {step.elements:,}"
    with LargestTensor() as scoring:
        fit.scores(fit.user_ids[:100])
    limit = 100 * (n_items + 1)
    vectors = (n_users + n_items + 2) * 256  # some models concatenate a vector a modality
    assert scoring.elements <= max(limit, build.elements, vectors), (
        f"scoring 100 users makes a tensor of {scoring.elements:,}"
    )


def check_device_is_followed(testbed: Testbed) -> None:
    """Every tensor of the model is on its device, and no device is named in its code."""
    fit = testbed.smoke_fit()
    wanted = torch.device(fit.config["device"]).type
    for name, tensor in renumbering.tensors(fit.model):
        assert tensor.device.type == wanted, f"{name} is on {tensor.device}, not on {wanted}"
    for node in ast.walk(ast.parse(_source(testbed.under_test.model_class))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            assert node.value.split(":")[0] != "cuda", "the code names the device 'cuda'"
        if isinstance(node, ast.Attribute):
            assert node.attr != "cuda", "the code calls .cuda()"


def _source(model_class: Any) -> str:
    return textwrap.dedent(inspect.getsource(model_class))


def check_config_is_closed(testbed: Testbed) -> None:
    """A key that is absent or unknown is an error; a model never writes to its configuration."""
    config = testbed.config(testbed.world, 1, {"epochs": 1})
    splits = testbed.splits(config)
    before = repr(sorted(config.final_config_dict.items(), key=lambda item: item[0]))
    testbed.under_test.model_class(config, splits[0])
    after = repr(sorted(config.final_config_dict.items(), key=lambda item: item[0]))
    assert before == after, "building the model changed its configuration"
    if testbed.under_test.known_keys:
        _must_raise(
            SettingError,
            lambda: check_keys(
                {"embeding_size": 1}, set(testbed.under_test.known_keys), "the model"
            ),
            "an unknown key went unnoticed",
        )
    kind = getattr(testbed.under_test.model_class, "settings_class", None)
    for key in kind.model_fields if kind else ():
        assert key in testbed.under_test.settings, f"{key} has no default in the model's YAML"
        value = config.final_config_dict.pop(key)
        _must_raise(
            SettingError,
            lambda: testbed.under_test.model_class(config, splits[0]),
            f"the model was built without {key}",
        )
        config.final_config_dict[key] = value


def _must_raise(
    kind: type[AlignRecError], action: Callable[[], Any], otherwise: str, naming: str = ""
) -> None:
    text = None
    try:
        action()
    except kind as error:
        text = str(error)
    assert text is not None, otherwise
    assert naming in text, f"the error does not name {naming}: {text}"


def check_prints_and_writes_nothing(testbed: Testbed) -> None:
    """Building, training and scoring print nothing and leave no file."""
    place = testbed.folder_of(testbed.world)
    folder = testbed.folder / "work"
    folder.mkdir(exist_ok=True)
    before = _files(place), _files(folder)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), _working_in(folder):
        fit = testbed.fresh_fit(epochs=1, validate=True)
        fit.scores()
    assert printed.getvalue() == "", f"printed {printed.getvalue()[:80]!r}"
    for old, new in zip(before, (_files(place), _files(folder)), strict=True):
        assert old == new, f"wrote {sorted(new - old)}"


def _files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@contextlib.contextmanager
def _working_in(folder: Path) -> Iterator[None]:
    old = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(old)


def check_scores_as_on_cpu(testbed: Testbed) -> None:
    """The same weights score on the testbed's device what they score on the CPU.

    Not among `model_checks`: for a testbed on another device.
    """
    cpu = Testbed(testbed.under_test, testbed.folder / "cpu", testbed.world)
    one, other = cpu.smoke_fit(), testbed.build()
    found = torch.device(other.model.device).type
    assert found == testbed.device, f"the model is on {found}, asked for {testbed.device}"
    other.model.load_state_dict(one.model.state_dict())
    assert torch.allclose(one.scores(), other.scores(), rtol=1e-4, atol=1e-5), (
        f"scores on {found} differ from those on the CPU"
    )


def checks_by_name() -> dict[str, Check]:
    """Every check of this module."""
    here = vars(sys.modules[__name__])
    return {
        name: value
        for name, value in here.items()
        if name.startswith("check_") and name != "check_keys"
    }
