"""Members of zip files of others, read into memory by name; nothing is unpacked to the disk."""

from __future__ import annotations

import stat
import zipfile
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from alignrec_recbole.errors import DataError
from alignrec_recbole.io.opening import open_input

MAX_MEMBERS = 10_000
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    NotImplementedError,
    ValueError,  # its name is not UTF-8, or its place is beyond any file
    OSError,
)


class Archive:
    """The members of a zip file that were asked for.

    Attributes:
        path: of the file.
        unread: names of the other members.
    """

    def __init__(self, path: Path, file: zipfile.ZipFile, wanted: Collection[str]) -> None:
        self.path, self._file = path, file
        self._members: dict[str, zipfile.ZipInfo] = {}
        self.unread: list[str] = []
        members = file.infolist()
        if len(members) > MAX_MEMBERS:
            raise self._refused(f"{len(members):,} members", f"at most {MAX_MEMBERS:,}")
        for member in members:
            name = self._checked(member)
            if member.is_dir():
                continue
            if name not in wanted:
                self.unread.append(member.filename)
            elif name in self._members:
                raise self._refused(f"two members {name!r}", "each once")
            else:
                self._members[name] = member

    def __contains__(self, name: str) -> bool:
        return name in self._members

    def read(self, name: str, max_bytes: int) -> bytes:
        """The content of a member.

        Raises:
            DataError: it is absent, damaged, encrypted, or larger than `max_bytes`.
        """
        if name not in self._members:
            raise self._refused(f"no {name}", name)
        member = self._members[name]
        if member.flag_bits & 1 or member.compress_type not in _METHODS:
            raise self._refused(f"{name} is encrypted or packed in an unusual way", "deflated")
        if member.file_size > max_bytes:
            raise self._refused(
                f"{name} with {member.file_size:,} bytes", f"at most {max_bytes:,} bytes"
            )
        try:
            # zipfile stops at `file_size` and compares the checksum, whatever the data unpack to
            with self._file.open(member) as handle:
                return handle.read()
        except _DAMAGED as error:
            raise self._refused(f"{name}: {error}", "a whole member") from error

    def _checked(self, member: zipfile.ZipInfo) -> str:
        """The last part of a member's name; names that lead out of a folder are refused."""
        name = member.filename
        parts = name.rstrip("/").split("/")
        if (
            name.startswith("/")
            or "\\" in name
            or ":" in parts[0]
            or any(part in ("", ".", "..") for part in parts)
            or not name.isprintable()
            or stat.S_ISLNK(member.external_attr >> 16)
        ):
            raise self._refused(
                f"a member named {name!r}", "files below the archive's own folder, and no links"
            )
        return parts[-1]

    def _refused(self, found: str, expected: str) -> DataError:
        return DataError(
            f"The archive {self.path.name} cannot be used.",
            found=found,
            expected=expected,
            hint=f"delete {self.path} to download it again; nothing of it was unpacked",
        )


@contextmanager
def open_archive(path: Path, wanted: Collection[str]) -> Iterator[Archive]:
    """Yield a zip file's members by the last part of their names.

    Raises:
        DataError: it is no zip file, or a member's name leads out of the archive's folder.
    """
    with open_input(path, what="archive") as handle:
        try:
            file = zipfile.ZipFile(handle)
        except (zipfile.BadZipFile, ValueError, OverflowError, NotImplementedError) as error:
            raise DataError(
                f"The archive {Path(path).name} is not a whole zip file.",
                found=str(error),
                expected="the file as it is published",
                hint=f"delete {path} to download it again",
            ) from error
        with file:
            yield Archive(Path(path), file, wanted)
