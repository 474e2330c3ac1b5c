"""Tables, plots and a site from stored records; nothing is run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from alignrec_recbole.errors import RecordError
from alignrec_recbole.reports import plots, protocol_tables, site
from alignrec_recbole.reports.grouping import blocks
from alignrec_recbole.reports.significance import Side
from alignrec_recbole.reports.tables import (
    Table,
    comparisons,
    leaderboard,
    significance,
    variant_comparisons,
    write_tables,
)
from alignrec_recbole.runs.record import Run, read_runs


def build(
    output: Path, target: str | None = None, side: Side = "two-sided", test: str = "t"
) -> list[Path]:
    """Write tables, plots and site; return the paths of the tables, the plots and the index.

    Raises:
        RecordError: there is no record, or one is damaged.
    """
    runs = read_runs(output / "runs")
    if not runs:
        raise RecordError(
            "There is nothing to report.",
            found=f"no record under {output / 'runs'}",
            expected="the output folder of earlier runs",
            hint="run a benchmark first, or pass --output with its folder",
        )
    tuning = read_runs(output / "tuning")
    pages = tables(runs, target, side, test)
    paths = []
    for stem, several in pages.items():
        paths += write_tables(several, output / "tables", stem)
    drawn, left_out = plots.draw_all(runs, tuning)
    for name, figure in drawn.items():
        paths += plots.save(figure, output / "plots", name)
    for reason in left_out:
        print(f"not drawn: {reason}")
    return [*paths, site.write(output / "site", runs, pages, drawn, output / "suites")]


def tables(
    runs: Sequence[Run], target: str | None = None, side: Side = "two-sided", test: str = "t"
) -> dict[str, list[Table]]:
    """File stem → its tables."""
    out: dict[str, list[Table]] = defaultdict(list)
    for block, members in blocks(runs).items():
        stem = block.dataset if block.protocol == "full" else f"{block.dataset}-{block.protocol}"
        if block.protocol in protocol_tables.TABLES:
            out[stem] += protocol_tables.TABLES[block.protocol](block, members)
            continue
        tests = comparisons(members, target, side, test)
        out[stem].append(leaderboard(block, members, tests, target))
        if tests:
            out[f"{stem}-tests"].append(significance(block, tests, side, test))
        if variants := variant_comparisons(members, side, test):
            what = "variants, paired with the model as it is"
            out[f"{stem}-tests"].append(significance(block, variants, side, test, what))
    return out
