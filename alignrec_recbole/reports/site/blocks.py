"""Tables as parts of a page: footnotes, bars, groups of rows, and pages of long ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from alignrec_recbole.features.derived_names import is_control
from alignrec_recbole.reports.grouping import PRIMARY_METRIC, SeedGroup
from alignrec_recbole.reports.site.names import run_page, unique
from alignrec_recbole.reports.table import BEST, MISSING, Table

MAX_ELEMENTS = 2200  # of the tables of one page; with the rest it has less than 3,000
MAX_BYTES = 200_000
PREVIEW_ROWS = 20
NOTES = "note"  # the column that becomes footnotes
OF_OTHERS = ("(published)", "(reference run)")
Groups = Mapping[tuple[str, str], SeedGroup]


@dataclass
class Block:
    """A table as a page shows it.

    Attributes:
        header: name and CSS classes of each column.
        rows: cells, kind and links of each row, and of what model and features it is.
        notes: footnotes, by the number that rows name.
        whole: link to the page that has all rows, if this is not all of them.
        says: whether the text of the footnote is shown, too.
    """

    heading: str
    id: str
    caption: str
    note: str
    footnote: str
    header: list[tuple[str, str]]
    rows: list[dict[str, Any]]
    notes: list[tuple[str, str]] = field(default_factory=list)
    downloads: list[tuple[str, str]] = field(default_factory=list)
    folded: bool = False
    whole: str = ""
    says: bool = True
    total: int = 0

    @property
    def elements(self) -> int:
        """How many elements the table makes, with the buttons that the script adds."""
        return 25 + 2 * len(self.header) + 2 * len(self.notes) + sum(r["size"] for r in self.rows)

    @property
    def bytes(self) -> int:
        """About how long its HTML is."""
        letters = sum(len(c["text"]) + 70 for row in self.rows for c in row["cells"])
        return letters + 250 * len(self.rows) + sum(len(text) for _, text in self.notes)

    @property
    def bodies(self) -> list[tuple[str, list[dict[str, Any]]]]:
        """Rows of records, and those of others below them."""
        of_others = [row for row in self.rows if row["kind"] == "published"]
        own = [row for row in self.rows if row["kind"] != "published"]
        return [(name, rows) for name, rows in (("", own), ("Published", of_others)) if rows]

    def part(self, first: int, last: int) -> Block:
        """The block with some of its rows, and their footnotes."""
        rows = self.rows[first:last]
        used = {number for row in rows if (number := row["footnote"])}
        notes = [note for note in self.notes if note[0] in used]
        return replace(self, rows=rows, notes=notes, total=len(self.rows))


def block(
    table: Table,
    name: str,
    groups: Groups | None = None,
    folded: bool = False,
    downloads: Sequence[tuple[str, str]] = (),
) -> Block:
    """A table as a block.

    Args:
        name: what its ids are made of; two blocks of a page differ in it.
        groups: the runs behind the rows, by label and features.
    """
    header = list(table.header)
    shown = [i for i, heading in enumerate(header) if heading != NOTES]
    numeric = [any(row[i].value is not None for row in table.rows) for i in range(len(header))]
    main = _main_column(header, numeric)
    largest = max((row[main].value or 0.0 for row in table.rows), default=0.0) if main else 0.0
    of_models = header[:1] in (["model"], ["ranker"])
    anchor = unique(name)
    numbers: dict[str, str] = {}
    rows = []
    for row in table.rows:
        text = row[header.index(NOTES)].text if NOTES in header else MISSING
        footnote = "" if text == MISSING else numbers.setdefault(text, str(len(numbers) + 1))
        label, features = row[0].text, row[1].text if header[1:2] == ["features"] else ""
        group = (groups or {}).get((label, features))
        cells = [
            {
                "text": row[i].text,
                "value": "" if row[i].value is None else repr(row[i].value),
                "kind": "number" if numeric[i] else "words" if len(row[i].text) > 24 else "",
                "rank": row[i].rank,
                "mark": row[i].mark,
                "link": row[i].link,
                "label": header[i],
                "main": i == main,
                "bar": _bar(row[i].value, largest) if i == main and of_models else None,
            }
            for i in shown
        ]
        links = [(str(run.record.seed), run_page(run)) for run in group.runs] if group else []
        rows.append(
            {
                "cells": cells,
                "kind": _kind(label, features, group),
                "model": group.first.model if group else "",
                "features": "" if features == MISSING or label.endswith(OF_OTHERS) else features,
                "links": links,
                "footnote": footnote,
                "size": 3 + sum(1 + 2 * bool(c["rank"]) + bool(c["link"]) for c in cells)
                + 2 * bool(main) + 2 * bool(footnote) + len(links) + bool(links),
            }
        )  # fmt: skip
    return Block(
        heading=table.title.partition(", ")[2] or table.title,
        id=anchor,
        caption=table.title,
        note=_note(table),
        footnote=table.footnote,
        header=[(header[i], _classes(numeric[i], i == main)) for i in shown],
        rows=rows,
        notes=[(number, text) for text, number in numbers.items()],
        downloads=list(downloads),
        folded=folded,
        total=len(rows),
    )


def fitted(blocks: Sequence[Block], prefix: str) -> tuple[list[Block], dict[str, list[Block]]]:
    """The blocks as far as a page may have them, and pages of those that it may not.

    Args:
        prefix: of the names of these pages.
    """
    elements, letters = MAX_ELEMENTS, MAX_BYTES
    out: dict[int, Block] = {}
    pages: dict[str, list[Block]] = {}
    for place in sorted(range(len(blocks)), key=lambda i: blocks[i].folded):  # main tables first
        whole = blocks[place]
        shown = whole
        if whole.elements > elements or whole.bytes > letters:
            name = f"{prefix}--{whole.id}"
            pages[name] = list(_pages(whole))
            shown = whole.part(0, 0 if whole.folded else PREVIEW_ROWS)
            while shown.rows and (shown.elements > elements or shown.bytes > letters):
                shown = whole.part(0, len(shown.rows) // 2)
            shown.whole = name
        elements -= shown.elements
        letters -= shown.bytes
        out[place] = shown
    return [out[place] for place in range(len(blocks))], pages


def _pages(whole: Block) -> Iterator[Block]:
    """The block in parts that a page may have."""
    first = 0
    while first < len(whole.rows):
        last = len(whole.rows)
        while last > first + 1:
            part = whole.part(first, last)
            if part.elements <= MAX_ELEMENTS and part.bytes <= MAX_BYTES:
                break
            last = first + (last - first) // 2
        part = whole.part(first, last)
        part.folded = False
        yield part
        first = last


def _note(table: Table) -> str:
    """The note with what the marks of cells mean, if there are any."""
    cells = [cell for row in table.rows for cell in row]
    note = table.note if any(cell.rank for cell in cells) else table.note.replace(f"{BEST} ", "")
    return f"{note} {table.marks}." if any(cell.mark for cell in cells) else note


def _main_column(header: Sequence[str], numeric: Sequence[bool]) -> int:
    """The column that a narrow screen shows: Recall@20, a verdict, or the first of numbers."""
    for name in (PRIMARY_METRIC, "verdict"):
        if name in header:
            return list(header).index(name)
    found = [i for i, flag in enumerate(numeric) if flag and header[i] not in ("seeds", "seed")]
    return found[0] if found else len(header) - 1


def _classes(numeric: bool, main: bool) -> str:
    return " ".join([*(["number"] if numeric else []), *(["main"] if main else [])])


def _bar(value: float | None, largest: float) -> str | None:
    return f"{100 * value / largest:.1f}" if value is not None and largest > 0 <= value else None


def _kind(label: str, features: str, group: SeedGroup | None) -> str:
    """What a row is, beside a model with its usual settings."""
    if group is None and label.endswith(OF_OTHERS):
        return "published"
    if any(is_control(name) for name in features.split("+")):
        return "control"
    return "variant" if group and group.non_default_settings else ""
