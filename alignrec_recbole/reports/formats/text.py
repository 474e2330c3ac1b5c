"""Tables for the terminal and as Markdown."""

from __future__ import annotations

import re
import textwrap
import unicodedata
from collections.abc import Callable, Iterable, Sequence

from tabulate import tabulate

from alignrec_recbole.reports import escaping
from alignrec_recbole.reports.grouping import COLUMNS
from alignrec_recbole.reports.table import BEST, DATA_MARK, Table

TERMINAL, BETWEEN = 100, 2  # columns of a terminal, and between those of a table
FOLDS, CELL = (21, 17), 30  # letters of a line of a cell, in the first columns and the others
BEST_IN_TERMINAL = "Best marked *, second '."


MARKS: dict[str, tuple[Callable[[str], str], str, str]] = {
    "simple": (escaping.plain, "{}*", "{}'"),
    "github": (escaping.as_markdown, "**{}**", "<u>{}</u>"),
    "html": (escaping.as_html, "<strong>{}</strong>", "<u>{}</u>"),
}


def highlight(table: Table, style: str) -> list[list[str]]:
    """The cells' texts, escaped, best and second marked as the style has it."""
    escape, best, second = MARKS[style]
    wrap = {0: "{}", 1: best, 2: second}
    return [[wrap[cell.rank].format(escape(cell.text)) for cell in row] for row in table.rows]


def as_text(tables: Sequence[Table], style: str = "simple") -> str:
    """Tables for the terminal, at most 100 columns wide, or for Markdown (github).

    For the terminal, columns that do not fit follow below, with the names of the rows once more.
    """
    escape = MARKS[style][0]
    parts = []
    for table in tables:
        head = f"## {escape(table.title)}" if style == "github" else escape(table.title)
        mark = f" {DATA_MARK}" if table.footnote else ""
        below = f"{DATA_MARK} {escape(table.footnote)}" if table.footnote else ""
        texts = [head + mark, escape(_note(table, style))]
        if style == "simple":
            texts = [textwrap.fill(text, TERMINAL) for text in texts]
            below = textwrap.fill(below, TERMINAL)
            bodies = _for_terminal(table)
        else:
            header = [escape(name) for name in table.header]
            rows = highlight(table, style)
            bodies = [tabulate(rows, headers=header, tablefmt=style, disable_numparse=True)]
        parts.append("\n\n".join(part for part in (*texts, *bodies, below) if part))
    return "\n\n".join(parts)


def _note(table: Table, style: str) -> str:
    """The note, which names the marks of the format, if there are any."""
    if not any(cell.rank for row in table.rows for cell in row):
        return table.note.replace(f"{BEST} ", "")
    return table.note.replace(BEST, BEST_IN_TERMINAL) if style == "simple" else table.note


def _for_terminal(table: Table) -> list[str]:
    """The table, in parts if it does not fit; long words are then folded in their cells."""
    header = [escaping.plain(name) for name in table.header]
    rows = highlight(table, "simple")
    columns = [[header[i], *(row[i] for row in rows)] for i in range(len(header))]
    parts = [list(range(len(header)))]
    if sum(map(_width_of, columns)) > TERMINAL + BETWEEN:
        limits = [*FOLDS, *([CELL] * len(header))]
        columns = [
            [_folded(text.replace(" ± 0.", "±."), limit) for text in column]
            for column, limit in zip(columns, limits, strict=False)
        ]
        metrics = [i for i, name in enumerate(table.header) if name in COLUMNS]
        rest = [i for i in range(2, len(header)) if i not in metrics]
        widths = [_width_of(column) for column in columns]
        parts = _parts(range(2, len(header)), widths)
        if not set(metrics) <= set(parts[0]):  # the metrics are what a table is read for
            parts = _parts([*metrics, *rest], widths)
    return [
        tabulate(
            [[columns[i][row + 1] for i in part] for row in range(len(rows))],
            headers=[columns[i][0] for i in part],
            tablefmt="simple",
            disable_numparse=True,
        )
        for part in parts
    ]


def _parts(places: Iterable[int], widths: Sequence[int]) -> list[list[int]]:
    """Columns of each part: the first two, and those that fit beside them."""
    names = list(range(min(2, len(widths))))
    parts: list[list[int]] = [[*names]]
    for place in places:
        used = sum(widths[i] for i in parts[-1])
        if used + widths[place] > TERMINAL + BETWEEN and len(parts[-1]) > len(names):
            parts.append([*names])
        parts[-1].append(place)
    return parts


def _width_of(column: Sequence[str]) -> int:
    """Columns of a terminal that a column takes, with tabulate's space beside the heading."""
    heading, *lines = (line for text in column for line in text.split("\n"))
    return max([_display_width(heading) + 2, *map(_display_width, lines)]) + BETWEEN


def _folded(text: str, limit: int) -> str:
    """Lines of a cell, broken at spaces and after a plus."""
    lines: list[str] = []
    for line in textwrap.wrap(text.replace("+", "+\0"), limit + 99, break_on_hyphens=False):
        current = ""
        for piece in re.split(r"(?<=[\0 ])", line):
            shown = piece.replace("\0", "")
            if current and _display_width((current + shown).rstrip()) > limit:
                lines.append(current.rstrip())
                current = ""
            current += shown
            while _display_width(current.rstrip()) > limit:
                lines.append(current[:limit])
                current = current[limit:]
        lines.append(current.rstrip())
    return "\n".join(lines) or text


def _display_width(text: str) -> int:
    """Columns of a terminal that a text takes; wide letters take two."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)
