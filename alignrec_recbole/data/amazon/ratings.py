"""The public rating files, ratings_*.csv without a header, whichever id comes first.

2014: user,item,rating,timestamp. 2018: item,user,rating,timestamp.
"""

from __future__ import annotations

import csv
import itertools
import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from alignrec_recbole.errors import DataError
from alignrec_recbole.io.opening import open_input
from alignrec_recbole.io.tsv import check_lines, line_of

CHUNK = 1 << 20  # rows read at a time
SAMPLE = 200_000  # lines that decide which column is the item's
USER_FIRST = ("user", "item", "rating", "timestamp")
ITEM_FIRST = ("item", "user", "rating", "timestamp")
ASIN = re.compile(r"[B\d][0-9A-Z]{9}")


def column_order(path: Path, items: Collection[str]) -> tuple[str, ...]:
    """USER_FIRST or ITEM_FIRST: which of the first two columns holds the items.

    Args:
        path: a rating file.
        items: ids of some items; where neither column has one of them, the form of ASINs decides.

    Raises:
        DataError: the file is missing or no regular file.
    """
    with open_input(path, what="rating file") as handle:
        lines = itertools.islice(handle, SAMPLE)
        cells = [line.decode("utf-8", "replace").split(",")[:2] for line in lines]
    first, second = ({row[i].strip().strip('"') for row in cells if len(row) > 1} for i in (0, 1))
    known = set(items)
    counts = [len(ids & known) for ids in (first, second)]
    if counts == [0, 0]:
        counts = [sum(bool(ASIN.fullmatch(name)) for name in ids) for ids in (first, second)]
        shares = [
            count / max(1, len(ids)) for count, ids in zip(counts, (first, second), strict=True)
        ]
        return ITEM_FIRST if shares[0] > 0.9 > 0.1 > shares[1] else USER_FIRST
    return ITEM_FIRST if counts[0] > counts[1] else USER_FIRST


def read_ratings(path: Path, order: Sequence[str] = USER_FIRST) -> Iterator[pd.DataFrame]:
    """Chunks with user, item, rating, timestamp; the two numbers are NaN where there is none.

    Raises:
        DataError: the file is missing, or a line has other columns.
    """
    try:
        check_lines(path, len(order), ",", as_in="user, item, rating and timestamp")
        quoted = _first_byte(path) == b'"'
        with (
            open_input(path, what="rating file") as handle,
            pd.read_csv(
                handle, header=None, names=list(order), index_col=False, chunksize=CHUNK, dtype=str,
                keep_default_na=False, encoding="utf-8-sig",
                quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE,
            ) as chunks,
        ):  # fmt: skip
            row = 0
            for chunk in chunks:
                if quoted:
                    _check_commas(path, chunk, row)
                for column in ("rating", "timestamp"):
                    chunk[column] = _numbers(path, chunk[column], row)
                row += len(chunk)
                yield chunk
    except (ValueError, pd.errors.ParserError) as error:
        raise DataError(
            f"{path.name} is not a rating file.",
            found=str(error).splitlines()[0],
            expected="user,item,rating,timestamp in every row, without a header",
        ) from error


def _check_commas(path: Path, chunk: pd.DataFrame, first_row: int) -> None:
    """Refuse a line whose quotes join two cells: as many commas as expected, but fewer cells."""
    for column in ("user", "item", "rating"):
        joined = chunk[column].str.contains(",", regex=False).to_numpy()
        if joined.any():
            row = first_row + int(np.flatnonzero(joined)[0])
            raise DataError(
                f"{path.name} is not a rating file.",
                found=f"a quotation mark that joins cells in line {line_of(path, row, header=0)}",
                expected="user,item,rating,timestamp in every row, without a header",
            )


def _first_byte(path: Path) -> bytes:
    with open_input(path, what="rating file") as handle:
        return handle.read(4).removeprefix(b"\xef\xbb\xbf")[:1]


def _numbers(path: Path, cells: pd.Series, first_row: int) -> np.ndarray:
    codes, texts = pd.factorize(cells)
    values = np.empty(len(texts))
    for i, text in enumerate(texts):
        try:
            values[i] = float(text) if text.strip() else float("nan")
        except ValueError:
            row = first_row + int(np.flatnonzero(codes == i)[0])
            raise DataError(
                f"{path.name} is not a rating file.",
                found=f"{text!r} as the {cells.name} in line {line_of(path, row, header=0)}",
                expected="user,item,rating,timestamp in every row, without a header",
            ) from None
    return values[codes]
