"""The feature files of MMRec and AlignRec's official code: row = itemID, no manifest."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from alignrec_recbole.errors import DataError, FeatureError
from alignrec_recbole.features.table import FeatureTable
from alignrec_recbole.io.files import atomic_write
from alignrec_recbole.io.opening import read_text

FILES = {"image": "image_feat.npy", "text": "text_feat.npy", "fused": "image_feat.npy"}
MAX_MAPPING_BYTES = 1 << 30


def read_mapping(path: Path) -> dict[str, int]:
    """Original id → number of an `i_id_mapping.csv` or `u_id_mapping.csv`.

    The file has a header and two columns, separated by tabs or commas.

    Raises:
        DataError: it cannot be read, has other columns, or its numbers are not 0 … n−1.
    """
    text = read_text(path, what="id mapping", max_bytes=MAX_MAPPING_BYTES)
    lines = csv.reader(text.splitlines(), delimiter="\t" if "\t" in text else ",")
    out: dict[str, int] = {}
    try:
        next(lines, None)  # the header
        for row in lines:
            if row:
                out[row[0].strip()] = int(row[1])
    except (ValueError, IndexError, csv.Error) as error:
        problem = "one cell" if isinstance(error, IndexError) else str(error)
        raise DataError(
            f"{Path(path).name} is not an id mapping.",
            found=f"{problem} in line {max(1, lines.line_num)}",
            expected="a header, then an original id and its number in each row",
        ) from error
    if sorted(out.values()) != list(range(len(out))) or not out:
        raise DataError(
            f"{Path(path).name} does not number its ids from 0 to n − 1.",
            found=f"{len(out)} ids, numbers from {min(out.values(), default='none')}",
            expected="each number once",
        )
    return out


def export(table: FeatureTable, folder: Path, mapping: dict[str, int] | None = None) -> Path:
    """Write features in MMRec's order; rows of missing items become the mean of the others.

    MMRec's cosine graphs turn zero rows into NaN; the mean is its own rule for missing images.

    Args:
        table: a feature file with a manifest.
        folder: gets text_feat.npy or, for image and fused features, image_feat.npy, the name of
            AlignRec's published file.
        mapping: original id → itemID; None: the tokens are the numbers.

    Raises:
        FeatureError: the mapping has other items, or MMRec has no file for the modality.
    """
    manifest = table.manifest
    items = manifest.items or [str(i) for i in range(manifest.shape[0])]
    numbers = mapping or {str(i): i for i in range(len(items))}
    if items and set(items) != set(numbers):
        odd = sorted(set(items) ^ set(numbers))
        raise FeatureError(
            f"{table.path.name} and the id mapping have different items.",
            found=f"{len(odd)} items in only one of the two, for example {odd[0]!r}",
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
