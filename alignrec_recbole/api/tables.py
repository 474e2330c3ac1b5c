"""A data frame as a file, by the suffix of its name."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pandas as pd

from alignrec_recbole.errors import MissingDependencyError, SettingError
from alignrec_recbole.io.files import atomic_write

SUFFIXES = (".csv", ".tsv", ".json", ".parquet")


def write_table(frame: pd.DataFrame, path: Path) -> None:
    """Write a table as CSV, tab-separated text, JSON (a list of objects) or Parquet.

    Raises:
        SettingError: the suffix is none of these.
        MissingDependencyError: Parquet without pyarrow.
        WriteError: the file cannot be written.
    """
    if path.suffix not in SUFFIXES:
        raise SettingError(
            f"The name {path.name!r} says no kind of table.",
            found=f"suffix {path.suffix!r}",
            expected=", ".join(SUFFIXES),
        )
    if path.suffix == ".parquet":
        if not can_write_parquet():
            raise MissingDependencyError.of_extra(
                "Parquet files need pyarrow.", "parquet", "no package pyarrow"
            )
        with atomic_write(path) as handle:
            frame.to_parquet(handle, index=False)
        return
    with atomic_write(path, "w") as handle:
        if path.suffix == ".json":
            frame.to_json(handle, orient="records", force_ascii=False, double_precision=15)
        else:
            separator = "," if path.suffix == ".csv" else "\t"
            frame.to_csv(handle, index=False, sep=separator, lineterminator="\n")


def can_write_parquet() -> bool:
    """Whether pyarrow is installed."""
    return importlib.util.find_spec("pyarrow") is not None
