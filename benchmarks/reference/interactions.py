"""The data set of a timing, in MMRec's layout, which the reference code reads."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd

from alignrec_recbole.data.dataset_paths import find_dataset
from alignrec_recbole.data.interactions import is_typed
from alignrec_recbole.errors import AlignRecError
from alignrec_recbole.runs.prepare import prepare_data
from alignrec_recbole.runs.spec import DataSpec


def add_data(parser: argparse.ArgumentParser, note: str = "") -> None:
    """Add `--data-path` and `--dataset`; `note` follows the help of the latter."""
    parser.add_argument(
        "--data-path",
        type=Path,
        metavar="DIR",
        help="folder with the data set's folder; default: $ALIGNREC_DATA, else ./data",
    )
    parser.add_argument(
        "--dataset",
        default="sports",
        help=f"default: sports; ml-100k is part of the recbole package{note}",
    )


@contextmanager
def in_mmrec_layout(parser: argparse.ArgumentParser, options: argparse.Namespace) -> Iterator[Path]:
    """The folder that contains D/D.inter with userID, itemID and x_label.

    A data set in RecBole's layout is split by its settings and converted in a temporary folder;
    users and items are numbered from 0. What cannot be found or read ends the program with the
    reason.

    Args:
        parser: of the options.
        options: with data_path and dataset.
    """
    with tempfile.TemporaryDirectory() as scratch:
        try:
            folder = _folder(options.dataset, options.data_path, Path(scratch))
        except AlignRecError as error:
            parser.error(str(error))
        yield folder


def is_converted(dataset: str, folder: Path) -> bool:
    """Whether `in_mmrec_layout` made the files of this folder, so that item numbers are its own."""
    return (folder / dataset / CONVERTED).is_file()


CONVERTED = "converted"  # an empty file beside the interactions


def _folder(dataset: str, data_path: Path | None, scratch: Path) -> Path:
    found = find_dataset(dataset, data_path)
    file = found / f"{dataset}.inter"
    if file.is_file() and not is_typed(file):
        return found.parent
    splits = prepare_data(DataSpec(dataset, data_path=data_path, output=scratch)).splits
    parts = []
    for label, split in enumerate(splits):
        users, items = split.pairs()
        parts.append(pd.DataFrame({"userID": users - 1, "itemID": items - 1, "x_label": label}))
    target = scratch / dataset
    target.mkdir()
    pd.concat(parts).to_csv(target / f"{dataset}.inter", sep="\t", index=False)
    (target / CONVERTED).touch()
    return scratch
