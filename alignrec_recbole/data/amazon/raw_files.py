"""The raw files of a category in a folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from alignrec_recbole.errors import DataError


def find_raw(folder: Path) -> dict[str, Path]:
    """The raw files of a folder: meta, interactions and, if there are any, image_features.

    Raises:
        DataError: a required one is missing, or there are two of a kind.
    """
    kinds: dict[str, Sequence[str]] = {
        "meta": ("meta_*.json.gz",),
        "interactions": ("ratings_*.csv", "reviews_*.json.gz"),
        "image_features": ("image_features_*.b",),
    }
    out: dict[str, Path] = {}
    for kind, patterns in kinds.items():
        found = next((f for p in patterns if (f := sorted(folder.glob(p)))), [])
        if len(found) > 1 or (not found and kind != "image_features"):
            raise DataError(
                f"Expected exactly one {' or '.join(patterns)} in {folder}; found {len(found)}.",
                found=", ".join(path.name for path in found) or "none",
                hint="use one folder per category",
            )
        if found:
            out[kind] = found[0]
    return out
