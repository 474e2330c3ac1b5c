"""Models by name: in this package's runs, in stock RecBole, and from other packages."""

from __future__ import annotations

import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
import recbole
import yaml
from recbole.config import Config
from recbole.data.dataset import Dataset
from recbole.utils import ModelType, get_model, get_trainer

from alignrec_recbole import load_model
from alignrec_recbole.data import dataset_paths
from alignrec_recbole.dataset import MultimodalDataset
from alignrec_recbole.errors import MissingDependencyError, SettingError, UnknownNameError
from alignrec_recbole.io.yaml_loader import read_yaml
from alignrec_recbole.registry import components as components_module
from alignrec_recbole.registry import models, stock_recbole
from alignrec_recbole.registry.components import components
from alignrec_recbole.runs import prepare, tasks
from alignrec_recbole.runs.lists import read_user_values
from alignrec_recbole.runs.prepare import prepare_run
from alignrec_recbole.runs.record import read_runs
from alignrec_recbole.runs.run import run_one
from alignrec_recbole.runs.spec import RunSpec
from alignrec_recbole.training.recbole_trainers import RecBoleModelTrainer
from alignrec_recbole.training.trainer import MultimodalTrainer

WHEEL = Path(recbole.__file__).parent
STOCK = "recbole.model.general_recommender"
QUICK = {"epochs": 2, "topk": [5, 10, 20], "metrics": ["Recall", "NDCG"], "show_progress": False,
         "eval_batch_size": 1_000_000, "gpu_id": ""}  # fmt: skip


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder of `tiny`: the first users and items of ml-100k, which ships in the wheel."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["test"])
    source, target = WHEEL / "dataset_example" / "ml-100k", tmp_path / "data" / "tiny"
    target.mkdir(parents=True)
    for kind, most in (("inter", (60, 400)), ("item", (400,))):
        head, *lines = (source / f"ml-100k.{kind}").read_text(encoding="utf-8").splitlines()
        rows = [
            line
            for line in lines
            if all(int(x) <= m for x, m in zip(line.split("\t"), most, strict=False))
        ]
        (target / f"tiny.{kind}").write_text("\n".join([head, *rows]) + "\n", encoding="utf-8")
    return target.parent


def offer(folder: Path, monkeypatch: pytest.MonkeyPatch, points: str, **files: str) -> None:
    """Install a package `walkers` with these entry points and files, as pip would."""
    info = folder / "walkers-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: walkers\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{models.ENTRY_POINTS}]\n{points}\n")
    (folder / "walkers").mkdir()
    for name, text in {"__init__.py": "", **files}.items():
        (folder / "walkers" / name.replace("__yaml", ".yaml")).write_text(text)
    for name in [name for name in sys.modules if name.partition(".")[0] == "walkers"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(folder))


WALK = """
from recbole.model.general_recommender.bpr import BPR

class Walk(BPR):
    default_settings = {"embedding_size": 8, "learning_rate": 0.01}
"""


