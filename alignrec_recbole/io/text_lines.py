"""Lines of text files from outside, plain or gzip, in bounded memory."""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import BinaryIO

from tqdm.auto import tqdm

from alignrec_recbole.errors import DataError, printable
from alignrec_recbole.io.opening import open_input
from alignrec_recbole.io.tsv import check_text, whole_lines

LARGE = 64 << 20  # bytes of a file whose reading is shown
_SHOWN: ContextVar[bool] = ContextVar("shown", default=False)
GZIP = b"\x1f\x8b"  # the first two bytes of a gzip file
BYTE_ORDER_MARK = "\ufeff"


@contextmanager
def shown_reading(wanted: bool = True) -> Iterator[None]:
    """Show how far large files are read inside, where standard error is a terminal."""
    token = _SHOWN.set(wanted)
    try:
        yield
    finally:
        _SHOWN.reset(token)


def text_lines(path: Path, *, what: str = "file") -> Iterator[str]:
    """Lines of a UTF-8 file without their ends, blank ones included, so that they can be counted.

    Whether the file is compressed is seen from its first bytes, not from its name. A byte order
    mark is removed.

    Args:
        path: the file.
        what: what it is, for errors.

    Raises:
        DataError: the file is missing, no regular file, a damaged gzip file or not UTF-8; or has a
            line beyond `tsv.LONGEST_LINE`, a carriage return inside a line or a zero byte.
    """
    number = 1
    with open_input(path, what=what) as handle, _bar(path, handle) as bar:
        for block in whole_lines(path, _unpacked(path, handle)):
            bar.update(handle.tell() - bar.n)
            check_text(path, block, number)
            text = block.decode("utf-8")
            if number == 1:
                text = text.removeprefix(BYTE_ORDER_MARK)
            lines = text.split("\n")
            last = lines.pop()  # empty unless the file ends without a line feed
            number += len(lines)
            for line in lines:
                yield line.removesuffix("\r")
            if last:
                yield last


def _bar(path: Path, handle: BinaryIO) -> tqdm:
    size = os.fstat(handle.fileno()).st_size
    hidden = None if _SHOWN.get() and size >= LARGE else True  # None: unless in a terminal
    return tqdm(
        total=size, desc=printable(path.name, 40), unit="B", unit_scale=True, disable=hidden,
        leave=False,
    )  # fmt: skip


class _Unpacked:
    """The content of a gzip file, whose errors name the file."""

    def __init__(self, path: Path, handle: BinaryIO) -> None:
        self._path, self._file = path, gzip.GzipFile(fileobj=handle)

    def read(self, size: int) -> bytes:
        try:
            return self._file.read(size)
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(
                f"{self._path.name} is not a whole gzip file.",
                found=f"{type(error).__name__}: {error}",
                expected="the file as it is published",
                hint="download it again",
            ) from error


def _unpacked(path: Path, handle: BinaryIO) -> BinaryIO | _Unpacked:
    packed = handle.read(2) == GZIP
    handle.seek(0)
    return _Unpacked(path, handle) if packed else handle
