"""The files besides the interactions, under other ids: tables, media, features, id mappings."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from alignrec_recbole.data.amazon.mapping import GENERATED_BY_US
from alignrec_recbole.data.dataset_paths import item_table_names
from alignrec_recbole.data.import_folder import image_placer
from alignrec_recbole.data.interactions import USER_COLUMNS, id_tokens
from alignrec_recbole.data.items import (
    AUDIO_COLUMN,
    ID_COLUMNS,
    IMAGE_COLUMN,
    NOT_A_VALUE,
    ItemTable,
    read_item_table,
    read_parquet_frame,
    read_rows,
    separator_of,
)
from alignrec_recbole.errors import DataError, FeatureError, printable
from alignrec_recbole.features.mmrec import MAX_MAPPING_BYTES
from alignrec_recbole.features.table import (
    BLOCK,
    FeatureTable,
    is_row_number,
    load_features,
    save_features,
)
from alignrec_recbole.io.files import atomic_write
from alignrec_recbole.io.mapped_arrays import create_array, open_array
from alignrec_recbole.io.opening import is_regular_file, read_text
from alignrec_recbole.io.separated import COMMA, quoted
from alignrec_recbole.io.tsv import check_lines, read_cells, read_header

CACHED = "cached_as"  # of a manifest's settings: named by the items' content; encoded again
TOKENS_IN_SETTINGS = ("filled_with_mean",)  # lists of item tokens

Media = Mapping[str, Mapping[str, str]]  # column → item → new name of its file


# Items and users ---------------------------------------------------------------------------------


def item_tables(folder: Path, name: str) -> dict[Path, list[str]]:
    """The item tables of a data set, each with its ids in the order of its rows.

    Raises:
        DataError: one is damaged.
    """
    files = [folder / file for file in item_table_names(name)]
    return {path: read_item_table(path).ids for path in files if os.path.lexists(path)}


def user_tables(folder: Path, name: str) -> dict[Path, list[str]]:
    """RecBole's `NAME.user`, if there is one, with its ids.

    Raises:
        DataError: it is damaged.
    """
    path = folder / f"{name}.user"
    return {path: list(_atomic(path, USER_COLUMNS)[2])} if os.path.lexists(path) else {}


def write_items(
    folder: Path, name: str, scratch: Path, new_name: str, items: dict[str, int]
) -> list[str]:
    """Write the item tables in the order of the new numbers, with their images and audio files."""
    said = []
    for path in item_tables(folder, name):
        table = read_item_table(path)
        media = {IMAGE_COLUMN: _placed("images", table.ids, table.images, scratch, items)}
        if table.audio:
            (scratch / "audio").mkdir(exist_ok=True)  # without it the column would be text
            media[AUDIO_COLUMN] = _placed("audio", table.ids, table.audio, scratch, items)
        target = scratch / path.name.replace(f"{name}.item", f"{new_name}.item")
        if path.suffix == ".parquet":
            _write_parquet(path, target, table, items, media)
        elif path.suffix == ".item":
            _write_atomic(path, target, ID_COLUMNS, items, media)
        else:
            _write_text(path, target, table, items, media)
        words = {IMAGE_COLUMN: "images", AUDIO_COLUMN: "audio files"}
        named = [f"{len(names):,} {words[kind]}" for kind, names in media.items() if names]
        said.append(", ".join([f"{target.name}: {len(table.ids):,} items", *named]))
    return said


def write_users(
    folder: Path, name: str, scratch: Path, new_name: str, users: dict[str, int]
) -> list[str]:
    """Write RecBole's table of users, if there is one."""
    for path in user_tables(folder, name):
        _write_atomic(path, scratch / f"{new_name}.user", USER_COLUMNS, users, {})
        return [f"{new_name}.user"]
    return []


def _placed(
    kind: str,
    ids: Sequence[str],
    files: Sequence[Path | None],
    scratch: Path,
    items: dict[str, int],
) -> dict[str, str]:
    """Link or copy images or audio files under names by the new numbers; item → name of its file.

    A file that is named and cannot be read has a name, too, and no file.
    """
    place = image_placer(scratch / kind)
    names = {}
    for item, file in zip(ids, files, strict=True):
        if file is None:
            continue
        number = str(items[item])
        names[item] = f"{number}{file.suffix.lower()}"
        if is_regular_file(file):
            names[item] = place(file, number)
    return names


