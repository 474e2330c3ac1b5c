"""From a specification to the effective configuration and the data."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from alignrec_recbole.data.dataset_paths import find_dataset, interaction_files
from alignrec_recbole.dataset import MultimodalDataset, refuse_splitting, split_description
from alignrec_recbole.encoders.lookup import check_feature_name
from alignrec_recbole.errors import AlignRecError, DataError, SettingError
from alignrec_recbole.features.published import default_features, expanded
from alignrec_recbole.features.table import manifest_summary
from alignrec_recbole.io.files import inside, sha256_file
from alignrec_recbole.registry.components import ModelComponents, components, dataset_defaults
from alignrec_recbole.runs.effective_config import (
    data_settings,
    effective_config,
    make_config,
    no_model,
    run_settings,
    visible_gpus,
)
from alignrec_recbole.runs.prepared import PreparedData, PreparedRun, prepared_run
from alignrec_recbole.runs.spec import DataSpec, RunSpec
from alignrec_recbole.runtime import allocator, hardware
from alignrec_recbole.runtime.threads import table_numbers
from alignrec_recbole.settings import shown
from alignrec_recbole.training import memory_estimate
from alignrec_recbole.training.metric_names import cutoffs

USUAL_EMBEDDING_SIZE = 64  # of models without a setting of this name, for the number of threads


def delete_checkpoint(spec: RunSpec) -> None:
    """Delete the saved training state of a run."""
    prepare_run(spec).state_path.unlink(missing_ok=True)


def prepare_data(spec: DataSpec) -> PreparedData:
    """Read a data set and its features, for protocols that train nothing.

    Raises:
        DataError, FeatureError, SettingError, UnknownNameError: see their texts.
    """
    folder = _find_folder(spec)
    spec = replace(spec, features=expanded(spec.features, folder))
    given = data_settings(spec, folder)
    of_machine = {"gpu_id": visible_gpus(spec.device), "show_progress": False}
    config = make_config(no_model(), spec.dataset, {**given, **of_machine})
    return _read(spec, MultimodalDataset, config, given, folder)


def check_data_spec(spec: DataSpec) -> None:
    """Refuse what `prepare_data` would refuse of a specification, before any data is read.

    Raises:
        DataError, FeatureError, SettingError, UnknownNameError: as `prepare_data`.
        MissingDependencyError: the extra of an encoder is not installed.
    """
    folder = _find_folder(spec)
    names = expanded(spec.features, folder)
    data_settings(replace(spec, features=names), folder)
    _check_features(spec, names, folder)


def check_run_spec(spec: RunSpec) -> None:
    """Refuse what `prepare_run` would refuse of a specification, before any data is read.

    Raises:
        DataError, FeatureError, SettingError, UnknownNameError: as `prepare_run`.
        MissingDependencyError: the extra of an encoder is not installed.
    """
    parts = components(spec.model)
    folder = _find_folder(spec.data)
    names = _features(spec, parts, folder)
    run_settings(replace(spec, features=names), parts, folder)
    _check_features(spec.data, names, folder)


def _check_features(spec: DataSpec, names: Iterable[str], folder: Path) -> None:
    for name in names:
        check_feature_name(name, folder, spec.dataset, spec.features_path)


def prepare_run(spec: RunSpec) -> PreparedRun:
    """Resolve the configuration of a model's run and read its data.

    Raises:
        DataError, FeatureError, SettingError, UnknownNameError: see their texts.
    """
    parts = components(spec.model)
    folder = _find_folder(spec.data)
    spec = replace(spec, features=_features(spec, parts, folder))
    given = run_settings(spec, parts, folder)
    config = make_config(parts.model_class, spec.dataset, given)
    data = _read(spec.data, parts.dataset_class, config, given, folder)
    notes = list(data.notes)
    papers = getattr(parts.model_class, "paper_features", None)
    if papers and data.feature_files:
        notes.append(f"not the paper's features ({papers})")
    return prepared_run(spec, data, data.effective_config, data.feature_files, notes, parts)


def _features(spec: RunSpec, parts: ModelComponents, folder: Path) -> tuple[str, ...]:
    """The features that are named, else the published ones that are there, else the model's."""
    if spec.features or not parts.entry.needs_features:
        return expanded(spec.features, folder)
    return default_features(folder, otherwise=parts.entry.default_features)


