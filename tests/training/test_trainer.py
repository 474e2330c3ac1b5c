"""The trainer's rules: what counts as better, when it stops, and that it resumes exactly."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from recbole.data.dataloader import TrainDataLoader
from recbole.data.utils import create_samplers
from recbole.model.general_recommender.ngcf import NGCF
from records import record
from two_blocks import write_two_blocks

from alignrec_recbole import losses
from alignrec_recbole.errors import Interrupted, RecordError, SettingError
from alignrec_recbole.ops import frozen_matrix, linear, matmul
from alignrec_recbole.ops.optimizers import FactoredAdam
from alignrec_recbole.registry import models
from alignrec_recbole.runs import prepare, run, tasks
from alignrec_recbole.runs.record import read_runs
from alignrec_recbole.runs.run import run_one
from alignrec_recbole.runs.spec import RunSpec
from alignrec_recbole.runtime import hardware
from alignrec_recbole.testing.testbed import Testbed, model_under_test
from alignrec_recbole.training import trainer
from alignrec_recbole.training.batches import PairBatches, replace_loader
from alignrec_recbole.training.ranking_tasks import sampled
from alignrec_recbole.training.trainer import epoch_generator


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    """Two blocks of users and items in MMRec's layout."""
    folder = tmp_path_factory.mktemp("data")
    rng = write_two_blocks(folder)
    features = rng.normal(size=(24, 6)).astype(np.float32)
    features[:12, 0] += 5
    np.save(folder / "two" / "vectors.npy", features)
    return folder


def spec(world: Path, output: Path, **changes) -> RunSpec:
    values = {
        "model": "LightGCN", "dataset": "two", "data_path": world, "output": output,
        "epochs": 6, "progress": False,
        "overrides": {
            "train_batch_size": 64, "learning_rate": 0.05, "topk": [2, 10, 20],
            "valid_metric": "Recall@2",  # Recall@20 of 16 candidates is always 1
        },
    }  # fmt: skip
    return RunSpec(**{**values, **changes})


def test_a_state_is_written_once_per_epoch(world: Path, tmp_path: Path, monkeypatch) -> None:
    """Also of the last one, after which it is written in any case."""
    written = []
    original = run.MultimodalTrainer.save_state

    def counted(self) -> None:
        written.append(len(self.history))
        original(self)

    monkeypatch.setattr(run.MultimodalTrainer, "save_state", counted)
    run_one(spec(world, tmp_path / "rarely"))
    assert written == [6]
    written.clear()
    monkeypatch.setattr(trainer, "SAVE_EVERY_SECONDS", -1.0)
    run_one(spec(world, tmp_path / "often"))
    assert written == [1, 2, 3, 4, 5, 6]


def test_without_validation_the_best_epoch_is_the_last_that_was_trained(world, tmp_path):
    prepared = prepare.prepare_run(spec(world, tmp_path))
    made = tasks.build_trainer(prepared, None)

    def stop(history):
        made.stop_requested = len(history) == 2

    made.on_epoch = stop
    made.fit(tasks.train_data(prepared), None, saved=False)
    assert (made.stop_reason, made.stopping.best_epoch) == ("interrupted", 1)


def interrupt(made: RunSpec, monkeypatch, epoch: int) -> None:
    """A run that is told to stop during an epoch."""
    original = run.MultimodalTrainer._run_epoch

    def told_to_stop(self, batches, number):
        self.stop_requested = number == epoch
        return original(self, batches, number)

    with monkeypatch.context() as patch:
        patch.setattr(run.MultimodalTrainer, "_run_epoch", told_to_stop)
        with pytest.raises(Interrupted):
            run_one(made)


