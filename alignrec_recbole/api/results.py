"""Finished runs as records, or as one table."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from alignrec_recbole.errors import DataError
from alignrec_recbole.runs.lists import read_user_values
from alignrec_recbole.runs.record import Run, RunRecord, read_runs

KEYS = ["dataset", "model", "features", "protocol", "convention", "seed"]


def load_records(folder: str | os.PathLike[str]) -> list[RunRecord]:
    """The records of finished runs in an output folder, in the order of their paths.

    Raises:
        RecordError: one of them is damaged.
    """
    return [run.record for run in _runs(folder)]


def load_results(folder: str | os.PathLike[str], *, per_user: bool = False) -> pd.DataFrame:
    """The finished runs in an output folder as one table.

    Args:
        folder: the output folder of `run` or of the command line; its `runs/` is read.
        per_user: one row per run and user, with that user's metrics.

    Returns:
        One row per run, which has one seed: what was run (`dataset`, `model`, `features`,
        `protocol`, `convention`, `seed`), the test metrics under their names, the validation
        metrics as `valid Recall@20`, then epochs, seconds, memory in bytes, parameters, how the
        settings were chosen, the hash of the settings and the record's path. With `per_user` the
        first six columns, `user`, and the metrics; runs without stored values have no rows.

    Raises:
        RecordError: a record, or with `per_user` a file of values, is damaged.
        DataError: there is no such folder.
    """
    runs = _runs(folder)
    if per_user:
        parts = list(_of_users(runs))
        return (
            pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=[*KEYS, "user"])
        )
    rows = [_row(run) for run in runs]
    first = list(dict.fromkeys(name for row in rows for name in row))
    metrics = [name for name in first if name not in _fixed() and not name.startswith("valid ")]
    valid = [name for name in first if name.startswith("valid ")]
    fixed = list(_fixed())
    return pd.DataFrame(rows, columns=[*KEYS, *metrics, *valid, *fixed[len(KEYS) :]])


def _runs(folder: str | os.PathLike[str]) -> list[Run]:
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
        "peak_gpu_bytes", "parameters", "tuned_on", "config_sha256", "path",
    ]  # fmt: skip
    return dict.fromkeys(names)


def _names(record: RunRecord) -> dict[str, Any]:
    named = (record.dataset, record.model, record.features, record.protocol, record.setting)
    return dict(zip(KEYS, (*named, record.seed), strict=True))


def _row(run: Run) -> dict[str, Any]:
    record = run.record
    return {
        **_names(record),
        **record.metrics,
        **{f"valid {name}": value for name, value in record.valid_metrics.items()},
        "epochs": record.epochs,
        "best_epoch": record.selection.get("best_epoch"),
        "seconds": record.seconds["total"],
        "seconds_per_epoch": record.seconds["train_epoch"],
        "peak_rss_bytes": record.peak_rss_bytes,
        "peak_gpu_bytes": record.peak_gpu_bytes,
        "parameters": record.parameters,
        "tuned_on": record.tuned_on,
        "config_sha256": record.config_sha256,
        "path": str(run.path),
    }


def _of_users(runs: list[Run]) -> Iterator[pd.DataFrame]:
    for run in runs:
        stored = read_user_values(run)
        if stored is not None:
            columns = {**_names(run.record), "user": stored.users.astype(object), **stored.values}
            yield pd.DataFrame(columns)
