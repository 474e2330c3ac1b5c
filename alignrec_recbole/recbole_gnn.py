"""RecBole-GNN's general recommenders, when a clone of RUCAIBox/RecBole-GNN can be imported.

It has no release and no set-up file, so it is neither a requirement nor copied: put the root of a
clone on the path, or name it in RECBOLE_GNN_PATH.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import types
from pathlib import Path
from typing import Any

import yaml

from alignrec_recbole.errors import MissingDependencyError

# name on our command line → class there; three names are RecBole's too
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


def target(name: str) -> str:
    """ "module:Class" of a model, after checking that the clone is there."""
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
    places = list(spec.submodule_search_locations or []) if spec else []
    for place in places:
        if (Path(place) / "model").is_dir():
            return Path(place)
    raise MissingDependencyError(
        "This model is RecBole-GNN's, and no clone of it can be imported.",
        came=f"RECBOLE_GNN_PATH={named or 'not set'}",
        expected="the root of a clone of github.com/RUCAIBox/RecBole-GNN",
        next="git clone https://github.com/RUCAIBox/RecBole-GNN, pip install torch_geometric, "
        "then set RECBOLE_GNN_PATH to the clone",
    )


def load(name: str) -> tuple[Any, Any, Any]:
    """Model class, data set class and trainer class (None: ours)."""
    package = root()
    _prepare_import()
    sys.path.insert(0, str(package.parent)) if str(package.parent) not in sys.path else None
    module, _, cls = target(name).partition(":")
    model = getattr(importlib.import_module(module), cls)
    dataset = importlib.import_module("recbole_gnn.data.dataset").GeneralGraphDataset
    return model, dataset, None


def defaults(name: str) -> dict[str, Any]:
    """The model's YAML in the clone."""
    path = root() / "properties" / "model" / f"{MODELS[name]}.yaml"
    return (yaml.safe_load(path.read_text(encoding="utf-8")) or {}) if path.is_file() else {}


def _prepare_import() -> None:
    """torch_sparse is imported unconditionally there but not needed with edge lists."""
    try:
        import torch_geometric  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            "RecBole-GNN needs PyTorch Geometric.",
            came=str(error),
            expected="torch_geometric",
            next="pip install torch_geometric",
        ) from error
    if importlib.util.find_spec("torch_sparse") is None and "torch_sparse" not in sys.modules:
        stub = types.ModuleType("torch_sparse")
        stub.__spec__ = importlib.util.spec_from_loader("torch_sparse", loader=None)
        stub.matmul = None  # type: ignore[attr-defined]
        sys.modules["torch_sparse"] = stub
