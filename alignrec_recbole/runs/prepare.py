"""From a run's specification to its resolved configuration and data."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from alignrec_recbole.compat.config import hide_command_line
from alignrec_recbole.data.dataset_paths import find_dataset
from alignrec_recbole.dataset import MultimodalDataset, split_description
from alignrec_recbole.errors import SettingError
from alignrec_recbole.features.table import manifest_summary
from alignrec_recbole.io.files import inside, sha256_file
from alignrec_recbole.registry.components import ModelComponents, components
from alignrec_recbole.runs.spec import CLI_ONLY_KEYS, NON_RESULT_KEYS, PLACES, RunSpec
from alignrec_recbole.runtime import allocator, hardware
from alignrec_recbole.settings import check_keys, read_settings
from alignrec_recbole.training.settings import RunSettings


@dataclass
class Prepared:
    """A run up to the point where training would start."""

    spec: RunSpec
    config: Any
    parts: ModelComponents
    splits: list[MultimodalDataset]
    resolved: dict[str, Any]
    digest: str
    data: dict[str, Any]
    feature_files: dict[str, Any]
    notes: list[str]

    @property
    def stem(self) -> Path:
        """Path of the run's files under the output folder, without a suffix."""
        spec = self.spec
        features = self.feature_name.replace(":", "_").replace("/", "_")
        name = f"{features}-{self.config['setting']}-{self.digest[:8]}-s{spec.seed}"
        protocol = [] if spec.protocol == "full" else [spec.protocol]
        return Path(spec.dataset, *protocol, spec.model, name)

    @property
    def feature_name(self) -> str:
        """Feature sets joined by "+", or none."""
        return "+".join(self.feature_files) or "none"

    def path(self, kind: str, suffix: str) -> Path:
        """`<output>/<kind>/<stem><suffix>`."""
        stem = self.stem
        return self.spec.output / kind / stem.parent / f"{stem.name}{suffix}"

    @property
    def record_path(self) -> Path:
        """Where this run's record lies: `runs`, or `tuning` for a grid point."""
        return self.path("runs" if self.spec.score_test else "tuning", ".json")


def forget(spec: RunSpec) -> None:
    """Delete the saved state of a run."""
    prepare(spec).path("checkpoints", ".state.pt").unlink(missing_ok=True)


def prepare(spec: RunSpec) -> Prepared:
    """Resolve the configuration and read the data.

    Raises:
        DataError, FeatureError, SettingError, UnknownNameError: see their texts.
    """
    parts = components(spec.model)
    inside(spec.output, spec.dataset)
    folder = find_dataset(spec.dataset, spec.data_path)
    given = resolve(spec, parts, folder)
    expected = given.pop("expected", None)
    given.pop("downloads", None)
    device = torch.device(hardware.choose_device(spec.device))
    config = make_config(parts, spec.dataset, given)
    config["device"] = device  # RecBole knows only the first GPU it sees
    if device.index is not None:
        torch.cuda.set_device(device)
    _check_ranking(config)
    hardware.set_threads(config["threads"])
    allocator.phase("load")
    logging.getLogger("recbole").setLevel(logging.WARNING)

    dataset = parts.dataset_class(config)
    notes: list[str] = []
    feature_files = {}
    if isinstance(dataset, MultimodalDataset):
        feature_files = {
            name: manifest_summary(table.manifest) for name, table in dataset.features.items()
        }
        notes += [f"{name}: {note}" for name, f in feature_files.items() for note in f["notes"]]
    splits = dataset.build()
    data = {
        "users": dataset.user_num - 1,
        "items": dataset.item_num - 1,
        "interactions": [len(split.inter_feat) for split in splits],
        "split": split_description(dataset, config),
        "files": {path.name: sha256_file(path) for path in _data_files(dataset, folder)},
    }
    if expected:
        wrong = {k: (data[k], v) for k, v in expected.items() if data[k] != v}
        if wrong:
            notes.append(
                "data differ from the released set: "
                + "; ".join(f"{k} {came}, expected {want}" for k, (came, want) in wrong.items())
            )
    papers = getattr(parts.model_class, "paper_features", None)
    if papers and feature_files:
        notes.append(f"not the paper's features ({papers})")
    resolved = {key: _plain(config[key]) for key in sorted(given) if key not in PLACES}
    resolved.setdefault("eval_args", _plain(config["eval_args"]))
    digest = config_hash(spec, resolved, data, feature_files)
    return Prepared(spec, config, parts, splits, resolved, digest, data, feature_files, notes)


