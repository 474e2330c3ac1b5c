"""Files written whole or not at all, hashed, and kept inside their folder."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from alignrec_recbole.errors import DataError


@contextmanager
def atomic_write(path: Path, mode: str = "wb") -> Iterator[IO]:
    """Yield a temporary file that becomes `path` only if the block ends without an error.

    The old file stays untouched on any error, a full disk and a kill included.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    encoding = None if "b" in mode else "utf-8"
    handle = tempfile.NamedTemporaryFile(  # noqa: SIM115 (closed below, before the rename)
        mode,
        dir=path.parent,
        prefix=f".{path.name}.",
        suffix=".part",
        delete=False,
        encoding=encoding,
    )
    try:
        with handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        os.chmod(handle.name, 0o644)
        os.replace(handle.name, path)
    except BaseException:
        Path(handle.name).unlink(missing_ok=True)
        raise


def sha256_file(path: Path) -> str:
    """Hexadecimal SHA-256 of a file, read in blocks."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest() if _HAS_DIGEST else _sha256(handle)


_HAS_DIGEST = hasattr(hashlib, "file_digest")  # Python 3.11


def _sha256(handle: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while block := handle.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def inside(folder: Path, name: str) -> Path:
    """Return `folder/name`, refusing a name that leads out of the folder.

    Raises:
        DataError: `name` is absolute, has `..` in it or follows a link out of `folder`.
    """
    folder = Path(folder)
    path = folder / name
    if Path(name).is_absolute() or not path.resolve().is_relative_to(folder.resolve()):
        raise DataError(
            f"The path {name!r} leads out of its folder.",
            came=str(path),
            expected=f"a name inside {folder}",
            next="use a plain file name",
        )
    return path
