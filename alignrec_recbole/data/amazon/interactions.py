"""Interactions of ratings_*.csv or reviews_*.json.gz."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from alignrec_recbole.data.amazon.lines import ID, ParseStats, literal, number, read_lines
from alignrec_recbole.data.amazon.mapping import IdMapping
from alignrec_recbole.data.amazon.metadata import read_meta
from alignrec_recbole.data.amazon.ratings import CHUNK, USER_FIRST, column_order, read_ratings
from alignrec_recbole.data.cores import k_core
from alignrec_recbole.data.numbering import number_ids
from alignrec_recbole.data.split_names import DEFAULT_SEED, Numbering
from alignrec_recbole.errors import DataError

CORE = 5  # interactions that every user and item has at least
SAMPLE = 20_000  # lines of the metadata that decide the order of a rating file's columns


def rating_columns(files: dict[str, Path], mapping: IdMapping | None) -> tuple[str, ...]:
    """The order of a rating file's columns, decided by ids of items that are known.

    Raises:
        DataError: as `read_meta` and `column_order`.
    """
    if mapping is not None:
        return column_order(files["interactions"], mapping.items)
    meta = itertools.islice(read_meta(files["meta"]), SAMPLE)
    return column_order(files["interactions"], [item.asin for item in meta])


def read_interactions(
    path: Path, stats: ParseStats | None = None, columns: Sequence[str] = USER_FIRST
) -> Iterator[pd.DataFrame]:
    """Chunks with user, item, rating, timestamp of a ratings_*.csv or reviews_*.json.gz.

    Skipped lines of reviews are counted.

    Args:
        path: the file.
        stats: counts the lines.
        columns: order of a rating file's columns.

    Raises:
        DataError: the file is missing or has other columns.
    """
    if path.suffix == ".csv":
        yield from read_ratings(path, columns)
        return
    stats, rows = ParseStats() if stats is None else stats, []
    for line in read_lines(path, stats):
        entry = literal(line, stats)
        if entry is None:
            continue
        user, item = entry.get("reviewerID"), entry.get("asin")
        if not isinstance(user, str) or not isinstance(item, str):
            stats.bad["no user or item"] += 1
            continue
        if not (ID.fullmatch(user) and ID.fullmatch(item)):
            stats.bad["bad user or item id"] += 1
            continue
        rows.append((user, item, number(entry.get("overall")), number(entry.get("unixReviewTime"))))
        if len(rows) == CHUNK:
            yield pd.DataFrame(rows, columns=["user", "item", "rating", "timestamp"])
            rows = []
    yield pd.DataFrame(rows, columns=["user", "item", "rating", "timestamp"])


def load_interactions(
    chunks: Iterable[pd.DataFrame],
    mapping: IdMapping | None,
    stats: ParseStats | None = None,
    numbering: Numbering = "random",
    seed: int = DEFAULT_SEED,
) -> tuple[pd.DataFrame, IdMapping]:
    """The 5-core of the interactions, users and items numbered as `number_ids` does.

    With a released mapping, its users and items are selected instead, under their numbers. Of the
    rows of a pair the earliest is kept; rows without a timestamp are skipped and counted.

    Raises:
        DataError: no interaction remains.
    """
    stats = ParseStats() if stats is None else stats
    users: dict[str, int] = mapping.users if mapping else {}
    items: dict[str, int] = mapping.items if mapping else {}
    parts = []
    for chunk in chunks:
        times = pd.to_numeric(chunk["timestamp"], errors="coerce")
        has_timestamp = times.abs() < 2**53  # False for NaN
        if not has_timestamp.all():
            stats.bad["no time"] += int((~has_timestamp).sum())
        known = chunk[has_timestamp]
        codes = pd.DataFrame(
            {
                "userID": _codes(known["user"], users, mapping is None),
                "itemID": _codes(known["item"], items, mapping is None),
                "rating": pd.to_numeric(known["rating"], errors="coerce").to_numpy(np.float32),
                "timestamp": times[has_timestamp].to_numpy(np.int64),
            }
        )
        numbered = (codes["userID"] >= 0) & (codes["itemID"] >= 0)
        if mapping is None and not numbered.all():  # otherwise they are only not in its data set
            stats.bad["bad user or item id"] += int((~numbered).sum())
        parts.append(codes[numbered])
    frame = pd.concat(parts, ignore_index=True)
    earliest = frame.sort_values("timestamp", kind="stable").drop_duplicates(["userID", "itemID"])
    frame = earliest.sort_index(ignore_index=True)  # in the file's order again
    if mapping is None:
        enough = k_core(frame["userID"].to_numpy(), frame["itemID"].to_numpy(), CORE, CORE)
        frame = frame[enough].reset_index(drop=True)
    if frame.empty:
        raise DataError(
            "No interactions remain.",
            found="no users and items with five interactions each"
            if mapping is None
            else "no users and items of MMRec's mapping",
            expected="the ratings of one category",
        )
    if mapping is not None:
        return frame, mapping
    names = [list(users), list(items)]
    numbers = []
    for column, all_names in zip(("userID", "itemID"), names, strict=True):
        codes, kept = pd.factorize(frame[column])
        ids = [all_names[old] for old in kept]
        table = number_ids(ids, numbering, seed)
        frame[column] = np.array([table[name] for name in ids])[codes]
        numbers.append(table)
    return frame, IdMapping(numbers[0], numbers[1], released=False)


def _codes(values: pd.Series, table: dict[str, int], grow: bool) -> np.ndarray:
    """Numbers of ids; a new id gets the next number, or −1, as does a value that is no id."""
    local, names = pd.factorize(values)
    if grow:
        numbers = [
            table.setdefault(name, len(table)) if ID.fullmatch(name) else -1 for name in names
        ]
    else:
        numbers = [table.get(name, -1) for name in names]
    return np.array(numbers, dtype=np.int64)[local] if len(names) else np.zeros(0, dtype=np.int64)
