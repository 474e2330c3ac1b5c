"""RecBole's atomic files (`name:type` columns), read here so that every cell is checked.

RecBole's own reader takes a byte order mark for a part of the first name, drops or shifts the cells
of irregular lines, and ends in tracebacks for cells that are not of their type.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from alignrec_recbole.data.interactions import coded_ids
from alignrec_recbole.errors import DataError
from alignrec_recbole.io.tsv import check_lines, line_of, read_cells, read_header

Kind = Literal["token", "token_seq", "float", "float_seq"]  # RecBole's types
KINDS: tuple[Kind, ...] = ("token", "token_seq", "float", "float_seq")
MISSING_NUMBERS = ("", "nan", "NaN", "NA", "N/A", "null", "None")
EXACT = 2**53  # whole numbers below this are exact in float64


def read_types(path: Path, ids: Collection[str], separator: str = "\t") -> dict[str, Kind]:
    """Name → type of the columns of a typed header, in the file's order.

    Args:
        path: .inter, .user, .item or another file of RecBole's layout.
        ids: columns that must be there, of type token.
        separator: of the cells.

    Raises:
        DataError: the header is malformed, or has no such column of type token.
    """
    types: dict[str, Kind] = {}
    header = read_header(path, separator)
    for entry in header:
        name, _, kind = entry.partition(":")
        if not name or kind not in KINDS:
            raise DataError(
                f"{path.name} has a column without a type.",
                found=f"{entry!r} in the header",
                expected=f"{name or 'name'}:{' or :'.join(KINDS)}",
                hint="write the type, or convert the file to tabs if it uses another delimiter",
            )
        if name in types:
            raise DataError(
                f"{path.name} names the column {name!r} twice.",
                found=" | ".join(header),
                expected="every column once",
            )
        types[name] = kind
    for column in ids:
        if column not in types:
            raise DataError(
                f"{path.name} has no column {column!r}.",
                found=f"columns {', '.join(types)}",
                expected=", ".join(f"{name}:token" for name in ids),
                hint="rename the columns, or set USER_ID_FIELD and ITEM_ID_FIELD",
            )
        if types[column] != "token":
            raise DataError(
                f"The ids in column {column!r} of {path.name} are not tokens.",
                found=f"{column}:{types[column]} in the header",
                expected=f"{column}:token",
                hint="write token as its type: ids are names, numbers included",
            )
    return types


def read_atomic_file(
    path: Path,
    types: dict[str, Kind],
    columns: Sequence[str],
    *,
    ids: Collection[str],
    complete: bool,
    separator: str = "\t",
    seq_separator: str = " ",
) -> pd.DataFrame:
    """Columns of a file in RecBole's layout, as RecBole holds them.

    Ids are categories of str, other tokens str (None where a cell is empty), floats float64 (int64
    in a column of whole numbers beyond 2**53), sequences NumPy arrays.

    Args:
        path: the file.
        types: of all its columns, see `read_types`.
        columns: to read.
        ids: columns of ids: none may be empty, and white space around them is no part of them.
        complete: whether floats must be finite numbers in every line; else missing ones are NaN.
        separator: of the cells.
        seq_separator: of the values of a sequence.

    Raises:
        DataError: a line has another number of cells than the header, or a cell is not of its type;
            with the line and the column.
    """
    check_lines(path, len(types), separator)
    coded = [column for column in columns if column in ids]
    cells = read_cells(path, list(types), columns, separator, coded=coded)
    out: dict[str, Any] = {}
    for column in columns:
        text, kind = cells[column], types[column]
        if column in ids:
            out[column] = coded_ids(path, column, text.array)
        elif kind == "token":
            values = text.to_numpy(dtype=object)
            out[column] = np.where(values == "", None, values)
        elif kind == "float":
            out[column] = numbers(path, column, text, complete=complete)
        else:
            parts = [[part for part in cell.split(seq_separator) if part] for cell in text]
            out[column] = (
                [np.array(row) for row in parts]
                if kind == "token_seq"
                else _number_lists(path, column, parts)
            )
    return pd.DataFrame(out)


def numbers(path: Path, column: str, cells: pd.Series, *, complete: bool) -> np.ndarray:
    """Cells as float64, or as int64 if all are whole numbers and float64 would round one.

    Raises:
        DataError: a cell is no number, or with `complete` is empty or not finite.
    """
    codes, texts = pd.factorize(cells)
    values = np.array([_number(text, complete) for text in texts], dtype=object)
    for text, value in zip(texts, values, strict=True):
        if value is None:
            row = int(np.flatnonzero(codes == list(texts).index(text))[0])
            raise _not_a_number(path, column, row, text)
    large = (np.abs(values.astype(np.float64)) >= EXACT).any() if len(values) else False
    if large and (whole := _whole_numbers(texts)) is not None:
        return whole[codes]
    return values.astype(np.float64)[codes]


def _number(text: str, complete: bool) -> float | None:
    """The number in a cell; NaN for a missing one; None for what is no number.

    >>> _number(" 1e3", True), _number("NA", True), _number("2015-01-01", False)
    (1000.0, None, None)
    """
    text = text.strip()
    if text in MISSING_NUMBERS:
        return None if complete else float("nan")
    try:
        value = float(text)
    except ValueError:
        return None
    return None if "_" in text or (complete and not np.isfinite(value)) else value


def _whole_numbers(texts: Sequence[str]) -> np.ndarray | None:
    try:
        return np.array([int(text) for text in texts], dtype=np.int64)
    except (ValueError, OverflowError):  # a decimal, a missing number, or beyond int64
        return None


def _number_lists(path: Path, column: str, rows: list[list[str]]) -> list[np.ndarray]:
    out = []
    for i, row in enumerate(rows):
        values = [_number(part, complete=True) for part in row]
        if None in values:
            raise _not_a_number(path, column, i, row[values.index(None)])
        out.append(np.array(values, dtype=np.float64))
    return out


def _not_a_number(path: Path, column: str, row: int, text: str) -> DataError:
    return DataError(
        f"{path.name} has a cell in column {column!r} that is not a finite number.",
        found=f"{text!r} in line {line_of(path, row)}",
        expected="a number in every line, such as 1700000000 for a time",
        hint="convert the column, or remove these lines; a column that is not loaded is not read",
    )
