"""Trials of settings and names that one door refuses: no other door passes over them."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from bad_input import WORLD
from records import METRICS, record, store
from trials import check_answered, check_refused, run_verb, trial

from alignrec_recbole.data import items as items_module
from alignrec_recbole.data.items import read_item_table
from alignrec_recbole.errors import AlignRecError, DataError, SettingError
from alignrec_recbole.features.mmrec import read_mapping
from alignrec_recbole.registry.components import components
from alignrec_recbole.reports import plots
from alignrec_recbole.reports.grouping import comparable_groups
from alignrec_recbole.runs.prepare import prepare_data, prepare_run
from alignrec_recbole.runs.record import read_runs
from alignrec_recbole.runs.spec import DataSpec, RunSpec
from alignrec_recbole.testing.synthetic import world_settings
from alignrec_recbole.training.recbole_settings import REFUSED, UNREAD

AREA = "doors"
LONG = "x" * 300


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    WORLD.write(folder)
    return folder


# Stock RecBole -----------------------------------------------------------------------------------

STOCK: dict[str, Any] = {
    "threshold": {"rating": 3},
    "repeatable": True,
    "shuffle": False,
    "enable_amp": True,
    "enable_scaler": True,
    "log_wandb": True,
    "weight_decay": "x",
    "clip_grad_norm": {"max_norm": "x"},
    "train_neg_sample_args": {"dynamic": True, "candidate_num": 5},
    "eval_args": {"mode": "uni100"},
    "load_col": {"inter": "user_id"},
    "val_interval": {"rating": "x"},
    "user_inter_num_interval": "[5",
    "field_separator": "ab",
    "benchmark_filename": ["train", "test"],
    "unload_col": 1,
}


@pytest.fixture
def stock(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes RecBole's own Config for a model of this package."""
    from recbole.config import Config

    monkeypatch.setattr(sys, "argv", ["test"])
    monkeypatch.chdir(tmp_path)
    base = {"data_path": str(data), "gpu_id": "", **world_settings()}
    return lambda **given: Config("AlignRec", WORLD.name, config_dict={**base, **given})


@pytest.mark.parametrize("key", STOCK)
def test_stock_recbole_refuses_what_the_command_line_refuses(key: str, stock: Any) -> None:
    assert UNREAD.keys() <= REFUSED.keys() & STOCK.keys()
    with trial(AREA, f"stock: {key}"), pytest.raises(SettingError, match=key):
        stock(**{key: STOCK[key]})


def test_stock_recbole_accepts_its_own_defaults(stock: Any) -> None:
    with trial(AREA, "stock: defaults"):
        config = stock(
            **UNREAD,
            eval_batch_size=4096,
            show_progress=False,
            weight_decay=0.0,
            train_neg_sample_args={"distribution": "uniform", "sample_num": 1},
        )
        assert config["shuffle"] is True


def test_sparse_gradients_are_asked_of_no_dense_weight(data: Path, tmp_path: Path) -> None:
    for model in ("LightGCN", "BPR", "VBPR"):
        with trial(AREA, f"sparse_adam: {model}"):
            answer = run_verb(
                "--model", model, "--dataset", WORLD.name, "--data-path", data, "--quiet",
                "--output", tmp_path, "--set", "learner=sparse_adam", "--epochs", 1,
                *(["--features", "image"] if model == "VBPR" else []),
            )  # fmt: skip
            check_refused(answer, "sparse_adam", model, kind="SettingError")


# Data --------------------------------------------------------------------------------------------

COLUMNS: dict[str, dict[str, Any]] = {
    "user": {"load_col": {"inter": ["user_id", "item_id"], "user": ["age"]}},
    "item": {"load_col": {"inter": ["user_id", "item_id"], "item": ["item_id", "class"]}},
    "user, unloaded": {"load_col": None, "unload_col": {"user": ["age"]}},
}


def write_typed(folder: Path, column: str) -> None:
    (folder / "x").mkdir(parents=True)
    lines = [f"user_id:token\titem_id:token\t{column}"]
    for user in range(8):
        lines += [f"u{user}\ti{(3 * user + n) % 11}\t{(0, 0, 0, 0, 1, 2)[n]}" for n in range(6)]
    (folder / "x" / "x.inter").write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("name", COLUMNS)
def test_columns_of_a_file_that_is_not_there(name: str, tmp_path: Path) -> None:
    write_typed(tmp_path, "rating:float")
    spec = DataSpec("x", data_path=tmp_path, output=tmp_path / "out", overrides=COLUMNS[name])
    with trial(AREA, name), pytest.raises(DataError, match=rf"no file x\.{name[:4]}"):
        prepare_data(spec)


