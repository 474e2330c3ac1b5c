"""Comparison tables as views of run records: terminal, Markdown, LaTeX, CSV."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from tabulate import tabulate

from alignrec_recbole.files import atomic_write
from benchmarks.record import RunRecord

COLUMNS = ("Recall@10", "Recall@20", "NDCG@10", "NDCG@20")
MISSING = "—"


@dataclass(frozen=True)
class Row:
    """Runs that differ in nothing but the seed, or one line of a published table."""

    model: str
    features: str
    setting: str
    seeds: tuple[int, ...]
    values: dict[str, list[float]]
    epochs: str
    seconds: str
    note: str

    def cell(self, metric: str) -> str:
        """Mean ± standard deviation over seeds; a dash where there is no value."""
        values = self.values.get(metric, [])
        if not values:
            return MISSING
        mean = f"{np.mean(values):.4f}"
        return f"{mean} ± {np.std(values, ddof=1):.4f}" if len(values) > 1 else mean


def rows_of(records: Sequence[RunRecord]) -> list[Row]:
    """Group finished records of one data set by all but the seed."""
    groups: dict[tuple, list[RunRecord]] = defaultdict(list)
    for record in records:
        if record.status == "finished" and record.metrics:
            key = (record.model, record.features, record.setting, record.config_sha256)
            groups[key].append(record)
    variants: dict[tuple, set[str]] = defaultdict(set)
    for model, features, setting, digest in groups:
        variants[model, features, setting].add(digest)
    rows = []
    for (model, features, setting, digest), group in groups.items():
        group.sort(key=lambda record: record.seed)
        several = len(variants[model, features, setting]) > 1
        notes = list(dict.fromkeys(note for record in group for note in record.notes))
        tuned = group[0].tuned_on
        rows.append(
            Row(
                model=f"{model} [{digest[:8]}]" if several else model,
                features=features,
                setting=setting,
                seeds=tuple(record.seed for record in group),
                values={m: [r.metrics[m] for r in group if m in r.metrics] for m in COLUMNS},
                epochs="/".join(str(record.epochs) for record in group),
                seconds=f"{np.median([r.seconds['train_epoch'] for r in group]):.2f}",
                note="; ".join([*notes, *([tuned] if tuned else [])]),
            )
        )
    return sorted(rows, key=lambda row: np.mean(row.values["Recall@20"] or [0.0]))


def published_rows(dataset: str, models: set[str]) -> list[Row]:
    """Published results on the same split, of the given models."""
    table = yaml.safe_load((Path(__file__).parent / "published.yaml").read_text(encoding="utf-8"))
    rows = []
    for entry in table["rows"]:
        if entry["dataset"] == dataset and entry["model"] in models:
            values = dict(zip(table["columns"], ([v] for v in entry["values"]), strict=True))
            comparable = "" if entry["features"] == "none" else "not comparable: other features; "
            rows.append(
                Row(
                    model=f"{entry['model']} (published)",
                    features=entry["features"],
                    setting="mmrec",
                    seeds=(),
                    values=values,
                    epochs=MISSING,
                    seconds=MISSING,
                    note=f"{comparable}source {entry['source']}, hyper-parameters chosen on test",
                )
            )
    return rows


def comparison(records: Sequence[RunRecord], dataset: str) -> list[Row]:
    """Our rows, weakest first, each published row beside them."""
    ours = rows_of([record for record in records if record.dataset == dataset])
    models = {record.model for record in records if record.dataset == dataset}
    return ours + published_rows(dataset, models)


def _cells(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    header = ["model", "features", "setting", "seeds", *COLUMNS, "epochs", "s/epoch", "note"]
    body = [
        [
            row.model,
            row.features,
            row.setting,
            str(len(row.seeds)) if row.seeds else MISSING,
            *(row.cell(metric) for metric in COLUMNS),
            row.epochs,
            row.seconds,
            row.note,
        ]
        for row in rows
    ]
    return header, body


def as_text(rows: Sequence[Row], style: str = "simple") -> str:
    """The table in one of tabulate's styles."""
    header, body = _cells(rows)
    return tabulate(body, headers=header, tablefmt=style, disable_numparse=True)


def write_tables(rows: Sequence[Row], folder: Path, dataset: str) -> list[Path]:
    """Write `<dataset>.md`, `.tex` and `.csv` into a folder and return their paths."""
    header, body = _cells(rows)
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows([header, *body])
    texts = {
        "md": f"# {dataset}\n\nTest split, mean ± sd over seeds. Setting mmrec masks "
        "training items, recbole also validation items.\n\n" + as_text(rows, "github") + "\n",
        "tex": as_text(rows, "latex_booktabs") + "\n",
        "csv": buffer.getvalue(),
    }
    paths = []
    for suffix, text in texts.items():
        path = folder / f"{dataset}.{suffix}"
        with atomic_write(path, "w") as handle:
            handle.write(text)
        paths.append(path)
    return paths
