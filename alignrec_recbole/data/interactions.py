"""Interaction files in MMRec's layout, and what holds for both layouts: ids and split labels.

Tab-separated with a header: a user column (`userID` or `user_id`), an item column (`itemID` or
`item_id`), optionally `x_label` with 0 train, 1 validation, 2 test. Other columns are read if they
are asked for. White space around an id is no part of it, as in item tables.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from alignrec_recbole.errors import DataError
from alignrec_recbole.io.tsv import check_lines, line_of, read_cells, read_header

USER_COLUMNS = ("userID", "user_id")
ITEM_COLUMNS = ("itemID", "item_id")
LABEL_COLUMN = "x_label"
LABELS = ("0", "1", "2")


@dataclass(frozen=True)
class Interactions:
    """Users and items as categories of tokens, and the split label of each row or None.

    `extra` has the cells of the other columns that were asked for, by name.
    """

    user_ids: pd.Categorical
    item_ids: pd.Categorical
    labels: np.ndarray | None
    extra: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def users(self) -> np.ndarray:
        """The user's token of each row, as an array of str."""
        return np.asarray(self.user_ids, dtype=object)

    @property
    def items(self) -> np.ndarray:
        """The item's token of each row, as an array of str."""
        return np.asarray(self.item_ids, dtype=object)


def is_typed(path: Path) -> bool:
    """Whether a file has RecBole's typed header (`user_id:token`)."""
    return all(":" in column for column in read_header(path))


def read_interactions(path: Path, extra: Collection[str] = ()) -> Interactions:
    """Read and check an interaction file in MMRec's layout.

    Args:
        path: the file.
        extra: other columns to read.

    Raises:
        DataError: a column is missing, a label is not 0, 1 or 2, an id is empty, a pair occurs
            twice, there are no rows (or no training rows), or the bytes are not UTF-8.
    """
    path = Path(path)
    header = read_header(path)
    user, item = _column(path, header, USER_COLUMNS), _column(path, header, ITEM_COLUMNS)
    check_columns(path, header, extra)
    columns = [user, item] + ([LABEL_COLUMN] if LABEL_COLUMN in header else [])
    check_lines(path, len(header))
    others = [name for name in extra if name not in columns]
    frame = read_cells(path, header, [*columns, *others], coded=columns)
    for column in (user, item):
        frame[column] = coded_ids(path, column, frame[column].array)
    check_pairs(path, frame, user, item)
    labels = split_labels(path, frame[LABEL_COLUMN]) if LABEL_COLUMN in header else None
    return Interactions(
        frame[user].array,
        frame[item].array,
        labels,
        {name: frame[name].to_numpy(dtype=object) for name in extra},
    )


def check_columns(path: Path, header: Collection[str], wanted: Collection[str]) -> None:
    """Refuse a name of `load_col` that the file does not have.

    Raises:
        DataError: with the columns of the file.
    """
    unknown = [name for name in wanted if name not in header]
    if unknown:
        raise DataError(
            f"{path.name} has no column {unknown[0]!r}, which load_col or another setting names.",
            found=f"columns {', '.join(header)}",
            expected="names of columns of the file",
        )


def id_tokens(path: Path, column: str, cells: pd.Series) -> np.ndarray:
    """The ids of a column without white space around them.

    Raises:
        DataError: a cell has no id.
    """
    codes, names = pd.factorize(cells)
    ids = pd.Categorical.from_codes(codes, pd.Index(names, dtype=object))
    return np.asarray(coded_ids(path, column, ids), dtype=object)


def coded_ids(path: Path, column: str, cells: pd.Categorical) -> pd.Categorical:
    """As `id_tokens`, of categories."""
    ids = stripped(cells)
    without = np.flatnonzero(ids.categories == "")
    if len(without):
        empty = np.flatnonzero(ids.codes == without[0])
        raise DataError(
            f"{path.name} has empty cells in column {column!r}.",
            found=f"{len(empty)} of them, first in row {empty[0] + 1} below the header, "
            f"line {line_of(path, int(empty[0]))}",
            expected="a value in every line",
        )
    return ids


def stripped(cells: pd.Categorical) -> pd.Categorical:
    """Categories without white space around them; those that are equal then are one.

    >>> list(stripped(pd.Categorical(["a ", "b", "a"])))
    ['a', 'b', 'a']
    """
    texts = cells.categories.tolist()
    names = [text.strip() for text in texts]
    if names == texts:
        return cells
    codes, unique = pd.factorize(np.array(names, dtype=object))
    return pd.Categorical.from_codes(codes[cells.codes], pd.Index(unique, dtype=object))


def check_pairs(
    path: Path,
    frame: pd.DataFrame,
    user: str,
    item: str,
    *,
    several_files: bool = False,
    hint: str = "",
) -> None:
    """Refuse rows of which two have the same user and item.

    Args:
        path: the file, or with `several_files` the first of those whose rows are in `frame`.
        frame: has the columns `user` and `item`.
        user, item: names of the columns.
        several_files: the rows are not those of `path` alone, so that no line is named.
        hint: what to do; default: to remove the rows.

    Raises:
        DataError: with the first row that repeats a pair.
    """
    repeated = frame.duplicated([user, item]).to_numpy()
    if repeated.any():
        first = int(np.flatnonzero(repeated)[0])
        place = "" if several_files else f" in line {line_of(path, first)}"
        raise DataError(
            f"{path.name} {'and the other splits contain' if several_files else 'contains'} "
            "the same interaction twice.",
            found=f"{int(repeated.sum())} repeated rows, e.g. user {frame[user].iloc[first]!r} and "
            f"item {frame[item].iloc[first]!r}{place}",
            expected="every user-item pair once",
            hint=hint
            or "remove the repeated rows: they would count twice and could be in two splits",
        )


def split_labels(path: Path, cells: pd.Series, *, as_numbers: bool = False) -> np.ndarray:
    """The labels 0, 1 and 2 of the rows, int64.

    Args:
        path: the file.
        cells: their text.
        as_numbers: whether `1.0` is the label 1, as in a column of type float.

    Raises:
        DataError: a cell has another value, or a split has no rows.
    """
    codes, names = pd.factorize(cells)
    texts = [str(name) for name in names]
    if as_numbers:
        texts = [text.removesuffix(".0") if text[:-2] in LABELS else text for text in texts]
    known = np.array([text in LABELS for text in texts], dtype=bool)
    if not known.all():
        wrong = np.flatnonzero(~known[codes])
        first = int(wrong[0])
        raise DataError(
            f"{path.name} has unknown split labels.",
            found=f"{len(wrong)} rows, first {cells.iloc[first]!r} in line {line_of(path, first)}",
            expected="0 (train), 1 (validation) or 2 (test)",
            hint=f"rename the column {LABEL_COLUMN} if it is no split",
        )
    labels = np.array([int(text) for text in texts], dtype=np.int64)[codes]
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
