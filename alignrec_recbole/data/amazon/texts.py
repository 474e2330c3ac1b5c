"""Texts and images of a released split's items from the raw Amazon files of 2014.

The released splits number the items of a category's 5-core by their sorted ids (asin). That this
holds for a split and its reviews is checked by the number of interactions of every item. Images
are the files that the metadata names, on Amazon's servers or a mirror.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pandas as pd

from alignrec_recbole.data import amazon
from alignrec_recbole.data.image_download import HOSTS, attempted, fetch_images
from alignrec_recbole.data.interactions import read_interactions
from alignrec_recbole.data.items import read_item_table
from alignrec_recbole.errors import DataError
from alignrec_recbole.io.pins import mirrored

IMAGE_FOLDER = "images"  # of a data set, and of a mirror that has its images


def convert(folder: Path, dataset: str, raw: Path) -> tuple[list[str], dict[str, str]]:
    """Write `items.tsv` of a data set with released interactions.

    Args:
        folder: of the data set, with `NAME.inter`.
        dataset: its name.
        raw: folder of the files `meta_*.json.gz` and `reviews_*_5.json.gz`.

    Returns:
        What was found, in sentences, and the images' addresses by file name.

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
    urls, unknown = amazon.write_items(
        amazon.read_meta(files["meta"], meta), numbering, folder / "items.tsv"
    )
    skipped = {**read.bad, **meta.bad}
    said = [
        f"items: {len(order):,}, numbered by their sorted ids; each has as many interactions as in "
        f"{dataset}.inter",
        f"texts: {', '.join(amazon.TEXT_COLUMNS)}; {len(unknown):,} items without metadata",
        *(f"lines {reason}: {count:,}" for reason, count in skipped.items()),
    ]
    return said, {amazon.image_name(asin): url for asin, url in urls.items()}


def images_asked(folder: Path) -> bool:
    """Whether every image that the item table names has been asked for, with whatever result."""
    table = read_item_table(folder / "items.tsv")
    named = {image.name for image in table.images if image is not None}
    return named <= attempted(folder / IMAGE_FOLDER)


def fetch(urls: dict[str, str], folder: Path, *, mirror: str | None, progress: bool) -> list[str]:
    """Download images of a data set that are not there; returns the counts by outcome.

    Args:
        urls: address by file name.
        folder: of the data set.
        mirror: address of a folder with `images/`, which is asked in place of `urls`.
        progress: show a bar.

    Raises:
        DownloadError: the mirror is no address.
        WriteError: the folder cannot be written to, or the disk is full.
    """
    hosts: tuple[str, ...] = HOSTS
    if mirror is not None:
        urls = {name: mirrored(mirror, f"{IMAGE_FOLDER}/{name}") for name in urls}
        hosts = (urlsplit(mirror).hostname or "",)
    outcome = fetch_images(urls, folder / IMAGE_FOLDER, hosts=hosts, progress=progress)
    return [f"images {what}: {count:,}" for what, count in sorted(outcome.items())]


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
    bad = ~(numbers.astype(np.float64).to_numpy() >= 0) | np.isposinf(numbers.astype(np.float64))
    if bad.any():
        raise DataError(
            f"The items of {path.name} are not numbered.",
            found=f"item {table.items[int(bad.argmax())]!r}",
            expected="the numbers of the released split",
        )
    items = int(numbers.max()) + 1  # a wrong number may be larger than any array
    if items != len(found):
        raise _other_reviews(path, f"{len(found):,} items", f"{items:,} items")
    expected = np.bincount(numbers.astype(np.int64))
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
