"""Every registered model on a world with a known answer; and proof that each check can fail."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from broken_models import BROKEN, BrokenModel

from alignrec_recbole.registry import models
from alignrec_recbole.testing.checks import answers, exceptions, outcomes, resources, training
from alignrec_recbole.testing.checks.exceptions import EXPECTED_FAILURES
from alignrec_recbole.testing.model_checks import checks_by_name, model_checks
from alignrec_recbole.testing.synthetic import make_blocks, world_settings
from alignrec_recbole.testing.testbed import Testbed, model_under_test


@pytest.fixture(scope="session")
def testbeds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Testbed]:
    """One testbed a registered model, so that its fits are made once."""
    return {name: Testbed(name, tmp_path_factory.mktemp(name)) for name in models.MODELS}


def cases() -> list:
    out = []
    for name in models.MODELS:
        for check in model_checks(model_under_test(name)):
            reason = EXPECTED_FAILURES.get((name, check.__name__))
            marks = [pytest.mark.xdist_group(name)]  # one worker makes a model's fits
            marks += [pytest.mark.xfail(reason=reason, strict=True)] if reason else []
            label = check.__name__.removeprefix("check_")
            out.append(pytest.param(name, check, id=f"{name}-{label}", marks=marks))
    return out


@pytest.mark.parametrize(("name", "check"), cases())
def test_registered_model(testbeds: dict[str, Testbed], name: str, check) -> None:
    check(testbeds[name])


def test_expected_failures_name_real_cases() -> None:
    real = {(n, c.__name__) for n in models.MODELS for c in model_checks(model_under_test(n))}
    assert set(EXPECTED_FAILURES) <= real
    assert set(exceptions.CHECK_SETTINGS) <= real
    assert {(name, "check_loss_falls") for name in exceptions.LOSS_FLOORS} <= real


# The other forms of AlignRec --------------------------------------------------------------------

FORMS = {
    "paper": {"variant": "paper"},
    "attention": {"fuser": "attention"},
    "bce": {"objective": "bce"},
    "softmax": {
        "objective": "softmax",
        "train_neg_sample_args": {
            "distribution": "uniform",
            "sample_num": 4,
            "alpha": 1.0,
            "dynamic": False,
            "candidate_num": 0,
        },
    },
    "no-cca": {"cca_weight": 0.0},
    "no-uia": {"uia_weight": 0.0},
    "no-reg": {"reg_sim_weight": 0.0},
}


@pytest.mark.parametrize("form", FORMS)
def test_forms_of_alignrec(tmp_path: Path, form: str) -> None:
    base = model_under_test("AlignRec")
    testbed = Testbed(replace(base, settings={**base.settings, **FORMS[form]}), tmp_path)
    answers.check_right_top_item(testbed)
    training.check_loss_falls(testbed)
    training.check_gradients(testbed)


# Proof that checks can fail ---------------------------------------------------------------------


def ids(case: BrokenModel) -> str:
    return f"{case.under_test.name}-{case.check.removeprefix('check_')}"


@pytest.mark.parametrize("case", BROKEN, ids=ids)
def test_a_broken_model_fails_its_check(tmp_path: Path, case: BrokenModel) -> None:
    check = checks_by_name()[case.check]
    with pytest.raises((AssertionError, ValueError), match=case.says):
        check(Testbed(case.under_test, tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("case", BROKEN, ids=ids)
def test_a_broken_model_fails_no_other_check(tmp_path: Path, case: BrokenModel) -> None:
    testbed = Testbed(case.under_test, tmp_path)
    base = case.under_test.model_class.__mro__
    known = {c for (name, c) in EXPECTED_FAILURES if name in {kind.__name__ for kind in base}}
    failed = set()
    for check in model_checks(case.under_test):
        try:
            check(testbed)
        except Exception:  # a check that ends in any error has not passed
            failed.add(check.__name__)
    assert failed - known - {case.check} <= case.also


def test_every_check_has_a_broken_model() -> None:
    applied = {c.__name__ for n in models.MODELS for c in model_checks(model_under_test(n))}
    assert applied == {case.check for case in BROKEN}
    for_other_devices = {"check_scores_as_on_cpu"}
    assert set(checks_by_name()) == applied | for_other_devices


# Beyond one process and one machine -------------------------------------------------------------


def test_scores_survive_a_new_process(tmp_path: Path) -> None:
    testbed = Testbed("AlignRec", tmp_path)
    fit = testbed.fit(epochs=2)
    torch.save(fit.model.state_dict(), tmp_path / "weights.pt")
    np.save(tmp_path / "scores.npy", fit.scores_by_position().numpy())
    program = f"""
