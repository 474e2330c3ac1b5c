"""Tab-separated files, read verbatim and checked line by line."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alignrec_recbole.errors import DataError

# options of pandas: a quotation mark is an ordinary character, and "NA" a name
AS_WRITTEN: dict[str, Any] = {"quoting": csv.QUOTE_NONE, "keep_default_na": False}


def read_header(path: Path, separator: str = "\t") -> list[str]:
    """Column names of a separated file, a byte order mark removed.

    Raises:
        DataError: the file is missing, empty or not UTF-8, or names a column twice.
    """
    try:
        with open(path, encoding="utf-8-sig") as handle:
            header = handle.readline().rstrip("\r\n")
    except FileNotFoundError:
        raise DataError(f"There is no interaction file {path}.") from None
    except UnicodeDecodeError as error:
        raise not_utf8(path, error) from error
    if not header.strip():
        raise DataError(
            f"{path.name} is empty.", found=str(path), expected="a header line and interactions"
        )
    columns = header.split(separator)
    twice = [column for column in columns if columns.count(column) > 1]
    if twice:
        raise DataError(
            f"{path.name} names the column {twice[0]!r} twice.",
            found=" | ".join(columns),
            expected="every column once",
        )
    return columns


def check_lines(path: Path, header: Sequence[str], separator: str = "\t") -> None:
    """Check that a file is UTF-8 and has as many cells in every line as in its header.

    Raises:
        DataError: with the first line that differs; a reader would drop or shift its cells.
    """
    data = path.read_bytes()
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise not_utf8(path, error) from error
    mark, wanted = separator.encode(), len(header) - 1
    lines = data.split(b"\n")
    wrong = [i for i, line in enumerate(lines) if line.count(mark) != wanted and line.strip()]
    if wrong:
        cells = lines[wrong[0]].count(mark) + 1
        raise DataError(
            f"{path.name} is not a regular table.",
            found=f"{len(wrong)} lines with another number of cells, first line {wrong[0] + 1} "
            f"with {cells} cells",
            expected=f"{len(header)} cells in every line, as in the header",
            hint="complete these lines, or convert the file to tabs if it uses another delimiter",
        )


def not_utf8(path: Path, error: UnicodeDecodeError) -> DataError:
    """The error that a file is not UTF-8, with its first byte that is not."""
    return DataError(
        f"{path.name} is not UTF-8 text.",
        found=f"byte 0x{error.object[error.start]:02x} at position {error.start}",
        expected="UTF-8",
        hint="convert it, for example with iconv -f LATIN1 -t UTF-8",
    )
