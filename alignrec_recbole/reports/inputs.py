"""What each output of a report was made of, so that a report makes again only what changed.

`<output>/site/inputs.json` maps each output to a hash of its inputs: the record files, the options,
the settings of `properties/` and the code that draws; and every file of the report to its hash, so
that the files of an earlier report that are no longer made can be deleted. Deleting `inputs.json`
makes everything again.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from alignrec_recbole.errors import DataError, RecordError
from alignrec_recbole.io.files import atomic_write, inside, sha256_file, sha256_of
from alignrec_recbole.io.opening import is_regular_file, open_input, read_json
from alignrec_recbole.io.yaml_loader import properties_dir
from alignrec_recbole.runs.record import MAX_RECORD_BYTES, record_paths

REPORTS = Path(__file__).parent
CODE = (REPORTS, *(REPORTS.parent / name for name in ("audit", "protocols", "runs", "suites")))
SITE = ("audit_pages", "blocks", "build", "curves", "dataset_pages", "run_pages", "start_page")
PAGES = (REPORTS / "templates", *(REPORTS / "site" / f"{n}.py" for n in SITE))  # not of figures
REPORT = "report"  # the entry of the report as a whole


class Entry(BaseModel):
    """One output: the hash of its inputs, why it was not drawn, and files with their hashes."""

    model_config = ConfigDict(extra="forbid", strict=True)

    inputs: str
    not_drawn: str = ""
    paths: list[str] = []
    files: dict[str, str] = {}


class Inputs:
    """The hashes of the previous report, and those of the present one.

    Args:
        output: the folder of the records and of the report.
    """

    def __init__(self, output: Path) -> None:
        self.output = output
        self.path = output / "site" / "inputs.json"
        self.before: dict[str, Entry] = {}
        self.now: dict[str, Entry] = {}
        self._files: set[Path] = set()
        with contextlib.suppress(DataError, ValidationError):  # the first report, or a damaged file
            self.before = TypeAdapter(dict[str, Entry]).validate_python(read_json(self.path))

    def reported(self, digest: str) -> list[Path]:
        """The paths of the previous report if it had the same inputs and they exist, else none."""
        paths = self.before.get(REPORT, Entry(inputs="")).paths
        try:
            found = [inside(self.output, name) for name in paths]
        except DataError:  # not written by a report
            return []
        return found if found and self.unchanged(REPORT, digest, found) else []

    def unchanged(self, name: str, digest: str, files: Iterable[Path] = ()) -> bool:
        """Whether an output has the same inputs as before and all its files exist."""
        entry = self.before.get(name)
        files = list(files)
        if entry is None or entry.inputs != digest or not all(map(is_regular_file, files)):
            return False
        self.now[name] = entry
        self._files.update(files)
        return True

    def note(self, name: str, digest: str, files: Iterable[Path] = (), not_drawn: str = "") -> None:
        """Remember the inputs and the files of an output that was made."""
        self.now[name] = Entry(inputs=digest, not_drawn=not_drawn)
        self._files.update(files)

    def finish(self, digest: str, paths: Sequence[Path]) -> None:
        """Delete the files of the previous report that this one has not, and write the hashes.

        Args:
            digest: of the whole report; empty if the next one is to be made in any case.
            paths: of the tables, plots and the index.
        """
        self._delete_stale()
        files = {self._name(path): sha256_file(path) for path in sorted(self._files)}
        names = [self._name(path) for path in paths]
        self.now[REPORT] = Entry(inputs=digest, paths=names, files=files)
        self._write()

    def update(self) -> None:
        """Write the hashes of some outputs beside those of the others; the next report is made."""
        before = self.before.get(REPORT, Entry(inputs=""))
        files = {self._name(path): sha256_file(path) for path in sorted(self._files)}
        self.now = {**self.before, **self.now}
        self.now[REPORT] = Entry(inputs="", paths=before.paths, files={**before.files, **files})
        self._write()

    def _write(self) -> None:
        with atomic_write(self.path, "w") as handle:
            text = TypeAdapter(dict[str, Entry]).dump_python(self.now, exclude_defaults=True)
            json.dump(text, handle, indent=0, sort_keys=True)

    def _delete_stale(self) -> None:
        """Delete what the previous report wrote, if it is unchanged and not behind a link."""
        before = self.before.get(REPORT, Entry(inputs="")).files
        for name in before.keys() - {self._name(path) for path in self._files}:
            path = self.output / name
            with contextlib.suppress(DataError, OSError):  # no path of ours, or it is gone
                inside(self.output, name)
                real = self.output.resolve() / name
                if real.resolve() == real and _content(real) == before[name]:
                    path.unlink()

    def _name(self, path: Path) -> str:
        return path.relative_to(self.output).as_posix()


def digest_of(name: str, files: Iterable[Path], *more: Any, apart_from: Sequence[Path] = ()) -> str:
    """Hash of the code, the settings of `properties/`, an output's name, its files and values.

    Args:
        apart_from: files and folders with code that does not matter to the output.
    """
    sources = [_code(tuple(apart_from)), _settings(properties_dir())]
    parts = [*sources, name, *map(_content, files), json.dumps(more, default=str)]
    return hashlib.sha256("\n".join(parts).encode("utf-8", "backslashreplace")).hexdigest()


def digest_of_folder(output: Path, options: Sequence[str | None]) -> str:
    """Hash of everything that a report of an output folder reads."""
    kinds = ("runs", "tuning", "suites", "audit")
    records = [path for kind in kinds for path in record_paths(output / kind)]
    lists = [  # their content is described in the records
        (str(path), status.st_size, status.st_mtime_ns)
        for path in (record.with_suffix(".users.npz") for record in records)
        if is_regular_file(path)
        for status in [path.stat()]
    ]
    names = [str(path.relative_to(output)) for path in records]
    return digest_of(REPORT, records, names, lists, options)


def _content(path: Path) -> str:
    """SHA-256 of a file, or why it cannot be read."""
    try:
        with open_input(path, error=RecordError, max_bytes=MAX_RECORD_BYTES) as handle:
            return sha256_of(handle)
    except RecordError as error:
        return str(error)


@functools.cache
def _settings(folder: Path) -> str:
    """Hash of the YAML files: settings that rows are named by, and published figures."""
    return _hash_of(sorted(folder.rglob("*.yaml")))


@functools.cache
def _code(apart_from: tuple[Path, ...]) -> str:
    sources = [path for folder in CODE for path in sorted(folder.rglob("*")) if path.is_file()]
    return _hash_of(
        path
        for path in sources
        if path.suffix not in (".pyc", "") and not {path, *path.parents} & set(apart_from)
    )


def _hash_of(paths: Iterable[Path]) -> str:
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in paths)).hexdigest()
