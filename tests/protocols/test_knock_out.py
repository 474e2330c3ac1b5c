"""Protocol knock-out on two blocks of users and items, whose features tell the blocks apart."""

from __future__ import annotations

import itertools
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from two_blocks import write_two_blocks

from alignrec_recbole.errors import SettingError
from alignrec_recbole.evaluation.ranking import Ranking
from alignrec_recbole.graphs import knn_cache, searches
from alignrec_recbole.io.files import sha256_file
from alignrec_recbole.protocols import interventions as acts
from alignrec_recbole.protocols.knock_out import SEEDS, VARIANTS
from alignrec_recbole.protocols.run import run_protocol
from alignrec_recbole.registry import models
from alignrec_recbole.registry.components import components
from alignrec_recbole.runs import tasks
from alignrec_recbole.runs.prepare import prepare_run
from alignrec_recbole.runs.record import RunRecord
from alignrec_recbole.runs.spec import RunSpec
from alignrec_recbole.training.trainer import MultimodalTrainer

SETTINGS = {"learning_rate": 0.02, "topk": [5, 20]}


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    rng = write_two_blocks(folder)
    block = np.arange(24) // 12
    for name, modality in (("words", "text"), ("sounds", "audio")):
        rows = np.eye(6)[block] + 0.3 * rng.normal(size=(24, 6))
        path = folder / "two" / f"{name}.npy"
        np.save(path, rows.astype(np.float32))
        manifest = (
            f'{{"name": "{name}", "modality": "{modality}", "encoder": "made", "settings": {{}}, '
            '"source": "none", "items": null, "shape": [24, 6], "dtype": "float32", '
            f'"sha256": "{sha256_file(path)}"}}'
        )
        (folder / "two" / f"{name}.json").write_text(manifest)
    return folder


def spec(data: Path, output: Path, model: str = "", **more: Any) -> RunSpec:
    given: dict[str, Any] = {"features": ("words", "sounds"), "epochs": 2, "seed": SEEDS[0], **more}
    settings = SETTINGS if given["epochs"] else {"topk": [5, 20]}
    given["overrides"] = {**settings, **given.get("overrides", {})}
    return RunSpec(
        model, "two", data_path=data, output=output, device="cpu", progress=False, **given
    )


def knock_out(data: Path, output: Path, model: str, **more: Any) -> dict[str, RunRecord]:
    """The records of one seed by variant."""
    asked = spec(data, output, protocol="knock-out", **more)
    records = list(run_protocol(asked, [model], [SEEDS[0]]))
    assert len({record.path for record in records}) == len(records)
    return {
        f"{r.config['knock_out']['variant']} {r.features}"
        if r.config["knock_out"]["variant"] == "alone"
        else r.config["knock_out"]["variant"]: r
        for r in records
    }


def test_variants_of_a_model_whose_twin_has_zero_features(data: Path, tmp_path: Path) -> None:
    found = knock_out(data, tmp_path, "VBPR")
    assert list(found) == [
        "real", "alone words", "alone sounds", "random", "shuffled", "popularity-shuffled",
        "constant", "zero",
    ]  # fmt: skip
    assert [name for name, r in found.items() if r.config["knock_out"]["id_only"]] == ["zero"]
    real = found["real"]
    assert found["shuffled"].features == "shuffled:words@999+shuffled:sounds@999"
    assert found["zero"].features == "zero:words+zero:sounds"
    assert {r.config["knock_out"]["real"] for r in found.values()} == {"", real.config_sha256}
    assert len({r.config_sha256 for r in found.values()}) == len(found)
    same = ("epochs", "learning_rate", "stopping_step", "reg_weight", "train_batch_size")
    assert len({tuple(r.config[key] for key in same) for r in found.values()}) == 1
    assert all(r.per_user for r in found.values())
    assert len(real.groups or {}) == 2
    assert all(r.groups is None for name, r in found.items() if name != "real")
    assert "the test split was ranked 31 times" in real.notes

    before = {name: r.model_dump() for name, r in found.items()}
    again = knock_out(data, tmp_path, "VBPR")  # nothing is trained again
    assert {name: r.model_dump() for name, r in again.items()} == before


def test_a_twin_with_settings_of_its_own_is_a_run_of_its_own(data: Path, tmp_path: Path) -> None:
    wanted = {"variants": ["random", "zero", "id-only"]}
    found = knock_out(data, tmp_path, "PGL", overrides=wanted)
    assert list(found) == ["random", "zero", "id-only"]
    assert [name for name, r in found.items() if r.config["knock_out"]["id_only"]] == ["id-only"]
    assert found["id-only"].features == found["random"].features
    assert found["id-only"].config["n_mm_layers"] == 0
    assert found["random"].config["n_mm_layers"] == 1


