"""Download item images: in parallel, at a limited rate, resumed, with checksums.

A ledger beside the images, one JSON line per attempt, records the outcome for each URL. A file with
its recorded checksum is not downloaded again, nor is a URL that failed permanently (404, not an
image). Only hosts that the caller names are contacted, redirects included: the URLs come from a
file that anyone could have written.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import stat
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

import requests
from PIL import Image
from tqdm.auto import tqdm

from alignrec_recbole.data.images import FORMATS, MAX_PIXELS
from alignrec_recbole.errors import WriteError, printable
from alignrec_recbole.io.files import atomic_write, inside, named_write_errors, sha256_file
from alignrec_recbole.io.http import (
    AddressRefused,
    Client,
    Failed,
    Limits,
    Refused,
    TooSlow,
    WaitRefused,
    checked_url,
    wait_asked,
)
from alignrec_recbole.io.opening import is_regular_file, open_input

HOSTS = ("images-amazon.com", "ssl-images-amazon.com", "media-amazon.com")
IMAGE_LIMITS = Limits(total=120.0, backoff=1.0, redirects=3, size=20 << 20)
MAX_FAILURES = 20  # images of one host without an answer, one after another, until it is left
LEDGER = "fetched.jsonl"
MAX_LEDGER = 1 << 30  # bytes
MAX_LINE = 1 << 16  # bytes of a line of the ledger
PERMANENT_FAILURES = ("gone", "not an image", "too large")
ADDRESS_REFUSED = "address refused"  # not permanent: another call may name other hosts
HOST_LEFT = "host not asked again"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RateLimit:
    """How often the hosts are asked.

    Attributes:
        connections: at the same time.
        pause: seconds between two requests of one connection.
    """

    connections: int = 8
    pause: float = 0.05


def fetch_images(
    urls: Mapping[str, str],
    folder: Path,
    *,
    hosts: tuple[str, ...] = HOSTS,
    rate_limit: RateLimit | None = None,
    limits: Limits = IMAGE_LIMITS,
    progress: bool = True,
) -> Counter[str]:
    """Download images into a folder; returns how many are there ("fetched", "had") or failed, by
    reason.

    A host that asks to wait longer than the limit, or that does not answer for MAX_FAILURES images
    one after another, is not asked again in this call.

    Args:
        urls: file name → URL.
        hosts: names, each with its subdomains, that may be asked.
        limits: of each image.

    Raises:
        WriteError: the folder cannot be written to, or the disk is full.
        DataError: the ledger is no regular file.
    """
    rate_limit = rate_limit or RateLimit()
    with named_write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    outcome: Counter[str] = Counter()
    todo = []
    known = _read_ledger(folder / LEDGER)
    for name, url in urls.items():
        if status := _settled(folder, name, url, known.get(name)):
            outcome[status] += 1
        else:
            todo.append((name, url))
    local = threading.local()
    left = _HostsLeft()

    def fetch_one(name: str, url: str) -> dict[str, Any]:
        if not hasattr(local, "client"):
            local.client = Client(
                limits, accept="image/*", permitted=lambda host: _is_named(host, hosts)
            )
        result = _fetch(local.client, url, inside(folder, name), hosts, left)
        time.sleep(rate_limit.pause)
        return {"name": name, "url": url, **result}

    with (
        _opened_ledger(folder / LEDGER) as ledger,
        tqdm(total=len(todo), desc="images", unit="image", disable=not progress) as bar,
        contextlib.closing(_in_parallel(fetch_one, todo, rate_limit.connections)) as results,
    ):
        for result in results:
            outcome[result["status"]] += 1
            if result["status"] != HOST_LEFT:
                ledger.write(json.dumps(result) + "\n")
                ledger.flush()
            bar.update()
    return outcome


def attempted(folder: Path) -> set[str]:
    """File names of the images that were asked for, with whatever result.

    Raises:
        DataError: the ledger is no regular file.
    """
    return set(_read_ledger(folder / LEDGER))


class _HostsLeft:
    """Hosts that are not asked again in this call; shared by the threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._left: set[str] = set()
        self._failures: Counter[str] = Counter()

    def __contains__(self, host: str) -> bool:
        return host in self._left

    def answered(self, host: str) -> None:
        """A host has given an answer."""
        self._failures.pop(host, None)

    def failed(self, host: str, reason: str) -> None:
        """A host has given none for an image."""
        with self._lock:
            self._failures[host] += 1
            if self._failures[host] < MAX_FAILURES:
                return
        self.leave(host, f"{MAX_FAILURES} images without an answer, the last: {reason}")

    def leave(self, host: str, reason: str) -> None:
        """Ask a host no more, and say so once."""
        with self._lock:
            said = host in self._left
            self._left.add(host)
        if not said:
            logger.warning(
                "%s: %s; its other images are left for a later call",
                printable(host, 100),
                printable(reason, 200),
            )


def _settled(folder: Path, name: str, url: str, entry: Mapping[str, Any] | None) -> str | None:
    """The outcome of a URL that need not be asked for again: its file exists, or it never will."""
    path = inside(folder, name)
    if entry is None or entry["url"] != url:
        return None
    if entry["status"] == "fetched" and _unchanged(path, entry):
        return "had"
    return entry["status"] if entry["status"] in PERMANENT_FAILURES else None


