"""Rows of any file to the common form: codes of tokens, exact numbers, errors with the line."""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

from alignrec_recbole.data.html_text import one_line
from alignrec_recbole.data.source import (
    ITEM,
    RATING,
    SPLIT,
    TIME,
    USER,
    Tokens,
    used_categories,
)
from alignrec_recbole.errors import DataError
from alignrec_recbole.io.separated import Batch, SeparatedFile

EXACT = 2**53  # whole numbers below this are exact in float64
SPLITS = {"0": 0, "1": 1, "2": 2, "train": 0, "valid": 1, "val": 1, "validation": 1, "test": 2}
Places = Sequence[int] | Sequence[str]
Parse = Callable[[str], float | int | None]


class Rows:
    """Collects batches of rows of one or more files."""

    def __init__(self, bad: Counter[str] | None = None) -> None:
        """Begin.

        Args:
            bad: counts the lines that cannot be used, which are then skipped, by reason; None: they
                are errors.
        """
        self.bad = bad
        self.users, self.items = Tokens(), Tokens()
        self.dates: bool | None = None  # whether times are dates; the first row decides
        self._parts: dict[str, list[np.ndarray]] = {}
        self._count = 0

    def add(
        self,
        path: Path,
        lines: Places,
        users: Sequence[str],
        items: Sequence[str],
        **columns: np.ndarray,
    ) -> None:
        """Add a batch.

        Args:
            path: the file.
            lines: number of each row's line, for errors.
            users, items: ids as they are written.
            columns: time, rating and split as arrays, the same ones in every call.

        Raises:
            DataError: an id cannot be a token; with its line.
        """
        parts = {
            USER: _codes(path, lines, "user", users, self.users),
            ITEM: _codes(path, lines, "item", items, self.items),
            **columns,
        }
        for name, values in parts.items():
            self._parts.setdefault(name, []).append(values)
        self._count += len(users)

    def decide_dates(self, cell: str) -> bool:
        """Whether times are dates: the first row's is, whose cell this is in the first call."""
        if self.dates is not None:
            return self.dates
        is_date = _number(cell) is None and _seconds(cell) is not None
        if is_date or self.bad is None or _number(cell) is not None:
            self.dates = is_date
        return is_date

    def frame(self, path: Path) -> pd.DataFrame:
        """All rows in the common form.

        Args:
            path: a file that they are from, for errors.

        Raises:
            DataError: there are no rows, or both decimals and whole numbers beyond 2**53.
        """
        if not self._count:
            raise no_interactions(path)
        out = {name: _joined(path, name, parts) for name, parts in self._parts.items()}
        self._parts.clear()
        frame = pd.DataFrame(
            {**out, USER: self.users.column(out[USER]), ITEM: self.items.column(out[ITEM])}
        )
        return used_categories(frame) if self.bad else frame  # skipped lines have ids, too

    def each_or_all(self, add: Callable[[slice], None], count: int) -> None:
        """Add a batch of `count` rows; where one cannot be used and lines are skipped, the others.

        Args:
            add: adds some of the rows.

        Raises:
            DataError: lines are not skipped, or the file cannot be read.
        """
        try:
            return add(slice(0, count))
        except DataError as error:
            if self.bad is None or not error.bad_line:
                raise
        for i in range(count):
            try:
                add(slice(i, i + 1))
            except DataError as error:
                if not error.bad_line:
                    raise
                self.bad[error.bad_line] += 1
        return None


def _codes(
    path: Path, lines: Places, kind: str, texts: Sequence[str], tokens: Tokens
) -> np.ndarray:
    codes = tokens.known(texts)
    for i, code in enumerate(codes):
        if code < 0:
            try:
                codes[i] = tokens.code(texts[i])
            except ValueError as error:
                raise bad_cell(path, lines[i], f"{kind} id", texts[i], f"{error}") from None
    return np.array(codes, dtype=np.int32)


