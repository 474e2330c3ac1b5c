"""Item tables: the content of items, one text and at most one image per item."""

from __future__ import annotations

import contextlib
import csv
import errno
import functools
import hashlib
import io
import os
import stat
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from alignrec_recbole.data.dataset_paths import item_table_path
from alignrec_recbole.errors import (
    AlignRecError,
    DataError,
    MissingDependencyError,
    first_repeated,
)
from alignrec_recbole.io.files import inside, sha256_file
from alignrec_recbole.io.opening import is_regular_file, open_input
from alignrec_recbole.io.separated import COMMA, TAB, unquoted
from alignrec_recbole.io.tsv import not_utf8, wide_cells

if TYPE_CHECKING:
    import pandas as pd

ID_COLUMNS = ("item_id", "itemID", "id")
IMAGE_COLUMN = "image"
AUDIO_COLUMN = "audio"
ORIGINAL_ID = "original_id"  # in tables whose items are numbered
OTHER_IDS = ("asin", "artistID", ORIGINAL_ID)  # identifiers, not content
NUMBER_TYPES = ("float", "float_seq")  # of RecBole's typed headers: measures, not words
MAX_TABLE_BYTES = 8 << 30  # an item table is read whole
CELLS_PER_BYTE = 64  # of a Parquet file, at most: items have ids and texts of their own
SLACK = 1 << 20  # cells of a small one
SEPARATOR_WORDS = {TAB: ("tab", "tab-separated"), COMMA: ("comma", "comma-separated")}
NOT_A_VALUE = ("nan", "NaN")  # how pandas prints an empty cell


@dataclass(frozen=True)
class ItemTable:
    """Items in the order of their table.

    Attributes:
        ids: tokens, unique.
        texts: text columns joined with ". "; "" if all are empty.
        images: image files; None where the table names none.
        source: name of the table.
        text_columns: the columns that make the text.
        image_names: the images as the table names them, with their folders; default: file names.
        audio: audio files; None where the table names none; empty: of no item.
    """

    ids: list[str]
    texts: list[str]
    images: list[Path | None]
    source: str
    text_columns: list[str]
    image_names: list[str] | None = None
    audio: list[Path | None] = field(default_factory=list)

    def with_files(self, media: str) -> ItemTable:
        """The items with the files that an encoder reads, image or audio, in place of the images.

        >>> from pathlib import Path
        >>> table = ItemTable(["a"], ["one"], [None], "t", ["title"], audio=[Path("a.wav")])
        >>> table.with_files("audio").images[0].name, table.with_files("image").images
        ('a.wav', [None])
        """
        if media == "image":
            return self
        files = self.audio or [None] * len(self.ids)
        return replace(self, images=files, image_names=None, audio=[])

    def content_hash(self, images: bool = True) -> str:
        """SHA-256 of ids, texts and, with `images`, the bytes of the image files.

        Tables of equal hash give equal features: an encoder that reads no images asks without them.
        """
        marks = [_image_mark(image) if images else "" for image in self.images]
        return self._hash(marks)

    def name_and_size_hash(self) -> str:
        """The content hash of features made before it covered the bytes of images.

        It equals `content_hash` where no item names an image.
        """
        names = self.image_names or [image.name if image else "" for image in self.images]
        return self._hash([_size_mark(n, i) for n, i in zip(names, self.images, strict=True)])

    def _hash(self, image_marks: list[str]) -> str:
        digest = hashlib.sha256()
        for item, text, mark in zip(self.ids, self.texts, image_marks, strict=True):
            digest.update(f"{item}\x1f{text}\x1f{mark}\x1e".encode())
        return digest.hexdigest()


def _image_mark(image: Path | None) -> str:
    if image is None:
        return ""
    try:
        status = image.stat()
    except (OSError, ValueError):
        return "missing"
    if not stat.S_ISREG(status.st_mode):  # reading a pipe would block forever
        return "not a file"
    stamp = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    try:
        return f"sha256 {_image_sha256(image, stamp)}"
    except OSError:
        return "not readable"


@functools.lru_cache(maxsize=1 << 18)
def _image_sha256(image: Path, stamp: tuple[int, ...]) -> str:
    """The hash of an image's bytes, computed once per process and state of the file (`stamp`)."""
    return sha256_file(image)


def _size_mark(name: str, image: Path | None) -> str:
    if image is None:
        return ""
    return f"{name}\x1f{image.stat().st_size if is_regular_file(image) else 'absent'}"


