"""The classes that a model's run is built from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from alignrec_recbole.registry import recbole_gnn
from alignrec_recbole.registry.defaults import _recbole_keys, _yaml_keys
from alignrec_recbole.registry.models import load_class, resolve


@dataclass(frozen=True)
class ModelComponents:
    """What the runner needs to build a model."""

    model_class: Any
    dataset_class: Any
    trainer_class: Any | None
    known_keys: frozenset[str]  # settings the model or RecBole reads


def prepare(name: str) -> ModelComponents:
    """Classes and known setting names of a model, for the runner."""
    model_class = load_class(name)
    settings = getattr(model_class, "settings_class", None)
    keys = set(settings.model_fields) if settings else _yaml_keys(name)
    return ModelComponents(
        model_class, dataset_class(name), trainer_class(name), frozenset(keys | _recbole_keys())
    )


def dataset_class(name: str) -> Any:
    """The data set class that a model is built on."""
    if resolve(name).family == "recbole-gnn":
        return recbole_gnn.dataset_class()
    from alignrec_recbole.dataset import MultimodalDataset

    return MultimodalDataset


def trainer_class(name: str) -> Any:
    """The trainer class of a model."""
    family = resolve(name).family
    if family == "recbole-gnn":
        return recbole_gnn.trainer_class(name)
    if family == "ours":
        from alignrec_recbole.training.trainer import MultimodalTrainer

        return MultimodalTrainer
    from alignrec_recbole.training import recbole_trainers

    return (
        recbole_trainers.trainer_class(name)
        if family == "recbole"
        else recbole_trainers.RecBoleModelTrainer
    )
