"""A static site from records: leaderboards, plots and one page per run; it needs no server."""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from alignrec_recbole.audit.report import AuditReport
from alignrec_recbole.data.rekeyed_names import shown_name
from alignrec_recbole.errors import printable
from alignrec_recbole.io.files import atomic_write
from alignrec_recbole.reports import audit_tables
from alignrec_recbole.reports.captions import CAPTIONS
from alignrec_recbole.reports.grouping import SeedGroup
from alignrec_recbole.reports.inputs import Inputs, digest_of
from alignrec_recbole.reports.tables import DATA_MARK, Cell, Table, as_html, mean_sd_cell, text_cell
from alignrec_recbole.runs.record import Run, record_folder
from alignrec_recbole.suites.status import CellStatus

TEMPLATES = Path(__file__).parent / "templates"
MAX_SHOWN = 20_000  # characters of one text on a page: a traceback
MAX_SLUG_BYTES = 180  # of 255 that file systems allow
RESERVED = {"content", "suites", "audits", "runs"}  # ids of the pages themselves
INK = "#1b1e23"  # of plots; the site uses its own text colour instead


def figure_path(folder: Path, name: str) -> Path:
    """Path of a figure as the pages include it."""
    return folder / "figures" / f"{name}.svg"


def write_figure(svg: str, folder: Path, name: str) -> str:
    """Write a figure as the pages include it: their text colour, its own ids, a name."""
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor")
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    label = re.sub(r"[^\w -]", "", name).replace("-", " ")
    unique = _unique(name, "_")
    svg = re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{unique}-", svg)
    svg = svg.replace("<svg ", f'<svg role="img" aria-label="Plot: {label}" ', 1)
    with atomic_write(figure_path(folder, name), "w") as handle:
        handle.write(svg)
    return svg


def write(
    folder: Path,
    runs: Sequence[Run],
    tables: Mapping[str, Sequence[Table]],
    figures: Mapping[str, str],
    suites: Mapping[str, Sequence[CellStatus]],
    audits: Sequence[tuple[Path, AuditReport]],
    inputs: Inputs,
) -> Path:
    """Write the pages whose contents changed; return the index."""
    pages = {run.path: f"runs/{_slug(run)}.html" for run in runs}
    for run in runs:
        page = pages[run.path]
        digest = digest_of(page, [run.path])
        curve = [figure_path(folder, _curve_name(run))] if run.record.history else []
        if not inputs.unchanged(page, digest, [folder / page, *curve]):
            _render(folder / page, "run.html.j2", _run_page(run, folder))
            inputs.note(page, digest, [folder / page, *curve])
    audited = {path: f"audits/{_safe(path.stem)}.html" for path, _ in audits}
    for path, report in audits:
        page = audited[path]
        digest = digest_of(page, [path])
        if not inputs.unchanged(page, digest, [folder / page]):
            _render(folder / page, "audit.html.j2", _audit_page(report))
            inputs.note(page, digest, [folder / page])
    index = folder / "index.html"
    values = {
        "counts": _counted(runs),
        "sections": list(_sections(runs, tables, figures)),
        "suites": [_suite(name, cells) for name, cells in suites.items()],
        "audits": as_html(_all_audits(audits, audited)) if audits else "",
        "runs": as_html(_all_runs(runs, pages)),
    }
    digest = digest_of(index.name, [], values)
    if not inputs.unchanged(index.name, digest, [index]):
        _render(index, "index.html.j2", values)
        inputs.note(index.name, digest, [index])
    return index


def _render(path: Path, template: str, values: dict[str, Any]) -> None:
    with atomic_write(path, "w") as handle:
        handle.write(_environment().get_template(template).render(values))


@functools.cache
def _environment() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        finalize=_printable,
    )


def _printable(value: Any) -> Any:
    """Text without control characters; HTML of our own as it is."""
    is_text = isinstance(value, str) and not hasattr(value, "__html__")
    return printable(value, MAX_SHOWN) if is_text else value


