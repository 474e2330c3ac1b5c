"""Names → models, for this package's runner and for stock RecBole.

`install()` makes stock `run_recbole(model="AlignRec", …)` find our models, data set, trainer and
YAML defaults through the import system, without touching the installed wheel. Names that RecBole
has itself keep their stock classes there; our own runner passes classes.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml

from alignrec_recbole import recbole_gnn
from alignrec_recbole.errors import SettingError, UnknownNameError
from alignrec_recbole.locate import properties_dir

ENTRY_POINTS = "alignrec_recbole.models"
_RECBOLE = "recbole.model.general_recommender"


@dataclass(frozen=True)
class ModelEntry:
    """A model that can be run by name.

    Attributes:
        name: as on the command line.
        target: "module:Class".
        family: ours, recbole, recbole-gnn or plugin.
        needs_features: it cannot be built without item features.
    """

    name: str
    target: str
    family: str
    needs_features: bool = False


@dataclass(frozen=True)
class RunParts:
    """What the runner needs to build a model."""

    model_class: Any
    dataset_class: Any
    trainer_class: Any | None
    known_keys: frozenset[str]  # settings the model or RecBole reads


def _ours(name: str, module: str, needs_features: bool = False) -> ModelEntry:
    return ModelEntry(name, f"alignrec_recbole.models.{module}:{name}", "ours", needs_features)


MODELS: dict[str, ModelEntry] = {
    entry.name: entry
    for entry in (
        _ours("AlignRec", "alignrec", needs_features=True),
        _ours("LightGCN", "lightgcn"),
        _ours("BPR", "bpr"),
        _ours("Pop", "pop"),
        ModelEntry("EASE", f"{_RECBOLE}.ease:EASE", "recbole"),
        ModelEntry("ItemKNN", f"{_RECBOLE}.itemknn:ItemKNN", "recbole"),
    )
}


def plugins() -> dict[str, ModelEntry]:
    """Models that installed packages offer under the entry-point group alignrec_recbole.models."""
    return {
        point.name: ModelEntry(point.name, point.value, "plugin", _plugin_needs_features(point))
        for point in metadata.entry_points(group=ENTRY_POINTS)
    }


def _plugin_needs_features(point: metadata.EntryPoint) -> bool:
    return "features" in point.extras


def resolve(name: str) -> ModelEntry:
    """Find a model by name: ours, a plug-in's, RecBole's, RecBole-GNN's.

    Raises:
        UnknownNameError: with the nearest name.
        MissingDependencyError: the name is RecBole-GNN's and no clone of it can be imported.
    """
    for known in (MODELS, plugins()):
        if name in known:
            return known[name]
    stock = _stock_models()
    if name in stock:
        return ModelEntry(name, f"{_RECBOLE}.{name.lower()}:{name}", "recbole")
    if name in recbole_gnn.MODELS:
        return ModelEntry(name, recbole_gnn.target(name), "recbole-gnn")
    names = sorted({*MODELS, *plugins(), *stock, *recbole_gnn.MODELS})
    by_case = {known.lower(): known for known in names}
    near = [by_case[m] for m in difflib.get_close_matches(name.lower(), by_case, n=1)]
    raise UnknownNameError(
        f"There is no model {name!r}." + (f" Did you mean {near[0]!r}?" if near else ""),
        came=name,
        expected=f"one of {', '.join(names)}",
        next="check the spelling, or install the package that offers it",
    )


def _stock_models() -> set[str]:
    """Class names of RecBole's general recommenders, read off their YAML files."""
    spec = importlib.util.find_spec("recbole")
    if spec is None or not spec.submodule_search_locations:
        return set()
    root = Path(spec.submodule_search_locations[0])
    modules = {path.stem for path in (root / "model" / "general_recommender").glob("*.py")}
    yamls = (root / "properties" / "model").glob("*.yaml")
    return {path.stem for path in yamls if path.stem.lower() in modules}


def load_class(name: str) -> Any:
    """The class of a model."""
    module, _, attribute = resolve(name).target.partition(":")
    return getattr(importlib.import_module(module), attribute)


