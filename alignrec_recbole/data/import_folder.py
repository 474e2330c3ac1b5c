"""A source in the common form to a data set's folder.

    u_id_mapping.csv, i_id_mapping.csv   original ids and their numbers
    items.tsv, images/, features/        content of the items that remain, where the source has it
    NAME.split.json, NAME.inter          the manifest and the interactions, written last

A folder whose interactions are others is refused before anything is written, and so is a table
of items that has more texts than the new one.
"""

from __future__ import annotations

import csv
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import pandas as pd

from alignrec_recbole.data.amazon.items import image_name
from alignrec_recbole.data.amazon.mapping import GENERATED_BY_US
from alignrec_recbole.data.html_text import one_line
from alignrec_recbole.data.items import ID_COLUMNS, ORIGINAL_ID, OTHER_IDS, read_item_table
from alignrec_recbole.data.made_dataset import write_dataset
from alignrec_recbole.data.numbering import number_ids
from alignrec_recbole.data.source import (
    IMAGE,
    IMAGE_URL,
    ITEM,
    USER,
    Source,
    core,
    first_of_each_pair,
    tokens_of,
)
from alignrec_recbole.data.split_manifest import SplitManifest, read_split_manifest
from alignrec_recbole.data.split_names import Numbering, Split
from alignrec_recbole.errors import DataError
from alignrec_recbole.features.table import save_features
from alignrec_recbole.io.files import atomic_write, sha256_of
from alignrec_recbole.io.mapped_arrays import open_array
from alignrec_recbole.io.opening import open_input
from alignrec_recbole.io.separated import quoted

NOT_TEXT = (*ID_COLUMNS, *OTHER_IDS, IMAGE, IMAGE_URL, ITEM)
LONGEST_STEM = 100  # bytes of an id that becomes a file name


@dataclass(frozen=True)
class Imported:
    """What was written.

    Attributes:
        manifest: of the interactions.
        source: its rows that remain, and those that were skipped.
        was_there: whether the same interactions were there before.
        content: how many items have a text, an image file and an image address.
        urls: address by file name of the images that are to be downloaded.
        features: names of the feature files.
    """

    manifest: SplitManifest
    source: Source
    was_there: bool
    content: dict[str, int]
    urls: dict[str, str]
    features: list[str]


def write_source(
    source: Source,
    folder: Path,
    name: str,
    split: Split,
    *,
    cores: tuple[int, int] | None = None,
    numbering: Numbering = "random",
    images: bool = True,
) -> Imported:
    """Filter, number, split and write a source.

    Args:
        source: what a reader returned.
        folder: of the data set.
        name: of the data set.
        split: how to split; its seed is that of the numbers, too.
        cores: interactions that users and items have at least; None: the format's own.
        numbering: of users and items.
        images: whether image files of the source are linked (or copied) into the folder.

    Raises:
        DataError: no interaction remains, the split cannot be drawn, or the folder has other
            interactions or an item table with more texts.
        WriteError: the folder cannot be written to.
    """
    source = first_of_each_pair(source)
    user_k, item_k = (source.core, source.core) if cores is None else cores
    if max(user_k, item_k) > 1:
        source = core(source, user_k, item_k)
    frame = source.interactions.copy()
    tables = []
    for column in (USER, ITEM):
        tokens = tokens_of(frame, column)
        numbers = number_ids(tokens, numbering, split.seed)
        by_code = np.array([numbers[token] for token in tokens], dtype=np.int64)
        frame[column] = by_code[frame[column].cat.codes.to_numpy()]
        tables.append(numbers)
    users, items = tables
    hashes = {path.name: _hash(path) for path in source.files}
    there = _the_same(folder, name, split, numbering, hashes, users, items, len(frame))
    content = source.read_items(list(items))
    _check_table(folder / "items.tsv", content)
    _write_mapping(folder / "u_id_mapping.csv", ("user_id", "userID"), users)
    _write_mapping(folder / "i_id_mapping.csv", ("item_id", "itemID"), items)
    counts, urls = _write_items(content, items, folder, images)
    features = [
        _write_features(path, kind, items, folder) for kind, path in source.features.items()
    ]
    manifest = there or write_dataset(
        frame,
        folder / f"{name}.inter",
        split,
        numbering=numbering,
        source=hashes,
        skipped=source.skipped,
    )
    return Imported(manifest, source, there is not None, counts, urls, features)


def _hash(path: Path) -> str:
    with open_input(path) as handle:
        return sha256_of(handle)


def _the_same(
    folder: Path,
    name: str,
    split: Split,
    numbering: Numbering,
    hashes: dict[str, str],
    users: dict[str, int],
    items: dict[str, int],
    rows: int,
) -> SplitManifest | None:
    """The manifest of interactions that are there and equal the new ones; None if none are there.

    Raises:
        DataError: there are others.
    """
    inter = folder / f"{name}.inter"
    if not os.path.lexists(inter):
        return None
    manifest = read_split_manifest(folder, name)
    if manifest is not None and manifest.inter_sha256 == _hash(inter):
        made = (manifest.source, manifest.split, manifest.seed, manifest.numbering)
        sizes = (manifest.users, manifest.items, sum(manifest.interactions))
        if made == (hashes, split.text, split.seed, numbering) and sizes == (
            len(users), len(items), rows,
        ):  # fmt: skip
            return manifest
    raise DataError(
        f"There is another {inter.name} already.",
        found=f"{inter}, made from {', '.join(manifest.source)} with split {manifest.split}"
        if manifest
        else f"{inter}, made by something else",
        expected="nothing there, or the result of the same files and options",
        hint="choose another --dataset, or move the folder away",
    )


