"""Interactions as the files have them: every row, in its order, with its split.

Other readers refuse what an audit is to report: a pair in two splits, repeated pairs. Users and
items are numbered here by their first appearance in the rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from alignrec_recbole.data.dataset_paths import interaction_files
from alignrec_recbole.data.interactions import (
    ITEM_COLUMNS,
    LABEL_COLUMN,
    USER_COLUMNS,
    check_columns,
    id_tokens,
    split_labels,
)
from alignrec_recbole.errors import DataError
from alignrec_recbole.io.tsv import check_lines, read_cells, read_header

TIME_COLUMNS = ("timestamp", "time", "unixReviewTime")
TRAIN, VALID, TEST = 0, 1, 2


@dataclass(frozen=True)
class Rows:
    """Interactions in the order of their rows.

    Attributes:
        users, items: int64 [rows], numbers by first appearance.
        user_tokens, item_tokens: the id of each number, as written.
        labels: int64 [rows], 0 train, 1 validation, 2 test; None where the files have no split.
        times: float64 [rows]; None where there is no column of times, or one with other values.
        time_column: its name; empty where there is none.
    """

    users: np.ndarray
    items: np.ndarray
    user_tokens: np.ndarray
    item_tokens: np.ndarray
    labels: np.ndarray | None = None
    times: np.ndarray | None = None
    time_column: str = ""

    @classmethod
    def of(
        cls,
        users: Any,
        items: Any,
        labels: Any = None,
        times: Any = None,
        time_column: str | None = None,
    ) -> Rows:
        """Build from the cells of the columns."""
        user, user_tokens = pd.factorize(np.asarray(users).astype(str).astype(object))
        item, item_tokens = pd.factorize(np.asarray(items).astype(str).astype(object))
        return cls(
            user.astype(np.int64),
            item.astype(np.int64),
            np.asarray(user_tokens, dtype=object),
            np.asarray(item_tokens, dtype=object),
            None if labels is None else np.asarray(labels, dtype=np.int64),
            None if times is None else np.asarray(times, dtype=np.float64),
            ("" if times is None else "timestamp") if time_column is None else time_column,
        )

    def __len__(self) -> int:
        return len(self.users)

    @property
    def user_num(self) -> int:
        """Users that have a row."""
        return len(self.user_tokens)

    @property
    def item_num(self) -> int:
        """Items that have a row."""
        return len(self.item_tokens)


def read_rows(folder: Path, dataset: str, settings: Mapping[str, Any]) -> Rows:
    """Read the interactions of a data set, in MMRec's or RecBole's layout or in parts.

    Args:
        folder: of the data set.
        dataset: its name.
        settings: of RecBole; read are `benchmark_filename`, `USER_ID_FIELD`, `ITEM_ID_FIELD`,
            `TIME_FIELD` and `field_separator`.

    Raises:
        DataError: a file is missing or no regular table, has no column of users or items or an
            empty id, or a label is not 0, 1 or 2.
    """
    parts = settings.get("benchmark_filename")
    frames = []
    for number, path in enumerate(interaction_files(folder, dataset, parts)):
        frame = _read(path, settings)
        if parts is not None:
            frame["label"] = number
        frames.append(frame)
    table = pd.concat(frames, ignore_index=True)
    times = table["time"].to_numpy(np.float64) if "time" in table else None
    if times is not None and not np.isfinite(times).all():
        times = None
    labels = table["label"].to_numpy() if "label" in table else None
    return Rows.of(table["user"], table["item"], labels, times, frames[0].attrs.get("time", ""))


def _read(path: Path, settings: Mapping[str, Any]) -> pd.DataFrame:
    """The columns user, item, and as far as there are time and label, of one file."""
    separator = settings.get("field_separator", "\t")
    header = read_header(path, separator)
    typed = all(":" in column for column in header)
    if not typed:
        separator, header = "\t", read_header(path)
    plain = [column.partition(":")[0] if typed else column for column in header]
    user = _column(path, plain, (settings.get("USER_ID_FIELD"), *USER_COLUMNS))
    item = _column(path, plain, (settings.get("ITEM_ID_FIELD"), *ITEM_COLUMNS))
    wanted = (settings.get("TIME_FIELD"), *TIME_COLUMNS)
    time = next((column for column in wanted if column in plain), None)
    columns = {"user": user, "item": item}
    if time is not None:
        columns["time"] = time
    if LABEL_COLUMN in plain:
        columns["label"] = LABEL_COLUMN
    check_columns(path, plain, list(columns.values()))
    check_lines(path, len(header), separator)
    cells = read_cells(path, plain, list(columns.values()), separator)
    out = pd.DataFrame(
        {name: id_tokens(path, columns[name], cells[columns[name]]) for name in ("user", "item")}
    )
    if "label" in columns:
        text = cells[LABEL_COLUMN].str.strip()
        out["label"] = split_labels(path, text, as_numbers=typed)
    if time is not None:
        out["time"] = pd.to_numeric(cells[time], errors="coerce")
        out.attrs["time"] = time
    return out


def _column(path: Path, header: list[str], names: tuple[str | None, ...]) -> str:
    for name in names:
        if name in header:
            return str(name)
    raise DataError(
        f"{path.name} has no column {' or '.join(dict.fromkeys(filter(None, names)))}.",
        found=f"columns {', '.join(header)}",
        expected="a column of users and one of items",
    )
