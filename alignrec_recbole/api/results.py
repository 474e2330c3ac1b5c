"""Finished runs as records, or as one table."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from alignrec_recbole.errors import DataError, SettingError
from alignrec_recbole.evaluation.beyond_accuracy import ALL
from alignrec_recbole.reports.list_tables import (
    PROTOCOL,
    RANKED,
    Source,
    content_of,
    source_of,
    sources,
    why_blank,
)
from alignrec_recbole.runs.lists import read_user_values
from alignrec_recbole.runs.record import Run, RunRecord, read_runs

BY_CONTENT = "ILD"  # the figure of lists that depends on features
KEYS = ["dataset", "model", "features", "protocol", "convention", "seed"]


def load_records(folder: str | os.PathLike[str]) -> list[RunRecord]:
    """The records of finished runs in an output folder, in the order of their paths.

    Raises:
        RecordError: one of them is damaged.
    """
    return [run.record for run in load_runs(folder)]


def load_results(
    folder: str | os.PathLike[str], *, per_user: bool = False, beyond_accuracy: bool = False
) -> pd.DataFrame:
    """The finished runs in an output folder as one table.

    Args:
        folder: the output folder of `run` or of the command line; its `runs/` is read.
        per_user: one row per run and user, with that user's metrics.
        beyond_accuracy: with further columns on the lists of a run, such as `coverage@20` and
            `lift@20`, where the protocol of that name was run for it; else they are empty and
            `why_blank` says why.

    Where the folder has ILD by several contents, its columns name them: `ILD@20 (image)`.

    Returns:
        One row per run, which has one seed: what was run (`dataset`, `model`, `features`,
        `protocol`, `convention`, `seed`), the test metrics under their names, the validation
        metrics as `valid Recall@20`, then epochs, seconds, memory in bytes, joules (empty where no
        energy was measured), parameters, how the settings were chosen, the hash of the settings and
        the record's path. With `per_user` the
        first six columns, `user`, and the metrics; runs without stored values have no rows.

    Raises:
        RecordError: a record, or with `per_user` a file of values, is damaged.
        DataError: there is no such folder.
        SettingError: both options.
    """
    runs = load_runs(folder)
    if per_user and beyond_accuracy:
        raise SettingError(
            "beyond_accuracy adds columns to the table of runs, not to that of users.",
            found="per_user=True and beyond_accuracy=True",
            expected="one of them",
        )
    if per_user:
        parts = list(_of_users(runs))
        return (
            pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=[*KEYS, "user"])
        )
    several = _has_several_contents(runs)
    rows = [_row(run, several) for run in runs]
    described = _described(runs, several) if beyond_accuracy else {}
    lists = list(dict.fromkeys(name for values in described.values() for name in values))
    if beyond_accuracy:
        runs_and_rows = zip(runs, rows, strict=True)
        rows = [row | _lists(run, described) for run, row in runs_and_rows]
        lists.append("why_blank")
    first = list(dict.fromkeys(name for row in rows for name in row))
    others = {*_fixed(), *lists}
    metrics = [name for name in first if name not in others and not name.startswith("valid ")]
    valid = [name for name in first if name.startswith("valid ")]
    fixed = list(_fixed())
    return pd.DataFrame(rows, columns=[*KEYS, *metrics, *valid, *fixed[len(KEYS) :], *lists])


def load_runs(folder: str | os.PathLike[str]) -> list[Run]:
    """The finished runs of an output folder, with their paths."""
    place = Path(folder)
    if not place.is_dir():
        raise DataError(
            f"There is no output folder {place.name!r}.",
            found=f"nothing at {place}",
            expected="the folder given to run as output, or to the command line as --output",
        )
    return read_runs(place / "runs")


def _fixed() -> dict[str, None]:
    names = [
        *KEYS, "epochs", "best_epoch", "seconds", "seconds_per_epoch", "peak_rss_bytes",
        "peak_gpu_bytes", "joules", "parameters", "tuned_on", "config_sha256", "path",
    ]  # fmt: skip
    return dict.fromkeys(names)


def _names(record: RunRecord) -> dict[str, Any]:
    named = (record.dataset, record.model, record.features, record.protocol, record.setting)
    return dict(zip(KEYS, (*named, record.seed), strict=True))


def _row(run: Run, several: bool) -> dict[str, Any]:
    record = run.record
    return {
        **_names(record),
        **_metrics(record, several),
        **{f"valid {name}": value for name, value in record.valid_metrics.items()},
        "epochs": record.epochs,
        "best_epoch": record.selection.get("best_epoch"),
        "seconds": record.seconds["total"],
        "seconds_per_epoch": record.seconds["train_epoch"],
        "peak_rss_bytes": record.peak_rss_bytes,
        "peak_gpu_bytes": record.peak_gpu_bytes,
        "joules": record.energy["joules"] if record.energy else None,
        "parameters": record.parameters,
        "tuned_on": record.tuned_on,
        "config_sha256": record.config_sha256,
        "path": str(run.path),
    }


def _has_several_contents(runs: list[Run]) -> bool:
    """Whether ILD was computed by several contents."""
    described = [run.record for run in runs if run.record.protocol == PROTOCOL]
    by_content = [r for r in described if any(_is_by_content(name) for name in r.metrics)]
    return len({content_of(record) for record in by_content}) > 1


def _is_by_content(name: str) -> bool:
    return name.startswith(f"{BY_CONTENT}@")


def _metrics(record: RunRecord, several: bool) -> dict[str, float]:
    """The test metrics of a record; with several contents, those by content name theirs."""
    if not several or record.protocol != PROTOCOL:
        return record.metrics
    content = content_of(record)
    return {
        f"{name} ({content})" if _is_by_content(name) else name: value
        for name, value in record.metrics.items()
    }


def _described(runs: list[Run], several: bool) -> dict[Source, dict[str, float]]:
    """Ranking → the figures of its lists, those of the ranking itself left out."""
    found: dict[Source, dict[str, float]] = {}
    for run in runs:
        record = run.record
        if record.protocol == PROTOCOL and record.status == "finished":
            metrics = _metrics(record, several)
            figures = {n: v for n, v in metrics.items() if n.partition("@")[0] in ALL}
            found.setdefault(source_of(record), {}).update(figures)
    return found


def _lists(run: Run, described: dict[Source, dict[str, float]]) -> dict[str, Any]:
    """The columns on the lists of one run."""
    record = run.record
    if record.protocol == PROTOCOL:
        return {"why_blank": ""}  # its own row has them
    if record.protocol not in RANKED:
        return {"why_blank": f"protocol {record.protocol} leaves no lists of all items"}
    found = next((described[name] for name in sources(record) if name in described), None)
    return {"why_blank": why_blank([run])} if found is None else {**found, "why_blank": ""}


def _of_users(runs: list[Run]) -> Iterator[pd.DataFrame]:
    for run in runs:
        stored = read_user_values(run)
        if stored is not None:
            columns = {**_names(run.record), "user": stored.users.astype(object), **stored.values}
            yield pd.DataFrame(columns)
