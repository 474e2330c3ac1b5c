"""Files: written whole or not at all, hashed, and confined to their folder."""

from __future__ import annotations

import errno
import functools
import hashlib
import os
import platform
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from alignrec_recbole.errors import DataError, WriteError

_WRITING = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.EISDIR}


@contextmanager
def atomic_write(path: Path, mode: str = "wb") -> Iterator[IO]:
    """Yield a temporary file that becomes `path` only if the block ends without an error.

    The old file stays untouched on any error, a full disk and a kill included. The file has the
    permissions of the user's umask. What a killed writer left in the folder is removed.

    Raises:
        WriteError: the folder cannot be written to, or the disk is full.
    """
    path = Path(path)
    encoding = None if "b" in mode else "utf-8"
    part = path.with_name(part_name(path.name))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_parts_of_the_dead(path.parent)
        handle = open(part, mode.replace("w", "x"), encoding=encoding)  # noqa: SIM115 (closed below)
    except OSError as error:
        raise _not_written(path, error) from error
    try:
        with handle:
            with _errors_with_their_reason(handle):
                yield handle
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(part, path)
    except BaseException as error:
        part.unlink(missing_ok=True)
        reason = _writing_error(error)
        if reason is not None:
            raise _not_written(path, reason) from error
        raise


@contextmanager
def _errors_with_their_reason(handle: IO) -> Iterator[None]:
    """Let NumPy's error of a part that was not written say why, as the system does.

    One more byte is written to learn it.
    """
    try:
        yield
    except OSError as error:
        if _NUMPY_WROTE_LESS.fullmatch(str(error)):
            handle.write(b"\0")
            handle.flush()
        raise


_NUMPY_WROTE_LESS = re.compile(r"\d+ requested and \d+ written")


def part_name(name: str) -> str:
    """A new hidden name for what becomes `name`; it says which process of which machine writes."""
    return f".{name}.{_machine()}-{os.getpid()}-{secrets.token_hex(4)}.part"


@functools.cache
def _machine() -> str:
    return hashlib.sha256(platform.node().encode()).hexdigest()[:6]


_PART = re.compile(r"\..+\.([0-9a-f]{6})-([0-9]{1,10})-[0-9a-f]{8}\.part", re.DOTALL)
_looked_at: set[Path] = set()  # folders


def _remove_parts_of_the_dead(folder: Path) -> None:
    """Delete what killed writers of this machine left in a folder; once per folder and process."""
    if folder in _looked_at:
        return
    _looked_at.add(folder)
    for path in dead_parts(folder):
        with suppress(OSError):
            path.unlink()


def dead_parts(folder: Path) -> list[Path]:
    """What processes of this machine that no longer run left in a folder under a `part_name`."""
    with os.scandir(folder) as entries:
        parts = [(Path(entry.path), _PART.fullmatch(entry.name)) for entry in entries]
    left = [(path, int(match[2])) for path, match in parts if match and match[1] == _machine()]
    if not left:
        return []
    import psutil

    return [path for path, writer in left if not psutil.pid_exists(writer)]


@contextmanager
def named_write_errors(path: Path) -> Iterator[None]:
    """Turn errors of writing in the block (disk full, read-only, no permission) into WriteError.

    For files that grow in place: journals, partial downloads. `atomic_write` does it by itself.
    """
    try:
        yield
    except WriteError:
        raise
    except BaseException as error:
        reason = _writing_error(error)
        if reason is None and isinstance(error, PermissionError):
            reason = error
        if reason is None:
            raise
        raise _not_written(path, reason) from error


def reserve(path: Path, size: int) -> None:
    """Allocate disk space for the first `size` bytes of an existing file; new bytes are zero.

    A memory-mapped file without it may find the disk full in the middle of an assignment, which
    ends the process by SIGBUS.

    Raises:
        WriteError: there is not enough free space; the file may have grown in part.
    """
    with named_write_errors(path), open(path, "r+b", buffering=0) as handle:
        allocate = getattr(os, "posix_fallocate", None)  # not on macOS and Windows
        if allocate is not None and size > 0:
            try:
                allocate(handle.fileno(), 0, size)
                return
            except OSError as error:
                if error.errno not in _NO_ALLOCATION:
                    raise
        _write_every_byte(handle, size)


_NO_ALLOCATION = {errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS}  # file systems without it


def _write_every_byte(handle: IO[bytes], size: int) -> None:
    """Write the first `size` bytes as they are read, so that a sparse file has all its blocks."""
    for start in range(0, size, _BLOCK):
        length = min(_BLOCK, size - start)
        handle.seek(start)
        content = handle.read(length).ljust(length, b"\0")
        handle.seek(start)
        while content:
            content = content[handle.write(content) :]
    os.fsync(handle.fileno())  # delayed allocation reports a full disk here


_BLOCK = 1 << 20


def _writing_error(error: BaseException | None) -> OSError | None:
    """The full disk or the like behind an error; torch.save hides it in a RuntimeError."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _WRITING:
            return error
        error = error.__cause__ or error.__context__
    return None


def _not_written(path: Path, error: OSError) -> WriteError:
    return WriteError(
        f"{path.name} could not be written.",
        found=f"{error.strerror or error} in {path.parent}",
        expected="a folder this user may write to, with enough free space",
        hint="free some space or choose another folder; an earlier file is unchanged",
    )


def sha256_file(path: Path) -> str:
    """Hexadecimal SHA-256 of a file, read in blocks."""
    with open(path, "rb") as handle:
        return sha256_of(handle)


def sha256_of(handle: IO[bytes]) -> str:
    """Hexadecimal SHA-256 of the rest of an open file, read in blocks."""
    digest = hashlib.sha256()
    while block := handle.read(_BLOCK):
        digest.update(block)
    return digest.hexdigest()


def inside(folder: Path, name: str) -> Path:
    """Return `folder/name`, refusing a name outside the folder.

    Raises:
        DataError: `name` is absolute, has `..` in it or follows a link out of `folder`.
    """
    folder = Path(folder)
    path = folder / name
    try:
        within = not Path(name).is_absolute() and path.resolve().is_relative_to(folder.resolve())
    except (OSError, ValueError, RuntimeError) as error:  # a link to itself, a zero byte, too long
        raise DataError(
            f"The path {name!r} cannot be used.",
            found=str(error),
            expected="a plain file name",
        ) from error
    if not within:
        raise DataError(
            f"The path {name!r} leads out of its folder.",
            found=str(path),
            expected=f"a name inside {folder}",
            hint="use a plain file name",
        )
    return path