@pytest.mark.parametrize(
    "model", ["LightGCN", "BPR", "AlignRec", "FREEDOM", "LATTICE", "CDAE", "NeuMF"]
)
def test_a_resumed_run_equals_an_uninterrupted_one(world, tmp_path, model, monkeypatch):
    monkeypatch.setattr(FactoredAdam, "MIN_TABLE_BYTES", 0)
    features = ("vectors",) if models.resolve(model).needs_features else ()
    whole = run_one(spec(world, tmp_path / "a", model=model, features=features))

    part = spec(world, tmp_path / "b", model=model, features=features)
    interrupt(part, monkeypatch, epoch=2)
    resumed = run_one(part)
    assert resumed.metrics == whole.metrics
    assert [e["losses"] for e in resumed.history] == [e["losses"] for e in whole.history]
    (left,) = (tmp_path / "b" / "checkpoints").rglob("*.pt")
    assert left.name.endswith(".epochs-6.state.pt"), "the state of the interruption is deleted"


def test_the_model_is_left_with_its_best_weights(world, tmp_path):
    more = {"learning_rate": 0.5, "stopping_step": 3}
    overrides = {**spec(world, tmp_path).overrides, **more}
    prepared = prepare.prepare_run(spec(world, tmp_path, epochs=30, overrides=overrides))
    trainer = tasks.build_trainer(prepared, None)
    task = tasks.valid_task(prepared)
    best, _ = trainer.fit(tasks.train_data(prepared), task, saved=False)
    assert trainer.history[-1]["valid"] < best  # else nothing would have to be restored
    assert trainer._metrics(trainer.rank(task, 20))["Recall@2"] == best


def test_the_test_split_is_what_is_scored(world, tmp_path):
    record = run_one(spec(world, tmp_path, model="BPR"))
    rows = [line.split("\t") for line in (world / "two" / "two.inter").read_text().splitlines()[1:]]
    taken = {(user, label): set() for user, _, label in rows}
    for user, item, label in rows:
        taken[user, label].add(item)
    (path,) = (tmp_path / "runs").rglob("*.users.npz")
    with np.load(path) as stored:
        users, items, top = stored["users"], stored["items"], stored["top"][:, :2]
    recalls = []
    for user, row in zip(users, top, strict=True):
        listed = {items[i] for i in row if i >= 0}
        assert not listed & taken[user, "0"]
        recalls.append(len(listed & taken[user, "2"]) / len(taken[user, "2"]))
    assert np.mean(recalls) < 1
    assert record.metrics["Recall@2"] == pytest.approx(np.mean(recalls))
    assert len(users) == 40


def test_a_drawn_split_follows_its_own_seed_alone(tmp_path):
    (tmp_path / "free").mkdir()
    rows = [f"u{u}\ti{(u + j) % 30}" for u in range(30) for j in range(10)]
    (tmp_path / "free" / "free.inter").write_text(
        "user_id:token\titem_id:token\n" + "\n".join(rows) + "\n"
    )

    def pairs(seed: int, **more) -> list[list]:
        overrides = {**spec(tmp_path, tmp_path).overrides, **more}
        made = spec(tmp_path, tmp_path / "out", dataset="free", seed=seed, overrides=overrides)
        splits = prepare.prepare_run(made).splits
        return [[part.tolist() for part in split.pairs()] for split in splits]

    assert pairs(1) == pairs(2)
    assert pairs(1) != pairs(1, split_seed=7)


def test_what_the_configuration_says_of_training_is_done(world, tmp_path):
    more = {"weight_decay": 0.5, "eval_step": 2, "clip_grad_norm": {"max_norm": 1e-3}}
    overrides = {**spec(world, tmp_path).overrides, **more}
    prepared = prepare.prepare_run(spec(world, tmp_path, epochs=4, overrides=overrides))
    trainer = tasks.build_trainer(prepared, None)
    trainer.fit(tasks.train_data(prepared), tasks.valid_task(prepared), saved=False)
    assert ["valid" in entry for entry in trainer.history] == [False, True, False, True]
    assert trainer.optimizer.param_groups[0]["weight_decay"] == 0.5
    gradients = [p.grad.norm() for p in trainer.model.parameters() if p.grad is not None]
    assert 0 < torch.stack(gradients).norm() <= 1.001e-3


def test_pairs_are_drawn_from_the_seed(world, tmp_path):
    def first(seed: int) -> list[int]:
        prepared = prepare.prepare_run(spec(world, tmp_path, seed=seed))
        batches = PairBatches(prepared.splits[0], prepared.config)
        return next(iter(batches))[batches.fields[2]].tolist()

    assert first(1) == first(1)
    assert first(1) != first(2)


