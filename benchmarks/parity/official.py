"""Drives a checkout of the official AlignRec code on CPU, its files untouched.

What it lacks on today's stack is supplied from outside: `.cuda()` as the identity, names that numpy
has removed, image packages it imports without using them here.
"""

from __future__ import annotations

import contextlib
import importlib.machinery
import importlib.util
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from alignrec_recbole.errors import DataError

HYPER_PARAMETERS = {"cl_loss": 0.01, "learning_rate": 0.001, "sim_weight": 0.1}


class _Answers(dict):
    """A mapping that answers None for what it does not hold, as the official Config does."""

    def __missing__(self, key: str) -> None:
        return None


@contextlib.contextmanager
def importable(reference: Path) -> Iterator[None]:
    """Make the checkout's modules importable on this machine."""
    source = reference / "src"
    if not (source / "models" / "alignrec.py").is_file():
        raise DataError(
            "This is no checkout of the official AlignRec code.",
            came=str(reference),
            expected="a folder with src/models/alignrec.py",
            next="clone github.com/sjtulyf123/AlignRec_CIKM24 and pass its root",
        )
    for name, kind in (("float", np.float64), ("int", np.int64)):
        if name not in np.__dict__:
            setattr(np, name, kind)
    if importlib.util.find_spec("torchvision") is None:
        for name in ("torchvision", "torchvision.transforms", "torchvision.transforms.functional"):
            sys.modules[name] = _stub(name)
    cuda = torch.Tensor.cuda
    torch.Tensor.cuda = lambda self, *a, **k: self  # type: ignore[method-assign, assignment]
    sys.path.insert(0, str(source))
    try:
        yield
    finally:
        sys.path.remove(str(source))
        torch.Tensor.cuda = cuda  # type: ignore[method-assign]


def _stub(name: str) -> types.ModuleType:
    module = types.ModuleType(name)
    module.__spec__ = importlib.machinery.ModuleSpec(name, None)
    module.__path__ = []
    module.pad = module.resize = None  # type: ignore[attr-defined]
    return module


def build(
    reference: Path,
    features: np.ndarray,
    interactions: Any,
    *,
    batch_size: int,
    uia: bool,
    double: bool,
) -> Any:
    """The official model on given features [I, f] and a scipy matrix [U, I]."""
    users, items = interactions.shape
    with importable(reference), tempfile.TemporaryDirectory() as folder:
        from models.alignrec import ALIGNREC

        (Path(folder) / "toy").mkdir()
        np.save(Path(folder) / "toy" / "image_feat.npy", features)
        config = _Answers(
            USER_ID_FIELD="u", ITEM_ID_FIELD="i", NEG_PREFIX="neg_", train_batch_size=batch_size,
            device="cpu", end2end=False, is_multimodal_model=True, multimodal_data_dir="",
            data_path=f"{folder}/", dataset="toy", vision_feature_file="image_feat.npy",
            text_feature_file="text_feat.npy", embedding_size=64, n_ui_layers=2, n_layers=1,
            knn_k=10, reg_weight=1e-4, cl_loss=0.01, sim_weight=0.1, ui_cosine_loss_weight=0.1,
            ui_cosine_loss=uia, side_emb_div=0,
        )  # fmt: skip
        loader = types.SimpleNamespace(
            inter_matrix=lambda form: interactions.tocoo(),
            dataset=types.SimpleNamespace(get_user_num=lambda: users, get_item_num=lambda: items),
        )
        with default_dtype(torch.float64 if double else torch.float32):
            with contextlib.redirect_stdout(None):
                model = ALIGNREC(config, loader)
            model.built_r = model.R.to_dense()
            if double:
                _to_double(model, features)
    return model


def _to_double(model: Any, features: np.ndarray) -> None:
    """Float64 throughout: the code rounds tables, graphs and features to float32 on the way."""
    from utils.utils import build_knn_normalized_graph, build_sim

    model.double()
    with torch.no_grad():
        model.mm_embedding.weight.copy_(torch.from_numpy(features))
    model.v_feat = model.mm_embedding.weight.data  # the shared storage, as built
    matrix = model.interaction_matrix
    model.interaction_matrix = matrix.astype(np.float64)
    adjacency = _exact_adjacency(model.interaction_matrix)
    users = matrix.shape[0]
    model.norm_adj = _sparse(adjacency)
    model.R = _sparse(adjacency.tocsr()[:users, users:])
    model.mm_original_adj = build_knn_normalized_graph(
        build_sim(model.v_feat), topk=model.knn_k, is_sparse=True, norm_type="sym"
    )


def _exact_adjacency(matrix: Any) -> Any:
    import scipy.sparse as sp

    full = sp.bmat([[None, matrix], [matrix.T, None]]).tocsr()
    degrees = np.asarray(full.sum(1)).ravel()
    root = np.where(degrees > 0, np.maximum(degrees, 1) ** -0.5, 0.0)
    return sp.diags(root) @ full @ sp.diags(root)


def _sparse(matrix: Any) -> torch.Tensor:
    coo = matrix.tocoo()
    index = torch.from_numpy(np.vstack([coo.row, coo.col]).astype(np.int64))
    return torch.sparse_coo_tensor(index, torch.from_numpy(coo.data), coo.shape)


