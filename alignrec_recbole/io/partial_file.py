"""The part of a download that has arrived, and which version of the file it belongs to."""

from __future__ import annotations

import contextlib
import json
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

from alignrec_recbole.errors import AlignRecError, DataError, WriteError
from alignrec_recbole.io.files import named_write_errors
from alignrec_recbole.io.opening import read_json

MAX_NOTE = 1 << 16  # bytes


class PartialFile:
    """`NAME.part` beside a target, and `NAME.part.json`: its URL, ETag and Last-Modified.

    Args:
        target: where the file belongs when it is complete.

    Raises:
        WriteError: there is something at `NAME.part` that is no regular file.
    """

    def __init__(self, target: Path) -> None:
        self.target = target
        self.path = target.with_name(f"{target.name}.part")
        self._note = target.with_name(f"{target.name}.part.json")
        for path in (self.path, self._note):
            if os.path.lexists(path) and not stat.S_ISREG(os.lstat(path).st_mode):
                raise WriteError(
                    f"{target.name} cannot be downloaded.",
                    found=f"{path} is a folder, a link or a special file",
                    expected="a regular file, or nothing",
                    hint=f"remove {path}",
                )

    @property
    def size(self) -> int:
        """Bytes that have arrived."""
        try:
            return os.lstat(self.path).st_size
        except FileNotFoundError:
            return 0

    def version(self, url: str) -> dict[str, str]:
        """The headers that identify the version of which this is a part; empty if unknown."""
        try:
            note = read_json(self._note, what="note", error=DataError, max_bytes=MAX_NOTE)
        except AlignRecError:
            return {}
        if not isinstance(note, dict) or note.pop("url", None) != url:
            return {}
        return {str(name): value for name, value in note.items() if isinstance(value, str)}

    @contextlib.contextmanager
    def begin(self, url: str, version: Mapping[str, str]) -> Iterator[IO[bytes]]:
        """Open the part for a new transfer of a version of the file; what was there is deleted."""
        self.discard()
        with named_write_errors(self.target):
            self._note.write_text(json.dumps({"url": url, **version}), "utf-8")
        with self._opened("xb") as handle:
            yield handle

    @contextlib.contextmanager
    def go_on(self) -> Iterator[IO[bytes]]:
        """Open the part to add to it."""
        with self._opened("ab") as handle:
            yield handle

    @contextlib.contextmanager
    def _opened(self, mode: str) -> Iterator[IO[bytes]]:
        with named_write_errors(self.target), open(self.path, mode) as handle:
            try:
                yield handle
            finally:
                handle.flush()
                os.fsync(handle.fileno())

    def discard(self) -> None:
        """Delete what has arrived."""
        for path in (self.path, self._note):
            path.unlink(missing_ok=True)

    def finish(self) -> None:
        """Put the complete file in place."""
        with named_write_errors(self.target):
            os.replace(self.path, self.target)
        self._note.unlink(missing_ok=True)