def _slug(run: Run) -> str:
    """Name of a run's page: the parts of its record's path, or what is left of them and a hash."""
    record = run.record
    folder = record_folder(record.dataset, record.protocol, record.model)
    return _safe("--".join([*folder.parts, run.path.stem]))


def _safe(whole: str) -> str:
    """A name for a page's file: the whole name, or what is left of it and a hash."""
    slug = re.sub(r"[^\w.+-]", "_", whole)
    if slug == whole and len(slug.encode()) <= MAX_SLUG_BYTES:
        return slug
    kept = slug.encode()[: MAX_SLUG_BYTES - 17].decode("utf-8", "ignore")
    return f"{kept}-{hashlib.sha256(whole.encode()).hexdigest()[:16]}"


def _curve_name(run: Run) -> str:
    return f"training-{_slug(run)}"


def _unique(name: str, other: str) -> str:
    """A name for an HTML id: letters, digits and `other`; two names never have the same."""
    shown = re.sub(r"\W", other, name)
    if re.fullmatch(r"[\w-]+", name) and name not in RESERVED:
        return shown
    return f"{shown}{other}{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _counted(runs: Sequence[Run]) -> str:
    kinds = Counter(run.record.protocol for run in runs)
    sets = {run.record.dataset for run in runs}
    each = ", ".join(f"{count} {name}" for name, count in sorted(kinds.items()))
    return f"{len(runs)} runs on {len(sets)} data sets ({each})"


def _sections(
    runs: Sequence[Run], tables: Mapping[str, Sequence[Table]], figures: Mapping[str, str]
) -> Iterator[dict[str, Any]]:
    names = sorted({run.record.dataset for run in runs})

    def owner(stem: str) -> str:
        return max((n for n in names if f"{stem}-".startswith(f"{n}-")), key=len)

    for dataset in names:
        yield {
            "id": _unique(dataset, "-"),
            "name": shown_name(dataset),
            "tables": [
                {
                    "heading": table.title.partition(", ")[2]
                    + (f" {DATA_MARK}" if table.footnote else ""),
                    "note": table.note,
                    "html": as_html(table),
                    "folded": stem.endswith("-tests"),
                    "rows": len(table.rows),
                }
                for stem, several in tables.items()
                if owner(stem) == dataset
                for table in several
            ],
            "figures": [
                {
                    "svg": svg,
                    "caption": f"{dataset}. {_caption(name)}.",
                    "wide": _wide(svg),
                }
                for name, svg in figures.items()
                if owner(name) == dataset
            ],
        }


def _caption(name: str) -> str:
    return next(caption for kind, caption in CAPTIONS.items() if name.endswith(f"-{kind}"))


def _wide(svg: str) -> bool:
    """Whether a figure is wider than seven inches."""
    width = re.search(r'width="([\d.]+)pt"', svg)
    return width is not None and float(width[1]) > 7 * 72


def _suite(name: str, cells: Sequence[CellStatus]) -> dict[str, Any]:
    counts = Counter(cell.status for cell in cells)
    return {
        "name": name,
        "counts": ", ".join(f"{count} {status}" for status, count in sorted(counts.items())),
        "problems": [cell for cell in cells if cell.status != "finished"],
    }


def _all_runs(runs: Sequence[Run], pages: Mapping[Path, str]) -> Table:
    rows = []
    for run in runs:
        record = run.record
        rows.append(
            [
                Cell(run.path.stem, link=pages[run.path]),
                text_cell(record.dataset),
                text_cell(record.protocol),
                text_cell(record.model),
                text_cell(record.features),
                Cell(str(record.seed), float(record.seed)),
                *(mean_sd_cell([record.metrics[m]] if m in record.metrics else []) for m in _SHOWN),
                Cell(f"{record.seconds['total']:.0f}", record.seconds["total"]),
                text_cell(record.status),
            ]
        )
    header = ["run", "data set", "protocol", "model", "features", "seed", *_SHOWN, "s", "status"]
    return Table("All runs, by path", header, rows)