def _data_files(dataset: Any, folder: Path) -> list[Path]:
    """Interactions and, where they are loaded, items and users: those without any count too."""
    files = sorted(folder.glob(f"{dataset.dataset_name}*.inter"))
    loaded = {"item": dataset.item_feat, "user": dataset.user_feat}
    named = [
        folder / f"{dataset.dataset_name}.{kind}"
        for kind, feat in loaded.items()
        if feat is not None
    ]
    return files + [path for path in named if path.is_file()]


def config_hash(
    spec: RunSpec, config: dict[str, Any], data: dict[str, Any], feature_files: dict[str, Any]
) -> str:
    """SHA-256 of all that decides a result but the seed."""
    config = {k: v for k, v in config.items() if k not in NON_RESULT_KEYS}
    if "feature_mask" in config:  # its seed follows the run's
        config["feature_mask"] = {k: v for k, v in config["feature_mask"].items() if k != "seed"}
    return hashlib.sha256(
        json.dumps(
            {
                "config": config,
                "model": spec.model,
                "dataset": spec.dataset,
                "protocol": spec.protocol,
                "data": data["files"],
                "split": data["split"],
                "features": {
                    name: [file["sha256"], file.get("items_sha256")]
                    for name, file in feature_files.items()
                },
            },
            sort_keys=True,
        ).encode()
    ).hexdigest()


def resolve(spec: RunSpec, parts: ModelComponents, folder: Path) -> dict[str, Any]:
    """Every configuration key this package sets; later sources win.

    Defaults of all runs < model < data set < command line.
    """
    given = parts.defaults_for(spec.dataset)
    known = set(given) | set(parts.known_keys)
    check_keys(spec.overrides, known, spec.model)
    _check_reserved(spec.overrides)
    given.update(spec.overrides)
    given.update(
        seed=spec.seed,
        features=list(spec.features),
        features_path=str(spec.features_path) if spec.features_path else None,
        features_cache=str(spec.output / "features" / spec.dataset),
        data_path=str(folder.parent),
        checkpoint_dir=str(spec.output / "checkpoints"),
        show_progress=False,
        gpu_id=_gpu(spec.device),
    )
    if spec.setting:
        given["setting"] = spec.setting
    if spec.epochs is not None:
        given["epochs"] = spec.epochs
    if spec.mask is not None:
        given["feature_mask"] = spec.mask.model_dump()
    read_settings(given, RunSettings, "The trainer", "properties/overall.yaml")
    return given


def _check_reserved(overrides: dict[str, Any]) -> None:
    for key, option in CLI_ONLY_KEYS.items():
        if key in overrides:
            raise SettingError(
                f"The setting {key!r} has an option of its own.",
                found=f"--set {key}={overrides[key]}",
                expected=option,
            )


def _check_ranking(config: Any) -> None:
    mode = config["eval_args"]["mode"]
    if set(mode.values() if isinstance(mode, dict) else [mode]) != {"full"}:
        raise SettingError(
            "Only the full ranking is computed.",
            found=f"eval_args.mode = {mode!r}",
            expected="full",
        )


def make_config(parts: ModelComponents, dataset: str, given: dict[str, Any]) -> Any:
    """A RecBole Config of these values, whatever stands on the command line."""
    from recbole.config import Config

    with hide_command_line():
        config = Config(model=parts.model_class, dataset=dataset, config_dict=dict(given))
    config["data_path"] = str(Path(given["data_path"]) / dataset)
    return config


def _gpu(device: str) -> str:
    """What RecBole writes into CUDA_VISIBLE_DEVICES: what is visible now; nothing for the CPU."""
    if hardware.choose_device(device) == "cpu":
        return ""
    every = ",".join(map(str, range(torch.cuda.device_count())))
    return os.environ.get("CUDA_VISIBLE_DEVICES") or every


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value, default=str))
