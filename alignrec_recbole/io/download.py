"""Download published files: resumed, verified, and in place only when complete.

pooch cannot resume, so the transfer is requests with a Range header; Google Drive uses gdown.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from alignrec_recbole.errors import AlignRecError, DownloadError, printable
from alignrec_recbole.io.files import inside, named_write_errors, sha256_file
from alignrec_recbole.io.http import BLOCK, Client, Failed, Limits, Refused
from alignrec_recbole.io.opening import is_regular_file, open_input
from alignrec_recbole.io.partial_file import PartialFile
from alignrec_recbole.io.published_file import PublishedFile, read_entries
from alignrec_recbole.io.transfer import Busy, transfer

logger = logging.getLogger(__name__)

HEAD = 40  # bytes that `starts` is compared with


def fetch_published(
    downloads: list[dict[str, Any]],
    folder: Path,
    *,
    progress: bool = True,
    limits: Limits | None = None,
) -> list[Path]:
    """Download the files of a data set's YAML block `downloads` into a folder; returns their paths.

    The keys of an entry are those of `PublishedFile`. If neither checksum is published, the sha256
    is logged for comparison, and a part of an earlier call is continued only if the server confirms
    by ETag or Last-Modified that it is of the same file. Verified files are not downloaded again;
    of several processes one downloads.

    Raises:
        DownloadError: an entry is not valid, a URL fails, a limit is exceeded or the content is not
            the published one.
        WriteError: the folder cannot be written to, or the disk is full.
    """
    entries, limits = read_entries(downloads), limits or Limits()
    try:
        with named_write_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise DownloadError(f"{folder} is not a folder.", found=str(error)) from error
    targets = []
    for entry in entries:
        target = inside(folder, entry.file)
        targets.append(target)
        if _is_there(target, entry):
            continue
        if target.is_dir():
            raise DownloadError(f"{target.name} cannot be written.", found=f"a folder at {target}")
        with _locked(target, limits.total):
            if not _is_there(target, entry):  # another process may have downloaded it meanwhile
                _fetch(entry, target, limits, progress)
    return targets


def _fetch(entry: PublishedFile, target: Path, limits: Limits, progress: bool) -> None:
    part = PartialFile(target)
    if entry.url is not None:
        _fetch_url(entry, part, limits, progress)
    else:
        _fetch_drive(entry, part, limits, progress)
    if not entry.has_checksum:
        digest = sha256_file(part.path)
        logger.warning("%s: no checksum published; sha256 %s", printable(str(target)), digest)
    part.finish()


def _fetch_url(entry: PublishedFile, part: PartialFile, limits: Limits, progress: bool) -> None:
    """Transfer until the content is right, a try is refused or the tries are used up."""
    url, client = str(entry.url), Client(limits)
    client.start_file()
    failure: Exception | None = None
    for number in range(limits.tries):
        try:
            if number:
                _pause(client, failure, limits.backoff * 2 ** (number - 1))
            resumed = transfer(
                client,
                url,
                part,
                declared=entry.bytes,
                verifiable=entry.has_checksum,
                progress=progress,
            )
        except Refused as error:
            failure = error
            break
        except Failed as error:
            failure = error
            continue
        wrong = _what_is_wrong(part.path, entry)
        if wrong is None:
            return
        part.discard()
        if not resumed:
            raise _not_published(entry, *wrong)
        failure = Failed("the part of an earlier call did not fit the rest")
    hint = "run the same command again"
    raise DownloadError(
        f"{url} could not be downloaded.",
        found=str(failure),
        expected="the whole file",
        hint=f"{hint}: it resumes the partial file" if part.size else hint,
    ) from failure


def _pause(client: Client, failure: Exception | None, backoff: float) -> None:
    seconds = failure.seconds if isinstance(failure, Busy) else 0.0
    if seconds > backoff:
        logger.warning("%s; waiting %.0f s, as the server asks", printable(str(failure)), seconds)
    client.pause(max(seconds, backoff))


@contextlib.contextmanager
def _locked(target: Path, seconds: float) -> Iterator[None]:
    """One process at a time per file; the lock file stays, as removing it would free the lock."""
    lock = FileLock(target.with_name(f".{target.name}.lock"))
    try:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            logger.warning("waiting for another process that downloads %s", printable(str(target)))
            lock.acquire(timeout=seconds)
    except Timeout as error:
        raise DownloadError(
            f"{target.name} is being downloaded by another process.",
            found=f"a lock on it for {seconds:g} s",
            hint="wait for that process, or end it",
        ) from error
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


def _is_there(target: Path, entry: PublishedFile) -> bool:
    return is_regular_file(target) and _what_is_wrong(target, entry) is None


def _not_published(entry: PublishedFile, found: str, expected: str) -> DownloadError:
    return DownloadError(
        f"{entry.file} is not the published file.",
        found=found,
        expected=expected,
        hint="try again; if the result is the same, the URL now serves another file",
    )


def _what_is_wrong(path: Path, entry: PublishedFile) -> tuple[str, str] | None:
    """What was found and what was expected, if a file is not the published one."""
    with open_input(path, what="file", error=DownloadError) as handle:
        head, size = handle.read(HEAD), os.fstat(handle.fileno()).st_size
    if entry.starts and not entry.starts.match(head):
        return f"bytes that start {head!r}", "another kind of file"
    if entry.bytes not in (None, size):
        return f"{size:,} bytes", f"{entry.bytes:,} bytes"
    for kind, published, digest in (
        ("sha256", entry.sha256, sha256_file),
        ("git blob", entry.git_blob, git_blob_sha1),
    ):
        if published and digest(path) != published:
            return f"sha256 {sha256_file(path)}", f"{kind} {published}"
    return None


def git_blob_sha1(path: Path) -> str:
    """The object id git gives a file's content: SHA-1 of "blob SIZE\\0" and the bytes."""
    digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with open(path, "rb") as handle:
        while block := handle.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _fetch_drive(entry: PublishedFile, part: PartialFile, limits: Limits, progress: bool) -> None:
    """Download by file id; what gdown has of an earlier call is continued if a checksum decides."""
    import gdown

    part.discard()
    if not entry.has_checksum:
        _remove_parts_of_gdown(part.path)
    end, limit = time.monotonic() + limits.total, entry.bytes or limits.size
    cancel = threading.Event()
    timer = threading.Timer(limits.total, cancel.set)
    timer.daemon = True

    def check(received: int, length: int | None) -> None:
        if max(received, length or 0) > limit:
            raise Refused(f"the file has more than {limit:,} bytes")
        if time.monotonic() > end:
            raise Refused(f"not complete after {limits.total:g} s")

    timer.start()
    try:
        with named_write_errors(part.target):
            done = gdown.download(
                id=entry.gdrive,
                output=str(part.path),
                quiet=not progress,
                resume=entry.has_checksum,
                use_cookies=False,  # they would be saved in the home folder
                timeout=(limits.connect, limits.silence),
                retries=limits.tries - 1,
                progress=check,
                cancel=cancel,
            )
    except AlignRecError:
        raise
    except Exception as error:
        raise _drive_failed(entry, str(error)) from error
    finally:
        timer.cancel()
    if not done:
        raise _drive_failed(entry, "no file")
    if wrong := _what_is_wrong(part.path, entry):
        part.discard()
        raise _not_published(entry, *wrong)


def _drive_failed(entry: PublishedFile, found: str) -> DownloadError:
    return DownloadError(
        f"The Google Drive file {entry.gdrive} could not be downloaded.",
        found=found.strip().partition("\n")[0],
        hint=f"download it with a browser and save it as {entry.file}",
    )


def _remove_parts_of_gdown(part: Path) -> None:
    """Remove what gdown has left of earlier calls: the name it was given, 8 characters, `.part`."""
    for entry in list(os.scandir(part.parent)):
        middle = entry.name[len(part.name) : -len(".part")]
        if entry.name == f"{part.name}{middle}.part" and len(middle) == 8 and entry.is_file():
            os.unlink(entry)
