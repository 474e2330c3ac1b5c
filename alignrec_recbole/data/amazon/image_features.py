"""The published image features of 2014."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np

from alignrec_recbole.data.amazon.mapping import IdMapping
from alignrec_recbole.errors import DataError
from alignrec_recbole.features.table import FeatureManifest, save_features
from alignrec_recbole.io.mapped_arrays import create_array
from alignrec_recbole.io.opening import open_input

ASIN_BYTES, IMAGE_WIDTH = 10, 4096


def read_image_features(handle: IO[bytes], name: str) -> Iterator[tuple[str, np.ndarray]]:
    """ASIN and float32 [4096] of each record.

    Raises:
        DataError: the file ends inside a record, or a record does not start with an ASIN.
    """
    size = ASIN_BYTES + 4 * IMAGE_WIDTH
    number = 0
    while record := handle.read(size):
        head = record[:ASIN_BYTES]
        if (
            len(record) < size
            or not head.isascii()
            or not head.decode("ascii", "replace").isalnum()
        ):
            raise DataError(
                f"{name} is not a file of image features.",
                found=f"record {number + 1}: {len(record)} bytes, starting {head!r}",
                expected=f"records of {size} bytes, a 10-letter ASIN first",
                hint="download it again",
            )
        number += 1
        yield head.decode("ascii"), np.frombuffer(record, "<f4", offset=ASIN_BYTES)


def write_image_features(
    path: Path, mapping: IdMapping, out: Path, name: str = "image-4096"
) -> FeatureManifest:
    """Write the published 4096-d image features as a feature file.

    Items without one get the mean of the others, as in MMRec; the manifest names them.

    Raises:
        DataError: the file is damaged or has none of the items.
    """
    order = sorted(mapping.items, key=mapping.items.__getitem__)
    part = out.with_name(f".{out.name}.part.npy")
    matrix = create_array(part, np.float32, (len(order), IMAGE_WIDTH))
    total, seen = np.zeros(IMAGE_WIDTH), np.zeros(len(order), dtype=bool)
    place = {asin: i for i, asin in enumerate(order)}
    broken = 0
    try:
        with open_input(path, what="image feature file") as handle:
            for asin, row in read_image_features(handle, path.name):
                i = place.get(asin)
                if i is None or seen[i]:
                    continue
                if not (np.isfinite(row).all() and row.any()):
                    broken += 1
                    continue
                matrix[i] = row
                seen[i] = True
                total += row
        if not seen.any():
            raise DataError(
                f"{path.name} has none of the items.",
                expected="the image features of the same category",
            )
        without = np.flatnonzero(~seen)
        matrix[without] = (total / seen.sum()).astype(np.float32)
        return save_features(
            out,
            matrix,
            name=name,
            modality="image",
            encoder="Amazon 2014 image features (CNN, 4096)",
            settings={
                "absent": "mean of the others, as in MMRec",
                "filled_with_mean": [str(mapping.items[order[i]]) for i in without],
                "not_finite_or_zero": broken,
            },
            source=path.name,
            items=[str(mapping.items[asin]) for asin in order],
            notes=[f"{len(without)} items have the mean vector"] if len(without) else [],
        )
    finally:
        part.unlink(missing_ok=True)
