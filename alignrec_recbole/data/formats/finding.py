"""Files of a published data set in a folder, and images named by their item."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from pathlib import Path

from alignrec_recbole.errors import DataError
from alignrec_recbole.io.opening import is_regular_file

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")


def entries(folder: Path) -> list[str]:
    """Sorted names in a folder.

    Raises:
        DataError: it cannot be listed.
    """
    try:
        return sorted(os.listdir(folder))
    except (OSError, ValueError) as error:
        raise DataError(
            f"The folder {Path(folder).name} cannot be read.",
            found=f"{getattr(error, 'strerror', None) or error}: {folder}",
            expected="the folder of the files as they are published",
        ) from error


def find_one(folder: Path, prefix: str, suffixes: Sequence[str], what: str) -> Path | None:
    """The file of a folder whose name starts and ends so; None if there is none.

    Args:
        folder: searched, without its subfolders.
        prefix: start of the name.
        suffixes: possible ends of the name, the first with a match counts.
        what: what the file is, for the error.

    Raises:
        DataError: the folder cannot be read, or several files match.
    """
    names = entries(folder)
    for suffix in suffixes:
        found = [
            name
            for name in names
            if name.startswith(prefix) and name.endswith(suffix) and not name.startswith(".")
        ]
        if len(found) > 1:
            raise DataError(
                f"There are {len(found)} files of {what}.",
                found=", ".join(found[:5]),
                expected=f"one {prefix}*{suffix} in {folder}",
                hint="use one folder per data set",
            )
        if found:
            return Path(folder) / found[0]
    return None


def required(path: Path | None, folder: Path, expected: str) -> Path:
    """A file that was found.

    Raises:
        DataError: it was not.
    """
    if path is None:
        shown = entries(folder)
        raise DataError(
            f"The folder {Path(folder).name} has no {expected}.",
            found=", ".join(shown[:8]) + (" …" if len(shown) > 8 else "") or "an empty folder",
            expected=f"{expected} in {folder}",
        )
    return path


def images_by_stem(folder: Path, wanted: Collection[str]) -> dict[str, Path]:
    """Regular image files of a folder by the name before their suffix, of some items.

    Raises:
        DataError: the folder cannot be read.
    """
    wanted = set(wanted)
    out: dict[str, Path] = {}
    for name in entries(folder):
        stem, suffix = os.path.splitext(name)
        path = Path(folder) / name
        if stem in wanted and suffix.lower() in IMAGE_SUFFIXES and is_regular_file(path):
            out.setdefault(stem, path)
    return out
