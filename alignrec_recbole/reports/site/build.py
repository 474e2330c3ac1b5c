"""Writes the site: every page whose contents changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from alignrec_recbole.audit.report import AuditReport
from alignrec_recbole.reports.grouping import comparable_groups
from alignrec_recbole.reports.inputs import Inputs
from alignrec_recbole.reports.progress import bar
from alignrec_recbole.reports.site import audit_pages, dataset_pages, run_pages, start_page
from alignrec_recbole.reports.site.figures import figure_file
from alignrec_recbole.reports.site.names import run_page, run_slug, safe
from alignrec_recbole.reports.site.rendering import write_assets, write_copy, write_page
from alignrec_recbole.reports.table import Table
from alignrec_recbole.runs.record import Run
from alignrec_recbole.suites.status import CellStatus


def write(
    output: Path,
    runs: Sequence[Run],
    tables: Mapping[str, Sequence[Table]],
    figures: Sequence[str],
    suites: Mapping[str, Sequence[CellStatus]],
    audits: Sequence[tuple[Path, AuditReport]],
    inputs: Inputs,
) -> Path:
    """Write the pages whose contents changed into `<output>/site`; return the start page.

    Args:
        output: has the files of tables, which the site offers for download.
        figures: names of those that were drawn.
    """
    folder = output / "site"
    write_assets(folder, inputs)
    found = comparable_groups(runs)
    groups = {
        run_page(run): group
        for members in found.values()
        for group in members
        for run in group.runs
    }
    for run in bar(runs, "pages"):
        name = run_page(run)
        write_copy(folder, f"runs/{run_slug(run)}.json", run.path, inputs)
        write_page(folder, name, "run.html.j2", run_pages.page(run, groups.get(name)), inputs)
    for path, report in audits:
        page = audit_pages.page(report)
        write_page(folder, audit_pages.audit_page(path), "audit.html.j2", page, inputs)
    names = sorted({run.record.dataset for run in runs})
    by_dataset: dict[str, dict[str, Sequence[Table]]] = {name: {} for name in names}
    for stem, several in tables.items():
        by_dataset[dataset_pages.owner(stem, names)][stem] = several
        for _, suffix in dataset_pages.DOWNLOADS:
            source = output / "tables" / f"{stem}.{suffix}"
            write_copy(folder, f"files/{safe(stem)}.{suffix}", source, inputs)
    for figure in figures:
        source = output / "plots" / f"{figure}.csv"
        write_copy(folder, figure_file(figure, "csv"), source, inputs)
    for name in names:
        own = [run for run in runs if run.record.dataset == name]
        drawn = [figure for figure in figures if dataset_pages.owner(figure, names) == name]
        here = {key: members for key, members in found.items() if key.dataset == name}
        for made in dataset_pages.pages(name, own, groups, by_dataset[name], drawn, here):
            write_page(folder, *made, inputs)
    start = start_page.page(runs, by_dataset, suites, audits)
    return write_page(folder, "index.html", "index.html.j2", start, inputs)