def _column(header: Sequence[str], names: Sequence[str]) -> int:
    plain = [column.partition(":")[0].strip() for column in header]
    return next(plain.index(name) for name in names if name in plain)


def _media_columns(header: Sequence[str], media: Media) -> Iterator[tuple[int, Mapping[str, str]]]:
    """The places of the columns that name files, each with the new names by item."""
    plain = [column.partition(":")[0].strip() for column in header]
    return ((plain.index(name), names) for name, names in media.items() if name in plain)


def _write_text(
    path: Path, target: Path, table: ItemTable, items: dict[str, int], media: Media
) -> None:
    header, rows = read_rows(path)
    place = _column(header, ID_COLUMNS)
    for column, names in _media_columns(header, media):
        for item, row in zip(table.ids, rows, strict=True):
            if row[column].strip() not in ("", *NOT_A_VALUE):
                row[column] = names[item]
    for item, row in zip(table.ids, rows, strict=True):
        row[place] = str(items[item])
    rows.sort(key=lambda row: int(row[place]))
    separator = separator_of(path)
    by_rules = any(mark in cell for row in rows for cell in row for mark in f"{separator}\r\n")
    with atomic_write(target, "w") as handle:
        if by_rules or separator == COMMA:
            writer = csv.writer(handle, delimiter=separator, lineterminator="\n")
            writer.writerows([header, *rows])
        else:
            handle.writelines("\t".join(map(quoted, row)) + "\n" for row in [header, *rows])


def _atomic(path: Path, names: Sequence[str]) -> tuple[list[str], Any, np.ndarray]:
    """Header, cells and ids of a file in RecBole's layout."""
    header = read_header(path)
    plain = [column.partition(":")[0] for column in header]
    column = next((header[plain.index(name)] for name in names if name in plain), None)
    if column is None:
        raise DataError(
            f"{path.name} has no ids.",
            found=f"columns {', '.join(header)}",
            expected=f"one of {', '.join(names)}",
        )
    check_lines(path, len(header))
    cells = read_cells(path, header, header)
    ids = id_tokens(path, column, cells[column])
    if len(set(ids)) != len(ids):
        raise DataError(f"{path.name} names an id twice.", expected="every id once")
    return header, cells, ids


def _write_atomic(
    path: Path, target: Path, names: Sequence[str], numbers: dict[str, int], media: Media
) -> None:
    header, cells, ids = _atomic(path, names)
    place = _column(header, names)
    new = np.array([numbers[token] for token in ids])
    cells[header[place]] = new.astype(str)
    for column, files in _media_columns(header, media):
        cells[header[column]] = [
            files.get(token, cell) for token, cell in zip(ids, cells[header[column]], strict=True)
        ]
    with atomic_write(target, "w") as handle:
        handle.write("\t".join(header) + "\n")
        for row in cells.iloc[np.argsort(new)].itertuples(index=False, name=None):
            handle.write("\t".join(row) + "\n")


def _write_parquet(
    path: Path, target: Path, table: ItemTable, items: dict[str, int], media: Media
) -> None:
    frame = read_parquet_frame(path)
    header = [str(column) for column in frame.columns]
    new = np.array([items[token] for token in table.ids])
    frame[frame.columns[_column(header, ID_COLUMNS)]] = new.astype(str)
    for place, names in _media_columns(header, media):
        column = frame.columns[place]
        frame[column] = [
            names.get(token, cell) for token, cell in zip(table.ids, frame[column], strict=True)
        ]
    with atomic_write(target) as handle:
        frame.iloc[np.argsort(new)].reset_index(drop=True).to_parquet(handle)


# Features ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FeatureFile:
    """A feature file of a data set: its place in the folder and its items by row.

    Attributes:
        table: the file; None if it has no manifest, in which case the item of a row is its number.
    """

    path: Path
    place: Path
    items: Sequence[str]
    table: FeatureTable | None


def feature_files(folder: Path, known: Collection[str]) -> Iterator[FeatureFile]:
    """The feature files that belong to a data set's items; others are passed over.

    Args:
        folder: of the data set.
        known: its items.

    Raises:
        FeatureError: a file does not fit its manifest.
    """
    for path in _arrays(folder):
        if _belongs(path, known):
            table = load_features(path) if os.path.lexists(path.with_suffix(".json")) else None
            if table is not None and table.manifest.items is not None:
                items: Sequence[str] = table.manifest.items
            else:
                items = [str(i) for i in range(len(open_array(path)))]
            yield FeatureFile(path, path.relative_to(folder), items, table)