def find_item_table(dataset_dir: Path, name: str) -> ItemTable:
    """Read a data set's item table, see `item_table_path`.

    Raises:
        DataError: none exists, or it cannot be used.
    """
    return read_item_table(item_table_path(dataset_dir, name))


def read_item_table(path: Path, image_dir: Path | None = None) -> ItemTable:
    """Read an item table; columns besides ids, files and typed numbers are text.

    A cell without a value (empty, nan) adds nothing to the text; an item that names no image has
    None. Image files are not opened: the image encoder reports those that it cannot read.

    Args:
        path: .tsv (or RecBole's .item, with typed headers), .csv (commas) or .parquet.
        image_dir: folder of the images; default `images/` beside the table. Audio files are in
            `audio/` beside the table.

    Raises:
        DataError: the file is missing, not UTF-8, separated otherwise, ragged, without an id
            column, empty, names an item twice, or names a file outside its folder.
    """
    path = Path(path)
    header, rows = _read_parquet(path) if path.suffix == ".parquet" else read_rows(path)
    columns = [column.partition(":")[0].strip() for column in header]
    twice = [name for name, count in Counter(columns).items() if count > 1 and name]
    if twice:
        raise DataError(
            f"{path.name} names the column {twice[0]!r} twice.",
            found=" | ".join(columns),
            expected="every column once",
        )
    id_column = next((columns.index(name) for name in ID_COLUMNS if name in columns), None)
    if id_column is None:
        raise DataError(
            f"{path.name} has no id column.",
            found=f"columns {', '.join(columns)}",
            expected=f"one of {', '.join(ID_COLUMNS)}, in a header separated by "
            f"{SEPARATOR_WORDS[separator_of(path)][0]}s",
            hint="rename the column, or save the file with this separator",
        )
    if not rows:
        raise DataError(f"{path.name} has a header but no items.", found=str(path))
    image_column = columns.index(IMAGE_COLUMN) if IMAGE_COLUMN in columns else None
    audio_column = _audio_column(path, columns)
    text_columns = [
        i
        for i, column in enumerate(columns)
        if i not in (image_column, audio_column) and is_content(header[i])
    ]
    folder = image_dir or path.parent / "images"
    ids, texts, images, names, audio = [], [], [], [], []
    for row in rows:
        cells = ["" if cell.strip() in NOT_A_VALUE else cell.strip() for cell in row]
        ids.append(row[id_column].strip())
        texts.append(". ".join(cells[i] for i in text_columns if cells[i]))
        file = cells[image_column] if image_column is not None else ""
        images.append(_file_path(folder, file) if file else None)
        names.append(file)
        if audio_column is not None:
            sound = cells[audio_column]
            audio.append(_file_path(path.parent / "audio", sound) if sound else None)
    _check_ids(path, ids)
    named = [columns[i] for i in text_columns]
    return ItemTable(ids, texts, images, path.name, named, names, audio)


def is_content(header: str) -> bool:
    """Whether a column is content of the items, and neither ids nor RecBole's typed numbers.

    >>> is_content("title"), is_content("year:token")
    (True, True)
    >>> is_content("price:float"), is_content("id"), is_content("asin:token")
    (False, False, False)
    """
    name, _, kind = header.partition(":")
    return name.strip() not in (*ID_COLUMNS, *OTHER_IDS) and kind not in NUMBER_TYPES


def _audio_column(path: Path, columns: list[str]) -> int | None:
    """The column of audio files: called audio, and the folder audio/ is beside the table."""
    there = AUDIO_COLUMN in columns and (path.parent / "audio").is_dir()
    return columns.index(AUDIO_COLUMN) if there else None


def _file_path(folder: Path, file: str) -> Path:
    """The file of a cell, which may be missing or be no file, but never outside its folder.

    Raises:
        DataError: the cell leads out of the folder, or no file can have its name.
    """
    try:
        return inside(folder, file)
    except DataError:
        if _is_link_loop(folder / file):
            return folder / file
        raise


def _is_link_loop(path: Path) -> bool:
    try:
        os.stat(path)
    except OSError as error:
        return error.errno == errno.ELOOP
    except ValueError:
        return False
    return False


def _check_ids(path: Path, ids: list[str]) -> None:
    empty = [i for i, item in enumerate(ids) if not item.strip()]
    if empty:
        raise DataError(
            f"{path.name} has items without an id.",
            found=f"{len(empty)} of them, first in row {empty[0] + 1}",
            expected="an id in every row",
        )
    if len(set(ids)) != len(ids):
        raise DataError(
            f"{path.name} names an item twice.",
            found=f"item {first_repeated(ids)!r}; {len(ids) - len(set(ids))} repeated",
            expected="every item once",
        )


