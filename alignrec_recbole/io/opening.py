"""The one way to open a file that comes from outside: regular, of bounded size, readable."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from alignrec_recbole.errors import AlignRecError, DataError

MAX_JSON_BYTES = 64 << 20


@contextmanager
def open_input(
    path: Path,
    *,
    what: str = "file",
    error: type[AlignRecError] = DataError,
    max_bytes: int | None = None,
) -> Iterator[BinaryIO]:
    """Yield a regular file open for reading; FIFOs, devices and folders are refused unread.

    Args:
        path: the file; symbolic links to regular files are followed.
        what: what the file is, for the error: "manifest".
        error: class of the error.
        max_bytes: the largest size that is accepted.

    Raises:
        error: the file is missing, no regular file, larger than `max_bytes` or unreadable.
    """
    path = Path(path)
    try:
        # without O_NONBLOCK, opening a FIFO waits for a writer
        flags = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        number = os.open(path, os.O_RDONLY | flags)
    except (OSError, ValueError) as reason:
        raise _unreadable(path, what, error, reason) from reason
    try:
        _check_status(path, os.fstat(number), what, error, max_bytes)
    except AlignRecError:
        os.close(number)
        raise
    with os.fdopen(number, "rb") as handle:
        try:
            yield handle
        except AlignRecError:
            raise
        except OSError as reason:
            raise _unreadable(path, what, error, reason) from reason


def _check_status(
    path: Path,
    status: os.stat_result,
    what: str,
    error: type[AlignRecError],
    max_bytes: int | None,
) -> None:
    """Refuse what is no regular file, or a larger one than `max_bytes`."""
    if not stat.S_ISREG(status.st_mode):
        raise error(
            f"The {what} {path.name} is not a regular file.",
            found=f"{_kind(status.st_mode)} at {path}",
            expected="a regular file",
        )
    if max_bytes is not None and status.st_size > max_bytes:
        raise error(
            f"The {what} {path.name} is too large.",
            found=f"{status.st_size:,} bytes in {path}",
            expected=f"at most {max_bytes:,} bytes",
        )


def read_bytes(
    path: Path, *, what: str = "file", error: type[AlignRecError] = DataError, max_bytes: int
) -> bytes:
    """Content of a regular file of at most `max_bytes`; raises as `open_input`."""
    with open_input(path, what=what, error=error, max_bytes=max_bytes) as handle:
        size = os.fstat(handle.fileno()).st_size  # a buffer of `max_bytes` would be allocated whole
        return handle.read(min(max_bytes, max(size, 1 << 16)))


def read_text(
    path: Path, *, what: str = "file", error: type[AlignRecError] = DataError, max_bytes: int
) -> str:
    """UTF-8 text of a regular file, without its byte order mark.

    Raises:
        error: as `open_input`, or the file is not UTF-8.
    """
    data = read_bytes(path, what=what, error=error, max_bytes=max_bytes)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as reason:
        raise error(
            f"The {what} {Path(path).name} is not UTF-8 text.",
            found=f"byte 0x{data[reason.start]:02x} at position {reason.start} of {path}",
            expected="UTF-8",
        ) from reason


def read_json(
    path: Path,
    *,
    what: str = "file",
    error: type[AlignRecError] = DataError,
    max_bytes: int = MAX_JSON_BYTES,
) -> Any:
    """The value in a JSON file.

    Raises:
        error: as `read_text`, or the text is not JSON, nested too deeply, or has a number of
            thousands of digits.
    """
    text = read_text(path, what=what, error=error, max_bytes=max_bytes)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as reason:
        raise error(
            f"The {what} {Path(path).name} is not valid JSON.",
            found=f"{reason} in {path}",
            expected="a JSON file",
        ) from reason


def is_regular_file(path: Path) -> bool:
    """Whether a path leads to a regular file; False for loops, unusable names and no permission."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except (OSError, ValueError):
        return False


def _unreadable(
    path: Path, what: str, error: type[AlignRecError], reason: Exception
) -> AlignRecError:
    found = getattr(reason, "strerror", None) or str(reason)
    if isinstance(reason, FileNotFoundError):
        return error(f"There is no {what} {path.name}.", found=f"nothing at {path}")
    return error(
        f"The {what} {path.name} cannot be read.",
        found=f"{found}: {path}",
        expected="a readable regular file",
    )


def _kind(mode: int) -> str:
    """What a file is that is not regular."""
    kinds = {
        "a folder": stat.S_ISDIR,
        "a FIFO": stat.S_ISFIFO,
        "a socket": stat.S_ISSOCK,
        "a character device": stat.S_ISCHR,
        "a block device": stat.S_ISBLK,
    }
    return next((name for name, test in kinds.items() if test(mode)), "a special file")
