"""Tables as LaTeX that fits the width of a page.

What a table needs: `\\usepackage{booktabs,tabularx}`. Columns are distributed over as many tables
as the width requires, the names of the rows in each of them; long texts are broken in their cells.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from itertools import count

from alignrec_recbole.reports import escaping
from alignrec_recbole.reports.grouping import COLUMNS
from alignrec_recbole.reports.table import MISSING, Cell, Table

TEXT_WIDTH = 345.0  # points, of the class article at 10 pt, the narrowest of the usual ones
LETTER, SMALL, BETWEEN = 4.6, 3.1, 4.0  # points: a letter of \footnotesize, of \tiny, two columns
NARROWEST = 55.0  # points of a column of words
BREAKS = tuple("+/=_,;:-)]}")  # a line may end after these
WHOLE = 11  # letters that are never broken
MOST_LINES = 44  # of one table; a page has no more room
FLOATS = 16  # tables after which LaTeX has to set what it holds back; it holds 52 at most
FOOTNOTE_MARK = r"\textsuperscript{\textdaggerdbl}"
BEST = {0: "{}", 1: r"\textbf{{{}}}", 2: r"\underline{{{}}}"}
NAMES = ("model", "ranker", "features", "target", "against", "metric", "masked", "fill")


def as_latex(tables: Sequence[Table], columns: Sequence[str] = ()) -> str:
    """Tables with booktabs rules, each with a caption and a label.

    Args:
        columns: what the first table of each shows beside the names of its rows; default: the
            metrics, where it has any. The others follow in further tables.
    """
    numbers = count(1)
    parts = ["% needs \\usepackage{booktabs,tabularx}\n"] if tables else []
    for table in tables:
        names, *groups = _distributed(table, columns)
        for group in groups or [[]]:
            for rows in _pages(table, names, group):
                number = next(numbers)
                if number % FLOATS == 0:
                    parts.append("\\clearpage\n")
                label = f"tab:{_slug(table.title)}-{number}"
                parts.append(_part(table, names, group, rows, label))
    return "\n".join(parts)


def _pages(table: Table, names: Sequence[int], group: Sequence[int]) -> list[range]:
    """Rows of each page, by the lines that their longest cell takes."""
    numeric = [i for i in group if _is_numeric(table, i)]
    words = [i for i in (*names, *group) if i not in numeric]
    left = TEXT_WIDTH - sum(_width(table, i) for i in numeric)
    letters = max(5.0, (left / max(len(words), 1) - BETWEEN) / LETTER * 0.8)  # lines end early
    out, start, used = [], 0, 0
    for place, row in enumerate(table.rows):
        lines = max([1, *(math.ceil(len(row[i].text) / letters) for i in words)])
        if used + lines > MOST_LINES and place > start:
            out.append(range(start, place))
            start, used = place, 0
        used += lines
    return [*out, range(start, len(table.rows))]


def _distributed(table: Table, columns: Sequence[str]) -> list[list[int]]:
    """Places of the names of rows, then those of the columns of each table."""
    places = range(len(table.header))
    names = [i for i in places if table.header[i] in NAMES] or [0]
    others = [i for i in places if i not in names]
    wanted = columns or COLUMNS
    first = [i for name in wanted for i in others if table.header[i] == name]
    if len(first) < 2 and not columns:  # no table of results
        first = others
    used = len(names) * (NARROWEST + BETWEEN)
    out: list[list[int]] = [names]
    for group in (first, [i for i in others if i not in first]):
        left = 0.0
        for i in group:
            needed = _width(table, i)
            if needed > left:
                out.append([])
                left = TEXT_WIDTH - used
            out[-1].append(i)
            left -= needed
    return out


def _is_numeric(table: Table, place: int) -> bool:
    """Whether a column has numbers short enough not to be broken."""
    cells = [row[place] for row in table.rows]
    return any(c.value is not None for c in cells) and all(len(c.text) <= 20 for c in cells)


def _width(table: Table, place: int) -> float:
    """Points that a column takes."""
    if not _is_numeric(table, place):
        return NARROWEST + BETWEEN
    longest = max([_points(row[place]) for row in table.rows], default=0.0)
    return max(longest, LETTER * max(map(len, table.header[place].split()), default=0)) + BETWEEN


def _points(cell: Cell) -> float:
    mean, _, spread = cell.text.partition(" ± ")
    return LETTER * (len(mean) + (cell.rank == 1) * 0.6) + SMALL * (len(spread) + 1) * bool(spread)


def _part(
    table: Table, names: Sequence[int], group: Sequence[int], shown: range, label: str
) -> str:
    places = [*names, *group]
    words = r">{\raggedright\arraybackslash}X"
    layout = "".join("r" if i in group and _is_numeric(table, i) else words for i in places)
    begin, end = r"\begin{tabular}{" + layout + "}", r"\end{tabular}"
    if words in layout:
        begin = r"\begin{tabularx}{\textwidth}{" + f"@{{}}{layout}@{{}}" + "}"
        end = r"\end{tabularx}"
    header = [_breakable(table.header[i]) for i in places]
    rows = [[_cell(row[i]) for i in places] for row in table.rows[shown.start : shown.stop]]
    head, *body = (" & ".join(cells) + r" \\" for cells in [header, *rows])
    mark = FOOTNOTE_MARK if table.footnote else ""
    continued = " (continued)" if shown.start else ""
    lines = [
        r"\begin{table}",
        f"\\caption{{{escaping.as_latex(table.title)}{mark}{continued}{_caption(table, group)}}}",
        f"\\label{{{label}}}",
        r"\footnotesize\setlength{\tabcolsep}{2pt}",
        begin,
        r"\toprule",
        head,
        r"\midrule",
        *body,
        r"\bottomrule",
        end,
    ]
    if table.footnote:
        lines.append(f"\\par{{\\footnotesize {mark} {escaping.as_latex(table.footnote)}}}")
    return "\n".join([*lines, r"\end{table}"]) + "\n"


def _caption(table: Table, group: Sequence[int]) -> str:
    """What the columns of this part show, as sentences."""
    cells = [row[i] for row in table.rows for i in group]
    parts = []
    if any(cell.spread is not None for cell in cells):
        parts.append(r"mean $\pm$ standard deviation over seeds")
    if any(cell.rank for cell in cells):
        parts.append("best bold, second underlined")
    if any(cell.mark for cell in cells):
        parts.append(escaping.as_latex(table.marks))
    text = "; ".join(parts)
    return f". {text[0].upper()}{text[1:]}" if text else ""


def _cell(cell: Cell) -> str:
    if cell.text == MISSING:
        return "---"
    mean, sign, spread = cell.text.partition(" ± ")
    if cell.spread is None or not sign:
        shown = _breakable(cell.text) if cell.value is None else escaping.as_latex(cell.text)
        if len(cell.text) > 20:
            shown = _breakable(cell.text)
        return BEST[cell.rank].format(shown) + _superscript(cell)
    number = BEST[cell.rank].format(escaping.as_latex(mean)) + _superscript(cell)
    return rf"{number}\,{{\tiny$\pm$\,{escaping.as_latex(spread.removeprefix('0'))}}}"


def _superscript(cell: Cell) -> str:
    return rf"\textsuperscript{{{escaping.as_latex(cell.mark).strip('{}')}}}" if cell.mark else ""


def _breakable(text: str) -> str:
    """Text whose long words may be broken, after signs and after so many letters."""
    return " ".join(map(_breakable_word, escaping.plain(text).split(" ")))


def _breakable_word(word: str) -> str:
    if len(word) <= WHOLE:
        return escaping.as_latex(word)
    out, before = "", ""
    for piece in re.findall(rf"[^\W_]{{1,{WHOLE}}}|[\W_]", word):
        out += r"\allowbreak{}" * (before in BREAKS or len(before) == WHOLE)
        out += escaping.as_latex(piece)
        before = piece
    return out


def _slug(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:40].strip("-") or "table"
