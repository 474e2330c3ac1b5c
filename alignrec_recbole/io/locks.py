"""Folders that one process at a time may write to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from alignrec_recbole.errors import WriteError


@contextmanager
def one_process_only(
    folder: Path, name: str, *, problem: str, hint: str, option: str = "--output"
) -> Iterator[None]:
    """Hold the lock file `name` in a folder, which is created.

    Args:
        folder: the folder.
        name: of the lock file.
        problem: the first sentence of the error if another process holds the lock.
        hint: what to do then.
        option: which names another folder.

    Raises:
        WriteError: another process holds the lock, or the folder cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / name, timeout=0)
        lock.acquire()
    except Timeout as error:
        raise WriteError(
            problem, found=f"a lock on {folder}", expected="one process", hint=hint
        ) from error
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        raise WriteError(
            f"{folder} cannot be written to.",
            found=str(error),
            expected="a folder this user may write to",
            hint=f"pass {option} DIR",
        ) from error
    try:
        yield
    finally:
        lock.release()