def test_losses_are_recorded_by_name(world, tmp_path):
    given = {"features": ("vectors",), "epochs": 2}
    record = run_one(spec(world, tmp_path, model="AlignRec", **given))
    for entry in record.history:
        assert list(entry["losses"]) == ["rec", "l2", "cca", "reg", "uia"]
        assert sum(entry["losses"].values()) == entry["loss"]
    stored = json.loads(next((tmp_path / "runs").rglob("*.json")).read_text())
    assert stored["history"] == record.history
    aligned = {**spec(world, tmp_path).overrides, "align": {"cca": 0.1, "uia": 0.0, "reg": 0.1}}
    record = run_one(spec(world, tmp_path, model="MGCN", overrides=aligned, **given))
    own = ["bpr", "l2", "contrast"]
    assert list(record.history[0]["losses"]) == [*own, "align_cca", "align_reg"]


def test_losses_without_names_are_numbered(world, tmp_path, monkeypatch):
    made = spec(world, tmp_path, model="NGCF", epochs=1)  # RecBole's: one tensor
    one = run_one(made).history[0]
    assert one["losses"] == {"loss": one["loss"]}
    whole = NGCF.calculate_loss
    monkeypatch.setattr(
        NGCF, "calculate_loss", lambda self, b: (whole(self, b), 0 * whole(self, b))
    )
    two = run_one(made, overwrite=True).history[0]
    assert list(two["losses"]) == ["loss0", "loss1"]
    assert two["losses"]["loss1"] == 0


@pytest.mark.parametrize(
    ("model", "negatives", "expected"),
    [
        ("BPR", "uniform", PairBatches),
        ("NGCF", "uniform", PairBatches),  # RecBole's
        ("BPR", "popularity", TrainDataLoader),
        ("NeuMF", "uniform", TrainDataLoader),  # points, not pairs
        ("Pop", "uniform", tuple),
    ],
)
def test_who_draws_the_batches(world, tmp_path, model, negatives, expected):
    overrides = {
        **spec(world, tmp_path).overrides,
        "train_neg_sample_args": {
            "distribution": negatives, "sample_num": 1, "alpha": 1.0, "dynamic": False,
            "candidate_num": 0,
        },
    }  # fmt: skip
    if expected is tuple:  # a model that learns nothing has no settings of training
        overrides = {key: overrides[key] for key in ("topk", "valid_metric")}
    prepared = prepare.prepare_run(spec(world, tmp_path, model=model, overrides=overrides))
    batches = tasks.train_data(prepared)
    assert type(batches) is expected
    if expected is not tuple:
        batch = next(iter(batches))
        assert {prepared.splits[0].uid_field, prepared.splits[0].iid_field} <= set(batch.columns)
        # stock RecBole's loader is replaced where, and only where, the pairs would be ours
        samplers = create_samplers(prepared.config, prepared.splits[0], prepared.splits)
        loader = TrainDataLoader(prepared.config, prepared.splits[0], samplers[0], shuffle=True)
        again = replace_loader(loader, prepared.components.model_class, prepared.config)
        assert type(again) is expected


def test_lists_are_as_long_as_the_longest_metric_asks(world, tmp_path):
    more = {"topk": [20, 100], "valid_metric": "Recall@20"}
    overrides = {**spec(world, tmp_path).overrides, **more}
    record = run_one(spec(world, tmp_path, epochs=1, overrides=overrides))
    assert record.metrics["Recall@100"] == record.valid_metrics["Recall@100"] == 1.0  # of 24 items


def test_negatives_of_another_distribution_are_recboles(world, tmp_path):
    overrides = spec(world, tmp_path).overrides
    uniform = run_one(spec(world, tmp_path, model="BPR", overrides=overrides))
    popular = {**overrides, "train_neg_sample_args": {"distribution": "popularity"}}
    record = run_one(spec(world, tmp_path, model="BPR", overrides=popular))
    assert record.config_sha256 != uniform.config_sha256
    assert [e["loss"] for e in record.history] != [e["loss"] for e in uniform.history]


