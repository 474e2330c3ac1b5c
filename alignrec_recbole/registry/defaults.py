"""Default settings of a model and data set."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from alignrec_recbole.io.yaml_loader import properties_dir, read_yaml
from alignrec_recbole.registry import recbole_gnn
from alignrec_recbole.registry.models import ModelEntry, load_class, resolve


def load_defaults(model: str, dataset: str) -> dict[str, Any]:
    """Defaults of this package in RecBole's order: all runs < model < data set."""
    out = read_yaml(properties_dir() / "overall.yaml")
    out.update(model_defaults(model))
    out.update(read_yaml(properties_dir() / "dataset" / f"{dataset}.yaml"))
    return out


def model_defaults(name: str) -> dict[str, Any]:
    """A model's own defaults: our YAML, a plug-in's, RecBole-GNN's."""
    entry = resolve(name)
    if entry.family == "plugin":
        return _plugin_defaults(entry)
    if entry.family == "recbole-gnn":
        return recbole_gnn.defaults(name)
    return read_yaml(properties_dir() / "model" / f"{name}.yaml")


def _plugin_defaults(entry: ModelEntry) -> dict[str, Any]:
    """`<Name>.yaml` beside the module, then the class's `default_settings`, which win."""
    cls = load_class(entry.name)
    file = getattr(sys.modules[cls.__module__], "__file__", None)
    beside = read_yaml(Path(file).parent / f"{entry.name}.yaml") if file else {}
    return {**beside, **getattr(cls, "default_settings", {})}


def _recbole_root() -> Path:
    import recbole

    return Path(recbole.__file__).parent


def _recbole_keys() -> set[str]:
    from recbole.utils.argument_list import (
        dataset_arguments,
        evaluation_arguments,
        general_arguments,
        training_arguments,
    )

    return {
        *general_arguments,
        *training_arguments,
        *evaluation_arguments,
        *dataset_arguments,
        "train_neg_sample_args",
    }


def _yaml_keys(name: str) -> set[str]:
    stock = _recbole_root() / "properties" / "model" / f"{name}.yaml"
    return set(read_yaml(stock)) | set(model_defaults(name))