def test_a_name_of_a_time_column_needs_a_split_by_time(tmp_path: Path) -> None:
    write_typed(tmp_path, "when:float")

    def read(**given: Any) -> Any:
        return prepare_data(
            DataSpec("x", data_path=tmp_path, output=tmp_path / "out",
                     overrides={"TIME_FIELD": "when", **given})
        )  # fmt: skip

    with trial(AREA, "TIME_FIELD"), pytest.raises(SettingError, match="TIME_FIELD"):
        read()
    with trial(AREA, "TIME_FIELD, order"):
        assert read(eval_args={"order": "TO"}).data["users"] == 8


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The parts of a clone of RecBole-GNN that are looked up."""
    folder = tmp_path / "clone" / "recbole_gnn"
    models = folder / "model" / "general_recommender"
    models.mkdir(parents=True)
    (folder / "data").mkdir()
    (folder / "properties" / "model").mkdir(parents=True)
    (models / "simgcl.py").write_text(
        "from recbole.model.general_recommender.bpr import BPR\nclass SimGCL(BPR): pass\n"
    )
    (folder / "data" / "dataset.py").write_text(
        "from recbole.data.dataset import Dataset\nclass GeneralGraphDataset(Dataset): pass\n"
    )
    (folder / "properties" / "model" / "SimGCL.yaml").write_text("embedding_size: 8\n")
    monkeypatch.setitem(sys.modules, "torch_geometric", SimpleNamespace())
    monkeypatch.setenv("RECBOLE_GNN_PATH", str(tmp_path / "clone"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in [name for name in sys.modules if name.partition(".")[0] == "recbole_gnn"]:
        monkeypatch.delitem(sys.modules, name)
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "recbole_gnn"]:
        del sys.modules[name]


@pytest.mark.usefixtures("clone")
def test_split_labels_are_those_of_recbole_gnns_models_too(tmp_path: Path) -> None:
    write_typed(tmp_path / "data", "x_label:float")
    with trial(AREA, "split labels in RecBole-GNN"):
        assert components("SimGCL").dataset_class.__name__ == "GeneralGraphDataset"
        made = [
            prepare_run(RunSpec(model, "x", data_path=tmp_path / "data", output=tmp_path / "out"))
            for model in ("SimGCL", "BPR")
        ]
        pairs = [[tuple(map(tuple, split.pairs())) for split in run.splits] for run in made]
        assert pairs[0] == pairs[1]
        assert [len(split.inter_feat) for split in made[0].splits] == [32, 8, 8]


# Names, tables and mappings ----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["*", "./", "../x", LONG, "\x1b[31m", "\udcff", " x"])
@pytest.mark.parametrize(
    "verb",
    [("prepare", "--encoder", "lsa"), ("pretrain", "--random-init", "--output", "o"),
     ("download",)],
    ids=["prepare", "pretrain", "download"],
)  # fmt: skip
def test_a_name_that_is_no_data_set(
    verb: tuple[str, ...], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with trial(AREA, f"{verb[0]} {name[:9]!r}"):
        answer = run_verb(*verb, "--dataset", name, "--data-path", tmp_path)
        check_refused(answer, kind="DataError")


def test_features_named_with_their_extension(data: Path, tmp_path: Path) -> None:
    with trial(AREA, "image.npy"):
        answer = run_verb("--model", "VBPR", "--dataset", WORLD.name, "--data-path", data,
                          "--output", tmp_path, "--features", "image.npy")  # fmt: skip
        check_refused(answer, "image.npy is there", "name it without .npy: image")
        assert ".npy.npy" not in answer.errors


@pytest.mark.parametrize(
    ("content", "line"),
    [("id\tn\na\t0\n" + "x" * 200_000 + "\t1\n", 3), ('id\tn\n"a\t0\nb\t1\n', 3),
     ("id\tn\na\t0\nb\n", 3), ("id,n\na,zero\n", 2)],
)  # fmt: skip
def test_a_mapping_names_the_line(content: str, line: int, tmp_path: Path) -> None:
    path = tmp_path / "map.csv"
    path.write_text(content)
    with trial(AREA, "mapping"), pytest.raises(DataError, match=rf"map.csv[^$]*line {line}\n"):
        read_mapping(path)


@pytest.mark.parametrize("name", ["items.tsv", "items.parquet"])
def test_an_item_table_without_end(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (tmp_path / name).open("wb") as handle:
        handle.truncate(items_module.MAX_TABLE_BYTES + 1)  # takes no space
    with trial(AREA, name), pytest.raises(AlignRecError, match="too large"):
        read_item_table(tmp_path / name)


# Reports and pre-training ------------------------------------------------------------------------


def test_a_report_without_the_record_at_ratio_0(tmp_path: Path) -> None:
    """As after an interruption, or where that record was skipped."""
    for ratio in (0.0, 0.5, 1.0):
        mask = {"modality": "text", "ratio": ratio, "seed": 0, "fill": "zero"}
        store(
            tmp_path,
            record(
                "AlignRec",
                value=0.2 / (1 + ratio),
                features="text",
                protocol="mask-modality",
                config={"feature_mask": mask},
            ),
        )
    for path in (tmp_path / "runs").rglob("*.json"):
        if json.loads(path.read_text())["config"]["feature_mask"]["ratio"] == 0:
            path.unlink()
    with trial(AREA, "no ratio 0"):
        (members,) = comparable_groups(read_runs(tmp_path / "runs")).values()
        with pytest.raises(plots.EmptyPlotError, match="no curve"):
            plots.robustness_curves(members, next(name for name in METRICS if "Recall" in name))
        answer = run_verb("report", "--output", tmp_path)
        check_answered(answer)
        assert answer.status == 0
        assert "not drawn: toy-robustness" in answer.output


def test_no_more_layers_are_frozen_than_there_are(tmp_path: Path) -> None:
    folder = WORLD.write(tmp_path)
    (folder / "images").mkdir()
    from PIL import Image

    lines = ["item_id\ttitle\timage"]
    for n in range(6):
        Image.new("RGB", (20, 20), (40 * n, 9, 9)).save(folder / "images" / f"{n}.png")
        lines.append(f"i{n:02}\tlamp {n} red\t{n}.png")
    (folder / "items.tsv").write_text("\n".join(lines) + "\n")
    with trial(AREA, "--freeze-layers"):
        answer = run_verb(
            "pretrain", "--dataset", WORLD.name, "--data-path", tmp_path, "--random-init",
            "--output", tmp_path / "out", "--image-size", 32, "--vocab-size", 60, "--epochs", 1,
            "--freeze-layers", 5, "--threads", 1, "--no-progress", "--device", "cpu",
        )  # fmt: skip
        check_refused(answer, "--freeze-layers 5", "at most 4", kind="SettingError")