def test_a_model_that_scores_pairs_only_is_ranked(world, tmp_path):
    assert run_one(spec(world, tmp_path, model="NeuMF", epochs=2)).metrics["Recall@20"] > 0


def test_a_record_holds_no_metric_that_json_cannot():
    with pytest.raises(ValueError, match="not 0 or a number of magnitude"):
        record(value=float("nan"))


@pytest.mark.parametrize("model", ["AlignRec", "BM3", "FREEDOM", "LATTICE", "MGCN", "PGL", "SMORE"])
def test_tiles_of_learnt_tables_change_a_run_by_rounding_only(world, tmp_path, model, monkeypatch):
    learnt = {**spec(world, tmp_path).overrides, "train_features": True}
    changes = {"epochs": 3, "overrides": learnt}
    formed = run_one(spec(world, tmp_path / "a", model=model, features=("vectors",), **changes))
    tables, update = [], FactoredAdam._update
    monkeypatch.setattr(FactoredAdam, "MIN_TABLE_BYTES", 0)
    monkeypatch.setattr(
        FactoredAdam,
        "_update",
        lambda self, table, *rest: (tables.append(table), update(self, table, *rest)),
    )
    tiled = run_one(spec(world, tmp_path / "b", model=model, features=("vectors",), **changes))
    assert tables
    for mine, other in zip(tiled.history, formed.history, strict=True):
        assert mine["losses"] == pytest.approx(other["losses"], rel=1e-4)


def test_features_are_given_back_once_the_model_is_built(world, tmp_path):
    prepared = prepare.prepare_run(spec(world, tmp_path, model="MGCN", features=("vectors",)))
    before = prepared.splits[0].features["vectors"].values.copy()
    trainer = tasks.build_trainer(prepared, None)
    assert not any(split._features for split in prepared.splits)
    with torch.no_grad():
        trainer.model.tables[0].zero_()
    assert np.array_equal(prepared.splits[0].features["vectors"].values, before)  # read anew


def test_clipped_gradients_are_formed(world, tmp_path, monkeypatch):
    """The norm that is clipped has the parts of all parameters, the large tables' too."""
    monkeypatch.setattr(FactoredAdam, "MIN_TABLE_BYTES", 0)
    prepared = prepare.prepare_run(spec(world, tmp_path, model="MGCN", features=("vectors",)))
    assert isinstance(tasks.build_trainer(prepared, None).optimizer, FactoredAdam)
    prepared.config["clip_grad_norm"] = {"max_norm": 1.0}
    trainer = tasks.build_trainer(prepared, None)
    seen, clip = [], torch.nn.utils.clip_grad_norm_

    def watched(parameters, **limits):
        parameters = list(parameters)
        seen.extend(p.grad is not None for p in parameters)
        return clip(parameters, **limits)

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", watched)
    trainer._run_epoch(tasks.train_data(prepared), 0)
    assert seen
    assert all(seen)


def test_a_finished_run_is_not_repeated_and_another_configuration_has_its_own_record(
    world, tmp_path
):
    first = run_one(spec(world, tmp_path))
    again = run_one(spec(world, tmp_path))
    assert again.started_utc == first.started_utc
    assert again.model_dump() == first.model_dump()
    other = run_one(
        spec(world, tmp_path, overrides={**spec(world, tmp_path).overrides, "n_layers": 1})
    )
    assert other.config_sha256 != first.config_sha256
    assert len(list((tmp_path / "runs").rglob("*.json"))) == 2


