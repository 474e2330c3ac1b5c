"""One process at a time makes a run: others that want the same one wait, and read its record."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from alignrec_recbole.runtime import progress


@contextmanager
def one_at_a_time(record: Path) -> Iterator[bool]:
    """Hold the lock of a run beside its record; gives whether another process had to end first.

    The lock of a process that is killed is free at once. Where a file system has no locks, the run
    is made without: the same run in two processes costs time, but each file is written whole.
    """
    lock, waited = FileLock(record.with_suffix(".lock")), False
    try:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            progress.announce(f"{record.stem}: another process makes this run; waiting for it")
            lock.acquire()
            waited = True
    except (OSError, NotImplementedError):
        yield False
        return
    try:
        yield waited
    finally:
        Path(lock.lock_file).unlink(missing_ok=True)  # who waits tries again: filelock ≥ 3.21
        lock.release()
