"""What a run is built from: one look-up per run turns a model's name into classes and defaults."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignrec_recbole.compat.imports import recbole_folder, require_recbole
from alignrec_recbole.data.dataset_paths import dataset_defaults
from alignrec_recbole.errors import MissingDependencyError, ModelError, SettingError
from alignrec_recbole.io.yaml_loader import properties_dir, read_yaml
from alignrec_recbole.registry import recbole_gnn
from alignrec_recbole.registry.models import ModelEntry, resolve
from alignrec_recbole.settings import shown
from alignrec_recbole.training.recbole_settings import (
    HONOURED,
    LEARNING,
    READ_BY_MODELS,
    check_refused,
)


@dataclass(frozen=True)
class ModelComponents:
    """The classes and settings of a model.

    Attributes:
        entry: its place in the registry.
        model_class, dataset_class, trainer_class: what a run builds, in RecBole's interfaces.
        defaults: the model's own settings: its YAML, or what a plug-in declares.
        own_keys: names of the model's own settings.
    """

    entry: ModelEntry
    model_class: Any
    dataset_class: Any
    trainer_class: Any
    defaults: dict[str, Any]
    own_keys: frozenset[str]

    @property
    def known_keys(self) -> frozenset[str]:
        """Names of the settings of the model and of RecBole that a run reads."""
        return self.own_keys | frozenset(HONOURED)

    def keys_for(self, dataset: str) -> frozenset[str]:
        """Names of all settings that a run on a data set reads."""
        unread = LEARNING - self.own_keys if self.learns_nothing else frozenset()
        return (self.known_keys | frozenset(self.defaults_for(dataset))) - unread

    @property
    def learns_nothing(self) -> bool:
        """Whether the model has no weights that are trained."""
        return bool(self.model_class.type.name == "TRADITIONAL")

    def check_unused(self, given: Mapping[str, Any]) -> None:
        """Refuse settings of RecBole and of the trainer that have no effect on the model.

        Raises:
            SettingError: for the first one.
        """
        check_refused(given, self.own_keys)
        unread = LEARNING if self.learns_nothing else frozenset[str]()
        for key in sorted(unread & given.keys() - self.own_keys):
            raise SettingError(
                f"The setting {key!r} has no effect on {self.entry.name}: it is not trained in "
                "steps.",
                found=f"{key} = {shown(given[key])}",
                expected=", ".join(sorted(self.own_keys)) or "no setting of training",
            )

    def defaults_for(self, dataset: str) -> dict[str, Any]:
        """Default settings on a data set, in RecBole's order: all runs < model < data set."""
        return {
            **read_yaml(properties_dir() / "overall.yaml"),
            **self.defaults,
            **dataset_defaults(dataset),
        }


def components(name: str) -> ModelComponents:
    """Find and import all that a run of a model needs.

    Raises:
        UnknownNameError: with the nearest name.
        MissingDependencyError: RecBole, RecBole-GNN or a plug-in's module cannot be imported.
    """
    entry = resolve(name)
    require_recbole()
    model_class = _model_class(entry)
    dataset_class, trainer_class = _dataset_and_trainer(entry)
    defaults = _defaults(entry, model_class)
    settings = getattr(model_class, "settings_class", None)
    own = set(settings.model_fields) if settings else {*_stock_defaults(name), *defaults}
    own |= {key for key, readers in READ_BY_MODELS.items() if name in readers}
    return ModelComponents(
        entry, model_class, dataset_class, trainer_class, defaults, frozenset(own)
    )


def _model_class(entry: ModelEntry) -> Any:
    if entry.family == "recbole-gnn":
        return recbole_gnn.load(entry.name)
    module, _, attribute = entry.target.partition(":")
    if entry.family == "plugin":
        return _plugin_class(entry, module, attribute)
    return getattr(importlib.import_module(module), attribute)


def _plugin_class(entry: ModelEntry, module: str, attribute: str) -> Any:
    """The class of a plug-in, whatever its import does.

    Raises:
        MissingDependencyError: the module, or something it imports, is not there.
        ModelError: the import ends in another error or in an exit, or finds no general recommender.
    """
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise MissingDependencyError(**_not_imported(entry, error)) from error
    except (Exception, SystemExit) as error:
        raise ModelError(**_not_imported(entry, error)) from error
    from recbole.model.abstract_recommender import GeneralRecommender

    if not (isinstance(found, type) and issubclass(found, GeneralRecommender)):
        kind = f"class {found.__name__}" if isinstance(found, type) else type(found).__name__
        raise ModelError(
            f"The plug-in model {entry.name!r} is no general recommender of RecBole.",
            found=f"{kind} in {entry.target}",
            expected="a class derived from recbole.model.abstract_recommender.GeneralRecommender",
        )
    return found


def _not_imported(entry: ModelEntry, error: BaseException) -> dict[str, str]:
    return {
        "problem": f"The plug-in model {entry.name!r} cannot be imported.",
        "found": f"{type(error).__name__}: {error}",
        "expected": entry.target,
        "hint": "repair or uninstall the package that offers it",
    }


def _dataset_and_trainer(entry: ModelEntry) -> tuple[Any, Any]:
    from alignrec_recbole.dataset import MultimodalDataset
    from alignrec_recbole.training import recbole_trainers
    from alignrec_recbole.training.trainer import MultimodalTrainer

    if entry.family == "recbole-gnn":
        graphs = recbole_gnn.dataset_class(MultimodalDataset)
        return graphs, recbole_gnn.trainer_class(entry.name)
    if entry.family == "native":
        return MultimodalDataset, MultimodalTrainer
    if entry.family == "recbole":
        return MultimodalDataset, recbole_trainers.trainer_class(entry.name)
    return MultimodalDataset, recbole_trainers.RecBoleModelTrainer


def _defaults(entry: ModelEntry, model_class: Any) -> dict[str, Any]:
    if entry.family == "recbole-gnn":
        return recbole_gnn.defaults(entry.name)
    if entry.family != "plugin":
        return read_yaml(properties_dir() / "model" / f"{entry.name}.yaml")
    # <Name>.yaml beside a plug-in's module, then the class's default_settings, which win
    file = getattr(sys.modules[model_class.__module__], "__file__", None)
    beside = read_yaml(Path(file).parent / f"{entry.name}.yaml") if file else {}
    own = getattr(model_class, "default_settings", {})
    if not isinstance(own, dict) or not all(isinstance(key, str) for key in own):
        raise ModelError(
            f"The default_settings of the plug-in model {entry.name!r} are no dictionary of names.",
            found=f"{shown(own)} in {entry.target}",
            expected='{"embedding_size": 64}',
        )
    return {**beside, **own}


def _stock_defaults(name: str) -> dict[str, Any]:
    folder = recbole_folder()
    return read_yaml(folder / "properties" / "model" / f"{name}.yaml") if folder else {}
