"""Folders that appear whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alignrec_recbole.errors import WriteError
from alignrec_recbole.io.files import dead_parts, part_name


@contextmanager
def scratch_folder(path: Path) -> Iterator[Path]:
    """Yield a new hidden folder beside `path`, on the same disk, which is removed at the end.

    A block that renames it to `path` makes that appear whole. Scratch folders of killed processes
    of this machine are removed first.

    Raises:
        WriteError: the folder above cannot be written to.
    """
    scratch = path.with_name(part_name(path.name))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for left in dead_parts(path.parent):
            if left.is_dir() and not left.is_symlink() and left.name.startswith(f".{path.name}."):
                shutil.rmtree(left, ignore_errors=True)
        scratch.mkdir()
    except OSError as error:
        raise WriteError(
            f"{path.name} could not be made.",
            found=f"{error.strerror or error} in {path.parent}",
            expected="a folder this user may write to",
        ) from error
    try:
        yield scratch
    finally:
        if os.path.lexists(scratch):
            shutil.rmtree(scratch, ignore_errors=True)
