"""What each patch of RecBole is for, as a function that fails where the patch is missing.

tests/compat calls them with all patches in place. Run as a script, this file imports RecBole once
and, in a fork per case, applies every patch but the case's own and prints what was raised.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

Case = Callable[[], None]
CASES: list[tuple[str, Case, str]] = []  # patch, case, what the case says without the patch

ITEMS = "item_id:token\tname:token\tprice:float\ttags:token_seq\tvector:float_seq"
ROWS = ("i0\ta\t1.0\tx y\t1 2", "i1\t\t\t\t", "i2\tb\t3.0\tx\t3 4")


def needs(patch: str, failure: str) -> Callable[[Case], Case]:
    """Register a case of a patch with the pattern of its failure."""

    def register(case: Case) -> Case:
        CASES.append((patch, case, failure))
        return case

    return register


def config(model: str = "BPR", argv: list[str] | None = None, **values: Any) -> Any:
    """A RecBole configuration for a data set of twelve users under the working directory."""
    from recbole.config import Config

    folder = Path("data/tiny")
    folder.mkdir(parents=True, exist_ok=True)
    pairs = [f"u{u}\ti{i}" for u in range(12) for i in range(12) if (u + i) % 2 or u == i]
    (folder / "tiny.inter").write_text("\n".join(["user_id:token\titem_id:token", *pairs]))
    given = {
        "data_path": "data",
        "load_col": {"inter": ["user_id", "item_id"]},
        "epochs": 1,
        "gpu_id": "",
        "show_progress": False,
        "metrics": ["Recall"],
        "topk": [2],
        "valid_metric": "Recall@2",
        "embedding_size": 4,
        "train_batch_size": 64,
    }
    with mock.patch.object(sys, "argv", ["case"] if argv is None else argv):
        return Config(model=model, dataset="tiny", config_dict={**given, **values})


def prepared(model: str = "BPR", **values: Any) -> tuple[Any, Any, Any]:
    """Trainer and the three splits of a stock model, untrained."""
    from recbole.data import create_dataset, data_preparation
    from recbole.utils import get_model, get_trainer, init_seed

    settings = config(model, **values)
    init_seed(1, True)
    splits = data_preparation(settings, create_dataset(settings))
    network = get_model(model)(settings, splits[0]._dataset)
    return get_trainer(settings["MODEL_TYPE"], model)(settings, network), network, splits


def item_columns(*names: str) -> Any:
    """The data set with some columns of an item file that has empty cells."""
    from recbole.data import create_dataset

    columns = {"inter": ["user_id", "item_id"], "item": ["item_id", *names]}
    settings = config(load_col=columns, filter_inter_by_user_or_item=False)
    Path("data/tiny/tiny.item").write_text("\n".join([ITEMS, *ROWS]) + "\n")
    dataset = create_dataset(settings)
    dataset._change_feat_format()
    return dataset


@needs("patch_ray", "pkg_resources|bool8|ray")
def quick_start_imports() -> None:
    import recbole.quick_start
    from ray import tune

    assert recbole.quick_start.run_recbole
    tune.report(recall=1.0)


@needs("patch_numpy_names", "np.float_")
def config_is_built_and_numpy_stays_as_it_is() -> None:
    import numpy as np

    def names() -> set[str]:  # without modules, which numpy loads when they are first used
        return {name for name, value in vars(np).items() if not isinstance(value, types.ModuleType)}

    before = names()
    config()
    assert names() == before or np.__version__ < "2"


@needs("patch_numpy_names", "has no attribute 'float'")
def metrics_and_interactions_are_computed() -> None:
    from recbole.data.interaction import Interaction
    from recbole.evaluator import metrics

    hits = types.SimpleNamespace(get=lambda name: torch_ones())
    values = metrics.NDCG({"topk": [2], "metric_decimal_place": 4}).calculate_metric(hits)
    assert values == {"ndcg@2": 1.0}
    assert Interaction({"rating": [0.5, 1.0]})["rating"].tolist() == [0.5, 1.0]


def torch_ones() -> Any:
    """Two users whose two ranked items are relevant, and the number of relevant items."""
    import torch

    return torch.tensor([[1, 1, 2], [1, 1, 2]])


@needs("patch_dok_update", "_update")
def lightgcn_builds_its_graph_and_scipy_stays_as_it_is() -> None:
    import scipy.sparse as sp

    before = set(vars(sp.dok_matrix))
    _, network, _ = prepared("LightGCN")
    graph = network.norm_adj_matrix.to_dense()
    assert graph.shape == (26, 26)
    assert bool((graph == graph.T).all())
    assert int((graph > 0).sum()) > 24
    assert set(vars(sp.dok_matrix)) == before


@needs("patch_agg_len", "Length of values")
def sequence_columns_are_loaded_and_pandas_stays_as_it_is() -> None:
    import pandas as pd

    aggregate = pd.Series.agg
    dataset = item_columns("tags")
    lengths = (dataset.item_feat["tags"] > 0).sum(1)
    by_token = dict(zip(dataset.field2id_token["item_id"], lengths.tolist(), strict=False))
    assert (by_token["i0"], by_token["i2"]) == (2, 1)
    assert pd.Series.agg is aggregate


@needs("patch_fill_nan", r"tokens \[0, -9\d+, -9\d+\], means \[nan, nan, nan\]")
def missing_values_are_filled() -> None:
    dataset = item_columns("name", "price")
    # empty cells; no row at all; no item at all
    rows = [dataset.token2id("item_id", item) for item in ("i1", "i5", "[PAD]")]
    tokens, prices = (dataset.item_feat[name][rows].tolist() for name in ("name", "price"))
    assert (tokens, prices) == ([0, 0, 0], [2.0, 2.0, 2.0]), f"tokens {tokens}, means {prices}"


@needs("patch_fill_nan", "has no attribute 'split'")
def empty_sequences_are_read() -> None:
    dataset = item_columns("tags", "vector")
    for item in ("i1", "i5", "[PAD]"):
        row = dataset.token2id("item_id", item)
        assert dataset.item_feat["tags"][row].tolist() == [0, 0]
        assert dataset.item_feat["vector"][row].tolist() == [0.0, 0.0]


@needs("patch_time_order", "AssertionError: newest rows")
def rows_are_ordered_by_the_exact_time() -> None:
    from recbole.data import create_dataset

    rows = [f"u{u}\ti{i}\t{1_500_000_000 + (7 * i + u) % 11}" for u in range(4) for i in range(11)]
    header = "user_id:token\titem_id:token\ttimestamp:float"
    settings = config(
        load_col={"inter": ["user_id", "item_id", "timestamp"]},
        eval_args={"split": {"LS": "valid_and_test"}, "order": "TO", "mode": "full"},
    )
    Path("data/tiny/tiny.inter").write_text("\n".join([header, *rows]) + "\n")
    test = create_dataset(settings).build()[2]
    items = test.id2token("item_id", test.inter_feat["item_id"]).tolist()
    newest = [f"i{next(i for i in range(11) if (7 * i + u) % 11 == 10)}" for u in range(4)]
    assert items == newest, f"newest rows {newest}, tested {items}"


@needs("patch_config_strings", "AssertionError: evaluated")
def strings_are_never_evaluated() -> None:
    given = {
        "note": "open('evaluated', 'w')",
        "key": "key",
        "sizes": "[64, 32]",
        "rate": "1e-3",
        "flag": "True",
        "other": "false",
        "nothing": "None",
        "path": "re.txt",
    }
    before = dict(given)
    config(note=given["note"])
    assert not Path("evaluated").exists(), "evaluated"
    assert config(note="1/0")["note"] == "1/0"
    settings = config(**given)
    assert given == before
    assert settings["note"] == given["note"]
    assert [settings[name] for name in list(given)[1:]] == [
        "key", [64, 32], 0.001, True, False, None, "re.txt",
    ]  # fmt: skip


@needs("patch_command_line", "AssertionError: seed 7|IndexError")
def foreign_command_lines_are_left_alone() -> None:
    for program in ("/bin/pytest", "/lib/pytest/__main__.py", "/bin/alignrec-bench"):
        settings = config(argv=[program, "--seed=7", "--timeout=30"], seed=1)
        assert settings["seed"] == 1, f"seed {settings['seed']} from {program}"
        assert settings["timeout"] is None
    assert config(argv=[], seed=1)["seed"] == 1
    assert config(argv=["run_recbole.py", "--seed=7"], seed=1)["seed"] == 7


@needs("patch_cuda_visible_devices", "AssertionError: 0")
def assigned_devices_stay() -> None:
    name = "CUDA_VISIBLE_DEVICES"
    with mock.patch.dict(os.environ, {name: "3"}):
        assert config(gpu_id="0")["gpu_id"] == os.environ[name] == "3", os.environ[name]
        assert config(gpu_id="")["device"].type == "cpu"
        assert os.environ[name] == "3"
    with mock.patch.dict(os.environ):
        os.environ.pop(name, None)
        for wanted in ("0", "", "1"):  # nobody assigned anything: RecBole's own rule
            assert config(gpu_id=wanted)["gpu_id"] == os.environ[name] == wanted


@needs("patch_checkpoints", "weights_only|WeightsUnpickler|Unsupported")
def checkpoints_are_read_back() -> None:
    import torch

    trainer, network, splits = prepared()
    trainer.fit(splits[0], splits[1], show_progress=False)
    weight = network.user_embedding.weight.detach().clone()
    torch.nn.init.zeros_(network.user_embedding.weight)
    trainer.evaluate(splits[2], load_best_model=True)
    assert torch.equal(network.user_embedding.weight, weight)
    torch.nn.init.zeros_(network.user_embedding.weight)
    trainer.resume_checkpoint(trainer.saved_model_file)
    assert torch.equal(network.user_embedding.weight, weight)
    torch.load(trainer.saved_model_file, weights_only=True)


@needs("patch_load_data_and_model", "KeyError|UnpicklingError")
def saved_runs_are_loaded() -> None:
    import torch
    from recbole.quick_start import load_data_and_model

    trainer, network, _ = prepared(seed=5)
    trainer._save_checkpoint(0)
    with mock.patch.object(sys, "argv", ["case", "--seed=7"]):
        settings, loaded, _, train, _, test = load_data_and_model(trainer.saved_model_file)
    assert settings["seed"] == 5
    assert torch.equal(loaded.user_embedding.weight, network.user_embedding.weight)
    assert len(train._dataset) > len(test._dataset)


@needs("patch_checkpoint_names", "AssertionError: one name")
def runs_of_one_second_have_two_files() -> None:
    from recbole.trainer import trainer as module

    trainer, network, _ = prepared()
    with mock.patch.object(module, "get_local_time", return_value="now"):
        files = {module.Trainer(trainer.config, network).saved_model_file for _ in range(2)}
    assert len(files) == 2, "one name"


@needs("patch_flops", "SparseCsrTensorImpl|NotImplementedError|RuntimeError")
def sparse_models_are_counted_or_skipped() -> None:
    import warnings

    import torch
    from recbole.utils import get_flops

    trainer, network, splits = prepared()
    network.graph = torch.eye(3).to_sparse_csr()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data, log = splits[0]._dataset, trainer.logger
        count = get_flops(network, data, "cpu", log, lambda _, batch: batch)
    assert count == 0


@needs("patch_barrier", "process group")
def downloads_end_in_one_process() -> None:
    from recbole.data.dataset import Dataset, dataset

    archive = Path("archive.zip")
    archive.write_bytes(b"")
    asking = types.SimpleNamespace(
        config={"local_rank": 0},
        logger=mock.Mock(),
        dataset_name="tiny",
        dataset_path="downloaded",
        _get_download_url=lambda kind: "http://localhost/archive.zip",
    )
    with mock.patch.multiple(
        dataset,
        decide_download=lambda url: True,
        download_url=lambda url, folder: str(archive),
        extract_zip=mock.Mock(),
        rename_atomic_files=mock.Mock(),
    ):
        Dataset._download(asking)
    assert not archive.exists()


@needs("patch_folders", "AssertionError: scattered")
def files_lie_in_the_run_folder() -> None:
    from recbole.utils import init_logger, logger

    with mock.patch.dict(os.environ, {"ALIGNREC_RUN_DIR": "run"}):
        with mock.patch.object(logger, "init"):  # colorama's wrapping of stdout
            init_logger(config())
        trainer, _, splits = prepared()
        trainer.fit(splits[0], splits[1], show_progress=False)
        trainer.tensorboard.close()
    names = {path.name for path in Path().iterdir()}
    assert names == {"data", "run"}, f"scattered: {names}"
    assert {path.name for path in Path("run").iterdir()} == {"log", "log_tensorboard", "saved"}
    assert list(Path("run/log/BPR").glob("*.log"))
    assert list(Path("run/log_tensorboard").rglob("events*"))
    assert list(Path("run/saved").glob("BPR-*.pth"))


def _without(patch: str, case: Case) -> str:
    """What a case raises when every patch but one is in place; "" for nothing."""
    os.environ["ALIGNREC_WITHOUT_PATCHES"] = patch
    import alignrec_recbole  # noqa: F401 (applies the patches)

    try:
        case()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def _forked(patch: str, case: Case) -> str:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            text = _without(patch, case)
            os.write(writer, text.encode()[:4000])
            os.chdir("/")
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as handle:
        text = handle.read().decode(errors="replace")
    os.waitpid(child, 0)
    return text


def main() -> None:
    """Print a JSON line for each case: its name and what it raised without its patch."""
    import recbole.config
    import recbole.data
    import recbole.model.general_recommender
    import recbole.trainer  # noqa: F401 (loaded once, before the forks)
    import torch

    torch.set_num_threads(1)
    stdout = os.dup(1)
    os.dup2(2, 1)  # what RecBole prints
    for patch, case, _ in CASES:
        line = json.dumps({"case": case.__name__, "raised": _forked(patch, case)})
        os.write(stdout, line.encode() + b"\n")


if __name__ == "__main__":
    main()
