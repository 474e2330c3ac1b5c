"""Features as MMRec and AlignRec's official code read them: NAME.npy, row = itemID, no manifest."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from alignrec_recbole.errors import DataError, FeatureError
from alignrec_recbole.features.table import FeatureTable
from alignrec_recbole.io.files import atomic_write

FILES = {"image": "image_feat.npy", "text": "text_feat.npy", "fused": "image_feat.npy"}


def read_mapping(path: Path) -> dict[str, int]:
    """An `i_id_mapping.csv` (or u_): tab- or comma-separated original id and number, with a header.

    Raises:
        DataError: it is missing, has other columns, or the numbers are not 0 … n−1.
    """
    try:
        text = Path(path).read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{Path(path).name} cannot be read.", found=str(error)) from error
    rows = list(csv.reader(text.splitlines(), delimiter="\t" if "\t" in text else ","))
    try:
        out = {row[0].strip(): int(row[1]) for row in rows[1:] if row}
    except (ValueError, IndexError) as error:
        raise DataError(
            f"{Path(path).name} is not an id mapping.",
            found=str(error),
            expected="a header, then an original id and its number in each row",
        ) from error
    if sorted(out.values()) != list(range(len(out))) or not out:
        raise DataError(
            f"{Path(path).name} does not number its ids.",
            found=f"{len(out)} ids, numbers from {min(out.values(), default='none')}",
            expected="each number from 0 to n − 1 once",
        )
    return out


def export(table: FeatureTable, folder: Path, mapping: dict[str, int] | None = None) -> Path:
    """Write a feature file in MMRec's order; rows of absent items become the mean of the others.

    (A zero row makes MMRec's cosine graphs NaN; the mean is its own rule for absent images.)

    Args:
        table: with a manifest.
        folder: gets image_feat.npy or text_feat.npy; fused rows take the image's name, as
            AlignRec's published file does.
        mapping: original id → itemID; None: tokens are the numbers themselves.

    Raises:
        FeatureError: items and numbers do not fit.
    """
    manifest = table.manifest
    items = manifest.items or [str(i) for i in range(manifest.shape[0])]
    numbers = mapping or {str(i): i for i in range(len(items))}
    if items and set(items) != set(numbers):
        odd = sorted(set(items) ^ set(numbers))
        raise FeatureError(
            f"{table.path.name} does not fit MMRec's numbering.",
            found=f"{len(items)} items, {len(odd)} on one side only, for example {odd[0]!r}",
            expected="the same items in both",
            hint="pass --mapping i_id_mapping.csv of the data set, or encode its own item table",
        )
    if manifest.modality not in FILES:
        raise FeatureError(f"MMRec has no file for {manifest.modality} features.")
    rows = np.empty(manifest.shape, dtype=np.float32)
    rows[[numbers[item] for item in items]] = table.matrix
    absent = np.array([numbers[item] for item in manifest.missing], dtype=np.int64)
    if 0 < len(absent) < len(items):
        rows[absent] = np.delete(rows, absent, axis=0).mean(0)
    path = Path(folder) / FILES[manifest.modality]
    with atomic_write(path) as handle:
        np.save(handle, rows, allow_pickle=False)
    return path