def prepare(name: str) -> RunParts:
    """Classes and known setting names of a model, for the runner."""
    entry = resolve(name)
    if entry.family == "recbole-gnn":
        model_class, dataset_class, trainer_class = recbole_gnn.load(name)
    else:
        from alignrec_recbole.data.dataset import MultimodalDataset

        model_class, dataset_class, trainer_class = load_class(name), MultimodalDataset, None
    settings = getattr(model_class, "settings_class", None)
    keys = set(settings.model_fields) if settings else _yaml_keys(name)
    return RunParts(model_class, dataset_class, trainer_class, frozenset(keys | _recbole_keys()))


def load_defaults(model: str, dataset: str) -> dict[str, Any]:
    """Defaults of this package in RecBole's order: all runs < model < data set."""
    out = _read_yaml(properties_dir() / "overall.yaml")
    out.update(model_defaults(model))
    out.update(_read_yaml(properties_dir() / "dataset" / f"{dataset}.yaml"))
    return out


def model_defaults(name: str) -> dict[str, Any]:
    """A model's own defaults: our YAML, a plug-in's `default_settings`, RecBole-GNN's YAML."""
    entry = resolve(name)
    if entry.family == "plugin":
        return dict(getattr(load_class(name), "default_settings", {}))
    if entry.family == "recbole-gnn":
        return recbole_gnn.defaults(name)
    return _read_yaml(properties_dir() / "model" / f"{name}.yaml")


def _read_yaml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise SettingError(f"{path.name} is not valid YAML.", came=str(error)) from error
    if not isinstance(values, dict):
        raise SettingError(f"{path.name} is not a mapping.", came=type(values).__name__)
    return values


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
    return set(_read_yaml(stock)) | set(model_defaults(name))


# Stock RecBole ----------------------------------------------------------------------------------


class _AliasLoader(importlib.abc.Loader):
    def __init__(self, entry: ModelEntry) -> None:
        self.entry = entry

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        setattr(module, self.entry.name, load_class(self.entry.name))
        _offer_parts(self.entry.name)


class _ModelFinder(importlib.abc.MetaPathFinder):
    """Answers `recbole.model.general_recommender.<name>` for names that RecBole has not."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        package, _, name = fullname.rpartition(".")
        if package != _RECBOLE:
            return None
        entry = _added_models().get(name)
        return importlib.machinery.ModuleSpec(fullname, _AliasLoader(entry)) if entry else None


def _added_models() -> dict[str, ModelEntry]:
    """Lower-case name → entry of the models that stock RecBole does not have."""
    stock = {name.lower() for name in _stock_models()}
    added = {**plugins(), **MODELS}
    return {name.lower(): e for name, e in added.items() if name.lower() not in stock}


def _offer_parts(name: str) -> None:
    """Let RecBole's look-up by attribute find our data set and trainer for a model."""
    import recbole.data.dataset
    import recbole.trainer

    from alignrec_recbole.data.dataset import MultimodalDataset
    from alignrec_recbole.trainer import MultimodalTrainer

    setattr(recbole.data.dataset, f"{name}Dataset", MultimodalDataset)
    setattr(recbole.trainer, f"{name}Trainer", MultimodalTrainer)


def _add_defaults_to_config() -> None:
    """Load our YAML right after RecBole's files of the same rank, for our models only.

    Internal order: all runs < model < data set; files, dicts and the command line win over all.
    """
    from recbole.config import Config

    original = Config._update_internal_config_dict
    if getattr(original, "of_alignrec", False):
        return

    def update(self: Any, file: str) -> Any:
        result = original(self, file)
        if str(self.model).lower() in _added_models() and self.model in {*MODELS, *plugins()}:
            name, folder = Path(file).name, properties_dir()
            if name == "overall.yaml":
                values = {**_read_yaml(folder / "overall.yaml"), **model_defaults(self.model)}
            elif name in ("sample.yaml", f"{self.dataset}.yaml"):
                values = _read_yaml(folder / "dataset" / f"{self.dataset}.yaml")
            else:
                values = {}
            values.pop("expected", None)
            values.pop("downloads", None)
            self.internal_config_dict.update(values)
        return result

    update.of_alignrec = True  # type: ignore[attr-defined]
    Config._update_internal_config_dict = update


def install() -> None:
    """Make stock RecBole find what is registered here; calling it again changes nothing."""
    if not any(isinstance(finder, _ModelFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _ModelFinder())
    _add_defaults_to_config()