def test_a_model_of_content_alone_has_no_twin(data: Path, tmp_path: Path) -> None:
    wanted = {"variants": ["real", "zero", "id-only"]}
    found = knock_out(data, tmp_path, "ItemKNNCBF", overrides=wanted, epochs=None)
    assert list(found) == ["real", "zero"]
    assert not any(r.config["knock_out"]["id_only"] for r in found.values())
    assert found["real"].groups is None


def test_content_that_decides_explains_the_lead(data: Path, tmp_path: Path) -> None:
    """Pure content: real features find the block, shuffled ones do not."""
    wanted = {"variants": ["real", "shuffled"]}
    found = knock_out(data, tmp_path, "ItemKNNCBF", overrides=wanted, epochs=None)
    assert found["real"].metrics["Recall@5"] > found["shuffled"].metrics["Recall@5"] + 0.2


def test_each_training_seed_has_draws_of_its_own(data: Path, tmp_path: Path) -> None:
    wanted = {"variants": ["random", "shuffled"]}
    asked = spec(data, tmp_path, protocol="knock-out", overrides=wanted, epochs=None)
    assert [record.features for record in run_protocol(asked, ["ItemKNNCBF"], [999, 1000])] == [
        f"{kind}:words@{seed}+{kind}:sounds@{seed}"
        for seed in (999, 1000)
        for kind in ("random", "shuffled")
    ]


@pytest.mark.parametrize("names", [[], ["BPR"], ["VBPR", "BPR"]])
def test_models_without_features_are_refused(data: Path, tmp_path: Path, names: list) -> None:
    with pytest.raises(SettingError, match=r"needs a model|has no features"):
        list(run_protocol(spec(data, tmp_path, protocol="knock-out"), names))
    assert not list(tmp_path.rglob("*.json"))


@pytest.mark.parametrize("name", [n for n, entry in models.MODELS.items() if entry.needs_features])
def test_every_model_declares_a_twin_that_it_can_be(name: str) -> None:
    parts = components(name)
    assert parts.model_class.id_only_features in ("zero", "random", None)
    assert set(parts.model_class.id_only_settings) <= parts.own_keys
    page = (Path(__file__).parents[2] / "docs" / "knock_out.md").read_text("utf-8")
    assert name in page.split("## The ID-only twin")[1].split("## ")[0]


def test_the_variants_are_those_of_the_docstring() -> None:
    from alignrec_recbole.protocols import knock_out

    assert all(f"\n{name}\n    " in (knock_out.__doc__ or "") for name in VARIANTS)


# Interventions -----------------------------------------------------------------------------------

Trained = tuple[Any, MultimodalTrainer, Ranking]


def trained(data: Path, output: Path, model: str, epochs: int = 3) -> Trained:
    prepared = prepare_run(spec(data, output, model, epochs=epochs))
    trainer = tasks.build_trainer(prepared, None)
    trainer.fit(tasks.train_data(prepared), saved=False, show_progress=False)
    return prepared, trainer, trainer.rank(tasks.test_task(prepared), 50)


MODELS = ("VBPR", "BM3", "FREEDOM", "AlignRec", "MGCN", "SMORE", "PGL", "LATTICE", "GRCN", "LGMRec")


@pytest.mark.parametrize("model", MODELS)
def test_a_model_is_the_same_after_interventions(data: Path, tmp_path: Path, model: str) -> None:
    prepared, trainer, ranking = trained(data, tmp_path, model)
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    state = torch.random.get_rng_state()
    found = acts.examine(prepared, trainer, ranking, draws=2)
    assert torch.equal(torch.random.get_rng_state(), state)
    after = trainer.model.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    again = trainer.rank(tasks.test_task(prepared), 50)
    assert np.array_equal(again.items, ranking.items)
    for group in found["groups"].values():
        assert len(group) == 3 * 4
        assert all(np.isfinite(list(metrics.values())).all() for metrics in group.values())


def examined(data: Path, output: Path, model: str) -> dict[str, dict[str, dict[str, float]]]:
    return acts.examine(*trained(data, output, model), draws=1)["groups"]


def test_a_model_that_scores_without_features_keeps_every_list(data: Path, tmp_path: Path) -> None:
    for group in examined(data, tmp_path, "BM3").values():
        for found in group.values():
            assert found["overlap@20"] == found["same list"] == 1
            assert found["RBO@20"] == pytest.approx(1)


def test_a_model_with_features_in_its_graph_alone(data: Path, tmp_path: Path) -> None:
    found = examined(data, tmp_path, "FREEDOM")
    assert all(m["same list"] == 1 for m in found[acts.TABLES].values())
    assert found[acts.GRAPHS]["all: permutation 0"]["same list"] < 1
    of_sets = [found[acts.GRAPHS][f"{name}: permutation 0"] for name in ("words", "sounds", "all")]
    assert all(one != other for one, other in itertools.combinations(of_sets, 2))


