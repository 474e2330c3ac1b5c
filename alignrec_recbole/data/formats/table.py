"""Any table of interactions: separated text (plain or gzip), Parquet, or a DataFrame.

Columns are named by role: user and item, and where there are any time, rating and split. Separators
are tab, comma, semicolon and `|`: the one with which the first line has the named columns. `#1`,
`#2`, … are columns of a file without a header.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from alignrec_recbole.data.formats.collecting import (
    EXACT,
    Rows,
    add_file,
    bad_cell,
    content_frame,
    numbers,
    read_content,
    splits,
    times,
)
from alignrec_recbole.data.html_text import one_line
from alignrec_recbole.data.source import (
    IMAGE,
    ITEM,
    RATING,
    SPLIT,
    TIME,
    USER,
    Source,
    no_items,
)
from alignrec_recbole.errors import AlignRecError, DataError, MissingDependencyError, SettingError
from alignrec_recbole.io.files import inside
from alignrec_recbole.io.opening import is_regular_file, open_input
from alignrec_recbole.io.separated import BATCH, COMMA, TAB, SeparatedFile
from alignrec_recbole.io.text_lines import text_lines

ROLES = (USER, ITEM, TIME, RATING, SPLIT)
SEPARATORS = (TAB, COMMA, ";", "|")
ITEM_IDS = ("item_id", "itemID", "item", "id")
PARQUET = b"PAR1"  # the first bytes of a Parquet file


class RowPlaces:
    """Places of rows that have no line, for errors."""

    def __init__(self, start: int, count: int) -> None:
        self._start, self._count = start, count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, i: int) -> str:
        return f"row {self._start + i + 1}"


def parse_columns(text: str) -> dict[str, str]:
    """Column names by role.

    Raises:
        SettingError: a role is unknown or given twice, or user or item is absent.

    >>> parse_columns("user=uid, item=sku, time=ts")
    {'user': 'uid', 'item': 'sku', 'time': 'ts'}
    """
    out: dict[str, str] = {}
    for part in text.split(","):
        role, equals, name = (piece.strip() for piece in part.partition("="))
        if role not in ROLES or not equals or not name or role in out:
            raise SettingError(
                f"The columns {text!r} cannot be read.",
                found=f"{part.strip()!r}" + (", a second time" if role in out else ""),
                expected="user=NAME,item=NAME and, where there are any, time=NAME,rating=NAME,"
                "split=NAME",
            )
        out[role] = name
    if missing := {USER, ITEM} - set(out):
        raise SettingError(
            f"The columns {text!r} name no {min(missing)}.",
            expected="user=NAME,item=NAME",
        )
    return out


def read(
    path: Path,
    columns: Mapping[str, str],
    items: Path | None = None,
    bad: Counter[str] | None = None,
) -> Source:
    """The interactions of a file, and the content of items in another.

    Args:
        path: separated text or Parquet; which is seen from its first bytes.
        columns: names by role.
        items: a table with an id column (`item_id`, `itemID`, `item`, `id`, or the name of the
            item column) whose other columns are text; `image` are files, `image_url` addresses.

    Raises:
        DataError: a file is damaged, a column is missing or a cell cannot be used; with its line.
        MissingDependencyError: Parquet without pyarrow.
    """
    path, rows = Path(path), Rows(bad)
    if _is_parquet(path):
        with _parquet(path) as file:
            _check_named(path.name, file.schema_arrow.names, columns)
            start = 0
            for batch in file.iter_batches(BATCH, columns=list(dict.fromkeys(columns.values()))):
                start += _add_batch(rows, path, batch.to_pandas(), columns, start)
    else:
        named, file = _opened(path, columns, bad)
        roles = {role: named[role] for role in (TIME, RATING, SPLIT) if role in named}
        add_file(rows, file, named[USER], named[ITEM], **roles)  # type: ignore[arg-type]
    return Source(
        path.name,
        rows.frame(path),
        (path,),
        content_reader(items, columns[ITEM]) if items else no_items,
        notes={"columns": ", ".join(f"{role} = {name}" for role, name in columns.items())},
    )


def from_frame(
    frame: pd.DataFrame, columns: Mapping[str, str], items: pd.DataFrame | None = None
) -> Source:
    """The same of DataFrames.

    Raises:
        DataError: a column is missing, or a value cannot be used; with its row.
    """
    name, rows = Path("the DataFrame"), Rows()
    _check_named(str(name), [str(column) for column in frame.columns], columns)
    for start in range(0, len(frame), BATCH):
        part = frame.iloc[start : start + BATCH]
        _add_batch(rows, name, part.rename(columns=str), columns, start)
    content = no_items if items is None else _frame_content(items, columns[ITEM])
    return Source(str(name), rows.frame(name), read_items=content)


# Separated text -----------------------------------------------------------------------------------


def _opened(
    path: Path, columns: Mapping[str, str], bad: Counter[str] | None
) -> tuple[dict[str, str], SeparatedFile]:
    """The file, and its column names by role."""
    first = next((line for line in text_lines(path) if line.strip()), "")
    names = list(columns.values())
    places = [int(name[1:]) for name in names if re.fullmatch("#[1-9][0-9]{0,3}", name)]
    if len(places) == len(names):
        separator = max(SEPARATORS, key=first.count)
        width = first.count(separator) + 1
        if max(places) > width:
            raise DataError(
                f"{path.name} has no column #{max(places)}.", found=f"{width} cells: {first[:80]!r}"
            )
        return dict(columns), SeparatedFile(
            path, separator, [f"#{number}" for number in range(1, width + 1)], bad=bad
        )
    for separator in SEPARATORS:
        header = [cell.strip().strip('"') for cell in first.split(separator)]
        full = _as_in_header(header, columns)
        if full is not None:
            return full, SeparatedFile(path, separator, bad=bad)
    separator = max(SEPARATORS, key=first.count)
    _check_named(path.name, [cell.strip() for cell in first.split(separator)], columns)
    raise DataError(f"{path.name} has no header that can be read.", found=repr(first[:80]))


def _as_in_header(header: list[str], columns: Mapping[str, str]) -> dict[str, str] | None:
    """Names as the header has them, which may have a type after a colon; None if one is absent."""
    full = {name.partition(":")[0]: name for name in header} | {name: name for name in header}
    found = {role: full.get(name) for role, name in columns.items()}
    return None if None in found.values() else {r: name for r, name in found.items() if name}


def _check_named(name: str, header: list[str], columns: Mapping[str, str]) -> None:
    for role, column in columns.items():
        if header.count(column) != 1:
            many = column in header
            raise DataError(
                f"{name} has {'several columns' if many else 'no column'} {column!r}.",
                found=f"columns {', '.join(header)}" if "".join(header) else "no header",
                expected=f"one column of {role}s",
                hint="name the columns as the header has them: --columns user=NAME,item=NAME; "
                "#1, #2, … are columns of a file without a header",
            )


# Parquet and frames -------------------------------------------------------------------------------


def _is_parquet(path: Path) -> bool:
    with open_input(path, what="table") as handle:
        return handle.read(len(PARQUET)) == PARQUET


@contextmanager
def _parquet(path: Path) -> Iterator[Any]:
    try:
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MissingDependencyError.of_extra(
            f"Reading {path.name} needs pyarrow.", "parquet", str(error).splitlines()[0]
        ) from error
    with open_input(path, what="table") as handle:
        try:
            with pq.ParquetFile(handle) as file:
                yield file
        except AlignRecError:
            raise
        except Exception as error:  # pyarrow's own classes, OSError and UnicodeDecodeError
            raise DataError(
                f"{path.name} is not a readable Parquet file.",
                found=f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}",
                expected="a Parquet file",
            ) from error


def _add_batch(
    rows: Rows, path: Path, frame: pd.DataFrame, columns: Mapping[str, str], start: int
) -> int:
    rows.each_or_all(
        lambda part: _add_frame(rows, path, frame[part], columns, start + part.start), len(frame)
    )
    return len(frame)


def _add_frame(
    rows: Rows, path: Path, frame: pd.DataFrame, columns: Mapping[str, str], start: int
) -> None:
    places: Any = RowPlaces(start, len(frame))
    extra: dict[str, np.ndarray] = {}
    if TIME in columns:
        extra[TIME] = _frame_numbers(rows, path, places, TIME, frame[columns[TIME]])
    if RATING in columns:
        found = _frame_numbers(rows, path, places, RATING, frame[columns[RATING]])
        extra[RATING] = found.astype(np.float64)
    if SPLIT in columns:
        labels = [str(value) for value in frame[columns[SPLIT]]]
        extra[SPLIT] = splits(path, places, labels)
    users, items = (_ids(path, places, role, frame[columns[role]]) for role in (USER, ITEM))
    rows.add(path, places, users, items, **extra)


def _ids(path: Path, places: Any, role: str, values: pd.Series) -> list[str]:
    out = []
    for i, value in enumerate(values.tolist()):
        whole = type(value) is float and value.is_integer() and abs(value) < EXACT
        if whole or isinstance(value, np.integer):
            value = int(value)
        if type(value) not in (str, int):
            raise bad_cell(
                path, places[i], f"{role} id", value, "" if value is None else type(value).__name__
            )
        out.append(str(value))
    return out


def _frame_numbers(rows: Rows, path: Path, places: Any, role: str, values: pd.Series) -> np.ndarray:
    if values.isna().any():
        raise bad_cell(path, places[int(np.flatnonzero(values.isna())[0])], role, None, "")
    if pd.api.types.is_datetime64_any_dtype(values.dtype):
        if values.dt.tz is not None:
            values = values.dt.tz_convert("UTC").dt.tz_localize(None)
        exact = values.to_numpy("datetime64[ns]").astype(np.int64)
        whole = not (exact % 10**9).any()
        return exact // 10**9 if whole else exact / 1e9
    if pd.api.types.is_bool_dtype(values.dtype):
        raise bad_cell(path, places[0], role, values.iloc[0], "a truth value")
    if pd.api.types.is_integer_dtype(values.dtype) or pd.api.types.is_float_dtype(values.dtype):
        found = values.to_numpy()
        bad = ~np.isfinite(found.astype(np.float64)) | (
            (found > np.iinfo(np.int64).max) if found.dtype.kind == "u" else False
        )
        if bad.any():
            i = int(np.flatnonzero(bad)[0])
            raise bad_cell(path, places[i], role, values.iloc[i], "")
        return found.astype(np.int64 if found.dtype.kind in "iu" else np.float64)
    texts = [str(value) for value in values.tolist()]
    if role == TIME:
        return times(path, places, texts, rows.decide_dates(texts[0]))
    return numbers(path, places, role, texts)


# Content of items ---------------------------------------------------------------------------------


def content_reader(path: Path, item: str) -> Callable[[Collection[str]], pd.DataFrame]:
    """How to read the content of items from a table of separated text or Parquet."""

    def read_items(wanted: Collection[str]) -> pd.DataFrame:
        if _is_parquet(path):
            found: dict[str, list[str]] = {}
            with _parquet(path) as file:
                names = list(file.schema_arrow.names)
                column = _id_column(path.name, names, item)
                start = 0
                for batch in file.iter_batches(BATCH):
                    frame = batch.to_pandas(integer_object_nulls=True)  # else ids beside a null
                    _add_content(found, path, frame, column, set(wanted), start)  # are floats
                    start += len(frame)
            return _with_paths(content_frame(found, _others(names, column)), path.parent)
        first = next((line for line in text_lines(path) if line.strip()), "")
        separator = max(SEPARATORS, key=first.count)
        table = SeparatedFile(path, separator, what="item table")
        column = _id_column(path.name, table.columns, item)
        frame = read_content(table, column, _others(table.columns, column), wanted)
        return _with_paths(frame, path.parent)

    return read_items


def _frame_content(items: pd.DataFrame, item: str) -> Callable[[Collection[str]], pd.DataFrame]:
    items = items.rename(columns=str)
    names = list(items.columns)
    column = _id_column("The frame of items", names, item)

    def read_items(wanted: Collection[str]) -> pd.DataFrame:
        found: dict[str, list[str]] = {}
        _add_content(found, Path("the frame of items"), items, column, set(wanted))
        return _with_paths(content_frame(found, _others(names, column)), Path())

    return read_items


def _add_content(
    found: dict[str, list[str]],
    path: Path,
    frame: pd.DataFrame,
    item: str,
    wanted: set[str],
    start: int = 0,
) -> None:
    """Add the texts of the wanted items of a part of a table; `start` rows are before it.

    Raises:
        DataError: an id is a float that may be rounded; with its row.
    """
    places = RowPlaces(start, len(frame))
    others = [frame[name].tolist() for name in _others(list(frame.columns), item)]
    for row, value in enumerate(frame[item].tolist()):
        whole = type(value) is float and value.is_integer()
        if whole and abs(value) >= EXACT:
            raise bad_cell(path, places[row], "item id", value, "a rounded number")
        token = str(int(value) if whole else value).strip()
        if token in wanted and token not in found:
            found[token] = [_cell(column[row]) for column in others]


def _cell(value: Any) -> str:
    if isinstance(value, list | tuple | np.ndarray):
        return ", ".join(text for text in map(_cell, value) if text)
    if value is None or value is pd.NA or value is pd.NaT or value != value:
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return one_line(str(value))


def _others(names: list[str], item: str) -> list[str]:
    """The columns besides the ids; `item` is the name of ids in the result, whatever it is here."""
    return [name for name in names if name not in (item, ITEM)]


def _id_column(name: str, columns: list[str], item: str) -> str:
    twice = next((column for column in columns if columns.count(column) > 1), None)
    if twice is not None:
        raise DataError(
            f"{name} has several columns {twice!r}.",
            found=f"columns {', '.join(columns)}",
            expected="every column once",
        )
    for candidate in (item, *ITEM_IDS):
        if candidate in columns:
            return candidate
    raise DataError(
        f"{name} has no column of item ids.",
        found=f"columns {', '.join(columns)}",
        expected=f"one of {', '.join(dict.fromkeys((item, *ITEM_IDS)))}",
    )


def _with_paths(frame: pd.DataFrame, folder: Path) -> pd.DataFrame:
    """Image files as paths: names in the table are relative to images/ beside it, or to its folder.

    Raises:
        DataError: a name leads out of the folder.
    """
    if IMAGE in frame:
        frame[IMAGE] = [_image(folder, name) if name else "" for name in frame[IMAGE]]
    return frame


def _image(folder: Path, name: str) -> str:
    places = (inside(folder / "images", name), inside(folder, name))
    return next((str(path) for path in places if is_regular_file(path)), "")
