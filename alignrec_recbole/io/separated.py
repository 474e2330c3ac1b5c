"""Columns of separated files as streams: plain or gzip, quoted or not, every cell with its line."""

from __future__ import annotations

import csv
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from alignrec_recbole.errors import DataError
from alignrec_recbole.io.text_lines import text_lines
from alignrec_recbole.io.tsv import MAX_COLUMNS, wide_cells

BATCH = 1 << 16  # rows
MAX_QUOTED_LINES = 1000  # of one row whose cells contain line ends
TAB, COMMA = "\t", ","


@dataclass(frozen=True)
class Batch:
    """Some rows of a file.

    Attributes:
        cells: one list per column that was asked for.
        lines: number of the line in which each row starts.
    """

    cells: list[list[str]]
    lines: Sequence[int]


class SeparatedFile:
    """A file with a header, or with given column names; read once per call of `batches`.

    If every line has as many separators as the first, a line is a row, and a quotation mark is a
    character like any other unless it encloses a whole cell. Otherwise quoted cells may contain
    separators and line ends (RFC 4180). A stray quotation mark thus never swallows other rows.
    """

    def __init__(
        self,
        path: Path,
        separator: str = COMMA,
        columns: Sequence[str] | None = None,
        what: str = "file",
        bad: Counter[str] | None = None,
    ) -> None:
        """Read the header and check the form of every line.

        Args:
            path: the file.
            separator: of the cells, one character.
            columns: names of the columns of a file without a header.
            what: what the file is, for errors.
            bad: counts the rows of another number of cells, or with odd quotation marks, which are
                then skipped; None: they are errors.

        Raises:
            DataError: as `text_lines`; the file is empty, names a column twice, or has a row with
                another number of cells or with quotation marks in odd places.
        """
        self.path, self.separator, self.what = Path(path), separator, what
        self._bad = bad
        self._header = columns is None
        self._regular = self._is_regular()
        with wide_cells():
            first = next(self._rows(), None)
        if first is None:
            raise DataError(f"{self.path.name} is empty.", found=str(path), expected="rows")
        self.columns = [cell.strip() for cell in first[1]] if columns is None else list(columns)
        self._check_columns(len(first[1]))

    def _check_columns(self, width: int) -> None:
        twice = [name for name, count in Counter(self.columns).items() if count > 1]
        if twice or width > MAX_COLUMNS:
            raise DataError(
                f"{self.path.name} names the column {twice[0]!r} twice."
                if twice
                else f"{self.path.name} has too many columns.",
                found=", ".join(self.columns),
                expected="every column once",
            )
        if width != len(self.columns):
            raise DataError(
                f"{self.path.name} has other columns.",
                found=f"{width} cells in its first line",
                expected=", ".join(self.columns),
            )

    def require(self, names: Sequence[str]) -> None:
        """Refuse a file without one of the columns.

        Raises:
            DataError: with the columns of the file.
        """
        missing = [name for name in names if name not in self.columns]
        if missing:
            raise DataError(
                f"{self.path.name} has no column {missing[0]!r}.",
                found=f"columns {', '.join(self.columns)}"
                if len(self.columns) > 1
                else f"one column, {self.columns[0]!r}",
                expected=f"columns {', '.join(names)}",
                hint=""
                if len(self.columns) > 1
                else "is another character the separator of its cells?",
            )

    def batches(self, names: Sequence[str]) -> Iterator[Batch]:
        """The cells of some columns.

        Raises:
            DataError: as on opening, or a column is missing.
        """
        self.require(names)
        places = [self.columns.index(name) for name in names]
        numbered = islice(self._rows(), int(self._header), None)
        while True:
            rows, lines = [], []
            with wide_cells():
                for line, row in islice(numbered, BATCH):
                    rows.append(row)
                    lines.append(line)
            if not rows:
                return
            yield Batch([[row[place] for row in rows] for place in places], lines)

    def _is_regular(self) -> bool:
        width = None
        for line in text_lines(self.path, what=self.what):
            if not line or line.isspace():
                continue
            cells = line.count(self.separator)
            if width is None:
                width = cells
            elif cells != width:
                return False
        return True

    def _rows(self) -> Iterator[tuple[int, list[str]]]:
        return self._plain_rows() if self._regular else self._quoted_rows()

    def _plain_rows(self) -> Iterator[tuple[int, list[str]]]:
        separator = self.separator
        for number, line in enumerate(text_lines(self.path, what=self.what), 1):
            if not line or line.isspace():
                continue
            cells = line.split(separator)
            yield number, [unquoted(cell) for cell in cells] if '"' in line else cells

    def _quoted_rows(self) -> Iterator[tuple[int, list[str]]]:
        lines = _RowLines(text_lines(self.path, what=self.what))
        reader = csv.reader(lines, delimiter=self.separator, strict=True)
        width = None
        while True:
            try:
                row = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                if self._bad is None or width is None:
                    raise self._irregular(
                        f"{error}, in the row that starts in line {lines.start}"
                    ) from error
                self._bad["quotation marks in odd places"] += 1
                lines.skip_first()
                continue
            if len(row) > 1 or any(cell.strip() for cell in row):
                width = width or len(row)
                if len(row) == width:
                    yield lines.start, row
                elif self._bad is None:
                    raise self._irregular(
                        f"{len(row)} cells in the row of line {lines.start}", width
                    )
                else:
                    self._bad["another number of cells"] += 1
                    lines.skip_first()
                    continue
            lines.skip_row()

    def _irregular(self, found: str, width: int | None = None) -> DataError:
        return DataError(
            f"{self.path.name} is not a regular table.",
            found=found,
            expected=f"{width or 'the same number of'} cells in every row, as in the first",
            hint="quote cells that contain separators, line ends or quotation marks, and double "
            "the marks inside them",
        )


class _RowLines:
    """Lines of a file for csv.reader; those of a row that cannot be used are given once more.

    Attributes:
        start: number of the line in which the row starts.
    """

    def __init__(self, lines: Iterator[str]) -> None:
        self._lines = lines
        self._row: list[str] = []
        self._again: deque[str] = deque()
        self.start = 1

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if len(self._row) >= MAX_QUOTED_LINES:
            raise csv.Error(f"a quoted cell over more than {MAX_QUOTED_LINES} lines")
        line = self._again.popleft() if self._again else next(self._lines) + "\n"
        self._row.append(line)
        return line

    def skip_row(self) -> None:
        """The next row starts after all lines of this one."""
        self.start += len(self._row)
        self._row.clear()

    def skip_first(self) -> None:
        """The next row starts in the second line of this one."""
        self._again.extendleft(reversed(self._row[1:]))
        self.start += 1
        self._row.clear()


def unquoted(cell: str) -> str:
    """The cell without its quotation marks if it is quoted as a whole.

    >>> [unquoted(cell) for cell in ('"so ""it"" is"', '"A" or "B"', '12" disc')]
    ['so "it" is', '"A" or "B"', '12" disc']
    """
    inner = cell[1:-1]
    whole = len(cell) > 1 and cell[0] == cell[-1] == '"' and '"' not in inner.replace('""', "")
    return inner.replace('""', '"') if whole else cell


def quoted(cell: str) -> str:
    """A cell that `unquoted` reads back unchanged; one that looks quoted is quoted again.

    >>> unquoted(quoted('"all"')), quoted('12" disc')
    ('"all"', '12" disc')
    """
    if len(cell) > 1 and cell[0] == cell[-1] == '"':
        return '"' + cell.replace('"', '""') + '"'
    return cell