def _joined(path: Path, name: str, parts: list[np.ndarray]) -> np.ndarray:
    whole = [part for part in parts if part.dtype == np.int64]
    if 0 < len(whole) < len(parts) and any((np.abs(part) >= EXACT).any() for part in whole):
        raise DataError(
            f"The {name}s of {path.name} cannot be held exactly.",
            found=f"whole numbers beyond {EXACT:,} and decimals",
            expected="whole numbers alone, or smaller ones",
        )
    return np.concatenate(parts)


def no_interactions(path: Path) -> DataError:
    """The error that a file has no rows."""
    return DataError(
        f"{path.name} contains no interactions.",
        found=str(path),
        expected="one interaction per row",
    )


def bad_cell(path: Path, line: int | str, what: str, cell: object, reason: str) -> DataError:
    """The error that a cell cannot be used; `line` is a number, or a place such as "row 3"."""
    place = f"line {line}" if isinstance(line, int) else line
    error = DataError(
        f"{path.name} has a {what} that cannot be used in {place}.",
        found=f"{cell!r}" + (f": {reason}" if reason else ""),
        expected={
            "time": "a number, such as seconds since 1970, or a date such as 2020-09-22",
            "rating": "a finite number",
            "split": "0 or train, 1 or valid, 2 or test",
        }.get(what, "text without control characters"),
    )
    error.bad_line = f"unusable {what}"
    return error


def numbers(path: Path, lines: Places, what: str, cells: Sequence[str]) -> np.ndarray:
    """Cells as int64 if all are whole numbers, else as float64.

    Raises:
        DataError: a cell is no finite decimal number, or a whole one beyond 64 bits.
    """
    return _parsed(path, lines, what, cells, _number)


def times(path: Path, lines: Places, cells: Sequence[str], dates: bool) -> np.ndarray:
    """Cells as numbers, or dates as seconds since 1970 (UTC where they name no zone).

    Raises:
        DataError: a cell is no number, or with `dates` no date.
    """
    return _parsed(path, lines, "time", cells, _seconds if dates else _number)


def splits(path: Path, lines: Places, cells: Sequence[str]) -> np.ndarray:
    """Labels as int8: 0, 1, 2, or train, valid, test.

    Raises:
        DataError: a cell is another.
    """
    out = [SPLITS.get(cell.strip().lower(), -1) for cell in cells]
    if -1 in out:
        i = out.index(-1)
        raise bad_cell(path, lines[i], "split", cells[i], "")
    return np.array(out, dtype=np.int8)


def _parsed(path: Path, lines: Places, what: str, cells: Sequence[str], parse: Parse) -> np.ndarray:
    quick = _quick(cells) if parse is _number else None
    if quick is not None:
        return quick
    values = [parse(cell) for cell in cells]
    if None in values:
        i = values.index(None)
        raise bad_cell(path, lines[i], what, cells[i], "")
    if all(isinstance(value, int) for value in values):
        try:
            return np.array(values, dtype=np.int64)
        except OverflowError:
            i = next(i for i, value in enumerate(values) if not -(2**63) <= (value or 0) < 2**63)
            raise bad_cell(path, lines[i], what, cells[i], "beyond 64 bits") from None
    return np.array(values, dtype=np.float64)


def _quick(cells: Sequence[str]) -> np.ndarray | None:
    """Cells that are all digits, or all plain decimals; None for the careful way."""
    text = "\n".join(cells)
    try:
        if not text.strip("0123456789\n"):
            return np.array(list(map(int, cells)), dtype=np.int64)
        if not text.strip("0123456789.\n"):
            return np.array(list(map(float, cells)), dtype=np.float64)
    except (ValueError, OverflowError):
        pass
    return None


def _number(cell: str) -> float | int | None:
    """The number in a cell; None for what is none.

    >>> _number(" 12 "), _number("1.5e3"), _number("1_0"), _number("nan"), _number("٣")
    (12, 1500.0, None, None, None)
    """
    cell = cell.strip()
    if not cell or cell.strip("0123456789+-.eE"):
        return None
    try:
        return int(cell)
    except ValueError:
        pass
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if np.isfinite(value) else None


