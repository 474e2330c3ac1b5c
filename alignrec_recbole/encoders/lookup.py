"""From a feature set's name to its file or its encoder, without reading either."""

from __future__ import annotations

import os
from pathlib import Path

from alignrec_recbole.data.dataset_paths import item_table_path
from alignrec_recbole.encoders.registry import (
    ENCODER_SYNTAX,
    ENCODERS,
    EncoderEntry,
    find_encoder,
    missing_extra,
)
from alignrec_recbole.errors import FeatureError, UnknownNameError
from alignrec_recbole.features.derived_names import made_of
from alignrec_recbole.io.files import inside
from alignrec_recbole.io.opening import is_regular_file
from alignrec_recbole.io.suggest import suggest


def check_feature_name(
    name: str, dataset_dir: Path, dataset: str, features_path: str | Path | None = None
) -> None:
    """Refuse a name of `--features` that is no file, encoder, control or filled set of one.

    Raises:
        UnknownNameError, FeatureError: as `find_source` and `made_of`.
        DataError: there is no item table to encode.
        MissingDependencyError: the encoder's extra is not installed.
    """
    name = made_of(name)
    if not name:
        return  # random
    source = find_source(name, dataset_dir, dataset, features_path)
    if isinstance(source, EncoderEntry):
        if missing := source.missing_packages():
            raise missing_extra(source.name, f"no package {', '.join(missing)}")
        item_table_path(dataset_dir, dataset)


def find_source(
    name: str, dataset_dir: Path, dataset: str, features_path: str | Path | None = None
) -> Path | EncoderEntry:
    """The file of a feature set, else the encoder that computes it.

    A name is the stem of a .npy in `features_path`, `dataset_dir` or `dataset_dir/features`, in
    this order; else an encoder.

    Raises:
        UnknownNameError: neither a file nor an encoder has this name.
        FeatureError: `features_path` is not a folder, or the encoder's weights have to be chosen in
            `prepare`.
    """
    if features_path and not os.path.isdir(features_path):
        raise FeatureError(
            f"The folder of features {features_path} does not exist.",
            expected="an existing folder",
            hint="correct --features-path, or omit it",
        )
    if file := find_file(name, dataset_dir, features_path):
        return file
    folders = _folders(dataset_dir, features_path)
    if name.partition(":")[0] not in ENCODERS:
        raise _unknown_features(name, dataset, folders)
    entry = find_encoder(name)
    if not entry.by_name:
        raise FeatureError(
            f"There are no features {name!r} for data set {dataset!r} yet.",
            found=f"no {name}.npy in {_listed(folders)}",
            expected=f"the file that `prepare` writes with the encoder {name!r}: its weights are "
            "chosen there",
            hint=f"run_benchmark.py prepare --dataset {dataset} --encoder {name} --weights base",
        )
    return entry


def find_file(name: str, dataset_dir: Path, features_path: str | Path | None = None) -> Path | None:
    """The .npy of the features called `name`, or None if they have to be encoded."""
    if ":" in name:
        return None
    paths = [inside(folder, f"{name}.npy") for folder in _folders(dataset_dir, features_path)]
    return next((path for path in paths if is_regular_file(path)), None)


def _unknown_features(name: str, dataset: str, folders: list[Path]) -> UnknownNameError:
    files = {path.stem for folder in folders for path in _arrays(folder)}
    extension = name.endswith(".npy")
    return UnknownNameError(
        f"There are no features {name!r} for data set {dataset!r}."
        + suggest(name.removesuffix(".npy"), {*ENCODERS, *files}),
        found=f"no {name.removesuffix('.npy')}.npy in {_listed(folders)}, and no such encoder"
        if name.removesuffix(".npy") not in files
        else f"a name that ends in .npy; {name} is there",
        expected=", ".join([*sorted(files), ENCODER_SYNTAX]),
        hint=f"name it without .npy: {name.removesuffix('.npy')}"
        if extension
        else "put the .npy there, name its folder with --features-path, or make it: "
        "run_benchmark.py prepare --help",
    )


def _arrays(folder: Path) -> list[Path]:
    """The .npy files of a folder, if it can be read."""
    try:
        return [path for path in folder.iterdir() if path.suffix == ".npy"]
    except OSError:
        return []


def _folders(dataset_dir: Path, features_path: str | Path | None) -> list[Path]:
    first = [Path(features_path)] if features_path else []
    return [*first, dataset_dir, dataset_dir / "features"]


def _listed(folders: list[Path]) -> str:
    return ", ".join(map(str, folders))