def test_a_record_says_what_was_run(world, tmp_path):
    record = run_one(spec(world, tmp_path, model="AlignRec", features=("vectors",)))
    path = next((tmp_path / "runs").rglob("*.json"))
    plain = json.loads(path.read_text())
    for key in ("model", "dataset", "features", "protocol", "setting", "seed"):
        assert isinstance(plain[key], (str, int)), key
    assert plain["features"] == "vectors"
    assert plain["setting"] == "mmrec"
    for key in ("Recall@10", "Recall@20", "NDCG@10", "NDCG@20"):
        assert key in plain["metrics"]
    assert plain["selection"]["split"] == "valid"
    assert plain["data"]["interactions"] == [320, 40, 40]
    assert {"train_epoch", "evaluate", "total"} <= set(plain["seconds"])
    assert plain["peak_rss_bytes"] > 0
    assert str(world) not in path.read_text()
    lists = np.load(path.with_name(record.per_user["file"]), allow_pickle=False)
    assert lists["Recall@20"].mean() == pytest.approx(record.metrics["Recall@20"])


def test_the_test_split_changes_nothing_before_the_end(world, tmp_path):
    plain = run_one(spec(world, tmp_path / "a"))
    trial = run_one(spec(world, tmp_path / "b", validation_only=True))
    assert trial.metrics == {}
    assert trial.per_user is None
    scores = [e["valid"] for e in plain.history]
    assert [e["valid"] for e in trial.history] == scores
    assert len(set(scores)) > 1


def test_validation_and_test_look_for_their_own_splits(world, tmp_path):
    prepared = prepare.prepare_run(spec(world, tmp_path))
    for task, split in ((tasks.valid_task(prepared), 1), (tasks.test_task(prepared), 2)):
        wanted = task.targets.tocoo()
        found = set(zip(task.users[wanted.row].tolist(), wanted.col.tolist(), strict=True))
        users, items = prepared.splits[split].pairs()
        assert found == set(zip(users.tolist(), items.tolist(), strict=True))
        assert len(found) == 40


def test_patience_goes_on_where_it_stopped(world, tmp_path, monkeypatch):
    more = {"learning_rate": 0.0, "stopping_step": 2}
    made = spec(world, tmp_path, epochs=30, overrides={**spec(world, tmp_path).overrides, **more})
    interrupt(made, monkeypatch, epoch=1)
    assert run_one(made).epochs == 4  # the first is the best, and three misses are too many


def test_a_grid_says_how_it_chose_a_run_that_was_finished_before(world, tmp_path):
    from alignrec_recbole.cli.main import main

    usual = [
        "--model", "BPR", "--dataset", "two", "--data-path", str(world), "--output", str(tmp_path),
        "--epochs", "1", "--quiet", "--no-save",
    ]  # fmt: skip
    for value in (0.001, 0.05):
        assert main([*usual, "--set", f"learning_rate={value}"]) == 0
    before = {run.path: run.record for run in read_runs(tmp_path / "runs")}
    for _ in range(2):
        assert main([*usual, "--grid", "learning_rate=0.001,0.05"]) == 0
        after = {run.path: run.record for run in read_runs(tmp_path / "runs")}
        (path,) = (path for path in after if after[path] != before[path])
        assert after[path].tuned_on.endswith("seed 999: learning_rate in [0.001, 0.05]")
        assert after[path].budget["trials"] == 2
        assert after[path].metrics == before[path].metrics


def test_the_chosen_grid_point_is_not_trained_again(world, tmp_path, monkeypatch, capsys):
    from alignrec_recbole.cli.main import main

    def arguments(output, *more):
        return [
            "--model", "LightGCN", "--dataset", "two", "--data-path", str(world), "--output",
            str(output), "--epochs", "4", "--quiet", "--set", "learning_rate=0.05",
            "--set", "topk=[2,20]", "valid_metric=Recall@2", *more,
        ]  # fmt: skip

    assert main(arguments(tmp_path / "a", "--grid", "n_layers=1,2,0")) == 0
    chosen = next((tmp_path / "a" / "runs").rglob("*.json"))
    record = json.loads(chosen.read_text())
    assert record["tuned_on"] == "tuned on validation, seed 999: n_layers in [1, 2, 0]"
    trials = [json.loads(p.read_text()) for p in (tmp_path / "a" / "tuning").rglob("*.json")]
    assert len(trials) == 3
    assert all(trial["metrics"] == {} for trial in trials)
    top = max(trial["selection"]["best_score"] for trial in trials)
    assert top > min(trial["selection"]["best_score"] for trial in trials)
    best = next(t for t in trials if t["config_sha256"] == record["config_sha256"])
    assert best["selection"]["best_score"] == top
    assert record["history"] == best["history"]  # the very run, seconds and all
    (left,) = (tmp_path / "a" / "checkpoints").rglob("*.pt")
    assert left.name.endswith(".epochs-4.state.pt"), "what a run with more epochs continues from"
    layers = str(record["config"]["n_layers"])
    assert main(arguments(tmp_path / "b", "--set", f"n_layers={layers}")) == 0
    direct = json.loads(next((tmp_path / "b" / "runs").rglob("*.json")).read_text())
    assert direct["metrics"] == record["metrics"]


