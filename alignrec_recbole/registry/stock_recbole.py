"""What makes stock `run_recbole(model="AlignRec", …)` find this package's and plug-ins' models.

RecBole's `get_model`, `get_trainer` and `create_dataset` are wrapped, and Config reads the YAML
defaults of these models. Names that RecBole has itself (LightGCN, BPR, Pop, …) keep their classes
there.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from alignrec_recbole.compat.imports import recbole_folder
from alignrec_recbole.compat.patching import replace_function
from alignrec_recbole.data.dataset_paths import dataset_defaults
from alignrec_recbole.errors import UnknownNameError
from alignrec_recbole.io.suggest import suggest
from alignrec_recbole.io.yaml_loader import properties_dir, read_yaml
from alignrec_recbole.registry import recbole_gnn
from alignrec_recbole.registry.components import components
from alignrec_recbole.registry.models import MODELS, plugins, stock_names


def register() -> None:
    """Extend each module of RecBole once it is imported; those that are already, now."""
    import wrapt

    for module, extend in (
        ("recbole.utils.utils", _wrap_look_ups),
        ("recbole.data.utils", _wrap_create_dataset),
        ("recbole.config.configurator", _add_defaults_to_config),
    ):
        wrapt.register_post_import_hook(extend, module)


def is_added(name: str) -> bool:
    """Whether a model has this name here and stock RecBole has none of it, in any case."""
    if name.lower() in {stock.lower() for stock in stock_names()}:
        return False
    in_clone = name in recbole_gnn.MODELS and recbole_gnn.available()
    return name in MODELS or in_clone or name in plugins()


def _wrap_look_ups(utils: Any) -> None:
    """Let `get_model` and `get_trainer` answer for the added models, and name unknown ones.

    RecBole ends in `No module named 'lightgbm'` for a model it does not know.
    """
    get_model, get_trainer = utils.get_model, utils.get_trainer
    if hasattr(get_model, "__wrapped__"):
        return

    @functools.wraps(get_model)
    def find_model(model_name: str) -> Any:
        if is_added(model_name):
            return components(model_name).model_class
        try:
            return get_model(model_name)
        except (ModuleNotFoundError, AttributeError, ValueError) as error:
            known = _names_in_recbole()
            if model_name in known or model_name in ("LightGBM", "XGBoost"):  # need a package
                raise
            raise UnknownNameError(
                f"Unknown model {model_name!r}." + suggest(model_name, known),
                found=model_name,
                expected=f"one of the {len(known)} models of RecBole, of this package and plug-ins",
                hint="check the spelling, capitals included",
            ) from error

    @functools.wraps(get_trainer)
    def find_trainer(model_type: Any, model_name: str) -> Any:
        if is_added(model_name):
            return components(model_name).trainer_class
        return get_trainer(model_type, model_name)

    replace_function(get_model, find_model)
    replace_function(get_trainer, find_trainer)


def _names_in_recbole() -> set[str]:
    folder = recbole_folder()
    yamls = (folder / "properties" / "model").glob("*.yaml") if folder else ()
    return {path.stem for path in yamls} | {*MODELS, *plugins()}


def _wrap_create_dataset(data_utils: Any) -> None:
    """Let `create_dataset` build the data set class of an added model.

    RecBole looks for `<Model>Dataset` in recbole.data.dataset: that name is set first.
    """
    original = data_utils.create_dataset
    if hasattr(original, "__wrapped__"):
        return

    @functools.wraps(original)
    def create_dataset(config: Any) -> Any:
        name = config["model"]
        if is_added(name):
            import recbole.data.dataset

            setattr(recbole.data.dataset, f"{name}Dataset", components(name).dataset_class)
        return original(config)

    replace_function(original, create_dataset)


def _add_defaults_to_config(configurator: Any) -> None:
    """Load this package's YAML after RecBole's files of the same rank, for the added models only.

    Order within: all runs < model < data set; files, dicts and the command line win over all.
    """
    original = configurator.Config._update_internal_config_dict
    if hasattr(original, "__wrapped__"):
        return

    @functools.wraps(original)
    def update(self: Any, file: str) -> Any:
        result = original(self, file)
        if is_added(self.model):
            name = Path(file).name
            values: dict[str, Any] = {}
            if name == "overall.yaml":
                parts = components(self.model)
                values = read_yaml(properties_dir() / name)
                values["features"] = list(parts.entry.default_features)
                values |= parts.defaults
            elif name in ("sample.yaml", f"{self.dataset}.yaml"):
                values = dataset_defaults(self.dataset)
            values = {k: v for k, v in values.items() if k not in ("expected", "downloads")}
            self.internal_config_dict.update(values)
        return result

    configurator.Config._update_internal_config_dict = update
