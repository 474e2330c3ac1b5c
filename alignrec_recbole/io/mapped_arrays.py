"""Memory-mapped arrays whose disk space is reserved before the first row is written."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from alignrec_recbole.io.files import named_write_errors, reserve

if TYPE_CHECKING:
    import numpy as np


def create_array(path: Path, dtype: str | type | np.dtype, shape: Sequence[int]) -> np.memmap:
    """A new .npy file of zeros, memory-mapped for writing; an existing file is replaced.

    Raises:
        WriteError: the folder cannot be written to or the disk has no space for the whole array;
            then no file is left.
    """
    from numpy.lib.format import open_memmap

    try:
        with named_write_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            rows = open_memmap(path, "w+", dtype=dtype, shape=tuple(shape))
        reserve(path, os.path.getsize(path))
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return rows