@pytest.mark.parametrize(("setting", "waits"), [("mmrec", [0, 1, 2]), ("recbole", [0, 0, 0])])
def test_a_tie_is_no_improvement_in_mmrec_and_one_in_recbole(world, tmp_path, setting, waits):
    prepared = prepare.prepare_run(spec(world, tmp_path, setting=setting))
    trainer = tasks.build_trainer(prepared, None)
    seen = []
    for epoch in range(3):
        trainer._update_best(epoch, {"Recall@2": 0.5})
        seen.append(trainer.stopping.misses)
    assert seen == waits
    assert trainer.stopping.best_epoch == (0 if setting == "mmrec" else 2)


def test_patience_counts_misses_in_a_row(world, tmp_path):
    changes = {**spec(world, tmp_path).overrides, "learning_rate": 0.0, "stopping_step": 2}
    record = run_one(spec(world, tmp_path, epochs=50, overrides=changes))
    assert record.epochs == 4  # one best, then the third miss in a row exceeds 2
    assert record.selection["stopped"] == "patience"
    assert record.selection["best_epoch"] == 0


def test_a_model_is_told_of_every_epoch_with_draws_of_its_own(world, tmp_path):
    prepared = prepare.prepare_run(spec(world, tmp_path, epochs=3))
    trainer = tasks.build_trainer(prepared, None)
    draws = []
    trainer.model.begin_epoch = lambda generator: draws.append(
        torch.rand(4, generator=generator).tolist()
    )
    trainer.fit(tasks.train_data(prepared), tasks.valid_task(prepared), saved=False)
    assert draws == [torch.rand(4, generator=epoch_generator(999, e)).tolist() for e in range(3)]
    assert len({tuple(drawn) for drawn in draws}) == 3
    other = torch.rand(4, generator=epoch_generator(1000, 0)).tolist()
    assert other != draws[0]


def test_the_learning_rate_decays_by_epoch(world, tmp_path):
    changes = {**spec(world, tmp_path).overrides, "lr_decay": [0.5, 2]}
    prepared = prepare.prepare_run(spec(world, tmp_path, overrides=changes))
    trainer = tasks.build_trainer(prepared, None)
    for epoch, factor in ((0, 1.0), (3, 0.5**1.5), (4, 0.25)):
        trainer._set_learning_rate(epoch)
        assert trainer.optimizer.param_groups[0]["lr"] == pytest.approx(0.05 * factor)


def test_the_settings_mask_what_they_say(world, tmp_path):
    for setting, parts in (("mmrec", 1), ("recbole", 2)):
        prepared = prepare.prepare_run(spec(world, tmp_path, setting=setting))
        assert tasks.valid_task(prepared).masked.sum() == 320
        assert tasks.test_task(prepared).masked.sum() == 320 + (parts - 1) * 40


def test_a_nan_loss_is_an_error(world, tmp_path):
    prepared = prepare.prepare_run(spec(world, tmp_path))
    trainer = tasks.build_trainer(prepared, None)
    with torch.no_grad():
        trainer.model.nodes.weight.fill_(torch.nan)
    with pytest.raises(ValueError, match="not finite in epoch 0"):
        trainer.fit(tasks.train_data(prepared), tasks.valid_task(prepared), saved=False)


