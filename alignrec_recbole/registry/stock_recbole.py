"""What makes stock `run_recbole` find this package's models and defaults."""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from alignrec_recbole.compat.checkpoint_patches import _QUICK_START
from alignrec_recbole.errors import UnknownNameError
from alignrec_recbole.io.suggest import suggest
from alignrec_recbole.io.yaml_loader import properties_dir, read_yaml
from alignrec_recbole.registry import recbole_gnn
from alignrec_recbole.registry.components import dataset_class, trainer_class
from alignrec_recbole.registry.defaults import model_defaults
from alignrec_recbole.registry.models import (
    _RECBOLE,
    MODELS,
    ModelEntry,
    _stock_models,
    load_class,
    plugins,
    resolve,
)


def patch_model_names() -> bool:
    """An unknown model ends in `No module named 'lightgbm'`; say what is known instead."""
    from recbole import utils as package
    from recbole.utils import utils as module

    original = module.get_model
    if getattr(original, "_alignrec_patched", False):
        return False

    def get_model(model_name: str) -> Any:
        try:
            return original(model_name)
        except (ModuleNotFoundError, AttributeError, ValueError) as error:
            known = _model_names()
            if model_name in known or model_name in ("LightGBM", "XGBoost"):  # need a package
                raise
            raise UnknownNameError(
                f"Unknown model {model_name!r}." + suggest(model_name, known),
                found=model_name,
                expected=f"one of the {len(known)} models of RecBole, of this package and plug-ins",
                hint="check the spelling, capitals included",
            ) from error

    get_model._alignrec_patched = True  # type: ignore[attr-defined]
    module.get_model = package.get_model = get_model
    for name in ("recbole.config.configurator", _QUICK_START):
        if hasattr(sys.modules.get(name), "get_model"):
            sys.modules[name].get_model = get_model  # type: ignore[attr-defined]
    return True


def _model_names() -> set[str]:
    import recbole

    from alignrec_recbole.registry import models

    yamls = (Path(recbole.__file__).parent / "properties" / "model").glob("*.yaml")
    return {path.stem for path in yamls} | set(models.MODELS) | set(models.plugins())


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
        if not getattr(earlier, "_alignrec_patched", False):
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

    get._alignrec_patched = True  # type: ignore[attr-defined]
    return get


def _add_defaults_to_config() -> None:
    """Load our YAML right after RecBole's files of the same rank, for our models only.

    Internal order: all runs < model < data set; files, dicts and the command line win over all.
    """
    from recbole.config import Config

    original = Config._update_internal_config_dict
    if getattr(original, "_alignrec_patched", False):
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

    update._alignrec_patched = True  # type: ignore[attr-defined]
    Config._update_internal_config_dict = update


def install() -> None:
    """Make stock RecBole find what is registered here; calling it again changes nothing."""
    if not any(isinstance(finder, _ModelFinder) for finder in sys.meta_path):
        sys.meta_path.append(_ModelFinder())  # last: RecBole's own modules never come here
    _offer_parts()
    _add_defaults_to_config()
