"""A run with more epochs goes on from where a shorter one ended; it equals an uninterrupted one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from two_blocks import write_two_blocks

from alignrec_recbole.errors import Interrupted, RecordError
from alignrec_recbole.features.table import save_features
from alignrec_recbole.registry import models
from alignrec_recbole.runs import continuation, run
from alignrec_recbole.runs.prepare import prepare_run
from alignrec_recbole.runs.record import RunRecord, read_record
from alignrec_recbole.runs.run import run_one
from alignrec_recbole.runs.spec import RunSpec
from alignrec_recbole.training.trainer import MultimodalTrainer


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two blocks of users and items in MMRec's layout."""
    folder = tmp_path_factory.mktemp("data")
    rng = write_two_blocks(folder)
    np.save(folder / "two" / "vectors.npy", rng.normal(size=(24, 6)).astype(np.float32))
    return folder


def spec(world: Path, output: Path, epochs: int | None, **changes: Any) -> RunSpec:
    overrides = {
        "train_batch_size": 64, "learning_rate": 0.05, "topk": [2, 10], "valid_metric": "Recall@2",
        "lr_decay": [0.9, 3], "stopping_step": 5,
    }  # fmt: skip
    given = RunSpec("LightGCN", "two", data_path=world, output=output, epochs=epochs,
                    overrides=overrides, progress=False)  # fmt: skip
    return replace(given, **changes)


