"""What makes stock `run_recbole(model="AlignRec", …)` find this package's and plug-ins' models.

RecBole's `get_model`, `get_trainer`, `create_dataset` and `data_preparation` are wrapped, and
Config reads the YAML defaults of these models. Such a run has the settings, initial weights, lists
and metrics of the same run on the command line. Names that RecBole has itself (LightGCN, BPR, Pop,
…) keep their classes there, unless the configuration gives this package's `setting`: mmrec or
recbole.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignrec_recbole.compat.imports import recbole_folder
from alignrec_recbole.compat.patching import replace_function
from alignrec_recbole.data.dataset_paths import CARD_KEYS
from alignrec_recbole.errors import SettingError, UnknownNameError
from alignrec_recbole.io.suggest import suggest
from alignrec_recbole.registry import recbole_gnn
from alignrec_recbole.registry.models import MODELS, plugins, resolve, stock_names

if TYPE_CHECKING:
    from alignrec_recbole.registry.components import ModelComponents

CONVENTIONS = ("mmrec", "recbole")  # values of `setting`


def _components(name: str) -> ModelComponents:
    """The classes and defaults of a model; their module is not needed before the first model."""
    from alignrec_recbole.registry.components import components

    return components(name)


class PackageName(str):
    """The name of a model of RecBole that a Config runs with this package's classes."""

    __slots__ = ()


def register() -> None:
    """Extend each module of RecBole once it is imported; those that are already, now."""
    import wrapt

    for module, extend in (
        ("recbole.utils.utils", _wrap_look_ups),
        ("recbole.data.utils", _wrap_data_functions),
        ("recbole.config.configurator", _add_defaults_to_config),
    ):
        wrapt.register_post_import_hook(extend, module)


def is_added(name: str) -> bool:
    """Whether a name means a model of this package or a plug-in, not a class of RecBole."""
    return isinstance(name, PackageName) or _is_ours_alone(name)


def _is_ours_alone(name: str) -> bool:
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
            return _components(model_name).model_class
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
            return _components(model_name).trainer_class
        return get_trainer(model_type, model_name)

    replace_function(get_model, find_model)
    replace_function(get_trainer, find_trainer)


def _names_in_recbole() -> set[str]:
    folder = recbole_folder()
    yamls = (folder / "properties" / "model").glob("*.yaml") if folder else ()
    return {path.stem for path in yamls} | {*MODELS, *plugins()}


def _wrap_data_functions(data_utils: Any) -> None:
    """Let `create_dataset` and `data_preparation` serve the added models."""
    create, prepare = data_utils.create_dataset, data_utils.data_preparation
    if hasattr(create, "__wrapped__"):
        return

    @functools.wraps(create)
    def create_dataset(config: Any) -> Any:
        """Build the model's own data set class, which RecBole looks for as `<Model>Dataset`."""
        name = config["model"]
        if not is_added(name):
            return create(config)
        import recbole.data.dataset as classes

        from alignrec_recbole.runtime import hardware

        hardware.set_threads(config["threads"])
        attribute = f"{name}Dataset"
        setattr(classes, attribute, _components(name).dataset_class)
        try:
            return create(config)
        finally:
            delattr(classes, attribute)

    @functools.wraps(prepare)
    def data_preparation(config: Any, dataset: Any) -> Any:
        loaders = prepare(config, dataset)
        if is_added(config["model"]):
            from alignrec_recbole.training.ranking_tasks import remember_splits

            remember_splits(*loaders)
        return loaders

    replace_function(create, create_dataset)
    replace_function(prepare, data_preparation)


def _add_defaults_to_config(configurator: Any) -> None:
    """Give the added models this package's defaults, above RecBole's files as on the command line.

    Order within: all runs < model < data set; files, dicts and the command line win over all.
    """
    original = configurator.Config
    if hasattr(original._update_internal_config_dict, "__wrapped__"):
        return
    look_up, read, build = (
        original._get_model_and_dataset,
        original._update_internal_config_dict,
        original.__init__,
    )

    @functools.wraps(look_up)
    def _get_model_and_dataset(self: Any, model: Any, dataset: Any) -> Any:
        name = self.external_config_dict.get("model") if model is None else model
        setting = self.external_config_dict.get("setting")
        if isinstance(name, str) and setting in CONVENTIONS and not is_added(name):
            model = _package_name(name, setting)
        found = look_up(self, model, dataset)
        if is_added(found[0]):
            from alignrec_recbole.training.recbole_settings import check_stock

            check_stock(self.external_config_dict, _components(found[0]).own_keys)
        return found

    @functools.wraps(read)
    def _update_internal_config_dict(self: Any, file: str) -> Any:
        result = read(self, file)
        if is_added(self.model):
            self.internal_config_dict.update(_defaults(str(self.model), self.dataset))
        return result

    @functools.wraps(build)
    def __init__(self: Any, *arguments: Any, **keywords: Any) -> None:
        build(self, *arguments, **keywords)
        if is_added(self.model) and not self["features_cache"]:
            folder = Path(self["checkpoint_dir"]) / "features" / self.dataset
            self.final_config_dict["features_cache"] = str(folder)

    original._get_model_and_dataset = _get_model_and_dataset
    original._update_internal_config_dict = _update_internal_config_dict
    original.__init__ = __init__


def _package_name(name: str, setting: str) -> PackageName:
    """A name of RecBole that is run with this package's classes, since `setting` asks for them.

    Raises:
        SettingError: there is no such general recommender.
    """
    try:
        return PackageName(resolve(name).name)
    except UnknownNameError as error:
        raise SettingError(
            f"setting={setting} applies to general recommenders; {name} is none that can be run.",
            found=f"model {name}, setting {setting}",
            expected="no `setting`, or a model of `run_benchmark.py list models`",
        ) from error


def _defaults(name: str, dataset: str) -> dict[str, Any]:
    parts = _components(name)
    values = parts.defaults_for(dataset)
    values["features"] = parts.defaults.get("features", list(parts.entry.default_features))
    return {key: value for key, value in values.items() if key not in CARD_KEYS}