def test_a_damaged_state_is_refused(world, tmp_path):
    prepared = prepare.prepare_run(spec(world, tmp_path))
    state = tmp_path / "broken.pt"
    state.write_bytes(b"not a state")
    trainer = tasks.build_trainer(prepared, state)
    with pytest.raises(RecordError, match=r"broken\.pt cannot be resumed"):
        trainer.fit(tasks.train_data(prepared), tasks.valid_task(prepared), saved=False)


def test_a_grid_reaches_nested_settings_and_leaves_their_neighbours(world, tmp_path):
    from alignrec_recbole.cli.main import main

    arguments = [
        "--model", "FREEDOM", "--features", "vectors", "--dataset", "two",
        "--data-path", str(world),
        "--output", str(tmp_path), "--epochs", "2", "--quiet",
        "--set", "align.uia=0.1", "align.reg=0.01", "--set", "reg_weight=0.01",
        "--set", "topk=[2,20]", "valid_metric=Recall@2",
        "--grid", "align.cca=0.01,10.0",
    ]  # fmt: skip
    assert main(arguments) == 0
    record = json.loads(next((tmp_path / "runs").rglob("*.json")).read_text())
    assert record["config"]["align"]["uia"] == 0.1
    assert record["config"]["align"]["reg"] == 0.01
    assert record["config"]["reg_weight"] == 0.01
    assert record["tuned_on"] == "tuned on validation, seed 999: align.cca in [0.01, 10.0]"
    tried = [json.loads(p.read_text()) for p in (tmp_path / "tuning").rglob("*.json")]
    assert sorted(t["config"]["align"]["cca"] for t in tried) == [0.01, 10.0]
    best = max(tried, key=lambda t: t["valid_metrics"]["Recall@2"])  # the first of equals
    score = {t["config"]["align"]["cca"]: t["valid_metrics"]["Recall@2"] for t in tried}
    assert score[record["config"]["align"]["cca"]] == best["valid_metrics"]["Recall@2"]
    assert len(set(score.values())) > 1
    assert all(t["metrics"] == {} for t in tried)  # the test split is not looked at
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.json")}
    assert main([*arguments, "--overwrite"]) == 0
    again = {p: p.stat().st_mtime_ns for p in before if p.parts[-4] in ("runs", "tuning")}
    assert len(again) == 3
    assert all(before[path] != time for path, time in again.items())


@pytest.mark.parametrize("units", [True, False])
def test_bfloat16_without_units_is_warned_of(world, tmp_path, units, monkeypatch, caplog):
    monkeypatch.setattr(hardware, "has_bfloat16", lambda device: units)
    given = {"model": "AlignRec", "features": ("vectors",)}
    overrides = {**spec(world, tmp_path).overrides, "precision": "bfloat16"}
    prepared = prepare.prepare_run(spec(world, tmp_path, overrides=overrides, **given))
    with caplog.at_level(logging.WARNING, logger="alignrec_recbole"):
        tasks.build_trainer(prepared, None)
    assert ("no bfloat16 units" in caplog.text) is not units


@pytest.mark.parametrize("name", ["LightGCN", "NGCF"])
def test_bfloat16_is_refused_where_it_has_no_effect(name, world, tmp_path):
    overrides = {**spec(world, tmp_path).overrides, "precision": "bfloat16"}
    prepared = prepare.prepare_run(spec(world, tmp_path, model=name, overrides=overrides))
    with pytest.raises(SettingError, match=f"bfloat16 has no effect on {name}"):
        tasks.build_trainer(prepared, None)


@pytest.mark.parametrize("name", [n for n in models.MODELS if model_under_test(n).learns])
def test_models_say_whether_bfloat16_has_an_effect(name, tmp_path, monkeypatch):
    asked, original = set(), matmul.product_dtype

    def watched(tensor):
        asked.add(original(tensor))
        return original(tensor)

    for module in (linear, frozen_matrix, losses):
        monkeypatch.setattr(module, "product_dtype", watched)
    fit = Testbed(name, tmp_path).build(epochs=1)
    fit.trainer.precision = torch.bfloat16
    fit.trainer.fit(fit.batches(), None, saved=False)
    assert (torch.bfloat16 in asked) == (not fit.model.bfloat16_refused)


