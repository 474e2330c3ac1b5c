"""What each output of a report was made of, so that a report makes again only what changed.

`<output>/site/inputs.json` maps each output to a hash of its inputs: the record files, the options
and the code that draws. Deleting the file makes everything again.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from alignrec_recbole.io.files import atomic_write, sha256_file

REPORTS = Path(__file__).parent
CODE = (REPORTS, REPORTS.parent / "protocols", REPORTS.parent / "runs", REPORTS.parent / "suites")


class Inputs:
    """The hashes of the previous report, and those of the present one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.before: dict[str, dict[str, Any]] = {}
        self.now: dict[str, dict[str, Any]] = {}
        with contextlib.suppress(OSError, ValueError):  # the first report, or a damaged file
            self.before = json.loads(path.read_bytes())

    def unchanged(self, name: str, digest: str, files: Iterable[Path] = ()) -> bool:
        """Whether an output has the same inputs as before and all its files exist."""
        entry = self.before.get(name, {})
        if entry.get("inputs") != digest or not all(path.is_file() for path in files):
            return False
        self.now[name] = entry
        return True

    def note(self, name: str, digest: str, **more: Any) -> None:
        """Remember the inputs of an output that was made."""
        self.now[name] = {"inputs": digest, **more}

    def save(self) -> None:
        """Write the hashes of the present report."""
        with atomic_write(self.path, "w") as handle:
            json.dump(self.now, handle, indent=0, sort_keys=True)


def digest_of(name: str, files: Iterable[Path], *more: Any) -> str:
    """Hash of the code, an output's name, its input files and further values."""
    parts = [_code(), name, *map(sha256_file, files), json.dumps(more, default=str)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def digest_of_folder(output: Path, options: Sequence[str | None]) -> str:
    """Hash of everything that a report of an output folder reads."""
    files = [
        path for kind in ("runs", "tuning", "suites") for path in sorted((output / kind).rglob("*"))
    ]
    records = [path for path in files if path.suffix == ".json"]
    lists = [  # their content is described in the records
        (path.name, path.stat().st_size, path.stat().st_mtime_ns)
        for path in files
        if path.suffix == ".npz"
    ]
    return digest_of("report", records, [str(path.relative_to(output)) for path in records], lists,
                     options)  # fmt: skip


@functools.cache
def _code() -> str:
    sources = [path for folder in CODE for path in sorted(folder.rglob("*")) if path.is_file()]
    texts = (path.read_bytes() for path in sources if path.suffix not in (".pyc", ""))
    return hashlib.sha256(b"\0".join(texts)).hexdigest()