def separator_of(path: Path) -> str:
    """The character between the cells of an item table that is text.

    >>> separator_of(Path("items.csv")), separator_of(Path("shop.item"))
    (',', '\\t')
    """
    return COMMA if path.suffix == ".csv" else TAB


def read_rows(path: Path) -> tuple[list[str], list[list[str]]]:
    """Header and rows of a file separated by tabs or, as .csv, by commas.

    If every line has as many separators as the header, a line is a row and a quotation mark is a
    character like any other, unless it encloses a whole cell. Otherwise quoted cells may contain
    separators and line ends. A stray quotation mark therefore never swallows the rows after it.
    """
    separator = separator_of(path)
    word, kind = SEPARATOR_WORDS[separator]
    text = _read_text(path)
    if not text.strip():
        raise DataError(f"{path.name} is empty.", found=str(path), expected="a header and items")
    numbered = [(i, line) for i, line in enumerate(text.split("\n"), 1) if line.strip()]
    rows = [[unquoted(cell) for cell in line.split(separator)] for _, line in numbered]
    if ragged := _ragged(rows):
        with contextlib.suppress(csv.Error), wide_cells():
            quoted = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
            cells = [row for row in quoted if any(cell.strip() for cell in row)]
            if cells and not _ragged(cells):
                return cells[0], cells[1:]
        raise DataError(
            f"{path.name} is not a regular {kind} table.",
            found=f"{len(ragged)} rows with another number of cells, first in line "
            f"{numbered[ragged[0]][0]}: {len(rows[ragged[0]])} cells",
            expected=f"{len(rows[0])} cells in every row, as in the header",
            hint=f"separate cells by one {word}, and quote cells that contain {word}s or line ends",
        )
    return rows[0], rows[1:]


def _read_text(path: Path) -> str:
    with open_input(path, what="item table", max_bytes=MAX_TABLE_BYTES) as handle:
        data = handle.read()
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise not_utf8(path, error) from error


def _ragged(rows: list[list[str]]) -> list[int]:
    return [i for i, row in enumerate(rows) if len(row) != len(rows[0])]


def read_parquet_frame(path: Path) -> pd.DataFrame:
    """The frame in a Parquet file.

    Raises:
        DataError: the file is damaged, or has far more cells than bytes.
        MissingDependencyError: pyarrow is not installed.
    """
    import pandas as pd

    try:
        with open_input(path, what="item table", max_bytes=MAX_TABLE_BYTES) as handle:
            _check_cells(path, handle)
            return pd.read_parquet(handle)
    except AlignRecError:
        raise
    except ImportError as error:
        raise MissingDependencyError.of_extra(
            f"Reading {path.name} needs pyarrow.", "parquet", str(error).splitlines()[0]
        ) from error
    except Exception as error:
        raise DataError(
            f"{path.name} is not a readable Parquet file.", found=str(error).splitlines()[0]
        ) from error


def _check_cells(path: Path, handle: BinaryIO) -> None:
    """Refuse a table that would take far more memory than its file lets one think."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        metadata = pq.ParquetFile(handle).metadata
    except (pa.ArrowException, OSError):
        return  # damaged, as reading says
    finally:
        handle.seek(0)
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    cells = sum(group.column(i).num_values for group in groups for i in range(group.num_columns))
    size = os.fstat(handle.fileno()).st_size
    if cells > CELLS_PER_BYTE * size + SLACK:
        raise DataError(
            f"{path.name} has far more cells than a table of items of its size.",
            found=f"{metadata.num_rows:,} rows, {cells:,} cells in {size:,} bytes",
            expected=f"at most {CELLS_PER_BYTE} cells per byte",
            hint="see whether its rows are repeated",
        )


def _read_parquet(path: Path) -> tuple[list[str], list[list[str]]]:
    frame = read_parquet_frame(path)
    names = [str(column) for column in frame.columns]
    cells = [[_cell(value) for value in frame.iloc[:, i]] for i in range(len(names))]
    return names, [list(row) for row in zip(*cells, strict=True)]


def _cell(value: Any) -> str:
    """Text of a Parquet value: lists joined, whole numbers without a point, missing values "".

    >>> _cell(["red", None, "bike"]), _cell(7.0), _cell(float("nan")), _cell(None), _cell(b"A1")
    ('red, bike', '7', '', '', 'A1')
    """
    if isinstance(value, list | tuple) or bool(getattr(value, "ndim", None)):
        return ", ".join(text for text in map(_cell, value) if text)
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if value is None or str(value) in ("<NA>", "NaT", *NOT_A_VALUE):
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)
