"""Downloads whose content is remembered: `downloads.lock.yaml` beside the data sets.

A file without a published checksum is trusted when it arrives first; its hash is written down, and
other content is refused from then on. The lock file is made to be committed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import yaml
from filelock import FileLock
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from alignrec_recbole.errors import DownloadError, SettingError
from alignrec_recbole.io.download import fetch_published
from alignrec_recbole.io.files import atomic_write, named_write_errors, sha256_file
from alignrec_recbole.io.http import Limits
from alignrec_recbole.io.published_file import PublishedFile
from alignrec_recbole.io.yaml_loader import read_yaml

LOCK_FILE = "downloads.lock.yaml"
MIRROR = "ALIGNREC_MIRROR"  # environment variable
_HEADING = (
    "# Files that run_benchmark.py has downloaded; content with another hash is refused. Commit\n"
    "# this file to have the same content everywhere; delete an entry to accept other content.\n"
)


class Pin(BaseModel):
    """What a file contained when it arrived first.

    Attributes:
        url: where it was fetched from.
        bytes: its size.
        sha256: of its content.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    url: str
    bytes: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


@dataclass(frozen=True)
class Fetched:
    """A file that is there.

    Attributes:
        path: of the file.
        key: its name in the lock file.
        pin: its content.
    """

    path: Path
    key: str
    pin: Pin


def fetch_pinned(
    entries: Sequence[PublishedFile],
    folder: Path,
    root: Path,
    *,
    mirror: str | None = None,
    progress: bool = True,
    limits: Limits | None = None,
) -> list[Fetched]:
    """Download files into a folder as `fetch_published` does; see `remember`.

    Args:
        entries: of one data set.
        folder: below `root`.
        root: folder of the data sets, which has the lock file.
        mirror: address of a folder that has all files by their names; default: $ALIGNREC_MIRROR,
            else each file's own address.
        progress: show bars.
        limits: of each file.

    Raises:
        DownloadError: as `fetch_published`, or the content is not the remembered one.
        SettingError: the lock file cannot be read.
        WriteError: a folder cannot be written to, or the disk is full.
    """
    mirror = chosen_mirror(mirror)
    found = []
    for entry in entries:
        key = (folder / entry.file).relative_to(root).as_posix()
        pin = read_pins(root).get(key)
        _check_declared(entry, pin, key)
        asked = _to_ask(entry, pin, mirror)
        try:
            (path,) = fetch_published(
                [asked.model_dump(exclude_none=True)], folder, progress=progress, limits=limits
            )
        except DownloadError as error:
            if pin is None or "sha256" not in error.found:
                raise
            raise DownloadError(
                error.problem,
                found=error.found,
                expected=f"{error.expected}, as {root / LOCK_FILE} says",
                hint="the file has changed since it was pinned: ask for the earlier content, or "
                f"delete {key} from the lock file to accept the new one",
            ) from error
        if pin is None:
            url = asked.url or f"Google Drive {asked.gdrive}"
            pin = Pin(url=url, bytes=path.stat().st_size, sha256=sha256_file(path))
        found.append(Fetched(path, key, pin))
    return found


def remember(root: Path, fetched: Sequence[Fetched]) -> None:
    """Write the content of files into the lock file, once it has proved to be usable.

    Raises:
        SettingError: the lock file cannot be read.
        WriteError: it cannot be written.
    """
    with named_write_errors(root / LOCK_FILE), FileLock(root / f".{LOCK_FILE}.lock"):
        before = read_pins(root)  # other processes may add theirs at the same time
        pins = {**before, **{file.key: file.pin for file in fetched}}
        if pins == before:
            return
        entries = {name: pins[name].model_dump() for name in sorted(pins)}
        with atomic_write(root / LOCK_FILE, "w") as handle:
            handle.write(_HEADING)
            yaml.safe_dump(entries, handle, sort_keys=False, allow_unicode=True, width=1000)


def read_pins(root: Path) -> dict[str, Pin]:
    """The entries of the lock file by path below its folder; none without a lock file.

    Raises:
        SettingError: it is not YAML, or an entry has an unknown key or a wrong value.
    """
    path = root / LOCK_FILE
    pins = {}
    for key, value in read_yaml(path).items():
        try:
            pins[key] = Pin.model_validate(value)
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            place = ".".join(map(str, (key, *problem["loc"])))
            raise SettingError(
                f"{LOCK_FILE} has an entry that cannot be used.",
                found=f"{place}: {problem['msg']} in {path}",
                expected="url, bytes and sha256",
                hint="restore the file, or delete the entry to pin the content again",
            ) from error
    return pins


def chosen_mirror(given: str | None) -> str | None:
    """The mirror that is given, else that of the environment, else None."""
    return given or os.environ.get(MIRROR)


def mirrored(url: str, file: str) -> str:
    """The address of a file on a mirror.

    >>> mirrored("https://lab.example/data/", "a b.zip")
    'https://lab.example/data/a%20b.zip'

    Raises:
        DownloadError: the mirror is no http or https address.
    """
    if not re.match(r"https?://[^/]", url):
        raise DownloadError(
            "The mirror is not an address of a folder.",
            found=url,
            expected="http:// or https://, a host and a folder",
            hint=f"correct --mirror or ${MIRROR}",
        )
    return f"{url.rstrip('/')}/{quote(file)}"


def _to_ask(entry: PublishedFile, pin: Pin | None, mirror: str | None) -> PublishedFile:
    """The entry with the mirror's address and the remembered content."""
    changes: dict[str, object] = {}
    if mirror:
        changes |= {"url": mirrored(mirror, entry.file), "gdrive": None}
    if pin is not None:
        changes["sha256"] = pin.sha256  # not the size: the error has to name both hashes
    return entry.model_copy(update=changes)


def _check_declared(entry: PublishedFile, pin: Pin | None, key: str) -> None:
    if pin is not None and entry.sha256 not in (None, pin.sha256):
        raise DownloadError(
            f"{LOCK_FILE} and the data set's description disagree about {entry.file}.",
            found=f"sha256 {pin.sha256} in the lock file",
            expected=f"sha256 {entry.sha256}",
            hint=f"delete {key} from the lock file",
        )
