"""Memory-mapped .npy files: created with their disk space reserved, opened with checked headers."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from alignrec_recbole.errors import AlignRecError, DataError
from alignrec_recbole.io.files import named_write_errors, reserve
from alignrec_recbole.io.opening import open_input

if TYPE_CHECKING:
    import numpy as np

MAX_BYTES = 128 << 30  # 16 million rows of 2,048 float32 numbers


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


def open_array(
    path: Path,
    *,
    what: str = "array",
    error: type[AlignRecError] = DataError,
    mode: Literal["r", "r+"] = "r",
) -> np.memmap:
    """Memory-map a .npy file of plain numbers.

    Args:
        path: the file.
        what: what the file is, for the error: "feature file".
        error: class of the error.
        mode: r: read; r+: read and write.

    Raises:
        error: as `open_input`, or the file is no .npy, holds objects or fields, or has more or
            fewer bytes than its header says.
    """
    import numpy as np

    path = Path(path)
    with open_input(path, what=what, error=error, max_bytes=MAX_BYTES) as handle:
        size = os.fstat(handle.fileno()).st_size
        try:
            shape, fortran, dtype = _read_header(handle)
            offset = handle.tell()
        except Exception as reason:  # numpy parses headers as Python: damaged ones raise anything
            raise _unreadable(path, size, str(reason), error) from reason
    if dtype.hasobject or dtype.names or dtype.subdtype or dtype.kind not in "biufc":
        raise _unreadable(path, size, f"dtype {dtype}", error)
    stored = offset + math.prod(shape) * dtype.itemsize if min(shape, default=0) >= 0 else -1
    if stored != size:
        found = f"the header says shape {shape} of {dtype}, which is {max(stored, 0)} bytes"
        raise _unreadable(path, size, found, error)
    if 0 in shape:
        return np.empty(shape, dtype)  # type: ignore[return-value]  # nothing to map
    try:
        order: Literal["C", "F"] = "F" if fortran else "C"
        return np.memmap(path, dtype=dtype, mode=mode, offset=offset, shape=shape, order=order)
    except (OSError, ValueError) as reason:
        raise _unreadable(path, size, str(reason), error) from reason


def _read_header(handle: Any) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether columns come first, and type of an array; plain numbers need no version 3."""
    from numpy.lib import format as npy

    version = npy.read_magic(handle)
    if version == (1, 0):
        return npy.read_array_header_1_0(handle)
    if version == (2, 0):
        return npy.read_array_header_2_0(handle)
    raise ValueError(f"version {version} of the format")


def _unreadable(path: Path, size: int, found: str, error: type[AlignRecError]) -> AlignRecError:
    return error(
        f"{path.name} is not a readable .npy of numbers.",
        found=f"{path} ({size} bytes): {found}",
        expected="a complete array of numbers saved without pickle",
        hint="write it again with numpy.save(..., allow_pickle=False)",
    )