def test_items_without_a_modality_stay_without_it() -> None:
    rows = torch.arange(14.0).reshape(7, 2)
    has = np.array([False, True, True, False, True, True, True])
    rows[~torch.from_numpy(has)] = 0
    tokens = ["[PAD]", *"abcdef"]
    changes = {each.name: each.change for each in acts.interventions(["words"], tokens, 2)}
    assert list(changes) == [
        f"words: {k}" for k in ("zero", "mean", "permutation 0", "permutation 1")
    ]
    found = {name: change(rows, has) for name, change in changes.items()}
    assert not found["words: zero"].any()
    assert (found["words: mean"][has] == rows[has].mean(0)).all()
    for each in found.values():
        assert not each[~has].any()
    first, second = (found[f"words: permutation {draw}"] for draw in (0, 1))
    for each in (first, second):
        assert sorted(each[has].tolist()) == rows[has].tolist()
        assert not torch.equal(each, rows)
    assert not torch.equal(first, second)


def test_a_model_without_item_graphs_is_the_same_in_both_ways(data: Path, tmp_path: Path) -> None:
    found = examined(data, tmp_path, "VBPR")
    assert found[acts.TABLES] == found[acts.GRAPHS]
    assert found[acts.TABLES]["words: permutation 0"]["same list"] < 1


def test_learnt_tables_are_replaced(data: Path, tmp_path: Path) -> None:
    """Zeros in VBPR's place for content leave the ID factor: the scores of the ID vectors alone."""
    _, trainer, _ = trained(data, tmp_path, "MGCN")
    model = trainer.model
    learnt = [table.detach().clone() for table in model.tables]
    names = ["words", "sounds"]
    tokens = ["[PAD]", *map(str, range(24))]
    planned = {each.name: each for each in acts.interventions(names, tokens, 1)}
    with acts.replaced(model, planned["sounds: mean"]):
        assert torch.equal(model.tables[0], learnt[0])
        assert torch.allclose(model.tables[1][1:], learnt[1][1:].mean(0))
        assert not model.tables[1][0].any()
    with acts.replaced(model, planned["all: permutation 0"]):
        order = [learnt[0].tolist().index(row) for row in model.tables[0].tolist()]
        assert sorted(order) == list(range(25))
        assert order != list(range(25))
        assert torch.equal(model.tables[1], learnt[1][order])  # the same for both sets
    assert torch.equal(model.tables[1], learnt[1])


def test_item_graphs_are_searched_again_as_those_of_the_training(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared, trainer, _ = trained(data, tmp_path, "FREEDOM")
    tokens = prepared.splits[0].field2id_token[prepared.splits[0].iid_field]
    planned = acts.interventions(["words", "sounds"], tokens, 1)
    build, seen = type(trainer.model).__init__, []

    def noted(self: Any, *given: Any) -> None:
        seen.append((searches._searches.get(), knn_cache._folder.get()))
        build(self, *given)

    monkeypatch.setattr(type(trainer.model), "__init__", noted)
    acts.rebuilt(prepared, trainer.model, planned[0])
    ((search, folder),) = seen
    assert search.device == trainer.device
    assert folder == Path(prepared.config["features_cache"])


def test_vbpr_without_content_scores_by_ids_alone(data: Path, tmp_path: Path) -> None:
    prepared, trainer, _ = trained(data, tmp_path, "VBPR")
    model, task = trainer.model, tasks.test_task(prepared)
    tokens = prepared.splits[0].field2id_token[prepared.splits[0].iid_field]
    zero = {e.name: e for e in acts.interventions(["words", "sounds"], tokens, 1)}["all: zero"]
    with acts.replaced(model, zero):
        found = trainer.rank(task, 20)
    size = model.items.shape[1]
    scores = (model.users[:, :size] @ model.items.T).detach().numpy()
    for user, listed in zip(found.users, found.items, strict=True):
        own = scores[user, listed[listed >= 0]]
        assert (np.diff(own) <= 1e-6).all()


def test_trackers_and_cells_know_the_protocol(tmp_path: Path) -> None:
    from alignrec_recbole.suites.schema import read_suite

    cells = read_suite("knock-out").expanded
    assert {cell.protocol for cell in cells} == {"knock-out"}
    some = partial(filter, lambda cell: cell.has("--model", ["VBPR"]))
    assert {cell.dataset for cell in some(cells)} == {"lfm2k", "ml-100k", "sports"}
    assert len(list(some(cells))) == 15
