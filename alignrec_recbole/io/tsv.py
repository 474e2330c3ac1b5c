"""Separated text files, read verbatim and checked line by line in bounded memory."""

from __future__ import annotations

import contextlib
import csv
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd

from alignrec_recbole.errors import DataError
from alignrec_recbole.io.opening import open_input

# options of pandas: a quotation mark is an ordinary character, and "NA" a name
AS_WRITTEN: dict[str, Any] = {"quoting": csv.QUOTE_NONE, "keep_default_na": False}

BLOCK = 1 << 20  # bytes read together
CHUNK_ROWS = 1 << 18  # rows of coded columns that are in memory as text at once
LONGEST_HEADER = 1 << 20  # bytes
LONGEST_LINE = 16 << 20  # bytes
MAX_COLUMNS = 10_000
MAX_CELL = 1 << 30  # characters of a quoted cell


class Readable(Protocol):
    """A file of bytes, or what unpacks one."""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes; none at the end."""


def read_header(path: Path, separator: str = "\t") -> list[str]:
    """Column names of a separated file, a byte order mark removed.

    Raises:
        DataError: the file is missing, no regular file, empty or not UTF-8, has a header of more
            than MAX_COLUMNS columns, or names a column twice.
    """
    with open_input(path) as handle:
        line = handle.readline(LONGEST_HEADER + 1)
    if len(line) > LONGEST_HEADER:
        raise DataError(
            f"The header of {path.name} is too long.",
            found=f"a first line of more than {LONGEST_HEADER:,} bytes",
            expected="column names in the first line",
        )
    check_text(path, line, 1)
    header = line.decode("utf-8-sig").rstrip("\r\n")
    if not header.strip():
        raise DataError(
            f"{path.name} is empty.", found=str(path), expected="a header line and interactions"
        )
    columns = header.split(separator)
    if len(columns) > MAX_COLUMNS:
        raise DataError(
            f"{path.name} has too many columns.",
            found=f"{len(columns):,} in its header",
            expected=f"at most {MAX_COLUMNS:,}",
        )
    twice = [column for column, count in Counter(columns).items() if count > 1]
    if twice:
        raise DataError(
            f"{path.name} names the column {twice[0]!r} twice.",
            found=" | ".join(columns),
            expected="every column once",
        )
    return columns


def check_lines(
    path: Path, width: int, separator: str = "\t", *, as_in: str = "as in the header"
) -> None:
    """Check that a file is UTF-8 text with the same number of cells in every line.

    Args:
        path: the file; blank lines are passed over.
        width: cells per line.
        separator: of the cells.
        as_in: why there are so many, for the error.

    Raises:
        DataError: with the first line that differs; a reader would drop or shift its cells. Also
            for a carriage return inside a line or a zero byte, at which some readers end a line.
    """
    mark, wanted = separator.encode(), width - 1
    wrong, first, cells, number = 0, 0, 0, 1
    with open_input(path) as handle:
        for block in whole_lines(path, handle):
            check_text(path, block, number)
            ends = block.count(b"\n")
            if not _all_regular(block, mark, wanted):
                lines = block.split(b"\n")
                odd = [
                    i for i, line in enumerate(lines) if line.count(mark) != wanted and _full(line)
                ]
                if odd and not wrong:
                    first, cells = number + odd[0], lines[odd[0]].count(mark) + 1
                wrong += len(odd)
            number += ends
    if wrong:
        raise DataError(
            f"{path.name} is not a regular table.",
            found=f"{wrong} lines with another number of cells, first line {first} with {cells} "
            "cells",
            expected=f"{width} cells in every line, {as_in}",
            hint="complete these lines, or convert the file to tabs if it uses another delimiter",
        )


def _all_regular(block: bytes, mark: bytes, wanted: int) -> bool:
    """Whether surely every line of a block has `wanted` separators; a quick look."""
    if len(mark) != 1:
        return False
    letters = np.frombuffer(block, dtype=np.uint8)
    ends = np.flatnonzero(letters == 10)
    if not block.endswith(b"\n"):
        ends = np.append(ends, len(block))
    marks = np.flatnonzero(letters == mark[0])
    return bool((np.diff(np.searchsorted(marks, ends), prepend=0) == wanted).all())


def whole_lines(path: Path, handle: Readable) -> Iterator[bytes]:
    """The file in parts of whole lines.

    Raises:
        DataError: a line is longer than LONGEST_LINE.
    """
    rest = b""
    while data := handle.read(BLOCK):
        rest += data
        end = rest.rfind(b"\n") + 1
        if end:
            yield rest[:end]
            rest = rest[end:]
        elif len(rest) > LONGEST_LINE:
            raise DataError(
                f"{path.name} is not a text file of lines.",
                found=f"a line of more than {LONGEST_LINE:,} bytes",
                expected="one row per line",
            )
    if rest:
        yield rest.removesuffix(b"\r")


def check_text(path: Path, block: bytes, number: int) -> None:
    """Refuse bytes that are no text or end a line for some readers; `number` of the first line."""
    try:
        block.decode("utf-8")
    except UnicodeDecodeError as error:
        raise not_utf8(path, error, number) from error
    for byte, name in ((b"\0", "zero byte"), (b"\r", "carriage return")):
        if byte not in block or (byte == b"\r" and block.count(b"\r") == block.count(b"\r\n")):
            continue
        lines = block.split(b"\n")
        inside = next(i for i, line in enumerate(lines) if byte in line.removesuffix(b"\r"))
        raise DataError(
            f"{path.name} has a {name} in line {number + inside}.",
            found=repr(lines[inside][:80].decode("utf-8", "replace")),
            expected="lines that end in a line feed, or in a carriage return and a line feed",
            hint="remove it, or convert the line ends of the file",
        )


def _full(line: bytes) -> bool:
    """Whether a line has a cell: readers pass over empty lines and lines of blanks."""
    return bool(line.strip(b" \r"))


def read_cells(
    path: Path,
    header: Sequence[str],
    columns: Collection[str],
    separator: str = "\t",
    *,
    coded: Collection[str] = (),
) -> pd.DataFrame:
    """The columns of a file that `check_lines` accepts, every cell as its text.

    Args:
        path: the file.
        header: names of all its columns.
        columns: to read.
        separator: of the cells.
        coded: those that become categories: one integer per row and each different text once, in
            order of first appearance. They are read some rows at a time, so a file of many rows
            with few texts takes little memory.

    Raises:
        DataError: there are no rows.
    """
    with open_input(path) as handle:
        frame = pd.read_csv(
            handle,
            sep=separator if len(separator) == 1 else re.escape(separator),
            engine="c" if len(separator) == 1 else "python",
            header=0,
            names=list(header),
            usecols=list(columns),
            dtype=str,
            encoding="utf-8-sig",
            index_col=False,
            chunksize=CHUNK_ROWS if coded else None,
            **AS_WRITTEN,
        )
        if coded:
            frame = _coded(frame, columns, coded)
    if frame.empty:
        raise DataError(
            f"{path.name} has a header but no rows.", found=str(path), expected="rows below it"
        )
    return frame


def _coded(
    chunks: Iterable[pd.DataFrame], columns: Collection[str], coded: Collection[str]
) -> pd.DataFrame:
    """The chunks as one frame, columns `coded` as categories."""
    parts: dict[str, list[Any]] = {name: [] for name in columns}
    texts: dict[str, list[pd.Series]] = {name: [] for name in coded}
    for chunk in chunks:
        for name in columns:
            if name not in texts:
                parts[name].append(chunk[name])
                continue
            codes, different = pd.factorize(chunk[name])
            parts[name].append(codes.astype(np.int32))
            texts[name].append(pd.Series(different))
    out: dict[str, Any] = {}
    for name in list(columns):
        part = parts.pop(name)
        if not part:
            out[name] = pd.Series([], dtype=object)
        elif name in texts:
            out[name] = _one_numbering(part, texts.pop(name))
        else:
            out[name] = pd.concat(part, ignore_index=True)
    return pd.DataFrame(out, copy=False)


def _one_numbering(codes: list[np.ndarray], texts: list[pd.Series]) -> pd.Categorical:
    """Chunks that are numbered each for itself, with one numbering by first appearance."""
    starts = np.cumsum([0, *map(len, texts)])
    places, names = pd.factorize(pd.concat(texts, ignore_index=True))
    texts.clear()
    places = places.astype(np.int32)
    for number, start in enumerate(starts[:-1]):
        codes[number] = places[start + codes[number]]
    return pd.Categorical.from_codes(np.concatenate(codes), pd.Index(names))


def line_of(path: Path, row: int, header: int = 1) -> int:
    """Number of the line that holds a row (from 0) below `header` lines; blank lines are none.

    Only errors need it: the file is read again.
    """
    number = seen = 0
    with open_input(path) as handle:
        for line in handle:
            number += 1
            seen += _full(line.rstrip(b"\n"))
            if seen == row + 1 + header:
                break
    return number


@contextlib.contextmanager
def wide_cells() -> Iterator[None]:
    """The csv module reads cells of up to MAX_CELL characters, not of 131,072 alone."""
    before = csv.field_size_limit(MAX_CELL)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def not_utf8(path: Path, error: UnicodeDecodeError, line: int = 1) -> DataError:
    """The error that a file is not UTF-8, with its first byte that is not.

    Args:
        path: the file.
        error: of decoding a part of it that starts with line `line`.
        line: number of that line, from 1.
    """
    data = error.object
    number = line + data.count(b"\n", 0, error.start)
    column = error.start - data.rfind(b"\n", 0, error.start) - 1
    return DataError(
        f"{path.name} is not UTF-8 text.",
        found=f"byte 0x{data[error.start]:02x} in line {number} at position {column}",
        expected="UTF-8",
        hint="convert it, for example with iconv -f LATIN1 -t UTF-8",
    )
