"""Tables as HTML."""

from __future__ import annotations

from alignrec_recbole.reports import escaping
from alignrec_recbole.reports.formats.text import highlight
from alignrec_recbole.reports.table import DATA_MARK, Cell, Table


def as_html(table: Table) -> str:
    """A table that says what it is; cells carry their unrounded value for sorting."""
    numeric = _numeric(table)
    head = "".join(
        f'<th scope="col"{" class=number" * flag}>{escaping.as_html(name)}</th>'
        for name, flag in zip(table.header, numeric, strict=True)
    )
    body = []
    for row, shown in zip(table.rows, highlight(table, "html"), strict=True):
        cells = [_html_cell(*entry) for entry in zip(row, shown, numeric, strict=True)]
        first = cells[0].replace("<td", '<th scope="row"', 1).replace("</td>", "</th>")
        body.append(f"<tr>{first}{''.join(cells[1:])}</tr>")
    mark, below = "", ""
    if table.footnote:
        mark = f" {DATA_MARK}"
        below = f'\n<p class="footnote">{DATA_MARK} {escaping.as_html(table.footnote)}</p>'
    return (
        f"<table><caption>{escaping.as_html(table.title)}{mark}</caption>"
        f"<thead><tr>{head}</tr></thead>\n<tbody>{chr(10).join(body)}</tbody></table>{below}"
    )


def _html_cell(cell: Cell, shown: str, numeric: bool) -> str:
    """Best and second are said in words too, for those who don't see bold."""
    kind = "number" if numeric else "words" if len(cell.text) > 24 else ""
    value = "" if cell.value is None else f' data-value="{cell.value!r}"'
    spoken = {1: "best", 2: "second"}.get(cell.rank)
    shown = f'<a href="{escaping.as_html(cell.link)}">{shown}</a>' if cell.link else shown
    return (
        f"<td{f' class={kind}' if kind else ''}{value}>{shown}"
        + (f'<span class="spoken"> ({spoken})</span>' if spoken else "")
        + "</td>"
    )


def _numeric(table: Table) -> list[bool]:
    """Which columns hold numbers."""
    return [any(row[i].value is not None for row in table.rows) for i in range(len(table.header))]
