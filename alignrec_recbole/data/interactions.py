"""Interaction files, every row checked: MMRec's layout is read here, RecBole's by RecBole.

Tab-separated with a header: a user column (`userID` or `user_id`), an item column (`itemID` or
`item_id`), optionally `x_label` with 0 train, 1 validation, 2 test. Other columns are ignored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from alignrec_recbole.errors import DataError
from alignrec_recbole.io.tsv import AS_WRITTEN, check_lines, read_header

USER_COLUMNS = ("userID", "user_id")
ITEM_COLUMNS = ("itemID", "item_id")
LABEL_COLUMN = "x_label"
TYPES = ("token", "token_seq", "float", "float_seq")  # RecBole's


@dataclass(frozen=True)
class Interactions:
    """Users and items as string tokens, and the split label of each row or None."""

    users: np.ndarray
    items: np.ndarray
    labels: np.ndarray | None


def check_atomic_file(path: Path, columns: Sequence[str], separator: str = "\t") -> None:
    """Check a file in RecBole's layout before RecBole reads it.

    Args:
        path: .inter, .user or .item.
        columns: required names (without type), with a value in every line.
        separator: of the cells.

    Raises:
        DataError: the header, a line or a cell of `columns` is malformed.
    """
    header = read_header(path, separator)
    for entry in header:
        name, colon, kind = entry.partition(":")
        if not colon or kind not in TYPES:
            raise DataError(
                f"{path.name} has a column without a type.",
                found=f"{entry!r} in the header",
                expected=f"{name}:{' or :'.join(TYPES)}",
                hint="write the type, or convert the file to tabs if it uses another delimiter",
            )
    names = [entry.partition(":")[0] for entry in header]
    missing = [column for column in columns if column not in names]
    if missing:
        raise DataError(
            f"{path.name} has no column {missing[0]!r}.",
            found=f"columns {', '.join(names)}",
            expected=", ".join(f"{column}:token" for column in columns),
            hint="rename the columns, or set USER_ID_FIELD and ITEM_ID_FIELD",
        )
    check_lines(path, header, separator)
    _read(path, [header[names.index(column)] for column in columns], separator)


def _read(path: Path, columns: list[str], separator: str) -> pd.DataFrame:
    """The columns as text, none of their cells empty."""
    frame = pd.read_csv(
        path,
        sep=separator,
        usecols=columns,
        dtype=str,
        encoding="utf-8-sig",
        index_col=False,
        **AS_WRITTEN,
    )
    if frame.empty:
        raise DataError(
            f"{path.name} has a header but no rows.", found=str(path), expected="rows below it"
        )
    for column in columns:
        empty = np.flatnonzero(frame[column].str.strip() == "")
        if len(empty):
            raise DataError(
                f"{path.name} has empty cells in column {column!r}.",
                found=f"{len(empty)} of them, first in row {empty[0] + 1} below the header",
                expected="a value in every line",
            )
    return frame


def is_typed(path: Path) -> bool:
    """Whether a file has RecBole's typed header (`user_id:token`)."""
    return all(":" in column for column in read_header(path))


def read_interactions(path: Path) -> Interactions:
    """Read and check an interaction file in MMRec's layout.

    Raises:
        DataError: a column is missing, a label is not 0, 1 or 2, a cell is empty, a pair occurs
            twice, there are no rows (or no training rows), or the bytes are not UTF-8.
    """
    path = Path(path)
    header = read_header(path)
    user, item = _column(path, header, USER_COLUMNS), _column(path, header, ITEM_COLUMNS)
    columns = [user, item] + ([LABEL_COLUMN] if LABEL_COLUMN in header else [])
    check_lines(path, header)
    frame = _read(path, columns, "\t")
    users, items = frame[user].to_numpy(dtype=object), frame[item].to_numpy(dtype=object)
    repeated = frame.duplicated([user, item]).to_numpy()
    if repeated.any():
        first = int(np.flatnonzero(repeated)[0])
        raise DataError(
            f"{path.name} contains the same interaction twice.",
            found=f"{int(repeated.sum())} repeated rows, e.g. user {users[first]!r} and item "
            f"{items[first]!r} in line {first + 2}",
            expected="every user-item pair once",
            hint="remove the repeated rows: they would count twice and could be in two splits",
        )
    labels = _labels(path, frame[LABEL_COLUMN]) if LABEL_COLUMN in header else None
    return Interactions(users, items, labels)


def _labels(path: Path, column: pd.Series) -> np.ndarray:
    known = column.isin(["0", "1", "2"]).to_numpy()
    if not known.all():
        first = int(np.flatnonzero(~known)[0])
        raise DataError(
            f"{path.name} has unknown split labels.",
            found=f"{int((~known).sum())} rows, first {column.iloc[first]!r} in line {first + 2}",
            expected="0 (train), 1 (validation) or 2 (test)",
        )
    labels = column.to_numpy(dtype=object).astype(np.int64)
    for label, part in enumerate(("training", "validation", "test")):
        if not (labels == label).any():
            raise DataError(
                f"{path.name} has no {part} rows.",
                found=f"no row with {LABEL_COLUMN} = {label}",
                expected="rows with the labels 0, 1 and 2",
            )
    return labels


def _column(path: Path, header: list[str], names: tuple[str, ...]) -> str:
    for name in names:
        if name in header:
            return name
    names_found = " | ".join(header)
    raise DataError(
        f"{path.name} has no column {' or '.join(names)}.",
        found=f"columns {names_found}" if len(header) > 1 else f"one column, {names_found!r}",
        expected="a tab-separated header such as userID, itemID, x_label",
        hint="rename the columns, or convert the file to tabs if it uses another delimiter",
    )