def _in_parallel(
    work: Callable[[str, str], dict[str, Any]], todo: list[tuple[str, str]], threads: int
) -> Generator[dict[str, Any], None, None]:
    """Results of the work as they finish; few calls are queued, so that an interrupt ends soon."""
    with ThreadPoolExecutor(threads) as pool:
        waiting: set[Future[dict[str, Any]]] = set()
        feed = iter(todo)
        try:
            while True:
                while len(waiting) < 4 * threads and (entry := next(feed, None)):
                    waiting.add(pool.submit(work, *entry))
                if not waiting:
                    break
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
        finally:
            for future in waiting:
                future.cancel()


def _fetch(
    client: Client, url: str, path: Path, hosts: tuple[str, ...], left: _HostsLeft
) -> dict[str, Any]:
    """Try until there is an image or a reason; returns the entry for the ledger."""
    asked = address(url, hosts)
    if asked is None:
        return {"status": ADDRESS_REFUSED}
    host = urlsplit(asked).hostname or ""
    client.start_file()
    status, wait_for = "no answer", 0.0
    for number in range(client.limits.tries):
        if host in left:
            return {"status": HOST_LEFT if number == 0 else status}
        try:
            if number:
                client.pause(client.limits.backoff * 2 ** (number - 1) + wait_for)
            answer, wait_for = _attempt(client, asked)
        except AddressRefused:
            return {"status": ADDRESS_REFUSED}
        except WaitRefused as error:
            left.leave(host, str(error))
            return {"status": "asked to wait"}
        except TooSlow as error:
            left.failed(host, str(error))
            return {"status": "too slow"}
        except Refused as error:
            left.answered(host)
            return {"status": str(error)}
        except Failed as error:
            status, wait_for = "no answer", 0.0
            reason = str(error)
            continue
        left.answered(host)
        if isinstance(answer, bytes):
            with atomic_write(path) as handle:
                handle.write(answer)
            return {"status": "fetched", "sha256": sha256(answer).hexdigest(), "bytes": len(answer)}
        status = answer
        if status in PERMANENT_FAILURES:
            break
    if status == "no answer":
        left.failed(host, reason)
    return {"status": status}


def _attempt(client: Client, url: str) -> tuple[bytes | str, float]:
    """The bytes of an image, or the reason why not; and the seconds the server asks to wait."""
    with client.get(url) as response:
        if response.status_code in (404, 410):
            return "gone", 0.0
        if response.status_code != 200:
            return f"status {response.status_code}", wait_asked(response, client.limits)
        content = _body(client, response)
    if isinstance(content, str):
        return content, 0.0
    return (content if is_image(content) else "not an image"), 0.0


def _body(client: Client, response: requests.Response) -> bytes | str:
    expected = response.headers.get("Content-Length", "")[:19]
    if expected.isdecimal() and int(expected) > client.limits.size:
        return "too large"
    content = bytearray()
    for block in client.blocks(response, decode=True):
        content += block
        if len(content) > client.limits.size:
            return "too large"
    encoded = "Content-Encoding" in response.headers
    if expected.isdecimal() and not encoded and len(content) != int(expected):
        return "ended early"
    return bytes(content)


def is_image(content: bytes) -> bool:
    """Whether bytes start like an image of an accepted format and size; nothing is decoded."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(content), formats=FORMATS) as image:
                return 0 < image.width * image.height <= MAX_PIXELS
    except Exception:  # readers of damaged headers raise anything
        return False


def address(url: str, hosts: tuple[str, ...], base: str = "") -> str | None:
    """The URL as requests will send it; None if that is not http(s) on one of the hosts.

    >>> address("http://ecx.images-amazon.com/a.jpg", HOSTS)
    'http://ecx.images-amazon.com/a.jpg'
    >>> [address(u, HOSTS) for u in ("file:///etc/passwd", "http://images-amazon.com.evil.org/")]
    [None, None]
    """
    try:
        return checked_url(url, base=base, permitted=lambda host: _is_named(host, hosts))
    except AddressRefused:
        return None


def _is_named(host: str, hosts: tuple[str, ...]) -> bool:
    return any(host == name or host.endswith(f".{name}") for name in hosts)


@contextlib.contextmanager
def _opened_ledger(path: Path) -> Generator[IO[str], None, None]:
    """The ledger, open to add lines; a line torn by a kill is ended first."""
    if os.path.lexists(path) and not stat.S_ISREG(os.lstat(path).st_mode):
        raise WriteError(
            f"{path.name} could not be written.",
            found=f"{path} is a folder, a link or a special file",
            expected="a regular file, or nothing",
        )
    torn = False
    if path.exists() and path.stat().st_size:
        with open(path, "rb") as handle:
            handle.seek(-1, os.SEEK_END)
            torn = handle.read() != b"\n"
    with named_write_errors(path), open(path, "a", encoding="utf-8") as ledger:
        if torn:
            ledger.write("\n")
        yield ledger


def _read_ledger(path: Path) -> dict[str, dict[str, Any]]:
    """The last entry of each name; a torn or damaged line is skipped."""
    out: dict[str, dict[str, Any]] = {}
    if not os.path.lexists(path):
        return out
    with open_input(path, what="list of images", max_bytes=MAX_LEDGER) as handle:
        while line := handle.readline(MAX_LINE):
            try:
                entry = json.loads(line.decode("utf-8", "replace"))
                out[entry["name"]] = {"url": entry["url"], "status": entry["status"], **entry}
            except (ValueError, KeyError, TypeError, RecursionError):
                logger.debug("a line of %s is damaged", path)
    return out


def _unchanged(path: Path, entry: Mapping[str, Any]) -> bool:
    same_size = is_regular_file(path) and path.stat().st_size == entry.get("bytes")
    return same_size and sha256_file(path) == entry.get("sha256")
