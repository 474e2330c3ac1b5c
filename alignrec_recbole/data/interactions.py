"""Reader of interaction files in MMRec's layout, with every row checked.

Tab-separated with a header: a user column (`userID` or `user_id`), an item column (`itemID` or
`item_id`), optionally `x_label` with 0 train, 1 validation, 2 test. Other columns are ignored.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from alignrec_recbole.errors import DataError

USER_COLUMNS = ("userID", "user_id")
ITEM_COLUMNS = ("itemID", "item_id")
LABEL_COLUMN = "x_label"


@dataclass(frozen=True)
class Interactions:
    """Users and items as string tokens, and the split label of each row or None."""

    users: np.ndarray
    items: np.ndarray
    labels: np.ndarray | None


def read_header(path: Path) -> list[str]:
    """Column names of a tab-separated file.

    Raises:
        DataError: the file is missing, empty, or not UTF-8.
    """
    try:
        with open(path, encoding="utf-8") as handle:
            header = handle.readline().rstrip("\r\n")
    except FileNotFoundError:
        raise DataError(f"There is no interaction file {path}.") from None
    except UnicodeDecodeError as error:
        raise _not_utf8(path, error) from error
    if not header.strip():
        raise DataError(
            f"{path.name} is empty.", came=str(path), expected="a header line and interactions"
        )
    return header.split("\t")


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
    try:
        frame = pd.read_csv(
            path, sep="\t", usecols=columns, dtype=str, keep_default_na=False, encoding="utf-8"
        )
    except UnicodeDecodeError as error:
        raise _not_utf8(path, error) from error
    except pd.errors.ParserError as error:
        raise DataError(
            f"{path.name} is not a regular tab-separated table.",
            came=str(error).strip(),
            expected=f"{len(header)} columns in every line",
        ) from error
    if frame.empty:
        raise DataError(f"{path.name} has a header but no interactions.", came=str(path))
    for column in columns:
        empty = np.flatnonzero(frame[column].str.strip() == "")
        if len(empty):
            raise DataError(
                f"{path.name} has empty cells in column {column!r}.",
                came=f"{len(empty)} of them, first in line {empty[0] + 2}",
                expected="a value in every line",
            )
    users, items = frame[user].to_numpy(dtype=object), frame[item].to_numpy(dtype=object)
    repeated = frame.duplicated([user, item]).to_numpy()
    if repeated.any():
        first = int(np.flatnonzero(repeated)[0])
        raise DataError(
            f"{path.name} holds the same interaction twice.",
            came=f"{int(repeated.sum())} repeated rows, for example user {users[first]!r} and item "
            f"{items[first]!r} in line {first + 2}",
            expected="every user-item pair once",
            next="remove the repeated rows: they would count twice and could sit in two splits",
        )
    labels = _labels(path, frame[LABEL_COLUMN]) if LABEL_COLUMN in header else None
    return Interactions(users, items, labels)


def _labels(path: Path, column: pd.Series) -> np.ndarray:
    known = column.isin(["0", "1", "2"]).to_numpy()
    if not known.all():
        first = int(np.flatnonzero(~known)[0])
        raise DataError(
            f"{path.name} has split labels that mean nothing.",
            came=f"{int((~known).sum())} rows, first {column.iloc[first]!r} in line {first + 2}",
            expected="0 (train), 1 (validation) or 2 (test)",
        )
    labels = column.to_numpy(dtype=object).astype(np.int64)
    for label, part in enumerate(("training", "validation", "test")):
        if not (labels == label).any():
            raise DataError(
                f"{path.name} has no {part} rows.",
                came=f"no row with {LABEL_COLUMN} = {label}",
                expected="rows with the labels 0, 1 and 2",
            )
    return labels


def _column(path: Path, header: list[str], names: tuple[str, ...]) -> str:
    for name in names:
        if name in header:
            return name
    came = " | ".join(header)
    raise DataError(
        f"{path.name} has no column {' or '.join(names)}.",
        came=f"columns {came}" if len(header) > 1 else f"one column, {came!r}",
        expected="a tab-separated header such as userID, itemID, x_label",
        next="rename the columns, or convert the file to tabs if it uses another delimiter",
    )


def _not_utf8(path: Path, error: UnicodeDecodeError) -> DataError:
    return DataError(
        f"{path.name} is not UTF-8 text.",
        came=f"byte 0x{error.object[error.start]:02x} at position {error.start}",
        expected="UTF-8",
        next="convert it, for example with iconv -f LATIN1 -t UTF-8",
    )