@lru_cache(maxsize=1 << 16)
def _seconds(cell: str) -> float | int | None:
    """Seconds since 1970 of an ISO date; None for what is none.

    >>> _seconds("1970-01-02"), _seconds("1970-01-01T00:00:01.5Z"), _seconds("2 May")
    (86400, 1.5, None)
    """
    cell = cell.strip()
    if not cell[:4].isdecimal():
        return None
    try:
        when = datetime.datetime.fromisoformat(cell[:-1] + "+00:00" if cell[-1] in "Zz" else cell)
    except ValueError:
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=datetime.timezone.utc)
    seconds = (when - datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)).total_seconds()
    return int(seconds) if seconds.is_integer() else seconds


def add_file(
    rows: Rows,
    file: SeparatedFile,
    user: str,
    item: str,
    *,
    time: str | None = None,
    rating: str | None = None,
    split: str | int | None = None,
) -> None:
    """Add the rows of a separated file.

    Args:
        rows: collects them.
        file: the file.
        user, item, time, rating: names of its columns.
        split: name of a column, or the label of all its rows.

    Raises:
        DataError: a column is missing, or a cell cannot be used.
    """
    named = [name for name in (user, item, time, rating, split) if isinstance(name, str)]
    empty = True
    for batch in file.batches(named):
        empty = False

        def add(part: slice, batch: Batch = batch) -> None:
            few = Batch([cells[part] for cells in batch.cells], batch.lines[part])
            cells = dict(zip(named, few.cells, strict=True))
            add_cells(rows, file.path, few, cells, user, item, time, rating, split)

        rows.each_or_all(add, len(batch.lines))
    if empty:
        raise no_interactions(file.path)


def add_cells(
    rows: Rows,
    path: Path,
    batch: Batch,
    cells: dict[str, list[str]],
    user: str,
    item: str,
    time: str | None,
    rating: str | None,
    split: str | int | None,
) -> None:
    """Add the rows of one batch; see `add_file`."""
    columns: dict[str, np.ndarray] = {}
    if time is not None:
        columns[TIME] = times(path, batch.lines, cells[time], rows.decide_dates(cells[time][0]))
    if rating is not None:
        found = numbers(path, batch.lines, "rating", cells[rating])
        columns[RATING] = found.astype(np.float64)
    if isinstance(split, str):
        columns[SPLIT] = splits(path, batch.lines, cells[split])
    elif split is not None:
        columns[SPLIT] = np.full(len(batch.lines), split, dtype=np.int8)
    rows.add(path, batch.lines, cells[user], cells[item], **columns)


def read_content(
    file: SeparatedFile, item: str, texts: Sequence[str], wanted: Collection[str]
) -> pd.DataFrame:
    """Texts of some items of a separated file, one line each; of an item's rows the first is used.

    Args:
        file: the file.
        item: column of the ids.
        texts: columns of text; those that the file does not have are passed over.
        wanted: tokens.

    Raises:
        DataError: as `SeparatedFile.batches`.
    """
    texts = [name for name in texts if name in file.columns]
    found: dict[str, list[str]] = {}
    wanted = set(wanted)
    for batch in file.batches([item, *texts]):
        for row in zip(*batch.cells, strict=True):
            token = row[0].strip()
            if token in wanted and token not in found:
                found[token] = [one_line(cell) for cell in row[1:]]
    return content_frame(found, texts)


def content_frame(found: dict[str, list[str]], columns: Sequence[str]) -> pd.DataFrame:
    """Item content as a frame: the column `item`, then the columns; an item per row."""
    rows = [[token, *cells] for token, cells in found.items()]
    return pd.DataFrame(rows, columns=[ITEM, *columns], dtype=object)