@pytest.fixture
def walk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plug-in model in a package of its own."""
    files = {"__init__.py": WALK, "Walk__yaml": "embedding_size: 4\nwalk_length: 1e-3\n"}
    offer(tmp_path / "site", monkeypatch, "Walk = walkers:Walk", **files)


# Names ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "family", "module"),
    [
        ("AlignRec", "native", "alignrec_recbole.models.alignrec"),
        ("LightGCN", "native", "alignrec_recbole.models.lightgcn"),
        ("BPR", "native", "alignrec_recbole.models.bpr"),
        ("Pop", "native", "alignrec_recbole.models.pop"),
        ("EASE", "recbole", f"{STOCK}.ease"),
        ("ItemKNN", "recbole", f"{STOCK}.itemknn"),
        ("SLIMElastic", "recbole", f"{STOCK}.slimelastic"),
        ("DMF", "recbole", f"{STOCK}.dmf"),
    ],
)
def test_a_name_has_one_class(name, family, module):
    entry = models.resolve(name)
    assert (entry.family, entry.target) == (family, f"{module}:{name}")
    cls = components(name).model_class
    assert (cls.__module__, cls.__name__) == (module, name)


def test_every_general_recommender_in_the_wheel_can_be_named():
    modules = {p.stem for p in (WHEEL / "model" / "general_recommender").glob("[!_]*.py")}
    assert {name.lower() for name in models.stock_names()} == modules
    assert len(modules) > 30


@pytest.mark.parametrize(
    ("wrong", "right"), [("alignrec", "AlignRec"), ("LightGNC", "LightGCN"), ("SLIM", None)]
)
def test_an_unknown_name_says_which_are_known(wrong, right):
    with pytest.raises(UnknownNameError, match=f"Unknown model '{wrong}'") as caught:
        models.resolve(wrong)
    assert right is None or f"Did you mean {right!r}?" in caught.value.problem
    assert all(name in caught.value.expected for name in ("AlignRec", "EASE", "SimGCL"))


def test_every_model_that_can_be_run_is_listed_once():
    listed = models.list_models()
    names = [entry.name for entry in listed]
    assert len(set(names)) == len(names)
    assert set(models.MODELS) | models.stock_names() - models.UNSUPPORTED_MODELS <= set(names)
    assert all(models.resolve(entry.name) == entry for entry in listed)
    assert not models.UNSUPPORTED_MODELS & set(names)


# Stock RecBole finds them -----------------------------------------------------------------------


def test_registering_again_changes_nothing():
    import recbole.data
    import recbole.quick_start.quick_start as quick_start
    import recbole.utils

    def state() -> list:
        places = (recbole.utils, recbole.utils.utils, recbole.data, recbole.data.utils, quick_start,
                  Config)  # fmt: skip
        return [id(value) for place in places for value in vars(place).values()]

    before = state()
    stock_recbole.register()
    assert state() == before


@pytest.mark.parametrize(
    ("wrong", "right"), [("AlingRec", "AlignRec"), ("bpr", "BPR"), ("SASRce", "SASRec")]
)
def test_stock_recbole_names_unknown_models(wrong, right):
    for ask in (get_model, lambda name: Config(name, "ml-100k")):
        with pytest.raises(UnknownNameError, match=f"^Unknown model {wrong!r}. Did .* {right!r}"):
            ask(wrong)
    with pytest.raises((ModuleNotFoundError, AttributeError, ValueError)) as caught:
        get_model.__wrapped__(wrong)  # RecBole's own
    assert right not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "added"),
    [("AlignRec", True), ("Walk", True), ("LightGCN", False), ("lightgcn", False), ("X", False)],
)
def test_models_without_a_stock_class_are_added(walk, name, added):
    assert stock_recbole.is_added(name) is added


def test_stock_names_keep_their_stock_classes():
    for name in ("LightGCN", "BPR", "Pop", "EASE", "ItemKNN"):
        assert get_model(name).__module__ == f"{STOCK}.{name.lower()}"
        assert get_trainer(ModelType.GENERAL, name).__module__ == "recbole.trainer.trainer"
    assert get_model("AlignRec") is components("AlignRec").model_class
    assert Config(model="BPR", dataset="ml-100k", config_dict={})["metric_decimal_place"] == 4


def test_stock_look_ups_find_data_set_and_trainer(tiny):
    from recbole.data import create_dataset

    given = {"data_path": str(tiny), "gpu_id": "", "features": []}
    for name, kind in (("AlignRec", MultimodalDataset), ("BPR", Dataset)):
        config = Config(name, "tiny", config_dict=given)
        assert type(create_dataset(config)) is kind
    assert get_trainer(ModelType.GENERAL, "AlignRec") is MultimodalTrainer


def test_a_saved_data_set_of_an_added_model_is_read_back(tiny):
    from recbole.data import create_dataset

    given = {"data_path": str(tiny), "checkpoint_dir": str(tiny / "saved"), "save_dataset": True,
             "gpu_id": "", "features": []}  # fmt: skip
    first = create_dataset(Config("AlignRec", "tiny", config_dict=given))
    assert (tiny / "saved" / "tiny-MultimodalDataset.pth").is_file()
    again = create_dataset(Config("AlignRec", "tiny", config_dict=given))
    assert type(again) is MultimodalDataset
    assert len(again.inter_feat) == len(first.inter_feat)


def _class_found(name: str) -> str:
    return get_model(name).__module__


def test_a_spawned_process_finds_them():
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        assert pool.submit(_class_found, "AlignRec").result() == "alignrec_recbole.models.alignrec"


# Defaults ---------------------------------------------------------------------------------------

LAYERS = ["overall", "model", "dataset", "file", "dict"]


def test_features_have_one_default_in_stock_recbole_and_in_python(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["test"])
    assert Config(model="VBPR", dataset="ml-100k")["features"] == ["lsa"]
    assert Config(model="NGCF", dataset="ml-100k")["features"] is None  # RecBole's own: untouched
    own = Config(model="VBPR", dataset="ml-100k", config_dict={"features": ["random"]})
    assert own["features"] == ["random"]
    for model, features in (("VBPR", "lsa"), ("BPR", "none")):
        run = prepare_run(RunSpec(model, "ml-100k", output=tmp_path, progress=False))
        assert run.feature_name == features


@pytest.mark.parametrize("depth", range(1, len(LAYERS) + 1))
def test_a_later_source_wins(tmp_path, monkeypatch, depth):
    """All runs < model < data set < file < dict, each source with the same key."""
    given = {layer: {"learning_rate": float(i)} for i, layer in enumerate(LAYERS[:depth], 1)}
    paths = {
        "overall": tmp_path / "overall.yaml",
        "model": tmp_path / "model" / "AlignRec.yaml",
        "dataset": tmp_path / "dataset" / "ml-100k.yaml",
        "file": tmp_path / "mine.yaml",
    }
    for layer, path in paths.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(yaml.safe_dump({**given.get(layer, {}), f"from_{layer}": 1}))
    for module in (components_module, dataset_paths):
        monkeypatch.setattr(module, "properties_dir", lambda: tmp_path)
    monkeypatch.setattr(sys, "argv", ["test"])
    config = Config(
        model="AlignRec", dataset="ml-100k", config_file_list=[str(paths["file"])],
        config_dict=given.get("dict", {}),
    )  # fmt: skip
    assert config["learning_rate"] == depth
    assert all(config[f"from_{layer}"] == 1 for layer in paths)
    merged = components("AlignRec").defaults_for("ml-100k")
    assert merged["learning_rate"] == min(depth, 3)


def test_yaml_numbers_are_recboles_and_broken_files_are_named(tmp_path):
    file = tmp_path / "x.yaml"
    file.write_text("a: 1e-4\nb: 2E3\nc: -1e+2\nd: 1.5e-3\ne: e5\n")
    assert read_yaml(file) == {"a": 1e-4, "b": 2000.0, "c": -100.0, "d": 1.5e-3, "e": "e5"}
    assert read_yaml(tmp_path / "absent.yaml") == {}
    for text in ("a: [1", "- a", "!!python/object/apply:os.getcwd []"):
        file.write_text(text)
        with pytest.raises(SettingError, match=r"x\.yaml is not"):
            read_yaml(file)


# Plug-ins ---------------------------------------------------------------------------------------


def test_a_plugin_is_found_with_its_defaults(walk):
    assert models.resolve("Walk") == models.ModelEntry("Walk", "walkers:Walk", "plugin")
    parts = components("Walk")
    assert parts.defaults == {
        "embedding_size": 8,  # the class wins over the file beside it
        "learning_rate": 0.01,
        "walk_length": 1e-3,
    }
    assert (parts.dataset_class, parts.trainer_class) == (MultimodalDataset, RecBoleModelTrainer)
    assert {"walk_length", "embedding_size", "epochs"} <= parts.known_keys


def test_a_plugin_runs_in_our_runner(walk, tiny):
    spec = RunSpec("Walk", "tiny", data_path=tiny, output=tiny / "out", epochs=2, progress=False)
    record = run_one(spec)
    assert record.config["embedding_size"] == 8
    assert (record.model, record.epochs) == ("Walk", 2)
    assert record.history[1]["loss"] < record.history[0]["loss"]


def test_a_plugin_may_need_features(tmp_path, monkeypatch):
    offer(tmp_path, monkeypatch, "Walk = walkers.deep:Walk [features]", **{"deep.py": WALK})
    assert models.resolve("Walk").needs_features
    assert components("Walk").model_class.__module__ == "walkers.deep"


@pytest.mark.parametrize("target", ["walkers:Missing", "walkers.missing:Walk"])
def test_a_broken_plugin_is_named_and_harms_no_other_model(tmp_path, monkeypatch, target):
    offer(tmp_path, monkeypatch, f"Walk = {target}")
    with pytest.raises(MissingDependencyError, match="plug-in model 'Walk' cannot be imported"):
        components("Walk")
    assert get_model("AlignRec").__name__ == "AlignRec"


# End to end -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["Walk", "AlignRec"])
def test_stock_recbole_trains_reloads_and_recommends(walk, tiny, name):
    from recbole.quick_start import load_data_and_model, objective_function, run_recbole
    from recbole.utils.case_study import full_sort_topk

    given = {**QUICK, "data_path": str(tiny), "checkpoint_dir": str(tiny / "saved")}
    if name == "AlignRec":
        given["features"] = ["lsa"]
    result = run_recbole(model=name, dataset="tiny", config_dict=dict(given))
    assert 0 < result["test_result"]["recall@20"] <= 1
    (file,) = (tiny / "saved").glob(f"{name}-*.pth")

    config, model, dataset, _, _, test = load_data_and_model(str(file))
    parts = components(name)
    assert type(model) is parts.model_class
    assert isinstance(dataset, MultimodalDataset)
    assert config["learning_rate"] == parts.defaults_for("tiny")["learning_rate"]
    trainer = parts.trainer_class(config, model)
    assert trainer.evaluate(test, load_best_model=False) == pytest.approx(result["test_result"])

    users = test.uid_list[:3].numpy()
    scores, items = full_sort_topk(users, model, test, k=5, device=config["device"])
    assert tuple(items.shape) == (3, 5)
    assert (items > 0).all()
    assert (scores[:, :-1] >= scores[:, 1:]).all()

    again = objective_function({**given, "model": name, "dataset": "tiny"}, saved=False)
    assert again["test_result"].keys() == result["test_result"].keys()


@pytest.mark.parametrize("name", ["NGCF", "DMF"])
def test_tensors_kept_for_scoring_never_outlive_their_weights(tiny, name):
    """NGCF keeps restore_user_e, DMF i_embedding, which belong to the last epoch, not the best."""
    spec = RunSpec(name, "tiny", data_path=tiny, output=tiny / "out", epochs=1, progress=False)
    prepared = prepare.prepare_run(spec)
    trainer = tasks.build_trainer(prepared, None)
    trainer.fit(tasks.train_data(prepared), tasks.valid_task(prepared), saved=False)
    before = trainer.rank(tasks.test_task(prepared), 5).items
    weights = {
        name: value.flip(-1).roll(1, 0) for name, value in trainer.model.state_dict().items()
    }
    trainer.model.load_state_dict(weights)
    after = trainer.rank(tasks.test_task(prepared), 5).items
    assert (after != before).any()
    for kept in ("restore_user_e", "restore_item_e", "i_embedding"):
        if hasattr(trainer.model, kept):
            setattr(trainer.model, kept, None)
    assert (trainer.rank(tasks.test_task(prepared), 5).items == after).all()


@pytest.mark.parametrize("name", ["MultiVAE", "LDiffRec", "LINE"])
def test_counters_of_a_training_are_resumed(tiny, name):
    """RecBole keeps them beside the weights; without them the losses go on differently."""

    def losses(folder: str, *epochs: int) -> list[float]:
        for count in epochs:
            spec = RunSpec(
                name, "tiny", data_path=tiny, output=tiny / folder, epochs=count, progress=False
            )
            record = run_one(spec)
        return [entry["loss"] for entry in record.history]

    assert losses("continued", 2, 4) == losses("whole", 4)


def test_the_stored_model_of_one_that_draws_while_it_scores_is_the_ranked_one(tiny):
    spec = RunSpec(
        "DiffRec", "tiny", data_path=tiny, output=tiny / "out", epochs=1, progress=False,
        overrides={"sampling_noise": True, "sampling_steps": 3},
    )  # fmt: skip
    record = run_one(spec)
    (ended,) = read_runs(tiny / "out" / "runs")
    stored = read_user_values(ended)
    found = load_model(record).recommend(list(stored.users), k=5)
    for user, top in zip(stored.users, stored.top[:, :5], strict=True):
        assert list(found[found["user"] == user]["item"]) == [stored.items[item] for item in top]


def test_every_learner_takes_a_weight_decay_or_refuses_it(tiny):
    def trained(learner: str) -> None:
        spec = RunSpec(
            "LightGCN", "tiny", data_path=tiny, output=tiny / learner, epochs=1, progress=False,
            overrides={"learner": learner, "weight_decay": 0.01},
        )  # fmt: skip
        run_one(spec)

    for learner in ("sgd", "adagrad", "rmsprop"):
        trained(learner)
    with pytest.raises(SettingError, match="sparse_adam has no weight decay"):
        trained("sparse_adam")
