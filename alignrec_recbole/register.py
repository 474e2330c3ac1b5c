"""Names → models, for this package's runner and for stock RecBole.

`install()` makes stock `run_recbole(model="AlignRec", …)` find our models, data set, trainer and
YAML defaults through the import system, without touching the installed wheel. Names that RecBole
has itself keep their stock classes there; our own runner passes classes.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

from alignrec_recbole import recbole_gnn
from alignrec_recbole.errors import MissingDependencyError, UnknownNameError
from alignrec_recbole.yaml_files import properties_dir, read_yaml

ENTRY_POINTS = "alignrec_recbole.models"
_RECBOLE = "recbole.model.general_recommender"
OTHER_TRAINING = {"RaCT", "RecVAE"}  # of RecBole, with a trainer of their own


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
        _ours("VBPR", "vbpr", needs_features=True),
        _ours("BM3", "bm3", needs_features=True),
        _ours("FREEDOM", "freedom", needs_features=True),
        _ours("LATTICE", "lattice", needs_features=True),
        _ours("MGCN", "mgcn", needs_features=True),
        _ours("ItemKNNCBF", "itemknncbf", needs_features=True),
        _ours("SMORE", "smore", needs_features=True),
        _ours("LGMRec", "lgmrec", needs_features=True),
        _ours("PGL", "pgl", needs_features=True),
        _ours("SLMRec", "slmrec", needs_features=True),
        _ours("DRAGON", "dragon", needs_features=True),
        _ours("GUME", "gume", needs_features=True),
        _ours("MMGCN", "mmgcn", needs_features=True),
        _ours("GRCN", "grcn", needs_features=True),
        _ours("DualGNN", "dualgnn", needs_features=True),
        ModelEntry("EASE", f"{_RECBOLE}.ease:EASE", "recbole"),
        ModelEntry("ItemKNN", f"{_RECBOLE}.itemknn:ItemKNN", "recbole"),
    )
}


def plugins() -> dict[str, ModelEntry]:
    """Models that installed packages offer under the entry-point group alignrec_recbole.models.

    `Name = "package.module:Class"`; with `[features]` behind it, the model needs item features.
    """
    return {
        point.name: ModelEntry(
            point.name, f"{point.module}:{point.attr}", "plugin", "features" in point.extras
        )
        for point in metadata.entry_points(group=ENTRY_POINTS)
    }


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
    if name in OTHER_TRAINING:
        raise UnknownNameError(
            f"{name} cannot be trained here.",
            came=name,
            expected="a model that learns from one loss a batch",
            next=f"run it in RecBole itself: its {name}Trainer trains in parts of its own",
        )
    if name in stock:
        return ModelEntry(name, f"{_RECBOLE}.{name.lower()}:{name}", "recbole")
    if name in recbole_gnn.MODELS:
        return ModelEntry(name, recbole_gnn.target(name), "recbole-gnn")
    names = sorted({*MODELS, *plugins(), *stock, *recbole_gnn.MODELS} - OTHER_TRAINING)
    by_case = {known.lower(): known for known in names}
    near = [by_case[m] for m in difflib.get_close_matches(name.lower(), by_case, n=1)]
    raise UnknownNameError(
        f"There is no model {name!r}." + (f" Did you mean {near[0]!r}?" if near else ""),
        came=name,
        expected=f"one of {', '.join(names)}",
        next="check the spelling, or install the package that offers it",
    )


@functools.cache
def _stock_models() -> frozenset[str]:
    """Class names of RecBole's general recommenders, read in its files without importing them."""
    spec = importlib.util.find_spec("recbole")
    if spec is None or not spec.submodule_search_locations:
        return frozenset()
    folder = Path(spec.submodule_search_locations[0]) / "model" / "general_recommender"
    return frozenset(
        name
        for path in folder.glob("*.py")
        for name in re.findall(r"^class (\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)
        if name.lower() == path.stem
    )


def load_class(name: str) -> Any:
    """The class of a model.

    Raises:
        MissingDependencyError: a plug-in's module or class cannot be imported.
    """
    entry = resolve(name)
    if entry.family == "recbole-gnn":
        return recbole_gnn.load(name)
    module, _, attribute = entry.target.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        if entry.family != "plugin":
            raise
        raise MissingDependencyError(
            f"The plug-in model {name!r} cannot be imported.",
            came=f"{type(error).__name__}: {error}",
            expected=entry.target,
            next="repair or uninstall the package that offers it",
        ) from error


def prepare(name: str) -> RunParts:
    """Classes and known setting names of a model, for the runner."""
    model_class = load_class(name)
    settings = getattr(model_class, "settings_class", None)
    keys = set(settings.model_fields) if settings else _yaml_keys(name)
    return RunParts(
        model_class, dataset_class(name), trainer_class(name), frozenset(keys | _recbole_keys())
    )


def dataset_class(name: str) -> Any:
    """The data set class that a model is built on."""
    if resolve(name).family == "recbole-gnn":
        return recbole_gnn.dataset_class()
    from alignrec_recbole.data.dataset import MultimodalDataset

    return MultimodalDataset


def trainer_class(name: str) -> Any:
    """The trainer class of a model."""
    family = resolve(name).family
    if family == "recbole-gnn":
        return recbole_gnn.trainer_class(name)
    if family == "ours":
        from alignrec_recbole.trainer import MultimodalTrainer

        return MultimodalTrainer
    from alignrec_recbole import foreign

    return foreign.trainer_class(name) if family == "recbole" else foreign.ForeignTrainer


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


# Stock RecBole ----------------------------------------------------------------------------------


class _AliasLoader(importlib.abc.Loader):
    def __init__(self, entry: ModelEntry) -> None:
        self.entry = entry

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        setattr(module, self.entry.name, load_class(self.entry.name))


class _ModelFinder(importlib.abc.MetaPathFinder):
    """Answers `recbole.model.general_recommender.<name>` for names that RecBole has not."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        package, _, name = fullname.rpartition(".")
        if package != _RECBOLE:
            return None
        entry = {added.lower(): entry for added, entry in _added_models().items()}.get(name)
        return importlib.machinery.ModuleSpec(fullname, _AliasLoader(entry)) if entry else None


def _added_models() -> dict[str, ModelEntry]:
    """The models that stock RecBole does not have."""
    stock = {name.lower() for name in _stock_models()}
    added = {**plugins(), **MODELS}
    if recbole_gnn.available():
        for name in recbole_gnn.MODELS:
            added.setdefault(name, resolve(name))
    return {name: entry for name, entry in added.items() if name.lower() not in stock}


def _offer_parts() -> None:
    """RecBole looks for `<Model>Dataset` and `<Model>Trainer` in two modules: answer when asked."""
    import recbole.data.dataset
    import recbole.trainer

    parts = (
        (recbole.data.dataset, "Dataset", dataset_class),
        (recbole.trainer, "Trainer", trainer_class),
    )
    for module, suffix, find in parts:
        earlier = module.__dict__.get("__getattr__")
        if not getattr(earlier, "of_alignrec", False):
            module.__getattr__ = _part_getter(module.__name__, suffix, find, earlier)  # type: ignore[attr-defined]


def _part_getter(
    module: str, suffix: str, find: Callable[[str], Any], earlier: Callable[[str], Any] | None
) -> Callable[[str], Any]:
    def get(attribute: str) -> Any:
        name = attribute.removesuffix(suffix)
        if name and name != attribute and not name.startswith("_") and name in _added_models():
            return find(name)
        if earlier is not None:
            return earlier(attribute)
        raise AttributeError(f"module {module!r} has no attribute {attribute!r}")

    get.of_alignrec = True  # type: ignore[attr-defined]
    return get


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
        if self.model in _added_models():
            name, folder = Path(file).name, properties_dir()
            if name == "overall.yaml":
                values = {**read_yaml(folder / "overall.yaml"), **model_defaults(self.model)}
            elif name in ("sample.yaml", f"{self.dataset}.yaml"):
                values = read_yaml(folder / "dataset" / f"{self.dataset}.yaml")
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
        sys.meta_path.append(_ModelFinder())  # last: RecBole's own modules never come here
    _offer_parts()
    _add_defaults_to_config()