def _find_folder(spec: DataSpec) -> Path:
    inside(spec.output, spec.dataset)
    return find_dataset(spec.dataset, spec.data_path)


def _read(
    spec: DataSpec,
    dataset_class: Any,
    config: Any,
    given: dict[str, Any],
    folder: Path,
) -> PreparedData:
    """Load features and splits under a configuration whose keys are those of `given`."""
    device = torch.device(hardware.choose_device(spec.device))
    config["device"] = device  # RecBole knows only the first GPU it sees
    if device.index is not None:
        torch.cuda.set_device(device)
    hardware.set_threads(config["threads"])
    allocator.phase("load")
    logging.getLogger("recbole").setLevel(logging.WARNING)

    parts = config["benchmark_filename"]
    memory_estimate.check_reading(interaction_files(folder, spec.dataset, parts))
    with _recbole_errors(spec):
        dataset = dataset_class(config)
    refuse_splitting(dataset, spec.overrides.get("eval_args") or {})  # usual values, too
    memory_estimate.check_lists(dataset.user_num, max(cutoffs(config)))
    with _recbole_errors(spec):
        splits = dataset.build()
    notes: list[str] = []
    feature_files = {}
    coverage = {}
    if isinstance(dataset, MultimodalDataset):
        coverage = {n: float(table.present[1:].mean()) for n, table in dataset.features.items()}
        feature_files = {
            name: manifest_summary(table.manifest) for name, table in dataset.features.items()
        }
        notes += [f"{name}: {note}" for name, f in feature_files.items() for note in f["notes"]]
    files = {path.name: sha256_file(path) for path in _data_files(dataset, folder)}
    data = {
        "users": dataset.user_num - 1,
        "items": dataset.item_num - 1,
        "interactions": [len(split.inter_feat) for split in splits],
        "split": split_description(dataset, config, files),
        "files": files,
    }
    if isinstance(dataset, MultimodalDataset) and dataset.users_without_training:
        notes.append(
            "users without a training interaction are not ranked: "
            f"{dataset.users_without_training}, with {dataset.rows_without_training} later "
            "interactions"
        )
    if expected := dataset_defaults(spec.dataset).get("expected"):
        wrong = {k: (data[k], v) for k, v in expected.items() if data[k] != v}
        if wrong:
            notes.append(
                "data differ from the released set: "
                + "; ".join(f"{k} {found}, expected {want}" for k, (found, want) in wrong.items())
            )
    effective = effective_config(config, given)
    numbers = _table_numbers(dataset, config)
    threads = hardware.set_run_threads(config["threads"], numbers)
    return PreparedData(
        config, splits, data, feature_files, effective, notes, numbers, threads, coverage
    )


def _table_numbers(dataset: Any, config: Any) -> int:
    """Numbers in the tables of users and items and in the features."""
    features = dataset.features.values() if isinstance(dataset, MultimodalDataset) else ()
    columns = sum(table.values.shape[1] for table in features)
    size = config["embedding_size"]
    size = size if isinstance(size, int) else USUAL_EMBEDDING_SIZE
    return table_numbers(dataset.user_num - 1, dataset.item_num - 1, size, columns)


def _data_files(dataset: Any, folder: Path) -> list[Path]:
    """Files of the interactions and of the items and users, as far as they are loaded."""
    parts = dataset.config["benchmark_filename"]
    files = sorted(interaction_files(folder, dataset.dataset_name, parts))
    loaded = {"item": dataset.item_feat, "user": dataset.user_feat}
    named = [
        folder / f"{dataset.dataset_name}.{kind}"
        for kind, feat in loaded.items()
        if feat is not None
    ]
    return files + [path for path in named if path.is_file()]


@contextlib.contextmanager
def _recbole_errors(spec: DataSpec) -> Iterator[None]:
    """Errors of RecBole's and pandas' own code become one that names the data set."""
    try:
        yield
    except AlignRecError:
        raise
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        given = ", ".join(f"{key} = {shown(value)}" for key, value in spec.overrides.items())
        raise DataError(
            f"RecBole cannot read data set {spec.dataset!r} with these settings.",
            found=f"{type(error).__name__}: {error}" + (f"; {given}" if given else ""),
            expected="columns of the types that the headers name, and settings that fit them",
        ) from error
    except (AssertionError, NotImplementedError) as error:
        raise SettingError(
            f"RecBole does not support these settings on data set {spec.dataset!r}.",
            found=str(error),
        ) from error
