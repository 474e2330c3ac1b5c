"""A page per data set: sections by what they ask, each with its tables and figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from alignrec_recbole.data.rekeyed_names import shown_name
from alignrec_recbole.reports.captions import CAPTIONS
from alignrec_recbole.reports.grouping import ComparisonKey, SeedGroup
from alignrec_recbole.reports.notes import table_title
from alignrec_recbole.reports.site.blocks import Block, Groups, block, fitted
from alignrec_recbole.reports.site.figures import FILES as FIGURE_FILES
from alignrec_recbole.reports.site.figures import figure_file, kind_of
from alignrec_recbole.reports.site.names import run_page, run_title, safe
from alignrec_recbole.reports.table import Cell, Table, mean_sd_cell, text_cell
from alignrec_recbole.runs.record import Run

PARTS = ("-tests", "-budget")  # of a table's file; shown folded
# id, heading, protocols, figures
SECTIONS = (
    ("full", "Models on all test users", ("full",), ("training", "cost", "budget", "sensitivity")),
    (
        "features",
        "What the features say",
        ("zero-shot", "item-cf", "diagnostics", "knock-out"),
        ("protocols", "knock-out", "audit"),
    ),
    ("robustness", "Robustness to missing content", ("mask-modality",), ("robustness",)),
    ("long-tail", "Long tail", ("long-tail",), ("long-tail",)),
    ("cold-start", "Cold start", ("cold-start",), ()),
    ("lists", "What the lists are like", ("beyond-accuracy",), ("beyond-accuracy",)),
)
SHOWN = ("Recall@20", "NDCG@20")
Found = Mapping[ComparisonKey, Sequence[SeedGroup]]


def dataset_page(dataset: str) -> str:
    """Path of a data set's page in the site."""
    return f"data/{safe(dataset)}.html"


def owner(stem: str, names: Sequence[str]) -> str:
    """The data set that a table or figure is of."""
    return max((name for name in names if f"{stem}-".startswith(f"{name}-")), key=len)


def protocol_of(stem: str, dataset: str) -> str:
    """The protocol of a table's file.

    >>> protocol_of("baby", "baby"), protocol_of("baby-tests", "baby")
    ('full', 'full')
    >>> protocol_of("baby-item-cf-tests", "baby")
    'item-cf'
    """
    rest = stem.removeprefix(dataset)
    for part in PARTS:
        rest = rest.removesuffix(part)
    return rest.removeprefix("-") or "full"


def pages(
    dataset: str,
    runs: Sequence[Run],
    groups: Mapping[str, SeedGroup],
    tables: Mapping[str, Sequence[Table]],
    figures: Sequence[str],
    found: Found,
) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Path, template and values of a data set's pages: the main one, long tables, all runs.

    Args:
        groups: by run page, the runs that differ in the seed alone.
        tables, figures: those of the data set.
    """
    blocks: list[tuple[str, Block]] = []
    for stem, several in tables.items():
        for number, table in enumerate(several):
            downloads = [(kind, f"files/{safe(stem)}.{end}") for kind, end in DOWNLOADS]
            folded = stem.endswith(PARTS)
            made = block(table, f"{stem}-{number}", _groups(table, found), folded, downloads)
            blocks.append((protocol_of(stem, dataset), made))
    order = {name: i for i, (_, _, protocols, _) in enumerate(SECTIONS) for name in protocols}
    blocks.sort(key=lambda entry: order.get(entry[0], len(SECTIONS)))
    shown, long = fitted([made for _, made in blocks], safe(dataset))
    said: set[str] = set()
    for made in shown:  # what holds for several tables is said once
        made.says = made.footnote not in said
        said.add(made.footnote)
    by_protocol = [(name, made) for (name, _), made in zip(blocks, shown, strict=True)]
    listed = _run_list(runs, groups)
    listing = block(listed, "runs")
    everything = f"{safe(dataset)}--runs"
    _, several_pages = fitted([listing, listing], safe(dataset))
    chunks = several_pages.get(f"{safe(dataset)}--{listing.id}", [listing])
    long = {**long, everything: chunks}
    common = {"dataset": shown_name(dataset), "dataset_page": dataset_page(dataset)}
    yield (
        dataset_page(dataset),
        "dataset.html.j2",
        {
            **common,
            "runs": len(runs),
            "runs_page": f"{everything}.html",
            "sections": list(_sections(by_protocol, figures)),
        },
    )
    for name, parts in long.items():
        paths = [f"{name}{f'-{i + 1}' if i else ''}.html" for i in range(len(parts))]
        for i, part in enumerate(parts):
            part.whole = ""
            yield (
                f"data/{paths[i]}",
                "long.html.j2",
                {**common, "block": part, "place": i, "paths": paths},
            )


DOWNLOADS = (("CSV", "csv"), ("LaTeX", "tex"))


def _groups(table: Table, found: Found) -> Groups:
    """The runs behind a table's rows, by label and features."""
    titles = {key: table_title(key) for key in found}
    keys = [k for k, title in titles.items() if f"{table.title}:".startswith((f"{title}:",))]
    key = max(keys, key=lambda k: len(titles[k]), default=None)
    return {(g.label, g.first.features): g for g in found[key]} if key else {}


def _sections(
    blocks: Sequence[tuple[str, Block]], figures: Sequence[str]
) -> Iterator[dict[str, Any]]:
    known = {name for _, _, protocols, _ in SECTIONS for name in protocols}
    others = tuple(dict.fromkeys(name for name, _ in blocks if name not in known))
    for anchor, heading, protocols, kinds in (*SECTIONS, ("more", "More", others, ())):
        own = [made for name, made in blocks if name in protocols]
        drawn = [name for kind in kinds for name in figures if kind_of(name) == kind]
        if own or drawn:
            yield {
                "id": anchor,
                "heading": heading,
                "blocks": own,
                "figures": [
                    {
                        "name": name,
                        "file": figure_file(name, "svg"),
                        "downloads": [
                            (suffix.upper(), figure_file(name, suffix)) for suffix in FIGURE_FILES
                        ],
                        "caption": CAPTIONS[kind_of(name)],
                    }
                    for name in drawn
                ],
            }


def _run_list(runs: Sequence[Run], groups: Mapping[str, SeedGroup]) -> Table:
    rows = []
    for run in runs:
        record = run.record
        name = run_title(run, groups.get(run_page(run)))
        rows.append(
            [
                Cell(name, link=run_page(run)),
                text_cell(record.features),
                *(mean_sd_cell([record.metrics[m]] if m in record.metrics else []) for m in SHOWN),
                Cell(f"{record.seconds['total']:.0f}", record.seconds["total"]),
                text_cell(record.status),
            ]
        )
    return Table("All runs, by path", ["run", "features", *SHOWN, "seconds", "status"], rows)
