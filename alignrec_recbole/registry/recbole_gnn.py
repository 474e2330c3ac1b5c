"""RecBole-GNN's general recommenders, when a clone of RUCAIBox/RecBole-GNN can be imported.

It has no release and no set-up file, so it is neither a requirement nor copied: put the root of a
clone on the path, or name it in RECBOLE_GNN_PATH.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
import sys
import types
from pathlib import Path
from typing import Any

from alignrec_recbole.errors import MissingDependencyError
from alignrec_recbole.io.yaml_loader import read_yaml

# name on the command line → class there; names that RecBole has too get a prefix
MODELS = {
    "gnn-LightGCN": "LightGCN",
    "gnn-NGCF": "NGCF",
    "gnn-SGL": "SGL",
    "gnn-NCL": "NCL",
    "SimGCL": "SimGCL",
    "XSimGCL": "XSimGCL",
    "LightGCL": "LightGCL",
    "DirectAU": "DirectAU",
    "SSL4REC": "SSL4REC",
    "HMLET": "HMLET",
}

# classes whose predict() fails there: it reads tables that do not exist or indexes them twice
BROKEN_PREDICT = {"DirectAU", "SSL4REC"}


def target(name: str) -> str:
    """ "module:Class" of a model, after checking that a clone can be imported."""
    root()
    cls = MODELS[name]
    return f"recbole_gnn.model.general_recommender.{cls.lower()}:{cls}"


def root() -> Path:
    """Folder of the recbole_gnn package.

    Raises:
        MissingDependencyError: no clone can be found.
    """
    named = os.environ.get("RECBOLE_GNN_PATH")
    if named and named not in sys.path:
        sys.path.append(named)
    spec = importlib.util.find_spec("recbole_gnn")
    folders = list(spec.submodule_search_locations or []) if spec else []
    for folder in folders:
        if (Path(folder) / "model").is_dir():
            return Path(folder)
    raise MissingDependencyError(
        "This model is RecBole-GNN's, and no clone of it can be imported.",
        found=f"RECBOLE_GNN_PATH={named or 'not set'}",
        expected="the root of a clone of github.com/RUCAIBox/RecBole-GNN",
        hint="git clone https://github.com/RUCAIBox/RecBole-GNN, pip install torch_geometric, "
        "then set RECBOLE_GNN_PATH to the clone",
    )


def available() -> bool:
    """Whether a clone can be imported."""
    try:
        root()
    except MissingDependencyError:
        return False
    return True


def load(name: str) -> Any:
    """Model class.

    Raises:
        MissingDependencyError: the clone or PyTorch Geometric is missing.
    """
    module, _, attribute = target(name).partition(":")
    _prepare_import()
    cls = getattr(importlib.import_module(module), attribute)
    if attribute in BROKEN_PREDICT:
        cls.predict = _predict
    return cls


@functools.cache
def dataset_class(reader: type) -> Any:
    """The data set class of its general recommenders, which reads files as `reader` does.

    RecBole's own reading would draw splits at random where a file has split labels.
    """
    root()
    _prepare_import()
    graphs = importlib.import_module("recbole_gnn.data.dataset").GeneralGraphDataset
    return type(graphs.__name__, (graphs, reader), {"__module__": graphs.__module__})


def trainer_class(name: str) -> Any:
    """This package's trainer of RecBole's models, with what the model's own trainer adds."""
    from alignrec_recbole.training import recbole_trainers

    return recbole_trainers.trainer_class(MODELS[name])


def defaults(name: str) -> dict[str, Any]:
    """The model's YAML in the clone."""
    return read_yaml(root() / "properties" / "model" / f"{MODELS[name]}.yaml")


def _predict(self: Any, interaction: Any) -> Any:
    """Scores [b] of user-item pairs, gathered from the scores of all items."""
    items = interaction[self.ITEM_ID]
    return self.full_sort_predict(interaction).view(len(items), -1).gather(1, items[:, None])[:, 0]


def _prepare_import() -> None:
    """torch_sparse is imported unconditionally there but not needed with edge lists."""
    try:
        import torch_geometric  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            "RecBole-GNN needs PyTorch Geometric.",
            found=str(error),
            expected="torch_geometric",
            hint="pip install torch_geometric",
        ) from error
    if importlib.util.find_spec("torch_sparse") is None and "torch_sparse" not in sys.modules:
        stub = types.ModuleType("torch_sparse")
        stub.__spec__ = importlib.util.spec_from_loader("torch_sparse", loader=None)
        stub.matmul = None  # type: ignore[attr-defined]
        sys.modules["torch_sparse"] = stub
