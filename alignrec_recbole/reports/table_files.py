"""Tables as files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from alignrec_recbole.io.files import atomic_write
from alignrec_recbole.reports import escaping
from alignrec_recbole.reports.formats.csv import as_csv
from alignrec_recbole.reports.formats.html import as_html
from alignrec_recbole.reports.formats.latex import as_latex
from alignrec_recbole.reports.formats.text import as_text
from alignrec_recbole.reports.table import Table


def write_tables(
    tables: Sequence[Table], folder: Path, stem: str, columns: Sequence[str] = ()
) -> list[Path]:
    """Write `<stem>.md`, `.tex`, `.csv` and `.html` into a folder and return their paths.

    Args:
        columns: of the first LaTeX table.
    """
    page = "\n".join(as_html(table) for table in tables)
    texts = {
        "md": f"# {escaping.as_markdown(stem)}\n\n{as_text(tables, 'github')}\n",
        "tex": as_latex(tables, columns),
        "csv": as_csv(tables),
        "html": '<!doctype html><html lang="en"><meta charset="utf-8">'
        f"<title>{escaping.as_html(stem)}</title>\n{page}</html>\n",
    }
    paths = []
    for suffix, content in texts.items():
        path = folder / f"{stem}.{suffix}"
        with atomic_write(path, "w") as handle:
            handle.write(content)
        paths.append(path)
    return paths