def states(output: Path) -> list[str]:
    found = (output / "checkpoints").rglob("*.pt")
    return sorted(path.name.partition(".")[2] for path in found)


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The epochs that are trained, in their order."""
    seen: list[int] = []
    original = MultimodalTrainer._run_epoch

    def counted(self: Any, batches: Any, epoch: int) -> Any:
        seen.append(epoch)
        return original(self, batches, epoch)

    monkeypatch.setattr(run.MultimodalTrainer, "_run_epoch", counted)
    return seen


def equal(one: RunRecord, other: RunRecord) -> None:
    """All that the training and the ranking computed, to the last digit."""
    assert one.metrics == other.metrics
    assert one.valid_metrics == other.valid_metrics
    assert one.selection == other.selection
    assert [(e["losses"], e["valid"]) for e in one.history] == [
        (e["losses"], e["valid"]) for e in other.history
    ]
    assert one.config == other.config
    assert one.config_sha256 == other.config_sha256


@pytest.mark.parametrize("model", ["LightGCN", "BPR", "AlignRec", "FREEDOM", "LATTICE", "NeuMF"])
def test_a_longer_run_continues_a_shorter_one_exactly(world, tmp_path, model, trained):
    features = ("vectors",) if models.resolve(model).needs_features else ()
    given = {"model": model, "features": features}
    whole = run_one(spec(world, tmp_path / "a", 7, **given))
    del trained[:]
    short = run_one(spec(world, tmp_path / "b", 3, **given))
    longer = run_one(spec(world, tmp_path / "b", 7, **given))
    assert trained == list(range(7)), "no epoch twice"
    equal(longer, whole)
    assert (short.epochs, longer.epochs) == (3, 7)
    again = run_one(spec(world, tmp_path / "b", 3, **given))
    assert again.history == short.history, "the record of the short run stays what it is"


def test_to_the_end_by_early_stopping_and_no_state_is_left(world, tmp_path, trained):
    whole = run_one(spec(world, tmp_path / "a", None))
    assert whole.selection["stopped"] == "patience"
    del trained[:]
    run_one(spec(world, tmp_path / "b", 2))
    assert states(tmp_path / "b") == ["epochs-2.state.pt"]
    run_one(spec(world, tmp_path / "b", 4))
    assert states(tmp_path / "b") == ["epochs-4.state.pt"], "the longest one is enough"
    equal(run_one(spec(world, tmp_path / "b", None)), whole)
    assert trained == list(range(whole.epochs))
    assert states(tmp_path / "b") == []


def test_early_stopping_in_the_last_epoch_of_the_shorter_run(world, tmp_path, trained):
    whole = run_one(spec(world, tmp_path / "a", None))
    short = run_one(spec(world, tmp_path / "b", whole.epochs))
    assert short.selection["stopped"] == "patience"
    assert states(tmp_path / "b") == []


def test_a_shorter_run_does_not_start_from_a_longer_one(world, tmp_path, trained):
    expected = run_one(spec(world, tmp_path / "a", 3))
    run_one(spec(world, tmp_path / "b", 5))
    del trained[:]
    equal(run_one(spec(world, tmp_path / "b", 3)), expected)
    assert trained == [0, 1, 2]
    assert states(tmp_path / "b") == ["epochs-5.state.pt"]


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 1000},
        {"setting": "recbole"},
        {"overrides": {"topk": [2, 10], "valid_metric": "Recall@2"}},
    ],
    ids=["seed", "convention", "settings"],
)
def test_another_configuration_does_not_continue(world, tmp_path, trained, changes):
    run_one(spec(world, tmp_path, 2))
    del trained[:]
    run_one(spec(world, tmp_path, 3, **changes))
    assert trained == [0, 1, 2]


def test_overwrite_starts_again(world, tmp_path, trained):
    run_one(spec(world, tmp_path, 2))
    del trained[:]
    run_one(spec(world, tmp_path, 4), overwrite=True)
    assert trained == [0, 1, 2, 3]
    assert states(tmp_path) == ["epochs-4.state.pt"]


def test_an_interruption_of_the_longer_run_is_resumed_from_its_own_state(
    world, tmp_path, monkeypatch
):
    whole = run_one(spec(world, tmp_path / "a", 7))
    run_one(spec(world, tmp_path / "b", 2))
    original = MultimodalTrainer._run_epoch

    def stops(self: Any, batches: Any, epoch: int) -> Any:
        self.stop_requested = epoch == 4
        return original(self, batches, epoch)

    with monkeypatch.context() as patch:
        patch.setattr(run.MultimodalTrainer, "_run_epoch", stops)
        with pytest.raises(Interrupted, match="after epoch 5"):
            run_one(spec(world, tmp_path / "b", 7))
    equal(run_one(spec(world, tmp_path / "b", 7)), whole)


def test_overwrite_of_an_interrupted_run_starts_again(world, tmp_path, trained, monkeypatch):
    counted = MultimodalTrainer._run_epoch

    def stops(self: Any, batches: Any, epoch: int) -> Any:
        self.stop_requested = epoch == 1
        return counted(self, batches, epoch)

    with monkeypatch.context() as patch:
        patch.setattr(run.MultimodalTrainer, "_run_epoch", stops)
        with pytest.raises(Interrupted):
            run_one(spec(world, tmp_path, 4))
    assert trained == [0, 1]
    run_one(spec(world, tmp_path, 4), overwrite=True)
    assert trained == [0, 1, 0, 1, 2, 3]


def test_a_damaged_state_is_an_error_and_overwrite_the_way_out(world, tmp_path):
    run_one(spec(world, tmp_path, 2))
    (path,) = (tmp_path / "checkpoints").rglob("*.pt")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(RecordError, match=r"epochs-2\.state\.pt cannot be resumed"):
        run_one(spec(world, tmp_path, 4))
    assert run_one(spec(world, tmp_path, 4), overwrite=True).epochs == 4


def test_names_that_are_no_state_are_ignored(world, tmp_path, trained):
    run_one(spec(world, tmp_path, 2))
    (path,) = (tmp_path / "checkpoints").rglob("*.pt")
    stem = path.name.partition(".")[0]
    for name in ("epochs-9999999999", "epochs--1", "epochs-3.part", "epochs-x", "epochs-٣"):
        path.with_name(f"{stem}.{name}.state.pt").write_bytes(b"x")
    del trained[:]
    run_one(spec(world, tmp_path, 3))
    assert trained == [2]


@pytest.mark.parametrize("kind", ["folder", "fifo"])
def test_what_is_no_file_is_no_state(world, tmp_path, trained, kind):
    run_one(spec(world, tmp_path, 2))
    (path,) = (tmp_path / "checkpoints").rglob("*.pt")
    path.unlink()
    if kind == "folder":
        path.mkdir()
    elif hasattr(os, "mkfifo"):
        os.mkfifo(path)
    del trained[:]
    assert run_one(spec(world, tmp_path, 3)).epochs == 3
    assert trained == [0, 1, 2]
    assert run_one(spec(world, tmp_path, 2), overwrite=True).epochs == 2


def test_runs_with_the_default_of_epochs_leave_no_state(world: Path, tmp_path: Path) -> None:
    whole = prepare_run(spec(world, tmp_path, None))
    default = whole.config["epochs"]
    assert not continuation.is_bounded(whole)
    for epochs, expected in ((default, False), (default - 1, True), (default + 1, False)):
        assert continuation.is_bounded(prepare_run(spec(world, tmp_path, epochs))) == expected


# One run by itself --------------------------------------------------------------------------------


def test_a_run_that_another_process_made_meanwhile_is_read(world, tmp_path, trained, monkeypatch):
    alone = run.one_at_a_time

    @contextmanager
    def after_another(record: Path) -> Iterator[bool]:
        monkeypatch.setattr(run, "one_at_a_time", alone)
        run_one(spec(world, tmp_path, 2), overwrite=record.exists())
        yield True

    for overwrite in (False, True):  # what was made a moment ago is not what is to be replaced
        monkeypatch.setattr(run, "one_at_a_time", after_another)
        assert run_one(spec(world, tmp_path, 2), overwrite=overwrite).epochs == 2
        assert trained == [0, 1]
        del trained[:]


def test_overwriting_goes_on_where_another_process_was_interrupted(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record of before, which the other process was to replace as well, is not the result."""
    before = run_one(spec(world, tmp_path, 1), command="before")

    @contextmanager
    def after_an_interrupted_one(record: Path) -> Iterator[bool]:
        yield True

    monkeypatch.setattr(run, "one_at_a_time", after_an_interrupted_one)
    assert run_one(spec(world, tmp_path, 1), overwrite=True, command="own").command == "own"
    assert before.path is not None
    assert read_record(before.path).command == "own"