def test_bfloat16_reaches_the_training_step_and_no_ranking(world, tmp_path, monkeypatch):
    seen = {True: set(), False: set()}
    original = losses.info_nce

    def watched(*arguments, **keywords):
        seen[torch.is_grad_enabled()].add(matmul.product_dtype(torch.zeros(1)))
        return original(*arguments, **keywords)

    monkeypatch.setattr(losses, "info_nce", watched)
    rank = run.MultimodalTrainer.rank

    def watched_rank(self, *arguments):
        seen[False].add(matmul.product_dtype(torch.zeros(1)))
        return rank(self, *arguments)

    monkeypatch.setattr(run.MultimodalTrainer, "rank", watched_rank)
    given = {"model": "AlignRec", "features": ("vectors",), "epochs": 2}
    overrides = {**spec(world, tmp_path).overrides, "precision": "bfloat16"}
    run_one(spec(world, tmp_path, overrides=overrides, **given))
    assert seen == {True: {torch.bfloat16}, False: {torch.float32}}


def test_a_run_with_kept_neighbours_equals_the_first(world, tmp_path):
    given = {"model": "AlignRec", "features": ("vectors",)}
    first = run_one(spec(world, tmp_path, **given))
    kept = list((tmp_path / "features" / "two").glob("neighbours-*"))
    assert len(kept) == 1
    again = run_one(spec(world, tmp_path, **given), overwrite=True)
    assert first.metrics == again.metrics
    assert [e["loss"] for e in first.history] == [e["loss"] for e in again.history]


def test_validation_on_a_fixed_sample_of_users(world: Path, tmp_path: Path) -> None:
    """The sample follows the split's seed and no other; the test split is ranked for all."""
    overrides = spec(world, tmp_path).overrides
    asked = {
        n: spec(world, tmp_path, overrides={**overrides, "valid_users": n}) for n in (None, 7, 40)
    }
    whole, few, all_of_them = (run_one(asked[n]) for n in (None, 7, 40))
    assert "users" not in whole.selection
    assert (few.selection["users"], few.selection["users_with_targets"]) == (7, 40)
    assert len({r.config_sha256 for r in (whole, few, all_of_them)}) == 3
    assert whole.config_sha256 == run_one(spec(world, tmp_path / "other")).config_sha256
    assert whole.history[0]["valid"] == all_of_them.history[0]["valid"]
    assert whole.metrics == all_of_them.metrics
    hits = few.history[0]["valid"] * 7  # one target per user
    assert hits == pytest.approx(round(hits))

    prepared = prepare.prepare_run(asked[7])
    task = tasks.valid_task(prepared)
    drawn = [sampled(task, 7, seed).users for seed in (0, 0, 1)]
    assert np.array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[0], drawn[2])
    part = sampled(task, 7, 0)
    place = np.searchsorted(task.users, part.users)
    assert (part.targets != task.targets[place]).nnz == 0
    assert (part.masked != task.masked[place]).nnz == 0


def test_slow_writing_is_rarer_writing(world: Path, tmp_path: Path, monkeypatch) -> None:
    made = tasks.build_trainer(prepare.prepare_run(spec(world, tmp_path)), tmp_path / "s.pt")
    assert made._save_after() == trainer.SAVE_EVERY_SECONDS
    made._started = 0.0
    clock = iter([100.0, 100.0, 130.0, 130.0])  # 30 s to write
    monkeypatch.setattr(trainer.time, "monotonic", lambda: next(clock))
    made.save_state()
    assert made._save_after() == 20 * 30.0


def test_best_weights_are_copies_in_host_memory(world: Path, tmp_path: Path) -> None:
    made = tasks.build_trainer(prepare.prepare_run(spec(world, tmp_path)), None)
    made._update_best(0, {"Recall@2": 0.5})
    before = {name: value.clone() for name, value in made.model.state_dict().items()}
    for parameter in made.model.parameters():
        parameter.data.add_(1)
    for name, value in made._best_weights.items():
        assert value.device.type == "cpu"
        assert torch.equal(value, before[name])