def row_numbers(folder: Path, known: Collection[str]) -> set[str]:
    """The items that rows of feature files without a manifest stand for."""
    found: set[str] = set()
    for file in feature_files(folder, known):
        if file.table is None or file.table.manifest.items is None:
            found.update(file.items)
    return found


def _arrays(folder: Path) -> list[Path]:
    found = []
    for place in (folder, folder / "features"):
        if place.is_dir():
            found += [
                path
                for path in sorted(place.iterdir())
                if path.suffix == ".npy" and path.name[0] != "." and is_regular_file(path)
            ]
    return found


def _belongs(path: Path, known: Collection[str]) -> bool:
    """Whether a file is one of features that stay: not cached ones, nor other arrays."""
    if os.path.lexists(path.with_suffix(".json")):
        return CACHED not in load_features(path).manifest.settings
    matrix = open_array(path, what="feature file")
    if matrix.ndim != 2 or matrix.dtype.kind != "f" or not all(map(is_row_number, known)):
        return False
    return len(matrix) == max(map(int, known)) + 1


def write_features(
    folder: Path, scratch: Path, known: Collection[str], items: dict[str, int]
) -> list[str]:
    """Write the feature files in the order of the new numbers, with their manifests.

    Returns:
        What was written and which arrays were not, in sentences.
    """
    written = []
    for file in feature_files(folder, known):
        new = np.array([items[item] for item in file.items])
        order = np.argsort(new)
        target = scratch / file.place
        if file.table is None:
            _write_array(open_array(file.path), target, order, items)
        else:
            _write_table(file.table, target, order, file.items, items)
        written.append(file.place)
    said = [f"features: {', '.join(path.stem for path in written)}"] if written else []
    others = [path.name for path in _arrays(folder) if path.relative_to(folder) not in written]
    if others:
        said.append(
            printable(
                f"not re-keyed, no features of these items, or cached ones: {', '.join(others)}"
            )
        )
    return said


def _write_array(
    matrix: np.ndarray, target: Path, order: np.ndarray, items: dict[str, int]
) -> None:
    """Write a file without a manifest: the row is the new number, so every item needs one."""
    if len(matrix) != len(items):
        raise FeatureError(
            f"{target.name} has no manifest and no row for some items.",
            found=f"{len(matrix):,} rows; {len(items):,} items in the data set's tables",
            expected="one row per item",
            hint="take the items without a row out of the item table, or write the features with "
            "alignrec_recbole.features.table.save_features",
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    rows = create_array(target, matrix.dtype, matrix.shape)
    for start in range(0, len(order), BLOCK):
        rows[start : start + BLOCK] = matrix[order[start : start + BLOCK]]
    rows.flush()


def _write_table(
    table: FeatureTable,
    target: Path,
    order: np.ndarray,
    tokens: Sequence[str],
    items: dict[str, int],
) -> None:
    old = table.manifest

    def renamed(names: Sequence[str]) -> list[str]:
        return list(map(str, sorted(items[name] for name in names)))

    settings = {
        key: renamed(value) if key in TOKENS_IN_SETTINGS else value
        for key, value in old.settings.items()
    }
    save_features(
        target,
        table.matrix[order],
        name=old.name,
        modality=old.modality,
        encoder=old.encoder,
        settings=settings,
        source=old.source,
        items=renamed(tokens),
        missing=renamed(old.missing),
        without_text=renamed(old.without_text),
        without_image=renamed(old.without_image),
        notes=old.notes,
    )


# Mappings to the ids of the source ---------------------------------------------------------------


def write_mapping_of_ids(
    path: Path, target: Path, original: dict[str, int], numbers: dict[str, int]
) -> None:
    """Write `u_id_mapping.csv` or `i_id_mapping.csv` of the source's ids to the new numbers."""
    first = read_text(path, what="id mapping", max_bytes=MAX_MAPPING_BYTES).splitlines()[0]
    names = re.split(r"[\t,]", first)[:2]
    rows = sorted((numbers[str(number)], token) for token, number in original.items())
    with atomic_write(target, "w") as handle:
        writer = csv.writer(handle, delimiter="\t", lineterminator="\n")
        writer.writerow([*names, GENERATED_BY_US])
        writer.writerows([token, number, "re-keying"] for number, token in rows)
