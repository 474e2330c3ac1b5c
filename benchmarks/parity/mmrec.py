"""Drives a checkout of enoche/MMRec on CPU, its files untouched.

What it lacks on today's stack is supplied from outside: `.cuda()` as the identity, names that numpy
and scipy have removed, torch_scatter's one function that it uses, imports that are not used here.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from alignrec_recbole.compat import patch_dok_update
from alignrec_recbole.errors import DataError
from benchmarks.parity.official import _Answers, default_dtype

FILES = {"text": "text_feat.npy", "image": "image_feat.npy"}


@contextlib.contextmanager
def importable(reference: Path) -> Iterator[None]:
    """Make the checkout's modules importable on this machine.

    Raises:
        DataError: the folder is no checkout of MMRec.
    """
    source = reference / "src"
    if not (source / "models" / "freedom.py").is_file():
        raise DataError(
            "This is no checkout of MMRec.",
            came=str(reference),
            expected="a folder with src/models/freedom.py",
            next="clone github.com/enoche/MMRec and pass its root",
        )
    for name, kind in (("float", np.float64), ("int", np.int64)):
        if name not in np.__dict__:
            setattr(np, name, kind)
    patch_dok_update()
    for name, attribute, value in (
        ("torch_scatter", "scatter_add", _scatter_add),
        ("torch_scatter", "scatter", None),  # of SLMRec's other data sets only
        ("sparsesvd", "sparsesvd", None),  # of PGL's global form only
    ):
        try:
            module = importlib.import_module(name)
        except ImportError:
            module = sys.modules[name] = types.ModuleType(name)
        if not hasattr(module, attribute):
            setattr(module, attribute, value)
    cuda = torch.Tensor.cuda
    torch.Tensor.cuda = lambda self, *a, **k: self  # type: ignore[method-assign, assignment]
    sys.path.insert(0, str(source))
    try:
        yield
    finally:
        sys.path.remove(str(source))
        torch.Tensor.cuda = cuda  # type: ignore[method-assign]


def _scatter_add(values: torch.Tensor, index: torch.Tensor, dim: int, dim_size: int) -> Any:
    assert dim == 0
    return torch.zeros(dim_size, dtype=values.dtype).index_add_(0, index, values)


@contextlib.contextmanager
def built(
    reference: Path,
    name: str,
    settings: dict[str, Any],
    features: dict[str, np.ndarray],
    interactions: Any,
) -> Iterator[Any]:
    """A model of MMRec on given features (text, image: [I, f]) and a scipy matrix [U, I]."""
    users, items = interactions.shape
    with importable(reference), tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "toy").mkdir()
        for kind, values in features.items():
            np.save(Path(folder) / "toy" / FILES[kind], values)
        config = _Answers(
            USER_ID_FIELD="u", ITEM_ID_FIELD="i", NEG_PREFIX="neg_", device="cpu", end2end=False,
            is_multimodal_model=True, data_path=f"{folder}/", dataset="toy",
            vision_feature_file=FILES["image"], text_feature_file=FILES["text"], **settings,
        )  # fmt: skip
        loader = types.SimpleNamespace(
            inter_matrix=lambda form: interactions.tocoo(),
            dataset=types.SimpleNamespace(get_user_num=lambda: users, get_item_num=lambda: items),
        )
        with default_dtype(torch.float32), contextlib.redirect_stdout(None):
            model = getattr(importlib.import_module(f"models.{name.lower()}"), name)(config, loader)
            yield model


def train(
    reference: Path,
    name: str,
    dataset_dir: Path,
    features: dict[str, Path],
    settings: dict[str, Any],
    seeds: list[int],
) -> list[dict[str, Any]]:
    """Train with MMRec's own harness in a scratch folder and a process of its own.

    Args:
        features: files for text and image, row = itemID.
        settings: of MMRec, scalars.

    Returns:
        one dict a seed: valid, test (metrics at the best validation epoch), epochs, losses.
    """
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        shutil.copytree(reference / "src", root / "src")
        _copy_data(dataset_dir, features, root / "data" / dataset_dir.name)
        order = {
            "name": name, "dataset": dataset_dir.name, "settings": settings, "seeds": seeds,
        }  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-m", __name__, str(root), json.dumps(order)],
            stdout=subprocess.PIPE,
            text=True,
            check=False,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        if done.returncode:
            raise RuntimeError("MMRec ended with an error; see above.")
        return json.loads(done.stdout.splitlines()[-1])


def _copy_data(source: Path, features: dict[str, Path], target: Path) -> None:
    """The interactions with the timestamp column that MMRec's loader insists on."""
    target.mkdir(parents=True)
    frame = pd.read_csv(source / f"{source.name}.inter", sep="\t")
    if "timestamp" not in frame:
        frame["timestamp"] = 0
    frame.to_csv(target / f"{source.name}.inter", sep="\t", index=False)
    for kind, path in features.items():
        shutil.copyfile(path, target / FILES[kind])


def _train_here(
    root: Path, name: str, dataset: str, settings: dict[str, Any], seeds: list[int]
) -> list[dict[str, Any]]:
    os.chdir(root / "src")
    (root / "src" / "configs" / "dataset" / f"{dataset}.yaml").write_text(
        "USER_ID_FIELD: userID\nITEM_ID_FIELD: itemID\nTIME_FIELD: timestamp\n"
        f"filter_out_cod_start_users: True\ninter_file_name: '{dataset}.inter'\n"
        f"vision_feature_file: {FILES['image']}\ntext_feature_file: {FILES['text']}\n"
        'user_graph_dict_file: none.npy\nfield_separator: "\\t"\n'
    )
    results: list[dict[str, Any]] = []
    with importable(root):
        import utils.quick_start as quick_start
        from common import trainer as trainers

        original = trainers.Trainer.fit

        def fit(self: Any, *arguments: Any, **keywords: Any) -> Any:
            best, valid, test = original(self, *arguments, **keywords)
            losses = [float(loss) for loss in self.train_loss_dict.values()]
            results.append({"valid": dict(valid), "test": dict(test), "losses": losses,
                            "epochs": len(losses)})  # fmt: skip
            print(f"MMRec: {name} {results[-1]['test']}", file=sys.stderr)
            return best, valid, test

        trainers.Trainer.fit = fit
        quick_start.init_logger = lambda config: logging.disable(logging.CRITICAL)
        given = {**settings, "gpu_id": 0, "use_gpu": False, "data_path": "../data/", "seed": seeds,
                 "hyper_parameters": ["seed"]}  # fmt: skip
        with contextlib.redirect_stdout(sys.stderr):
            quick_start.quick_start(name, dataset, given, save_model=False)
    return results


if __name__ == "__main__":
    folder, order = sys.argv[1:]
    print(json.dumps(_train_here(Path(folder), **json.loads(order))))
