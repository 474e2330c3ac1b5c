"""Tables as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from alignrec_recbole.reports import escaping
from alignrec_recbole.reports.grouping import COLUMNS
from alignrec_recbole.reports.table import MISSING, Cell, Table


def as_csv(tables: Sequence[Table]) -> str:
    """Unrounded values, each spread in a column of its own; the first column names the table."""
    rows: list[dict[str, object]] = []
    for table in tables:
        for row in table.rows:
            line: dict[str, object] = {"table": escaping.as_csv(table.title)}
            for heading, cell in zip(table.header, row, strict=True):
                name = escaping.as_csv(heading)
                line[name] = _plain_value(cell)
                if cell.spread is not None or name in COLUMNS:
                    line[f"{name} sd"] = cell.spread
            rows.append(line)
    buffer = io.StringIO()
    writer = csv.DictWriter(
        buffer, dict.fromkeys(name for line in rows for name in line), lineterminator="\n"
    )
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def _plain_value(cell: Cell) -> str | float | int | None:
    """A number as a number, words as words; blank if there is nothing."""
    if cell.value is None:
        return None if cell.text == MISSING else escaping.as_csv(cell.text)
    whole = float(cell.value).is_integer() and "." not in cell.text
    return int(cell.value) if whole else cell.value
