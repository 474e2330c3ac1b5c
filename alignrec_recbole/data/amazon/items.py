"""The item table, `items.tsv`."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from alignrec_recbole.data.amazon.mapping import IdMapping
from alignrec_recbole.data.amazon.metadata import MetaItem
from alignrec_recbole.errors import DataError
from alignrec_recbole.io.files import atomic_write
from alignrec_recbole.io.separated import quoted

TEXT_COLUMNS = ("title", "brand", "categories", "description")


def write_items(
    meta: Iterable[MetaItem], mapping: IdMapping, path: Path
) -> tuple[dict[str, str], list[str]]:
    """Write `items.tsv`: a row per item of the mapping, in the order of the numbers.

    Of the entries of an item the first is used.

    Returns:
        Image URL by ASIN, and the ASINs without metadata.

    Raises:
        DataError: no entry is of an item of the mapping, or none has a text and there is a table
            already, which then stays.
    """
    found: dict[str, MetaItem] = {}
    for item in meta:
        if item.asin in mapping.items and item.asin not in found:
            found[item.asin] = item
    if not found:
        raise DataError(
            "The metadata and the interactions have no item in common.",
            found=f"{len(mapping.items)} items, for example {next(iter(mapping.items))!r}",
            expected="the ids of items (asin) of the metadata",
            hint="use files of one category; a rating file is user,item,rating,timestamp or "
            "item,user,rating,timestamp",
        )
    if os.path.lexists(path) and not any(
        getattr(item, column) for item in found.values() for column in TEXT_COLUMNS
    ):
        raise DataError(
            f"The existing {path.name} would be replaced by a table without texts.",
            found=f"{len(found)} entries of the metadata, none with {', '.join(TEXT_COLUMNS)}",
            expected="the metadata that the table was made from",
            hint="download the metadata again, or move the table away",
        )
    order = sorted(mapping.items, key=mapping.items.__getitem__)
    with atomic_write(path, "w") as handle:
        handle.write("\t".join(["itemID", "asin", *TEXT_COLUMNS, "image"]) + "\n")
        for asin in order:
            item = found.get(asin, MetaItem(asin))
            cells = [quoted(getattr(item, column)) for column in TEXT_COLUMNS]
            image = image_name(asin) if item.image_url else ""
            row = [str(mapping.items[asin]), asin, *cells, image]
            handle.write("\t".join(row) + "\n")
    urls = {
        asin: found[asin].image_url for asin in order if asin in found and found[asin].image_url
    }
    return urls, [asin for asin in order if asin not in found]


def image_name(asin: str) -> str:
    """File name of an item's image; anything but letters and digits is written in hexadecimal.

    >>> image_name("B00001W0DI"), image_name("../x")
    ('B00001W0DI.jpg', '2e2e2f78-x.jpg')
    """
    if re.fullmatch(r"[A-Za-z0-9]+", asin):
        return f"{asin}.jpg"
    return asin.encode().hex() + "-x.jpg"
