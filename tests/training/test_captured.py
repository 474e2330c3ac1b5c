"""Captured steps: what is recorded, repeated and dropped gives the numbers of other steps.

A tape of operators stands in for CUDA's graphs. tests/gpu has the real ones.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from operator_tape import TapeGraphs

from alignrec_recbole import losses
from alignrec_recbole.cli.main import main
from alignrec_recbole.errors import SettingError
from alignrec_recbole.io import training_state
from alignrec_recbole.models.alignrec import AlignRec
from alignrec_recbole.models.bpr import BPR
from alignrec_recbole.models.damrs import DAMRS
from alignrec_recbole.ops import rows, sparse
from alignrec_recbole.registry import models
from alignrec_recbole.testing import host_waits
from alignrec_recbole.testing.testbed import FittedModel, Testbed, model_under_test
from alignrec_recbole.training import captured
from alignrec_recbole.training.saved_training import SavedTraining

EPOCHS = 4
SETTINGS: dict[str, Any] = {
    "epochs": EPOCHS,
    "train_batch_size": 100,  # the last batch of an epoch is shorter
    "learning_rate": 2.0**-6,  # halved after each epoch: the same number in float32
    "lr_decay": [0.5, 1],
}


@pytest.fixture
def tapes(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[TapeGraphs]]:
    """Tapes on the CPU, on which models compute as on a GPU: nothing by hand of the host."""

    def every_row_once(ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.arange(len(ids)), torch.ones(len(ids))

    monkeypatch.setitem(captured.GRAPHS, "cpu", TapeGraphs)
    monkeypatch.setattr(sparse, "MAX_EDGE_FRACTION", -1.0)  # products with the whole graph
    monkeypatch.setattr(losses, "unique_with_counts", every_row_once)
    monkeypatch.setattr(TapeGraphs, "made", [])
    return TapeGraphs.made


def both(folder: Path, model: str, **settings: Any) -> tuple[FittedModel, FittedModel]:
    testbed = Testbed(model, folder)
    one, other = (
        testbed.fresh_fit(validate=True, captured_steps=flag, **{**SETTINGS, **settings})
        for flag in (False, True)
    )
    assert_equal(one, other)
    return one, other


def assert_equal(one: FittedModel, other: FittedModel) -> None:
    for before, after in zip(one.trainer.history, other.trainer.history, strict=True):
        assert before["losses"] == after["losses"]
        assert before.get("valid") == after.get("valid")
    weights = other.model.state_dict()
    for name, value in one.model.state_dict().items():
        assert torch.equal(value, weights[name]), name


def full_batches(fit: FittedModel) -> int:
    size, batches = fit.config["train_batch_size"], fit.batches()
    assert len(batches.sampler) % size, "the last batch is as long as the others"
    return len(batches) - 1


# model → recordings in four epochs, and eager steps before each: LATTICE's first step of an epoch
# makes a graph
RECORDED = {"BPR": (1, 3), "LightGCN": (1, 3), "AlignRec": (1, 3), "FREEDOM": (4, 3), "PGL": (4, 3),
            "MMGCF": (4, 3), "LATTICE": (4, 4)}  # fmt: skip


@pytest.mark.parametrize("model", RECORDED)
def test_numbers_are_those_of_other_steps(tmp_path: Path, tapes: list, model: str) -> None:
    _, fit = both(tmp_path, model)
    (graphs,) = tapes
    recordings, eager = RECORDED[model]
    assert len(graphs.tapes) == recordings
    replays = sum(tape.replays for tape in graphs.tapes)
    assert replays == EPOCHS * full_batches(fit) - recordings * eager
    assert not any(tape.operators for tape in graphs.tapes), "memory of a recording is left"


@pytest.mark.parametrize(("model", "settings"), [
    ("LightGCN", {"clip_grad_norm": {"max_norm": 0.01}}),
    ("LightGCN", {"learner": "adamw", "weight_decay": 0.01}),
    ("LightGCN", {"train_batch_size": 10_000}),  # one batch per epoch, as long in all of them
    ("AlignRec", {"precision": "bfloat16"}),
], ids=["clipped", "adamw", "one-batch", "bfloat16"])  # fmt: skip
def test_settings_of_training_have_their_effect(tmp_path, tapes, model, settings) -> None:
    one, _ = both(tmp_path, model, **settings)
    usual = Testbed(model, tmp_path / "usual").fresh_fit(**SETTINGS)
    assert one.losses != usual.losses
    assert len(tapes[0].tapes) == 1


def test_a_term_that_begins_later_is_recorded(tmp_path: Path, tapes: list) -> None:
    _, fit = both(tmp_path, "FREEDOM", dropout=0.0, mdvt={"weight": 0.1, "k": 1, "warm_up": 2})
    assert [len(entry["losses"]) for entry in fit.trainer.history] == [2, 2, 3, 3]
    assert len(tapes[0].tapes) == 2


@pytest.mark.parametrize("model", ["BPR", "FREEDOM"])
@pytest.mark.parametrize(("before", "after"), [(True, True), (True, False), (False, True)])
def test_a_training_goes_on_with_the_other_steps(tmp_path, tapes, model, before, after) -> None:
    testbed = Testbed(model, tmp_path)
    whole = testbed.fresh_fit(validate=True, **SETTINGS)
    for epochs, flag in ((2, before), (EPOCHS, after)):
        fit = testbed.build(captured_steps=flag, **{**SETTINGS, "epochs": epochs})
        fit.trainer.state_file = tmp_path / "state.pt"
        fit.trainer.fit(fit.batches(), fit.task("valid", ["train"]), saved=False)
    assert_equal(whole, fit)


def test_saved_states_are_the_same(tmp_path: Path, tapes: list) -> None:
    testbed, found = Testbed("BPR", tmp_path), []
    for flag in (False, True):
        fit = testbed.build(captured_steps=flag, **SETTINGS)
        fit.trainer.state_file = tmp_path / f"{flag}.pt"
        fit.trainer.fit(fit.batches(), None, saved=False)
        state = training_state.read_run(
            fit.trainer.state_file, SavedTraining, {}, device="cpu", remedy=""
        )
        found.append(state.tensors["optimizer"])
    one, other = found
    assert one["param_groups"] == other["param_groups"]
    for before, after in zip(one["state"].values(), other["state"].values(), strict=True):
        assert before.keys() == after.keys()
        assert all(torch.equal(before[name], after[name]) for name in before)


# Refusals ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "device", "learner", "says"), [
    (AlignRec, "cpu", "adam", "need a GPU"),
    (DAMRS, "cuda", "adam", "are not possible with DAMRS: its terms are means over"),
    (BPR, "cuda:1", "sgd", "are not possible with the learner sgd"),
    (object, "cuda", "adam", "it is not a pairwise model of this package"),
], ids=["cpu", "model", "learner", "other"])  # fmt: skip
def test_what_cannot_be_captured_is_refused(kind, device, learner, says) -> None:
    with pytest.raises(SettingError, match=says) as raised:
        captured.check(kind, device, learner)
    assert "captured_steps = false" in str(raised.value)
    captured.check(BPR, "cuda", "AdamW")


def test_the_command_refuses_before_it_reads(tmp_path: Path, capsys) -> None:
    (tmp_path / "data" / "none").mkdir(parents=True)
    (tmp_path / "data" / "none" / "none.inter").write_text("no interactions\n")
    code = main(["--model", "BPR", "--dataset", "none", "--data-path", str(tmp_path / "data"),
                 "--device", "cpu", "--set", "captured_steps=true",
                 "--output", str(tmp_path / "out")])  # fmt: skip
    assert code != 0
    assert "Captured training steps need a GPU." in capsys.readouterr().err


def test_what_cuda_does_not_record_is_an_error_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextlib.contextmanager
    def broken(graph: Any, stream: Any) -> Iterator[None]:
        try:
            yield
        finally:
            raise RuntimeError("the recording is void")

    def step() -> None:
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr(torch.cuda, "Stream", lambda device: SimpleNamespace(device=device))
    monkeypatch.setattr(torch.cuda, "CUDAGraph", object)
    monkeypatch.setattr(torch.cuda, "graph", broken)
    with pytest.raises(SettingError, match="captured_steps=false") as raised:
        captured.CudaGraphs(torch.device("cuda")).record(step)
    assert "operation not permitted when stream is capturing" in str(raised.value)


# What the host waits for ------------------------------------------------------------------------

FORMS: dict[str, tuple[str, dict[str, Any]]] = {
    "paper": ("AlignRec", {"variant": "paper"}),
    "attention": ("AlignRec", {"fuser": "attention", "objective": "softmax"}),
    "frozen": ("MGCN", {"train_features": False}),
    "aligned": ("FREEDOM", {"align": {"cca": 0.1, "uia": 0.1, "reg": 0.1}}),
    "neighbours": ("FREEDOM", {"nlgcl": {"weight": 0.1}, "mdvt": {"weight": 0.1}}),
    "routed": ("GRCN", {"n_routings": 2}),
    "masked": ("MENTOR", {"align_weight": 0.1, "mask_weight_f": 0.1, "mask_weight_g": 0.1}),
    "concatenated": ("MMGCF", {"fusion_mode": "concat", "weighting": "normalized"}),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_other_forms_of_models_wait_for_nothing_either(tmp_path: Path, form: str) -> None:
    model, settings = FORMS[form]
    fit = Testbed(model, tmp_path).fresh_fit(epochs=1, **settings)
    assert host_waits.first_wait(fit) == ""


def test_models_that_are_refused() -> None:
    """The conformance suite checks each of the others; see `check_step_waits_for_nothing`."""
    found = [model_under_test(name) for name in models.MODELS]
    refused = {one.name for one in found if one.learns and one.model_class.capture_refused}
    assert refused == {"DAMRS", "REARM", "MILK"}


@pytest.mark.parametrize("ids", [[7], [3, 3, 3], [5, 0, 5, 9, 0, 1]], ids=str)
def test_places_need_no_number_of_different_ids(ids: list[int]) -> None:
    given = torch.tensor(ids)
    place, count = rows.distinct_places(given)
    assert torch.equal(rows.places_by_sorting(given), place)
    assert count == len(set(ids))
    assert rows.distinct_places(given.to("meta"))[1] == len(ids)
