"""A page per run: metrics, curves, the other seeds, the command, and everything in the record."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from alignrec_recbole.reports.grouping import SeedGroup
from alignrec_recbole.reports.site.blocks import Block, block
from alignrec_recbole.reports.site.curves import curves
from alignrec_recbole.reports.site.names import run_page, run_slug, run_title, safe
from alignrec_recbole.reports.table import Cell, Table, text_cell
from alignrec_recbole.runs.record import Run

MAX_FACTS = 300  # of one section; the rest is in the record
MAX_CELLS = 600  # of one table


def page(run: Run, group: SeedGroup | None) -> dict[str, Any]:
    """What the page of a run shows.

    Args:
        group: the runs that differ in the seed alone; None if the run is in no table.
    """
    record = run.record
    tables = [_metrics(run)] if record.metrics else []
    tables += [_grouped(kind, values) for kind, values in (record.groups or {}).items()]
    return {
        "title": run_title(run, group),
        "dataset": record.dataset,
        "dataset_page": f"data/{safe(record.dataset)}.html",
        "status": record.status,
        "notes": [*record.notes, *([record.tuned_on] if record.tuned_on else [])],
        "error": record.error or "",
        "facts": [
            ("data set", record.dataset),
            ("protocol", record.protocol),
            ("convention", record.setting),
            ("epochs", str(record.epochs)),
            ("time", f"{record.seconds['total']:.0f} s"),
            ("peak memory", f"{record.peak_rss_bytes / 2**30:.2f} GiB"),
        ],
        "seeds": [
            (str(other.record.seed), run_page(other), other.path == run.path)
            for other in (group.runs if group else ())
        ],
        "blocks": [_shortened(block(table, f"m-{i}")) for i, table in enumerate(tables)],
        "curves": curves(record),
        "command": record.command,
        "record": f"{run_slug(run)}.json",
        "sections": [
            ("Selection", _facts({**record.selection, "tuned on": record.tuned_on})),
            ("Configuration", _facts(record.config)),
            ("Data", _facts(record.data)),
            ("Features", _facts(record.feature_files) or [("features", "none")]),
            ("Provenance", _facts(_provenance(run))),
        ],
    }


def _provenance(run: Run) -> dict[str, Any]:
    record = run.record
    return {
        "status": record.status,
        "started": record.started_utc,
        "code": record.code,
        "machine": record.machine,
        "seconds": record.seconds,
        "peak GPU memory": f"{record.peak_gpu_bytes / 2**30:.2f} GiB",
        "parameters": record.parameters,
        "config sha256": record.config_sha256,
        "record": run.path.name,
        "per-user values": (record.per_user or {}).get("file", "none"),
    }


def _metrics(run: Run) -> Table:
    record = run.record
    rows = [
        [
            text_cell(name),
            _figure(record.metrics[name]),
            _figure(record.valid_metrics.get(name)),
            *([_figure(record.chance.get(name))] if record.chance else []),
        ]
        for name in record.metrics
    ]
    header = ["metric", "test", "validation", *(["chance"] if record.chance else [])]
    return Table("Metrics", header, rows).without_empty()


def _grouped(kind: str, values: Mapping[str, Mapping[str, float]]) -> Table:
    columns = list(dict.fromkeys(name for figures in values.values() for name in figures))[:40]
    rows = [
        [text_cell(name), *(_figure(figures.get(column)) for column in columns)]
        for name, figures in values.items()
    ]
    return Table(f"By {kind}", ["group", *columns], rows)


def _shortened(whole: Block) -> Block:
    """The first rows, where a page cannot have all."""
    most = max(1, MAX_CELLS // max(1, len(whole.header)))
    part = whole.part(0, most)
    if len(whole.rows) > most:
        part.note = f"The first {most} of {len(whole.rows)} rows; the record has all."
    return part


def _figure(value: float | None) -> Cell:
    return text_cell("") if value is None else Cell(f"{value:.6g}", value)


def facts(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Nested values flattened to dotted keys."""
    out: list[tuple[str, str]] = []
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            out += [(f"{key}.{inner}", shown) for inner, shown in facts(value)]
        elif isinstance(value, float):
            out.append((key, f"{value:.6g}"))
        else:
            out.append((key, value if isinstance(value, str) else json.dumps(value)))
    return out


def _facts(values: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
    """As many facts as a page has, each of at most 2,000 characters."""
    found = facts(values)
    shown = [(key, text if len(text) <= 2000 else f"{text[:2000]}…") for key, text in found]
    rest = len(found) - MAX_FACTS
    more = [("more", f"{rest} further values in the record")] if rest > 0 else []
    return [*shown[:MAX_FACTS], *more]