import numpy as np, torch
from alignrec_recbole.testing.testbed import Testbed
torch.set_num_threads(1)
fit = Testbed("AlignRec", {str(tmp_path / "other")!r}).build(seed=5)
fit.model.load_state_dict(torch.load({str(tmp_path / "weights.pt")!r}, weights_only=True))
assert np.array_equal(fit.scores_by_position().numpy(), np.load({str(tmp_path / "scores.npy")!r}))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


def test_both_layouts_give_one_model(tmp_path: Path) -> None:
    testbed = Testbed("AlignRec", tmp_path)
    world = testbed.world
    mmrec = testbed.fit(epochs=2)
    other = Testbed("AlignRec", tmp_path / "atomic")
    other._folders[world] = world.write(tmp_path / "atomic" / "data", "atomic")
    atomic = other.fit(world, epochs=2, **world_settings("atomic"))
    outcomes.assert_equal_fits(mmrec, atomic, "RecBole's atomic files")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.xdist_group(name))
        for name in models.MODELS
        if model_under_test(name).learns
    ],
)
def test_other_devices(
    testbeds: dict[str, Testbed], tmp_path: Path, name: str, device: str
) -> None:
    testbed = testbeds[name] if device == "cpu" else Testbed(name, tmp_path, device=device)
    resources.check_scores_as_on_cpu(testbed)
    resources.check_device_is_followed(testbed)
    answers.check_right_top_item(testbed)


# The world itself -------------------------------------------------------------------------------


def test_block_world_has_the_answer_it_claims() -> None:
    world = make_blocks()
    assert (len(world.users), len(world.items), int(world.cold.sum())) == (96, 48, 8)
    every = np.concatenate(list(world.rows.values()))
    assert len(np.unique(every, axis=0)) == len(every) == 960
    assert (world.user_block[every[:, 0]] == world.item_block[every[:, 1]]).all()
    assert not world.cold[every[:, 1]].any()
    for user in range(96):
        own = np.flatnonzero((world.item_block == world.user_block[user]) & ~world.cold)
        seen = [i for split in ("train", "valid") for u, i in world.rows[split] if u == user]
        (left,) = set(own) - set(seen)
        assert [user, left] in world.rows["test"].tolist()


def test_block_world_hides_position_from_token_and_id() -> None:
    world = make_blocks()
    numbers = np.array([int(token[1:]) for token in world.items])
    for order in (numbers, world.feature_order, world.item_order):
        assert (order == np.arange(48)).mean() < 0.2
    for matrix in world.features.values():
        nearest = (matrix @ matrix.T - 9 * np.eye(48)).argmax(1)
        assert (world.item_block[nearest] == world.item_block).all()


def test_block_world_is_drawn_from_its_seed(tmp_path: Path) -> None:
    for seed, folder in ((0, "a"), (0, "b"), (1, "c")):
        make_blocks(seed=seed).write(tmp_path / folder)
    files = sorted(p.name for p in (tmp_path / "a" / "block_world").iterdir())
    assert "block_world.inter" in files
    assert "image.json" in files
    for name in files:
        one, same, other = (
            (tmp_path / folder / "block_world" / name).read_bytes() for folder in "abc"
        )
        assert one == same
        assert one != other