_SHOWN = ("Recall@20", "NDCG@20")


def _all_audits(audits: Sequence[tuple[Path, AuditReport]], pages: Mapping[Path, str]) -> Table:
    rows = []
    for path, report in audits:
        checks = ", ".join(f"{audit_tables.label(c)}: {c.verdict}" for c in report.not_clean())
        rows.append(
            [
                Cell(path.stem, link=pages[path]),
                text_cell(report.dataset),
                text_cell("+".join(report.features)),
                text_cell(report.model),
                text_cell(report.verdict),
                text_cell(checks),
            ]
        )
    header = ["audit", "data set", "features", "model", "verdict", "not clean"]
    return Table("Audits, by path", header, rows)


def _audit_page(report: AuditReport) -> dict[str, Any]:
    return {
        "title": audit_tables.title(report),
        "facts": audit_tables.facts(report),
        "notes": report.notes,
        "tables": [(table.title, as_html(table)) for table in audit_tables.tables(report)],
        "checks": [
            (f"{audit_tables.label(check)}: {check.verdict}", list(audit_tables.lines(check)))
            for check in report.checks
        ],
        "skipped": [(entry.name, entry.reason) for entry in report.skipped],
        "provenance": _facts(
            {
                "command": report.command,
                "code": report.code,
                "data": report.data,
                "split sha256": report.split_sha256,
                "features": report.feature_files,
            }
        ),
    }


def _run_page(run: Run, folder: Path) -> dict[str, Any]:
    record = run.record
    curve = None
    if record.history:
        from alignrec_recbole.reports import plots

        figure = plots.training_curves([SeedGroup(record.model, (run,))])
        curve = write_figure(plots.as_svg(figure), folder, _curve_name(run))
    tables = [("Metrics", as_html(_metrics(run)))] if record.metrics else []
    tables += [
        (f"By {kind}", as_html(_grouped(kind, values)))
        for kind, values in (record.groups or {}).items()
    ]
    provenance = {
        "status": record.status,
        "command": record.command,
        "started": record.started_utc,
        "code": record.code,
        "machine": record.machine,
        "seconds": record.seconds,
        "peak memory": f"{record.peak_rss_bytes / 2**30:.2f} GiB",
        "peak GPU memory": f"{record.peak_gpu_bytes / 2**30:.2f} GiB",
        "parameters": record.parameters,
        "config sha256": record.config_sha256,
        "record": run.path.name,
        "per-user values": (record.per_user or {}).get("file", "none"),
    }
    return {
        "title": f"{record.model} on {record.dataset}, {record.protocol}, seed {record.seed}",
        "notes": [*record.notes, *([record.error] if record.error else [])],
        "tables": tables,
        "curve": curve,
        "sections": [
            ("Selection", _facts({**record.selection, "tuned on": record.tuned_on})),
            ("Configuration", _facts(record.config)),
            ("Data", _facts(record.data)),
            ("Features", _facts(record.feature_files) or [("features", "none")]),
            ("Provenance", _facts(provenance)),
        ],
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
    return Table(f"Metrics, setting {record.setting}", header, rows).without_empty()


def _grouped(kind: str, values: Mapping[str, Mapping[str, float]]) -> Table:
    columns = list(dict.fromkeys(name for figures in values.values() for name in figures))
    rows = [
        [text_cell(name), *(_figure(figures.get(column)) for column in columns)]
        for name, figures in values.items()
    ]
    return Table(kind, ["group", *columns], rows)


def _figure(value: float | None) -> Cell:
    return text_cell("") if value is None else Cell(f"{value:.6g}", value)


def _facts(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Nested values flattened to dotted keys."""
    out: list[tuple[str, str]] = []
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            out += [(f"{key}.{inner}", shown) for inner, shown in _facts(value)]
        elif isinstance(value, float):
            out.append((key, f"{value:.6g}"))
        else:
            out.append((key, value if isinstance(value, str) else json.dumps(value)))
    return out
