"""Single rules of training and ranking, each of which a run's metrics depend on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from alignrec_recbole.errors import Interrupted, RecordError
from alignrec_recbole.evaluation.ranking import EvalTask, Ranking, find_hits
from alignrec_recbole.protocols.long_tail import by_item
from alignrec_recbole.runs import identity, prepare, run, tasks
from alignrec_recbole.runs.record import read_record
from alignrec_recbole.runs.run import run_one
from alignrec_recbole.runs.spec import RunSpec
from alignrec_recbole.testing.synthetic import make_blocks
from alignrec_recbole.training import recbole_trainers
from alignrec_recbole.training.recbole_trainers import RecBoleModelTrainer
from alignrec_recbole.training.sampler import PairSampler

WORLD = make_blocks(users=6, items=8, cold=1)


@pytest.fixture
def spec(tmp_path: Path) -> RunSpec:
    WORLD.write(tmp_path / "data")
    overrides = {"train_batch_size": 32, "topk": [1, 20], "valid_metric": "NDCG@1"}
    return RunSpec(
        "LightGCN", WORLD.name, data_path=tmp_path / "data", output=tmp_path / "out",
        epochs=2, progress=False, device="cpu", overrides=overrides,
    )  # fmt: skip


def test_a_model_ranks_in_evaluation_mode(spec: RunSpec) -> None:
    prepared = prepare.prepare_run(spec)
    trainer = tasks.build_trainer(prepared, None)
    modes, predict = [], trainer.model.full_sort_predict

    def watched(interaction: Any) -> torch.Tensor:
        modes.append(trainer.model.training)
        return predict(interaction)

    trainer.model.full_sort_predict = watched
    trainer.model.train()
    trainer.rank(tasks.valid_task(prepared), 5)
    assert modes == [False] * len(modes)
    assert modes


def test_the_history_has_the_mean_of_the_batches_losses(spec: RunSpec) -> None:
    prepared = prepare.prepare_run(spec)
    trainer = tasks.build_trainer(prepared, None)
    seen, loss = [], trainer.model.calculate_loss

    def watched(batch: Any) -> Any:
        parts = loss(batch)
        seen.append(sum(float(part) for part in parts))
        return parts

    trainer.model.calculate_loss = watched
    entry = trainer._run_epoch(tasks.train_data(prepared), 0)
    assert len(seen) > 2
    assert entry["loss"] == pytest.approx(np.mean(seen))


def test_the_users_that_are_validated_follow_the_seed_of_the_split_alone(spec: RunSpec) -> None:
    def validated(seed: int, split_seed: int) -> list[list[int]]:
        overrides = {**spec.overrides, "valid_users": 5, "split_seed": split_seed}
        prepared = prepare.prepare_run(replace(spec, seed=seed, overrides=overrides))
        trainer = tasks.build_trainer(prepared, None)
        asked, rank = [], trainer.rank

        def watched(task: EvalTask, k: int) -> Ranking:
            asked.append(task.users.tolist())
            return rank(task, k)

        trainer.rank = watched
        trainer.fit(tasks.train_data(prepared), tasks.valid_task(prepared), saved=False)
        return asked

    first, second = validated(1, 0)
    assert first == second
    assert len(first) == 5
    assert validated(2, 0) == [first, first]
    assert validated(1, 3) != [first, first]


def test_a_record_counts_the_seconds_before_an_interruption(spec: RunSpec, monkeypatch) -> None:
    one_epoch = run.MultimodalTrainer._run_epoch

    def long_and_stopped(self: Any, batches: Any, epoch: int) -> Any:
        self.stop_requested, self.seconds_before = True, 1000.0
        return one_epoch(self, batches, epoch)

    with monkeypatch.context() as patch:
        patch.setattr(run.MultimodalTrainer, "_run_epoch", long_and_stopped)
        with pytest.raises(Interrupted):
            run_one(spec)
    assert 1000 < run_one(spec).seconds["total"] < 2000


def test_pairs_come_in_another_order_every_epoch() -> None:
    users, items = np.repeat(np.arange(1, 41), 2), np.tile([1, 2, 2, 3, 3, 4, 4, 1], 10)
    sampler = PairSampler(users, items)
    generator = np.random.default_rng(0)
    first, second = (sampler.epoch(generator)[:2] for _ in range(2))
    given = np.stack([users, items])
    for epoch in (first, second):
        assert (np.stack(epoch) != given).any()
        assert sorted(zip(*epoch, strict=True)) == sorted(zip(users, items, strict=True))
    assert (np.stack(first) != np.stack(second)).any()


def test_recboles_loader_has_another_order_every_epoch(spec: RunSpec) -> None:
    prepared = prepare.prepare_run(replace(spec, model="NeuMF"))
    loader, field = tasks.train_data(prepared), prepared.config["USER_ID_FIELD"]
    first, second = (torch.cat([batch[field] for batch in loader]).tolist() for _ in range(2))
    assert sorted(first) == sorted(second)
    assert first != second


@pytest.mark.parametrize("at_once", [3, 1000])
def test_scores_of_pairs_are_rows_of_users(at_once: int, monkeypatch) -> None:
    monkeypatch.setattr(recbole_trainers, "PAIRS", at_once)
    model = SimpleNamespace(predict=lambda pairs: 10 * pairs["user"] + pairs["item"])
    config = {"USER_ID_FIELD": "user", "ITEM_ID_FIELD": "item"}
    trainer = SimpleNamespace(config=config, model=model)
    scores = RecBoleModelTrainer._scores_of_pairs(trainer, torch.tensor([7, 2]), 4)
    assert scores.view(2, 4).tolist() == [[70, 71, 72, 73], [20, 21, 22, 23]]


def test_the_end_of_a_list_is_no_item() -> None:
    """User 1 has the last item as a target; −1 in the list of user 2 would be its place."""
    targets = sp.csr_matrix(np.array([[0, 0, 0, 1], [0, 1, 0, 0]], dtype=bool))
    lists = np.array([[1, -1], [-1, -1]])
    hits, degree = find_hits(lists, targets)
    assert not hits.any()
    assert degree.tolist() == [1, 1]


def test_the_end_of_a_list_has_no_share_of_the_exposure() -> None:
    """Two places are taken, by items of degree 1 and 8; the other two are ends of lists."""
    degree = np.array([0, 1, 8, 40])
    targets = sp.csr_matrix(np.array([[0, 1, 0, 0], [0, 0, 0, 1]], dtype=bool))
    task = EvalTask(np.array([1, 2]), sp.csr_matrix(targets.shape, dtype=bool), targets)
    lists = np.array([[1, 2], [-1, -1]])
    found = by_item(Ranking(task.users, lists, *find_hits(lists, targets)), task, degree, [2])
    assert found["1-3"]["exposure@2"] == 0.5
    assert found["8-15"]["exposure@2"] == 0.5
    assert found[">=32"]["exposure@2"] == 0
    assert found["1-3"]["Recall@2"] == 1


def test_a_full_list_without_ends_hides_nothing_of_the_last_item() -> None:
    """An item at the last position, where −1 would index, is counted only where it is listed."""
    degree = np.array([0, 1, 8, 40])
    targets = sp.csr_matrix(np.array([[0, 0, 0, 1]], dtype=bool))
    task = EvalTask(np.array([1]), sp.csr_matrix(targets.shape, dtype=bool), targets)
    lists = np.array([[3, -1]])
    found = by_item(Ranking(task.users, lists, *find_hits(lists, targets)), task, degree, [2])
    assert found[">=32"]["exposure@2"] == 1


def test_a_count_of_flops_moves_no_generator() -> None:
    class Utils:
        @staticmethod
        def get_flops() -> float:
            return float(torch.rand(1) + np.random.rand())  # noqa: NPY002

    before = torch.get_rng_state()
    assert _patched(Utils)() > 0
    assert torch.equal(torch.get_rng_state(), before)


def _patched(utils: Any) -> Any:
    """What `patch_flops` puts in the place of a module's function."""
    from alignrec_recbole.compat import side_effects

    taken: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(side_effects, "replace_function", lambda old, new: taken.append(new))
        side_effects.patch_flops(utils)
    return taken[0]


def test_a_record_of_other_data_is_not_reused(spec: RunSpec) -> None:
    run_one(spec)
    prepared = prepare.prepare_run(spec)
    record = read_record(prepared.record_path)
    assert identity.check_record(record, prepared) is record
    for change in (
        {"seed": 1}, {"model": "BPR"}, {"config_sha256": "1" * 64},
        {"data": {**record.data, "users": 7}},
    ):  # fmt: skip
        with pytest.raises(RecordError, match="is not of this run"):
            identity.check_record(record.model_copy(update=change), prepared)
