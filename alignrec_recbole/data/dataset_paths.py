"""Where data sets are searched, and which are found."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from alignrec_recbole.compat.imports import recbole_folder
from alignrec_recbole.data.rekeyed_names import origin_of
from alignrec_recbole.errors import DataError, DownloadError, UnknownNameError
from alignrec_recbole.io.files import inside
from alignrec_recbole.io.names import check_name, is_safe_name
from alignrec_recbole.io.opening import is_regular_file
from alignrec_recbole.io.suggest import suggest
from alignrec_recbole.io.yaml_loader import properties_dir, read_yaml

SHIPPED = "ml-100k"  # part of the recbole package
OF_FILES = ("card", "downloads", "sources")  # of a data set's YAML: of these very files
ITEM_TABLES = ("items.tsv", "items.csv", "items.parquet")  # beside RecBole's NAME.item
CARD_KEYS = ("expected", *OF_FILES)  # no settings


def data_folders(data_path: Path | None = None) -> list[Path]:
    """Folders searched for data sets: --data-path, else $ALIGNREC_DATA, else ./data."""
    if data_path is not None:
        return [Path(data_path)]
    named = os.environ.get("ALIGNREC_DATA")
    return [Path(named)] if named else [Path("data")]


def find_dataset(name: str, data_path: Path | None = None) -> Path:
    """The folder of a data set.

    ml-100k is also found inside the recbole package, if in none of the folders.

    Raises:
        DataError: the name cannot be that of a folder.
        UnknownNameError: with the folders searched and the remedies.
    """
    folders = data_folders(data_path)
    if path := locate_dataset(name, folders):
        return path
    registered = registered_datasets()
    present = sorted({SHIPPED, *present_datasets(folders)})
    known = name in registered
    problem = "is known, but its files were not found" if known else "is unknown"
    published = known and can_be_downloaded(name)
    rekeyed = origin_of(name)
    raise UnknownNameError(
        f"Data set {name!r} {problem}." + suggest(name, {*registered, *present}),
        found=f"no {name}.inter in {', '.join(str(folder / name) for folder in folders)}",
        expected=f"a folder {name}/ with {name}.inter; present: {', '.join(present)}",
        hint="pass --data-path FOLDER or set ALIGNREC_DATA"
        + (f"; to download it: run_benchmark.py download --dataset {name}" if published else "")
        + (
            f"; to make it: run_benchmark.py prepare --dataset {rekeyed[0]} --rekey {rekeyed[1]}"
            if rekeyed
            else ""
        ),
    )


def locate_dataset(name: str, folders: list[Path]) -> Path | None:
    """The folder of a data set's interactions, or None if there are none.

    Raises:
        DataError: the name cannot be that of a folder, or leads out of the folders.
    """
    paths = [inside(folder, name) for folder in folders]
    check_name(name, "data set", DataError)
    for path in paths:
        if _has_interactions(path, name):
            return path.resolve()
    shipped = recbole_examples()
    if name == SHIPPED and shipped is not None and (shipped / name).is_dir():
        return shipped / name
    return None


def interaction_files(folder: Path, name: str, parts: Sequence[str] | None = None) -> list[Path]:
    """Paths of a data set's interactions: `NAME.inter`, or `NAME.PART.inter` per part.

    Args:
        folder: of the data set.
        name: of the data set.
        parts: RecBole's `benchmark_filename`, or None.
    """
    names = [f"{name}.inter"] if parts is None else [f"{name}.{part}.inter" for part in parts]
    return [folder / each for each in names]


def split_files(folder: Path, name: str) -> list[Path]:
    """The regular files `NAME.PART.inter` of a folder, sorted."""
    return sorted(
        path
        for path in _entries(folder)
        if path.name.startswith(f"{name}.")
        and path.name.endswith(".inter")
        and path.name != f"{name}.inter"
        and is_regular_file(path)
    )


def _has_interactions(folder: Path, name: str) -> bool:
    return is_regular_file(folder / f"{name}.inter") or bool(split_files(folder, name))


def _entries(folder: Path) -> list[Path]:
    """What a folder contains; nothing if it cannot be read. Names are no patterns."""
    try:
        return sorted(folder.iterdir())
    except (OSError, ValueError):
        return []


def registered_datasets() -> list[str]:
    """Names of the data sets that have a file in properties/dataset."""
    return sorted(path.stem for path in (properties_dir() / "dataset").glob("*.yaml"))


def present_datasets(folders: list[Path]) -> list[str]:
    """Names of the data sets whose interactions are in one of the folders."""
    return sorted(
        {
            path.name
            for folder in folders
            for path in _entries(folder)
            if is_safe_name(path.name) and _has_interactions(path, path.name)
        }
    )


def dataset_defaults(name: str) -> dict:
    """The settings of a registered data set; empty for others.

    A re-keyed data set has the settings and the counts of its origin, without card and addresses.

    Raises:
        DataError: the name cannot be that of a folder.
    """
    path = defaults_path(name)
    check_name(name, "data set", DataError)
    found = read_yaml(path)
    return {k: v for k, v in found.items() if k not in OF_FILES} if origin_of(name) else found


def defaults_path(name: str) -> Path:
    """The file with the settings of a data set, or of its origin if it is a re-keyed one."""
    rekeyed = origin_of(name)
    return inside(properties_dir() / "dataset", f"{rekeyed[0] if rekeyed else name}.yaml")


def can_be_downloaded(name: str) -> bool:
    """Whether the file of a registered data set names an address."""
    return bool({"downloads", "sources"} & dataset_defaults(name).keys())


def check_can_be_downloaded(name: str) -> None:
    """Refuse a data set without an address.

    Raises:
        DownloadError: its file names none, or there is no file for it.
    """
    if not can_be_downloaded(name):
        file = f"properties/dataset/{name}.yaml"
        raise DownloadError(
            f"Data set {name!r} has no known address.",
            found=f"no 'downloads' and no 'sources' in {file}",
            hint=f"copy its files into the data folder yourself; see {file}, if it exists",
        )


def recbole_examples() -> Path | None:
    """RecBole's folder of example data, found without importing RecBole; None if not installed."""
    folder = recbole_folder()
    return folder / "dataset_example" if folder else None


def item_table_names(name: str) -> tuple[str, ...]:
    """Where a data set may have its item table; the first that exists is read.

    >>> item_table_names("shop")
    ('items.tsv', 'items.csv', 'items.parquet', 'shop.item')
    """
    return (*ITEM_TABLES, f"{name}.item")


def item_table_path(dataset_dir: Path, name: str) -> Path:
    """The file that `find_item_table` reads.

    Raises:
        DataError: none exists.
    """
    names = item_table_names(name)
    for file in names:
        path = dataset_dir / file
        if os.path.lexists(path):
            return path
    raise DataError(
        f"Data set {name!r} has no item table to encode.",
        found=f"no {', '.join(names[:-1])} or {names[-1]} in {dataset_dir}",
        expected="a table with an id column and text columns or an image column",
        hint="put an items.tsv there, or name a feature file with --features",
    )