def _check_table(path: Path, content: pd.DataFrame) -> None:
    """Refuse to replace a table of items by one with fewer texts, or one made by something else."""
    if not os.path.lexists(path):
        return
    there = read_item_table(path)
    texts = sum(1 for text in there.texts if text)
    new = _with_text(content)
    if texts > new or ORIGINAL_ID not in _header(path):
        raise DataError(
            f"The existing {path.name} would be replaced by another table.",
            found=f"{texts} items with a text in {path}; the new table has {new}",
            expected="no table, or one of the same source",
            hint="move it away, or choose another --dataset",
        )


def _header(path: Path) -> list[str]:
    with open_input(path) as handle:
        return handle.readline(1 << 20).decode("utf-8-sig", "replace").strip().split("\t")


def _text_columns(content: pd.DataFrame) -> list[str]:
    return [name for name in content.columns if name and name.partition(":")[0] not in NOT_TEXT]


def _with_text(content: pd.DataFrame) -> int:
    columns = _text_columns(content)
    return int((content[columns] != "").any(axis=1).sum()) if columns else 0


def _write_mapping(path: Path, names: tuple[str, str], numbers: dict[str, int]) -> None:
    """Write an id mapping in MMRec's form; the third column says that it was made here."""
    with atomic_write(path, "w") as handle:
        writer = csv.writer(handle, delimiter="\t", lineterminator="\n")
        writer.writerow([*names, GENERATED_BY_US])
        writer.writerows([token, number, "import"] for token, number in numbers.items())


def _write_items(
    content: pd.DataFrame, items: dict[str, int], folder: Path, images: bool
) -> tuple[dict[str, int], dict[str, str]]:
    """Write items.tsv in the order of the numbers, with the image files; counts and addresses."""
    counts = {"texts": 0, "images": 0, "image addresses": 0}
    urls: dict[str, str] = {}
    if content.empty:
        return counts, urls
    columns = _text_columns(content)
    names = _header_names(columns)
    by_token = content.set_index(ITEM).to_dict("index")
    place_image = image_placer(folder / "images") if images else None
    rows = []
    for token in sorted(items, key=items.__getitem__):
        row = by_token.get(token, {})
        texts = [str(row.get(column, "")) for column in columns]
        image = ""
        if (file := row.get(IMAGE)) and place_image is not None:
            image = place_image(Path(file), token)
            counts["images"] += 1
        elif url := row.get(IMAGE_URL):
            image = _image_file_name(token, ".jpg")
            urls[image] = url
            counts["image addresses"] += 1
        counts["texts"] += any(texts)
        rows.append([str(items[token]), token, *texts, image])
    with atomic_write(folder / "items.tsv", "w") as handle:
        for cells in (["itemID", ORIGINAL_ID, *names, IMAGE], *rows):
            handle.write("\t".join(quoted(cell) for cell in cells) + "\n")
    return counts, urls


def _header_names(columns: Sequence[str]) -> list[str]:
    """Names of text columns as one line each.

    Raises:
        DataError: two are the same then, or but for the type after a colon.
    """
    names = [one_line(column) for column in columns]
    plain = [name.partition(":")[0].strip() for name in names]
    twice = next((name for name in plain if plain.count(name) > 1), None)
    if twice is not None:
        raise DataError(
            f"The item table has several columns {twice!r}.",
            found=", ".join(names),
            expected="every column once",
        )
    return names


def _image_file_name(token: str, suffix: str) -> str:
    if len(token.encode()) > LONGEST_STEM:
        return f"{sha256(token.encode()).hexdigest()}-x{suffix}"
    return image_name(token).removesuffix(".jpg") + suffix


def image_placer(folder: Path) -> Callable[[Path, str], str]:
    """A function that links an image file into the folder, or copies it to another disk."""

    def place(file: Path, token: str) -> str:
        target = folder / _image_file_name(token, file.suffix.lower())
        with open_input(file, what="image") as handle:
            size = os.fstat(handle.fileno()).st_size
            if target.is_file() and target.stat().st_size == size and _hash(target) == _hash(file):
                return target.name
            folder.mkdir(parents=True, exist_ok=True)
            if not os.path.lexists(target):
                try:
                    os.link(file.resolve(), target)
                    return target.name
                except OSError:  # another file system, or one without links
                    pass
            with atomic_write(target) as out:
                shutil.copyfileobj(handle, out, 1 << 20)
        return target.name

    return place


def _write_features(path: Path, modality: str, items: dict[str, int], folder: Path) -> str:
    """Write rows of a feature file whose row is the original number of an item.

    Raises:
        DataError: an item is no row.
    """
    rows = open_array(path, what="feature file")
    tokens: Sequence[str] = sorted(items, key=items.__getitem__)
    places = [int(token) if token.isdecimal() and len(token) < 19 else -1 for token in tokens]
    wrong = next((i for i, place in enumerate(places) if not 0 <= place < len(rows)), None)
    if wrong is not None or rows.ndim != 2:
        raise DataError(
            f"{path.name} does not fit the items.",
            found=f"shape {rows.shape}"
            + (f", and item {tokens[wrong]!r}" if wrong is not None else ""),
            expected="one row per item, at its number",
        )
    matrix = np.asarray(rows[places], dtype=np.float32)
    numbers = [str(items[token]) for token in tokens]
    absent = np.flatnonzero(~matrix.any(axis=1))
    manifest = save_features(
        folder / "features" / path.name,
        matrix,
        name=path.stem,
        modality=modality,  # type: ignore[arg-type]
        encoder="unknown: a file of the data set",
        settings={},
        source=path.name,
        items=numbers,
        missing=[numbers[i] for i in absent],
    )
    return manifest.name
