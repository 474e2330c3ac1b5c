"""A static site from records: leaderboards, plots and one page a run. No server, no other host."""

from __future__ import annotations

import io
import json
import re
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from alignrec_recbole.io.files import atomic_write
from alignrec_recbole.reports import plots
from alignrec_recbole.reports.grouping import Group
from alignrec_recbole.reports.tables import Cell, Table, as_html, number, text
from alignrec_recbole.runs.record import Run
from alignrec_recbole.suites.status import CellStatus, read_status

TEMPLATES = Path(__file__).parent / "templates"
CAPTIONS = {
    "protocols": "Test metric by protocol and feature set; error bars: sd over seeds, dots: chance",
    "robustness": "Test metric by the share of masked items; bands: 95 % t-interval, mask seeds",
    "long-tail": "Test metric by the user's history and by the item's popularity; error bars: sd",
    "training": "Validation metric and loss by epoch, a line a seed; dots: the epoch ranked",
    "cost": "Test metric against time and memory of a run; dotted: what nothing beats in both",
    "sensitivity": "Best validation score by every value that a grid tried",
}


def write(
    folder: Path,
    runs: Sequence[Run],
    tables: Mapping[str, Sequence[Table]],
    figures: Mapping[str, Figure],
    suites: Path,
) -> Path:
    """Write the site anew and return its index."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    shutil.rmtree(folder / "runs", ignore_errors=True)  # pages of records that are gone
    pages = {run.path: f"runs/{_slug(run)}.html" for run in runs}
    for run in runs:
        _write(folder / pages[run.path], environment, "run.html.j2", _run_page(run))
    _write(
        folder / "index.html",
        environment,
        "index.html.j2",
        {
            "counts": _counted(runs),
            "sections": list(_sections(runs, tables, figures)),
            "suites": [_suite(name, cells) for name, cells in read_status(suites).items()],
            "runs": Markup(as_html(_all_runs(runs, pages))),
        },
    )
    return folder / "index.html"


def _write(path: Path, environment: Environment, template: str, values: dict[str, Any]) -> None:
    with atomic_write(path, "w") as handle:
        handle.write(environment.get_template(template).render(values))


def _slug(run: Run) -> str:
    parts = run.path.with_suffix("").parts
    inside = parts[parts.index("runs") + 1 :] if "runs" in parts else parts[-3:]
    return re.sub(r"[^\w.+-]", "_", "--".join(inside))


def _counted(runs: Sequence[Run]) -> str:
    kinds = Counter(run.record.protocol for run in runs)
    sets = {run.record.dataset for run in runs}
    each = ", ".join(f"{count} {name}" for name, count in sorted(kinds.items()))
    return f"{len(runs)} runs on {len(sets)} data sets ({each})"


def _sections(
    runs: Sequence[Run], tables: Mapping[str, Sequence[Table]], figures: Mapping[str, Figure]
) -> Iterator[dict[str, Any]]:
    names = sorted({run.record.dataset for run in runs})

    def owner(stem: str) -> str:
        return max((n for n in names if f"{stem}-".startswith(f"{n}-")), key=len)

    for dataset in names:
        yield {
            "id": re.sub(r"\W", "-", dataset),
            "name": dataset,
            "tables": [
                {
                    "heading": table.title.partition(", ")[2],
                    "note": table.note,
                    "html": Markup(as_html(table)),
                    "folded": stem.endswith("-tests"),
                    "rows": len(table.rows),
                }
                for stem, several in tables.items()
                if owner(stem) == dataset
                for table in several
            ],
            "figures": [
                {
                    "svg": _inline(figure, name),
                    "caption": f"{dataset}. {_caption(name)}.",
                    "wide": figure.get_figwidth() > 7,
                }
                for name, figure in figures.items()
                if owner(name) == dataset
            ],
        }


def _caption(name: str) -> str:
    return next(caption for kind, caption in CAPTIONS.items() if name.endswith(f"-{kind}"))


def _inline(figure: Figure, name: str) -> Markup:
    """The figure as SVG that takes the page's text colour, with ids of its own and a name."""
    buffer = io.StringIO()
    with plots.mpl.rc_context(plots.STYLE):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :].replace(plots.INK, "currentColor")
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    label = re.sub(r"[^\w -]", "", name).replace("-", " ")
    unique = re.sub(r"\W", "_", name)
    svg = re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{unique}-", svg)
    return Markup(svg.replace("<svg ", f'<svg role="img" aria-label="Plot: {label}" ', 1))


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
                text(record.dataset),
                text(record.protocol),
                text(record.model),
                text(record.features),
                Cell(str(record.seed), float(record.seed)),
                *(number([record.metrics[m]] if m in record.metrics else []) for m in _SHOWN),
                Cell(f"{record.seconds['total']:.0f}", record.seconds["total"]),
                text(record.status),
            ]
        )
    header = ["run", "data set", "protocol", "model", "features", "seed", *_SHOWN, "s", "status"]
    return Table("All runs, by path", header, rows)


_SHOWN = ("Recall@20", "NDCG@20")


def _run_page(run: Run) -> dict[str, Any]:
    record = run.record
    curve = None
    if record.history:
        group = Group(record.model, (run,))
        curve = _inline(plots.training_curves([group]), f"training-{_slug(run)}")
    tables = [("Metrics", Markup(as_html(_metrics(run))))] if record.metrics else []
    tables += [
        (f"By {kind}", Markup(as_html(_grouped(kind, values))))
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
            text(name),
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
        [text(name), *(_figure(figures.get(column)) for column in columns)]
        for name, figures in values.items()
    ]
    return Table(kind, ["group", *columns], rows)


def _figure(value: float | None) -> Cell:
    return text("") if value is None else Cell(f"{value:.6g}", value)


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
