"""Texts of a released split's items from the raw Amazon files of 2014, without their images.

The released splits number the items of a category's 5-core by their sorted ids (asin). That this
holds for a split and its reviews is checked by the number of interactions of every item.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from alignrec_recbole.data import amazon
from alignrec_recbole.data.interactions import read_interactions
from alignrec_recbole.errors import DataError


def convert(folder: Path, dataset: str, raw: Path) -> list[str]:
    """Write `items.tsv` of a data set with released interactions; returns what was found.

    Args:
        folder: of the data set, with `NAME.inter`.
        dataset: its name.
        raw: folder of the files `meta_*.json.gz` and `reviews_*_5.json.gz`.

    Raises:
        DataError: a file is damaged, or the reviews are not those of the split.
    """
    files = amazon.find_raw(raw)
    read = amazon.ParseStats()
    items = _degrees(files["interactions"], read)
    order = sorted(items)
    _check_degrees(folder / f"{dataset}.inter", np.array([items[asin] for asin in order]))
    numbering = amazon.IdMapping({}, {asin: i for i, asin in enumerate(order)}, released=True)
    meta = amazon.ParseStats()
    _, unknown = amazon.write_items(
        amazon.read_meta(files["meta"], meta), numbering, folder / "items.tsv"
    )
    skipped = {**read.bad, **meta.bad}
    return [
        f"items: {len(order):,}, numbered by their sorted ids; each has as many interactions as in "
        f"{dataset}.inter",
        f"texts: {', '.join(amazon.TEXT_COLUMNS)}; {len(unknown):,} items without metadata",
        *(f"lines {reason}: {count:,}" for reason, count in skipped.items()),
    ]


def _degrees(path: Path, stats: amazon.ParseStats) -> dict[str, int]:
    """Users per item of the reviews."""
    parts = [
        chunk[["user", "item"]].drop_duplicates()
        for chunk in amazon.read_interactions(path, stats)
        if len(chunk)
    ]
    if not parts:
        raise DataError(f"{path.name} has no reviews.", expected="one review per line")
    pairs = pd.concat(parts, ignore_index=True).drop_duplicates()
    return {str(asin): int(count) for asin, count in pairs["item"].value_counts().items()}


def _check_degrees(path: Path, found: np.ndarray) -> None:
    table = read_interactions(path)
    numbers = pd.to_numeric(pd.Series(table.items), errors="coerce")
    if numbers.isna().any() or numbers.min() < 0:
        raise DataError(
            f"The items of {path.name} are not numbered.",
            found=f"item {table.items[int(numbers.isna().argmax())]!r}",
            expected="the numbers of the released split",
        )
    expected = np.bincount(numbers.astype(np.int64))
    if len(expected) != len(found):
        raise _other_reviews(path, f"{len(found):,} items", f"{len(expected):,} items")
    differ = np.flatnonzero(expected != found)
    if len(differ):
        first = int(differ[0])
        raise _other_reviews(
            path,
            f"{len(differ):,} items with other numbers of interactions, first item {first} with "
            f"{found[first]}",
            f"{expected[first]} interactions of item {first}",
        )


def _other_reviews(path: Path, found: str, expected: str) -> DataError:
    return DataError(
        f"The reviews are not those of {path.name}.",
        found=found,
        expected=expected,
        hint="use the 5-core of the category of 2014; import-amazon makes a data set of its own of "
        "other files",
    )
