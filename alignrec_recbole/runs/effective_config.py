"""The settings of a run: defaults, data set and command line, checked, and as RecBole has them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from alignrec_recbole.compat.config import hide_command_line
from alignrec_recbole.data.dataset_paths import CARD_KEYS
from alignrec_recbole.errors import SettingError
from alignrec_recbole.io.yaml_loader import properties_dir, read_yaml
from alignrec_recbole.registry.components import ModelComponents, dataset_defaults
from alignrec_recbole.runs.spec import CLI_ONLY_KEYS, PATH_KEYS, DataSpec, RunSpec
from alignrec_recbole.runtime import hardware
from alignrec_recbole.settings import check_keys, check_plain, read_settings, shown
from alignrec_recbole.training import captured
from alignrec_recbole.training.recbole_settings import HONOURED, RecBoleSettings, check_refused
from alignrec_recbole.training.settings import DataSettings, TrainingSettings

TRAINING_ONLY = {  # of RecBole's settings
    "epochs",
    "train_batch_size",
    "learner",
    "learning_rate",
    "train_neg_sample_args",
    "eval_step",
    "stopping_step",
    "clip_grad_norm",
    "weight_decay",
    "metric_decimal_place",
}
DEFAULTS_FILE = "properties/overall.yaml"


def data_keys(dataset: str) -> set[str]:
    """Settings of a data set, its split and its ranking: those that `prepare_data` accepts."""
    recbole = set(HONOURED) - TRAINING_ONLY
    return recbole | set(DataSettings.model_fields) | set(_dataset_settings(dataset))


def training_keys() -> set[str]:
    """Settings that only a run with training accepts."""
    ours = set(TrainingSettings.model_fields) - set(DataSettings.model_fields)
    return ours | TRAINING_ONLY


def data_settings(spec: DataSpec, folder: Path) -> dict[str, Any]:
    """Settings of a data set and its ranking; later sources win.

    Defaults of all runs < data set < command line.
    """
    overall = read_yaml(properties_dir() / "overall.yaml")
    given = {key: value for key, value in overall.items() if key in DataSettings.model_fields}
    given.update(_dataset_settings(spec.dataset))
    for key, value in given.items():
        check_plain(key, value, "the defaults of the data set")
    check_refused(spec.overrides)
    _check_overrides(spec.overrides, data_keys(spec.dataset), "the data set")
    given.update(spec.overrides)
    given.update(_options(spec, folder))
    read_settings(given, DataSettings, f"data set {spec.dataset}", DEFAULTS_FILE)
    _check_recbole(given, spec.overrides)
    return given


def run_settings(spec: RunSpec, parts: ModelComponents, folder: Path) -> dict[str, Any]:
    """Settings of a model's run; later sources win.

    Defaults of all runs < model < data set < command line.
    """
    given = parts.defaults_for(spec.dataset)
    for key in CARD_KEYS:
        given.pop(key, None)
    for key, value in given.items():
        check_plain(key, value, f"the defaults of {spec.model} and of the data set")
    parts.check_unused(spec.overrides)
    _check_overrides(spec.overrides, set(given) | set(parts.known_keys), spec.model)
    given.update(spec.overrides)
    given.update(_options(spec.data, folder))
    given.update(
        seed=spec.seed,
        checkpoint_dir=str(spec.output / "checkpoints"),
        show_progress=False,
        gpu_id=visible_gpus(spec.device),
    )
    if spec.epochs is not None:
        given["epochs"] = spec.epochs
    read_settings(given, TrainingSettings, "the trainer", DEFAULTS_FILE)
    read_settings(given, DataSettings, f"data set {spec.dataset}", DEFAULTS_FILE)
    if kind := getattr(parts.model_class, "settings_class", None):
        read_settings(given, kind, spec.model)  # before RecBole makes numbers of texts
    _check_recbole(given, spec.overrides, parts.own_keys)
    if given["captured_steps"]:
        device = hardware.choose_device(spec.device)
        captured.check(parts.model_class, device, given["learner"])
    return given


def effective_config(config: Any, given: dict[str, Any]) -> dict[str, Any]:
    """The settings that this package gave and `eval_args`, with the values RecBole made of them."""
    out = {key: _as_json(config[key]) for key in sorted(given) if key not in PATH_KEYS}
    out.setdefault("eval_args", _as_json(config["eval_args"]))
    return out


def _options(spec: DataSpec, folder: Path) -> dict[str, Any]:
    """What the options of the command line set, of data and features."""
    given: dict[str, Any] = {
        "features": list(spec.features),
        "features_path": str(spec.features_path) if spec.features_path else None,
        "features_cache": str(spec.output / "features" / spec.dataset),
        "data_path": str(folder.parent),
    }
    if spec.setting:
        given["setting"] = spec.setting
    if spec.mask is not None:
        given["feature_mask"] = spec.mask.model_dump()
    if spec.knock_out is not None:
        given["knock_out"] = spec.knock_out.model_dump(mode="json")
    return given


def _dataset_settings(dataset: str) -> dict[str, Any]:
    given = dataset_defaults(dataset)
    return {key: value for key, value in given.items() if key not in CARD_KEYS}


def _check_overrides(overrides: dict[str, Any], known: set[str], owner: str) -> None:
    check_keys(overrides, known, owner)
    for key, option in CLI_ONLY_KEYS.items():
        if key in overrides:
            raise SettingError(
                f"The setting {key!r} has an option of its own.",
                found=f"{key} = {shown(overrides[key])}",
                expected=option,
            )
    for key, value in overrides.items():
        check_plain(key, value)


def _check_recbole(
    given: dict[str, Any], overrides: dict[str, Any], own: Iterable[str] = ()
) -> None:
    """Check RecBole's settings before RecBole reads them, and put those in that others imply.

    Args:
        given: all settings.
        overrides: those of the command line among them.
        own: the model's own, which have its types.

    Raises:
        SettingError: a value or a combination that RecBole cannot use.
    """
    shared = {key: value for key, value in given.items() if key not in own}
    read = read_settings(shared, RecBoleSettings, "RecBole", "docs/settings.md")
    for key in ("user_inter_num_interval", "item_inter_num_interval", "val_interval"):
        if key in overrides:
            given[key] = getattr(read, key)  # [1, 5] as text
    if read.unload_col and given.get("load_col", {}) is not None:
        raise SettingError(
            "The setting 'unload_col' needs all columns to be loaded.",
            found=f"unload_col = {shown(given['unload_col'])} with columns chosen by load_col",
            expected="load_col=null",
        )
    ordered = read.eval_args.order == "TO" or read.eval_args.split.TS is not None
    if "TIME_FIELD" in overrides and "TIME_FIELD" not in own and not ordered:
        raise SettingError(
            "The setting 'TIME_FIELD' has no effect without a split by time.",
            found=f"TIME_FIELD = {shown(overrides['TIME_FIELD'])}",
            expected="eval_args.order=TO or eval_args.split with TS beside it",
        )
    if read.val_interval:
        _load_columns(given, list(read.val_interval))


def _load_columns(given: dict[str, Any], columns: list[str]) -> None:
    """Let the interactions' columns be loaded that another setting reads."""
    loaded = given.get("load_col", {})
    if loaded is None or loaded.get("inter") == "*":
        return
    named = {column for names in loaded.values() for column in names}
    ids = [given.get("USER_ID_FIELD", "user_id"), given.get("ITEM_ID_FIELD", "item_id")]
    inter = list(loaded.get("inter", ids))
    inter += [column for column in columns if column not in named | set(inter)]
    given["load_col"] = {**loaded, "inter": inter}


def make_config(model_class: Any, dataset: str, given: dict[str, Any]) -> Any:
    """A RecBole Config of these values; this process's command line is not read."""
    from recbole.config import Config

    with hide_command_line():
        config = Config(model=model_class, dataset=dataset, config_dict=dict(given))
    config["data_path"] = str(Path(given["data_path"]) / dataset)
    return config


def no_model() -> Any:
    """A class without parameters: RecBole builds a Config for a model class only."""
    from recbole.model.abstract_recommender import GeneralRecommender
    from recbole.utils import InputType

    return type("NoModel", (GeneralRecommender,), {"input_type": InputType.PAIRWISE})


def visible_gpus(device: str) -> str:
    """What RecBole writes into CUDA_VISIBLE_DEVICES: what is visible now; nothing for the CPU."""
    if hardware.choose_device(device) == "cpu":
        return ""
    every = ",".join(map(str, range(torch.cuda.device_count())))
    return os.environ.get("CUDA_VISIBLE_DEVICES") or every


def _as_json(value: Any) -> Any:
    return json.loads(json.dumps(value, default=str))
