"""Tables before they have a format: cells, their ranks, means over seeds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

MISSING = "—"
PLACES = 4
DATA_MARK = "\u2021"  # of a table with a footnote
BEST = "Best bold, second underlined."  # as notes say it


@dataclass(frozen=True)
class Cell:
    """One cell.

    Attributes:
        rank: 1 for the best of its column, 2 for the second.
        mark: of a significant difference, where a format has room for it.
    """

    text: str
    value: float | None = None
    spread: float | None = None
    rank: int = 0
    link: str = ""  # on the site
    mark: str = ""


@dataclass(frozen=True)
class Table:
    """A table before it has a format.

    Attributes:
        note: about its figures.
        footnote: about its data; the title has a mark then.
        marks: what the marks of cells mean.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    note: str = ""
    footnote: str = ""
    marks: str = ""

    def without_empty(self) -> Table:
        """The table without columns that are empty in every row."""
        kept = [
            i for i in range(len(self.header)) if any(row[i].text != MISSING for row in self.rows)
        ]
        rows = [[row[i] for i in kept] for row in self.rows]
        return replace(self, header=[self.header[i] for i in kept], rows=rows)


def text_cell(value: object) -> Cell:
    """A cell of words; a dash if there are none."""
    return Cell(str(value) if value not in ("", None) else MISSING)


def mean_sd_cell(values: Iterable[float], rank: int = 0) -> Cell:
    """Mean ± standard deviation over seeds; a dash where there is no value.

    >>> mean_sd_cell([0.1, 0.2]).text, mean_sd_cell([0.1]).text, mean_sd_cell([]).text
    ('0.1500 ± 0.0707', '0.1000', '—')
    """
    found = np.asarray(list(values), dtype=np.float64)
    if not len(found):
        return Cell(MISSING)
    mean = float(found.mean())
    if len(found) == 1:
        return Cell(f"{mean:.{PLACES}f}", mean, None, rank)
    spread = float(found.std(ddof=1))
    return Cell(f"{mean:.{PLACES}f} ± {spread:.{PLACES}f}", mean, spread, rank)


def column_ranks(means: Sequence[float | None]) -> list[int]:
    """1 for the best, 2 for the second, as far as the printed places tell; equals share a rank.

    >>> column_ranks([0.10001, 0.2, None, 0.10002, 0.05]), column_ranks([0.3])
    ([2, 1, 0, 2, 0], [0])
    """
    shown = [None if mean is None else round(mean, PLACES) for mean in means]
    best = sorted({value for value in shown if value is not None}, reverse=True)[:2]
    if sum(value is not None for value in shown) < 2:
        return [0] * len(shown)
    return [1 + best.index(value) if value in best else 0 for value in shown]