@contextlib.contextmanager
def default_dtype(kind: torch.dtype) -> Iterator[None]:
    """Tensors made inside have this type unless told otherwise."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(kind)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def train(
    reference: Path, dataset_dir: Path, features_file: Path, seeds: list[int], epochs: int
) -> list[dict[str, Any]]:
    """Train with the official harness in a scratch folder and a process of its own.

    Returns one dict a seed: valid, test (metrics at the best validation epoch), epochs, losses.
    """
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        shutil.copytree(reference / "src", root / "src")
        _copy_data(dataset_dir, features_file, root / "data" / dataset_dir.name)
        order = {"dataset": dataset_dir.name, "seeds": seeds, "epochs": epochs}
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-m", __name__, str(root), json.dumps(order)],
            stdout=subprocess.PIPE,
            text=True,
            check=False,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        if done.returncode:
            raise RuntimeError("The official code ended with an error; see above.")
        return json.loads(done.stdout.splitlines()[-1])


def _copy_data(source: Path, features_file: Path, target: Path) -> None:
    """The interactions with the timestamp column that the official loader insists on."""
    import pandas as pd

    target.mkdir(parents=True)
    frame = pd.read_csv(source / f"{source.name}.inter", sep="\t")
    if "timestamp" not in frame:
        frame["timestamp"] = 0
    frame.to_csv(target / f"{source.name}.inter", sep="\t", index=False)
    shutil.copyfile(features_file, target / "image_feat.npy")


def _train_here(root: Path, dataset: str, seeds: list[int], epochs: int) -> list[dict[str, Any]]:
    settings = {**_configure(root, dataset), "seed": seeds, "epochs": epochs}
    with importable(root):
        import utils.quick_start as quick_start
        from common import trainer as trainers

        results: list[dict[str, Any]] = []
        original = trainers.Trainer.fit

        def fit(self: Any, *arguments: Any, **keywords: Any) -> Any:
            best, valid, test = original(self, *arguments, **keywords)
            losses = [float(loss) for loss in self.train_loss_dict.values()]
            results.append({"valid": dict(valid), "test": dict(test), "losses": losses,
                            "epochs": len(losses)})  # fmt: skip
            print(f"official: {results[-1]}", file=sys.stderr)
            return best, valid, test

        trainers.Trainer.fit = fit
        quick_start.init_logger = lambda config: logging.disable(logging.CRITICAL)
        with contextlib.redirect_stdout(sys.stderr):
            quick_start.quick_start("ALIGNREC", dataset, settings, save_model=False)
    return results


def _configure(root: Path, dataset: str) -> dict[str, Any]:
    """Enter the scratch copy, describe the data set to it and return its settings."""
    os.chdir(root / "src")
    (root / "src" / "configs" / "dataset" / f"{dataset}.yaml").write_text(
        "USER_ID_FIELD: userID\nITEM_ID_FIELD: itemID\nTIME_FIELD: timestamp\n"
        f"filter_out_cod_start_users: True\ninter_file_name: '{dataset}.inter'\n"
        "vision_feature_file: image_feat.npy\ntext_feature_file: text_feat.npy\n"
        'user_graph_dict_file: none.npy\nfield_separator: "\\t"\n'
    )
    return {
        "gpu_id": 0, "use_gpu": False, "multimodal_data_dir": "", "data_path": "../data/",
        "ui_cosine_loss": True, "side_emb_div": 0, "warmup_ui": False,
        "n_layers": [1], "knn_k": [10], "log_file_name": "parity",
        **{key: [value] for key, value in HYPER_PARAMETERS.items()},
    }  # fmt: skip


def actions(
    reference: Path, dataset_dir: Path, features_file: Path, folder: Path
) -> dict[str, Callable[[], Any]]:
    """Training epoch and validation of the official harness, in this process (for timing).

    `folder` is a scratch folder; the working directory moves into it.
    """
    shutil.copytree(reference / "src", folder / "src")
    _copy_data(dataset_dir, features_file, folder / "data" / dataset_dir.name)
    settings = _configure(folder, dataset_dir.name)
    settings = {k: v[0] if isinstance(v, list) else v for k, v in settings.items()}
    opened = contextlib.ExitStack()
    opened.enter_context(importable(folder))
    logging.disable(logging.CRITICAL)
    with contextlib.redirect_stdout(sys.stderr):
        from utils.configurator import Config
        from utils.dataloader import EvalDataLoader, TrainDataLoader
        from utils.dataset import RecDataset
        from utils.utils import get_model, get_trainer, init_seed

        config = Config("ALIGNREC", dataset_dir.name, {**settings, "seed": 999})
        for key, value in settings.items():
            config[key] = value
        whole = RecDataset(config)
        train, valid, _ = whole.split()
        for part in (whole, train, valid):
            str(part)  # counts users and items, which the loaders then read
        data = TrainDataLoader(config, train, batch_size=config["train_batch_size"], shuffle=True)
        task = EvalDataLoader(
            config, valid, additional_dataset=train, batch_size=config["eval_batch_size"]
        )
        init_seed(999)
        data.pretrain_setup()
        trainer = get_trainer()(config, get_model("ALIGNREC")(config, data))
    return {
        "epoch": lambda: trainer._train_epoch(data, 0),
        "evaluation": lambda: (opened, trainer.evaluate(task))[1],
    }


if __name__ == "__main__":
    folder, order = sys.argv[1:]
    print(json.dumps(_train_here(Path(folder), **json.loads(order))))
