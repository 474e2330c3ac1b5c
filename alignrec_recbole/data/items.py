"""Item tables: what an item looks like to an encoder. One text and at most one image an item."""

from __future__ import annotations

import csv
import hashlib
from dataclasses import dataclass
from pathlib import Path

from alignrec_recbole.errors import DataError
from alignrec_recbole.files import inside

ID_COLUMNS = ("item_id", "itemID", "id")
IMAGE_COLUMN = "image"
OTHER_IDS = ("asin", "artistID")  # identifiers, not content


@dataclass(frozen=True)
class ItemTable:
    """Items in the order of their table.

    Attributes:
        ids: tokens, unique.
        texts: text columns joined with ". "; "" where there is none.
        images: image files; None where there is none.
        source: name of the table.
        text_columns: the columns that make the text.
    """

    ids: list[str]
    texts: list[str]
    images: list[Path | None]
    source: str
    text_columns: list[str]

    def content_hash(self) -> str:
        """SHA-256 of ids, texts and image names: equal tables are encoded once."""
        digest = hashlib.sha256()
        for item, text, image in zip(self.ids, self.texts, self.images, strict=True):
            digest.update(f"{item}\x1f{text}\x1f{image.name if image else ''}\x1e".encode())
        return digest.hexdigest()


def find_item_table(dataset_dir: Path, name: str) -> ItemTable:
    """Read a data set's `items.tsv`, `items.parquet` or RecBole `NAME.item`, the first there is.

    Raises:
        DataError: there is none.
    """
    for file in ("items.tsv", "items.parquet", f"{name}.item"):
        path = dataset_dir / file
        if path.is_file():
            return read_item_table(path)
    raise DataError(
        f"Data set {name!r} has no item table to encode.",
        came=f"no items.tsv, items.parquet or {name}.item in {dataset_dir}",
        expected="a table with an id column and text columns or an image column",
        next="put an items.tsv there, or name a feature file with --features",
    )


def read_item_table(path: Path, image_dir: Path | None = None) -> ItemTable:
    """Read an item table; columns besides the id, the image and other identifiers are text.

    Args:
        path: .tsv (or RecBole's .item, with typed headers) or .parquet.
        image_dir: folder of the images; default `images/` beside the table.

    Raises:
        DataError: the file is missing, not UTF-8, not tab-separated, ragged, without an id column,
            empty, names an item twice, or an image leads out of its folder.
    """
    path = Path(path)
    header, rows = _read_parquet(path) if path.suffix == ".parquet" else _read_tabs(path)
    columns = [column.partition(":")[0] for column in header]
    id_column = next((columns.index(name) for name in ID_COLUMNS if name in columns), None)
    if id_column is None:
        raise DataError(
            f"{path.name} has no id column.",
            came=f"columns {', '.join(columns)}",
            expected=f"one of {', '.join(ID_COLUMNS)}, in a tab-separated header",
            next="rename the column, or convert the file to tabs",
        )
    if not rows:
        raise DataError(f"{path.name} has a header but no items.", came=str(path))
    image_column = columns.index(IMAGE_COLUMN) if IMAGE_COLUMN in columns else None
    text_columns = [
        i
        for i, column in enumerate(columns)
        if i not in (id_column, image_column) and column not in OTHER_IDS
    ]
    folder = image_dir or path.parent / "images"
    ids, texts, images = [], [], []
    for row in rows:
        ids.append(row[id_column])
        texts.append(". ".join(row[i].strip() for i in text_columns if row[i].strip()))
        file = row[image_column].strip() if image_column is not None else ""
        images.append(inside(folder, file) if file else None)
    _check_ids(path, ids)
    return ItemTable(ids, texts, images, path.name, [columns[i] for i in text_columns])


def _check_ids(path: Path, ids: list[str]) -> None:
    empty = [i for i, item in enumerate(ids) if not item.strip()]
    if empty:
        raise DataError(
            f"{path.name} has items without an id.",
            came=f"{len(empty)} of them, first in row {empty[0] + 1}",
            expected="an id in every row",
        )
    if len(set(ids)) != len(ids):
        seen: set[str] = set()
        twice = next(item for item in ids if item in seen or seen.add(item))  # type: ignore[func-returns-value]
        raise DataError(
            f"{path.name} names an item twice.",
            came=f"item {twice!r}; {len(ids) - len(set(ids))} repeated",
            expected="every item once",
        )


def _read_tabs(path: Path) -> tuple[list[str], list[list[str]]]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DataError(f"There is no item table {path}.") from None
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path.name} is not UTF-8 text.",
            came=f"byte 0x{error.object[error.start]:02x} at position {error.start}",
            expected="UTF-8",
            next="convert it, for example with iconv -f LATIN1 -t UTF-8",
        ) from error
    if not text.strip():
        raise DataError(f"{path.name} is empty.", came=str(path), expected="a header and items")
    for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_NONE):  # some tables hold stray quotes
        rows = list(csv.reader(text.splitlines(), delimiter="\t", quoting=quoting))
        header, rows = rows[0], [row for row in rows[1:] if row]
        ragged = [i for i, row in enumerate(rows) if len(row) != len(header)]
        if not ragged:
            return header, rows
    raise DataError(
        f"{path.name} is not a regular tab-separated table.",
        came=f"{len(ragged)} rows of another width, first in row {ragged[0] + 1}: "
        f"{len(rows[ragged[0]])} cells",
        expected=f"{len(header)} cells in every row",
    )


def _read_parquet(path: Path) -> tuple[list[str], list[list[str]]]:
    import pandas as pd

    try:
        frame = pd.read_parquet(path)
    except ImportError as error:
        from alignrec_recbole.errors import MissingDependencyError

        raise MissingDependencyError(
            f"Reading {path.name} needs pyarrow.",
            came=str(error).splitlines()[0],
            expected="the extra 'parquet'",
            next='pip install "alignrec-recbole[parquet]"',
        ) from error
    except Exception as error:
        raise DataError(
            f"{path.name} is not a readable Parquet file.", came=str(error).splitlines()[0]
        ) from error
    cells = frame.astype(object).where(frame.notna(), "").astype(str)
    return list(map(str, frame.columns)), cells.to_numpy().tolist()
