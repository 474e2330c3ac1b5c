"""The protocols' results as one Markdown page a data set, a view of records alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from tabulate import tabulate

from alignrec_recbole.files import atomic_write
from benchmarks.protocols import PROTOCOLS
from benchmarks.protocols.robustness import curve_points, robustness
from benchmarks.record import RunRecord

RANKED = ("Recall@10", "Recall@20", "NDCG@10", "NDCG@20")
HEADLINE = "Recall@20"


def line(record: RunRecord) -> str:
    """One line for the terminal."""
    values = {
        name: record.metrics[name] for name in ("Recall@20", "NDCG@20") if name in record.metrics
    }
    shown = ", ".join(f"{name} {value:.4f}" for name, value in (values or record.metrics).items())
    name = "" if record.model in ("none", record.protocol) else f" {record.model}"
    return (
        f"{record.protocol}{name} {record.dataset} {record.features} seed {record.seed}: {shown} "
        f"({record.seconds['total']:.0f} s)"
    )


def write_summary(records: Iterable[RunRecord], folder: Path, dataset: str) -> Path:
    """Write `<dataset>-protocols.md` and return its path."""
    by_protocol: dict[str, list[RunRecord]] = defaultdict(list)
    for record in records:
        if record.status == "finished" and record.dataset == dataset:
            by_protocol[record.protocol].append(record)
    parts = [f"# {dataset}: protocols"]
    for name, table in _TABLES.items():
        if by_protocol[name]:
            parts.append(f"## {name}: {PROTOCOLS[name][1]}\n\n{table(by_protocol[name])}")
    path = folder / f"{dataset}-protocols.md"
    with atomic_write(path, "w") as handle:
        handle.write("\n\n".join(parts) + "\n")
    return path


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return tabulate(rows, headers=header, tablefmt="github", disable_numparse=True)


def _groups(records: list[RunRecord]) -> list[list[RunRecord]]:
    """Records that differ in nothing but the seed, the best first."""
    groups: dict[tuple, list[RunRecord]] = defaultdict(list)
    for record in records:
        groups[record.model, record.features, record.config_sha256].append(record)
    return sorted(groups.values(), key=lambda group: -_mean(group, HEADLINE))


def _mean(group: list[RunRecord], metric: str) -> float:
    return float(np.mean([record.metrics.get(metric, 0.0) for record in group]))


def _cell(values: Sequence[float]) -> str:
    if not values:
        return "—"
    spread = f" ± {np.std(values, ddof=1):.4f}" if len(values) > 1 else ""
    return f"{np.mean(values):.4f}{spread}"


def _ranked(records: list[RunRecord]) -> str:
    """Metrics of the rankers by feature set, and the chance level."""
    rows = []
    for group in _groups(records):
        first = group[0]
        rows.append(
            [
                first.model,
                first.features,
                *(_cell([r.metrics[m] for r in group]) for m in RANKED),
                _cell([r.chance[HEADLINE] for r in group if r.chance][:1]),
                str(len(group)),
                "; ".join([*([first.tuned_on] if first.tuned_on else []), *first.notes]),
            ]
        )
    return _markdown(["ranker", "features", *RANKED, "chance R@20", "draws", "note"], rows)


def _masked(records: list[RunRecord]) -> str:
    """Recall@20 over the mask ratio, and the area under the retention."""
    curves: dict[tuple[str, str, str, str], list[tuple[float, float]]] = {}
    for record in records:
        if record.curve is None:
            mask = record.config["feature_mask"]
            key = (record.model, record.features, mask["modality"], mask["fill"])
            curves.setdefault(key, []).append((mask["ratio"], record.metrics[HEADLINE]))
            continue
        fill = record.config["protocol"]["fill"]
        for modality in dict.fromkeys(point["modality"] for point in record.curve):
            key = (record.model, record.features, modality, fill)
            curves[key] = curve_points(record.curve, modality, HEADLINE)
    ratios = sorted({ratio for points in curves.values() for ratio, _ in points})
    rows = []
    for key, points in sorted(curves.items()):
        values = defaultdict(list)
        for ratio, value in points:
            values[ratio].append(value)
        complete = len(values) > 1 and 0.0 in values
        area = f"{robustness(points).area:.3f}" if complete else "—"
        rows.append([*key, *(_short(values[ratio]) for ratio in ratios), area])
    header = ["ranker", "features", "masked", "fill", *(f"{r:g}" for r in ratios), "area"]
    return f"{HEADLINE} by mask ratio, mean over mask seeds.\n\n{_markdown(header, rows)}"


def _short(values: Sequence[float]) -> str:
    return f"{np.mean(values):.4f}" if values else "—"


def _tails(records: list[RunRecord]) -> str:
    """Recall@20 by user history and by item popularity, with the exposure of each item group."""
    groups = _groups(records)
    shown = {
        ("history", HEADLINE): "Recall@20 of users by training items",
        ("popularity", HEADLINE): "Recall@20 of targets by training interactions",
        ("popularity", "exposure@20"): "Share of top-20 places by training interactions",
    }
    parts = []
    for (kind, metric), title in shown.items():
        labels = list((groups[0][0].groups or {})[kind])
        rows = []
        for group in groups:
            tables = [(record.groups or {})[kind] for record in group]
            cells = [
                _cell([t[name][metric] for t in tables if metric in t[name]]) for name in labels
            ]
            rows.append([group[0].model, group[0].features, group[0].setting, *cells])
        parts.append(f"{title}.\n\n" + _markdown(["ranker", "features", "setting", *labels], rows))
    return "\n\n".join(parts)


def _diagnosed(records: list[RunRecord]) -> str:
    """One row a feature set."""
    rows = {record.features: record.metrics for record in records}
    for record in records:
        for name, values in (record.groups or {}).get("features", {}).items():
            rows.setdefault(name, values)
        for name, values in (record.groups or {}).get("pairs", {}).items():
            rows[name] = values
    columns = list(dict.fromkeys(name for values in rows.values() for name in values))
    cells = [
        [name, *(f"{values[c]:.4g}" if c in values else "—" for c in columns)]
        for name, values in sorted(rows.items())
    ]
    return _markdown(["features", *columns], cells)


_TABLES = {
    "zero-shot": _ranked,
    "item-cf": _ranked,
    "cold-start": _ranked,
    "mask-modality": _masked,
    "long-tail": _tails,
    "diagnostics": _diagnosed,
}