def test_seconds_are_those_of_all_parts_of_a_run(world, tmp_path, monkeypatch):
    run_one(spec(world, tmp_path, 2))
    resume = MultimodalTrainer._resume

    def long_before(self: Any, *given: Any) -> None:
        resume(self, *given)
        self.seconds_before += 1000.0

    monkeypatch.setattr(run.MultimodalTrainer, "_resume", long_before)
    assert run_one(spec(world, tmp_path, 3)).seconds["total"] > 1000


def test_lists_are_as_long_as_the_longest_metric_needs(world, tmp_path, monkeypatch):
    usual = run_one(spec(world, tmp_path / "a", 2))
    monkeypatch.setattr(run, "LIST_LENGTH", 1)
    short = run_one(spec(world, tmp_path / "b", 2))
    assert short.metrics == usual.metrics
    assert usual.metrics["Recall@10"] > usual.metrics["Recall@2"]


def test_a_record_of_features_of_another_modality_is_not_given_back(world, tmp_path):
    rows = np.random.default_rng(0).normal(size=(24, 6)).astype(np.float32)
    about = {"name": "turned", "encoder": "mine", "settings": {}, "source": "drawn"}

    def vbpr(modality: str) -> RunRecord:
        save_features(
            world / "two" / "turned.npy", rows, modality=modality, items=range(24), **about
        )
        return run_one(spec(world, tmp_path, 1, model="VBPR", features=("turned",)))

    first = vbpr("text")
    with pytest.raises(RecordError, match="'turned' has another modality"):
        vbpr("image")
    assert vbpr("text") == first
