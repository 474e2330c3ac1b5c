"""One try to transfer a file: which answers of a server continue a part and which replace it."""

from __future__ import annotations

import re
import shutil

import requests
from tqdm.auto import tqdm

from alignrec_recbole.errors import WriteError, printable
from alignrec_recbole.io.http import PASSING, Client, Failed, Refused, wait_asked
from alignrec_recbole.io.partial_file import PartialFile

MAX_DIGITS = 18  # of a length in a header
VALIDATORS = ("ETag", "Last-Modified")  # headers that identify a version of a file


def transfer(
    client: Client,
    url: str,
    part: PartialFile,
    *,
    declared: int | None,
    verifiable: bool,
    progress: bool,
) -> bool:
    """Ask for the file or its rest; True if it is complete with a rest.

    Without a checksum, a part is continued only if the server confirms by ETag or Last-Modified
    that it is of the same version.

    Args:
        declared: bytes of the file; if unknown, it may have those of the limit.
        verifiable: whether a checksum decides at the end.

    Raises:
        Failed, Refused: as in `Client.get`; the answer does not fit or ends early.
        WriteError: the disk is full.
    """
    have, version = part.size, part.version(url)
    if have and not verifiable and not _validator(version):
        part.discard()
        have = 0
    headers = {"Accept-Encoding": "identity"}  # compressed bytes have other offsets
    if have:
        headers["Range"] = f"bytes={have}-"
        if validator := _validator(version):
            headers["If-Range"] = validator
    with client.get(url, headers) as response:
        if response.status_code == 416 and have:
            return _nothing_more(response, part, verifiable)
        _check_status(client, response, ranged=have > 0)
        _check_encoding(response, part)
        resumed = response.status_code == 206
        length: int | None
        if resumed:
            length = _length_of_rest(response, part, version, verifiable)
        else:
            length = _length(response)
        if declared is not None and length not in (None, declared):
            raise Refused(f"the file has {length:,} bytes, not {declared:,}")
        length = declared if length is None else length
        if length is None and not verifiable and not _is_chunked(response):
            raise Refused(
                "the server does not say how long the file is, and no checksum or size is declared"
            )
        limit = client.limits.size if declared is None else declared
        _check_size(part, limit, length, part.size if resumed else 0)
        limit = limit if length is None else length
        total = _receive(client, response, part, url, resumed, length, limit, progress)
    if length is not None and total != length:
        raise Failed(f"the connection ended after {total:,} of {length:,} bytes")
    return resumed


def _receive(
    client: Client,
    response: requests.Response,
    part: PartialFile,
    url: str,
    resumed: bool,
    length: int | None,
    limit: int,
    progress: bool,
) -> int:
    """Write the body; returns the bytes of the part."""
    total = part.size if resumed else 0
    version = {name: response.headers[name] for name in VALIDATORS if name in response.headers}
    with (
        part.go_on() if resumed else part.begin(url, version) as handle,
        tqdm(
            total=length,
            initial=total,
            unit="B",
            unit_scale=True,
            desc=printable(part.target.name, 60),
            disable=not progress,
        ) as bar,
    ):
        for block in client.blocks(response):
            total += len(block)
            if total > limit:
                raise Refused(f"the server sends more than {limit:,} bytes")
            handle.write(block)
            bar.update(len(block))
    return total


def _nothing_more(response: requests.Response, part: PartialFile, verifiable: bool) -> bool:
    """A server that has no byte after those of the part: complete, if a checksum will decide."""
    match = re.fullmatch(
        rf"bytes \*/([0-9]{{1,{MAX_DIGITS}}})", response.headers.get("Content-Range", "")
    )
    if verifiable and (match is None or int(match[1]) == part.size):
        return True
    part.discard()
    raise Failed("the part does not fit the file on the server")


def _check_status(client: Client, response: requests.Response, *, ranged: bool) -> None:
    status = response.status_code
    if status == 200 or (status == 206 and ranged):
        return
    text = f"status {status} {response.reason or ''}".rstrip()
    if status in PASSING:
        seconds = wait_asked(response, client.limits)
        raise Busy(text, seconds)
    raise Refused(text + (" though the whole file was asked for" if status in (206, 416) else ""))


class Busy(Failed):
    """A server that may answer later.

    Attributes:
        seconds: that it asks to wait.
    """

    def __init__(self, text: str, seconds: float) -> None:
        super().__init__(text)
        self.seconds = seconds


def _check_encoding(response: requests.Response, part: PartialFile) -> None:
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    # some servers describe a .gz file so, and send it as it is
    described = encoding in ("gzip", "x-gzip") and part.target.suffix in (".gz", ".tgz")
    if encoding not in ("", "identity") and not described:
        raise Refused(f"the server compresses the file ({encoding}) though asked not to")


def _is_chunked(response: requests.Response) -> bool:
    return "chunked" in response.headers.get("Transfer-Encoding", "").lower()


def _length(response: requests.Response) -> int | None:
    """Content-Length; None if there is none."""
    header = response.headers.get("Content-Length")
    if header is None or _is_chunked(response):
        return None
    if not re.fullmatch(rf"[0-9]{{1,{MAX_DIGITS}}}", header):
        raise Refused(f"Content-Length is {header[:40]!r}, not a number of bytes")
    return int(header)


def _length_of_rest(
    response: requests.Response, part: PartialFile, version: dict[str, str], verifiable: bool
) -> int:
    """The length of the file whose rest is sent.

    Raises:
        Failed: it is no rest of the part, which is deleted.
    """
    number = rf"([0-9]{{1,{MAX_DIGITS}}})"
    match = re.fullmatch(
        rf"bytes {number}-{number}/(?:{number}|\*)", response.headers.get("Content-Range", "")
    )
    first, last, length = (int(n or -1) for n in match.groups()) if match else (-1, -1, -1)
    fits = first == part.size <= last and length in (-1, last + 1)
    body = _length(response)
    fits = fits and body in (None, last + 1 - first)
    named = {name: response.headers[name] for name in version if name in response.headers}
    same = all(version[name] == value for name, value in named.items())
    if not fits or not same or not (verifiable or named):
        part.discard()
        raise Failed("the server sent another part of the file, or of another version")
    return last + 1


def _check_size(part: PartialFile, limit: int, length: int | None, have: int) -> None:
    """Refuse a file that is larger than the limit or than the free space."""
    if length is None:
        return
    if length > limit:
        raise Refused(f"the file has {length:,} bytes, more than {limit:,}")
    free = shutil.disk_usage(part.target.parent).free + (part.size if not have else 0)
    if length - have > free:
        raise WriteError(
            f"{part.target.name} could not be written.",
            found=f"No space left: {length - have:,} bytes to come, {free:,} free",
            expected="enough free space for the whole file",
            hint="free some space and run the same command again",
        )


def _validator(version: dict[str, str]) -> str:
    """The value of If-Range: a strong ETag, else the date; empty if there is neither."""
    etag = version.get("ETag", "")
    return etag if etag.startswith('"') else version.get("Last-Modified", "")
