"""Download published files: resumed, verified, and in place only when complete.

pooch cannot resume, so the transfer is requests with a Range header; Google Drive uses gdown.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import requests
from filelock import FileLock, Timeout
from tqdm import tqdm

from alignrec_recbole.errors import DownloadError
from alignrec_recbole.io.files import inside, sha256_file
from alignrec_recbole.io.http import make_session

logger = logging.getLogger(__name__)

BLOCK = 1 << 16
RETRIES = 3
TIMEOUT = 30.0  # seconds without a byte; then the transfer is resumed


def fetch_published(
    downloads: list[dict[str, Any]], folder: Path, *, progress: bool = True
) -> None:
    """Download the files of a data set's YAML block `downloads` into a folder.

    An entry has `file`, one of `url` and `gdrive` (a file id), and `sha256` or `git_blob` (git's
    object id of the file). If neither checksum is published, the sha256 is logged for comparison,
    and a partial file of an earlier call is not resumed: the two parts could belong to different
    files. `starts` is a pattern that the first bytes must match. Verified files are not downloaded
    again; of several processes one downloads.

    Raises:
        DownloadError: a URL fails or the content is not the published one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for entry in downloads:
        target = inside(folder, entry["file"])
        if _is_there(target, entry):
            continue
        with _locked(target):
            if not _is_there(target, entry):  # another process may have downloaded it meanwhile
                _fetch(entry, target, progress)


def _fetch(entry: dict[str, Any], target: Path, progress: bool) -> None:
    part = target.with_name(target.name + ".part")
    known = bool(entry.get("sha256") or entry.get("git_blob"))
    if not known:
        part.unlink(missing_ok=True)
    if "url" in entry:
        _fetch_url(entry["url"], part, progress)
    else:
        _fetch_drive(entry["gdrive"], part, progress)
    if wrong := _what_is_wrong(part, entry):
        part.unlink()
        found, expected = wrong
        raise DownloadError(
            f"{entry['file']} is not the published file.",
            found=found,
            expected=expected,
            hint="try again; if the result is the same, the URL now serves another file",
        )
    if not known:
        logger.warning("%s: no checksum published; sha256 %s", target, sha256_file(part))
    os.replace(part, target)


@contextlib.contextmanager
def _locked(target: Path) -> Iterator[None]:
    """One process at a time per file; the lock file stays, as removing it would free the lock."""
    lock = FileLock(target.with_name(f".{target.name}.lock"))
    try:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            logger.info("waiting for another process that downloads %s", target)
            lock.acquire()
    except OSError as error:
        raise DownloadError(
            f"{target.name} cannot be written.",
            found=str(error),
            expected="a folder this user may write to",
        ) from error
    try:
        yield
    finally:
        lock.release()


def _is_there(target: Path, entry: dict[str, Any]) -> bool:
    return target.is_file() and _what_is_wrong(target, entry) is None


def _what_is_wrong(path: Path, entry: dict[str, Any]) -> tuple[str, str] | None:
    """What was found and what was expected, if a file is not the published one."""
    with open(path, "rb") as handle:
        head = handle.read(40)
    if not re.match(entry.get("starts", b""), head):
        return f"bytes that start {head!r}", "another kind of file"
    for kind, digest in (("sha256", sha256_file), ("git_blob", git_blob_sha1)):
        if entry.get(kind):
            right = digest(path) == entry[kind]
            words = f"{kind.replace('_', ' ')} {entry[kind]}"
            return None if right else (f"sha256 {sha256_file(path)}", words)
    return None


def git_blob_sha1(path: Path) -> str:
    """The object id git gives a file's content: SHA-1 of "blob SIZE\\0" and the bytes."""
    digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with open(path, "rb") as handle:
        while block := handle.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _fetch_url(url: str, part: Path, progress: bool) -> None:
    session = make_session(RETRIES)
    failure: Exception | None = None
    for _ in range(RETRIES):
        try:
            if _transfer(session, url, part, progress):
                return
        except requests.RequestException as error:
            failure = error
            response = getattr(error, "response", None)
            if response is not None and 400 <= response.status_code < 500:
                break
    raise DownloadError(
        f"{url} could not be downloaded.",
        found=str(failure) if failure else "the connection ended early each time",
        expected="the whole file",
        hint="run the same command again: it resumes the partial file",
    ) from failure


def _transfer(session: requests.Session, url: str, part: Path, progress: bool) -> bool:
    """One attempt; True if the file is complete."""
    have = part.stat().st_size if part.exists() else 0
    headers = {
        "Accept-Encoding": "identity"
    }  # a compressed transfer cannot be resumed at an offset
    if have:
        headers["Range"] = f"bytes={have}-"
    with session.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        if response.status_code == 416:  # the server has no further bytes: the checksum decides
            return True
        response.raise_for_status()
        resumed = response.status_code == 206 and _range_start(response) == have
        length = response.headers.get("Content-Length")
        total = int(length) + (have if resumed else 0) if length else None
        with (
            open(part, "ab" if resumed else "wb") as handle,
            tqdm(
                total=total,
                initial=have if resumed else 0,
                unit="B",
                unit_scale=True,
                desc=part.stem,
                disable=not progress,
            ) as bar,
        ):
            for block in response.iter_content(BLOCK):
                handle.write(block)
                bar.update(len(block))
    return total is None or part.stat().st_size == total


def _range_start(response: requests.Response) -> int:
    match = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return int(match[1]) if match else -1


def _fetch_drive(file_id: str, part: Path, progress: bool) -> None:
    import gdown

    try:
        done = gdown.download(id=file_id, output=str(part), quiet=not progress, resume=True)
    except Exception as error:
        raise DownloadError(
            f"The Google Drive file {file_id} could not be downloaded.",
            found=str(error).splitlines()[0],
            hint=f"download it with a browser and save it as {part.with_suffix('').name}",
        ) from error
    if not done:
        raise DownloadError(f"The Google Drive file {file_id} could not be downloaded.")
