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
import re
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests
from PIL import Image
from tqdm import tqdm
from urllib3.exceptions import HTTPError

from alignrec_recbole.data.images import FORMATS, MAX_PIXELS
from alignrec_recbole.io.files import atomic_write, inside, sha256_file
from alignrec_recbole.io.http import make_session

HOSTS = ("images-amazon.com", "ssl-images-amazon.com", "media-amazon.com")
LARGEST = 20 << 20  # bytes of an image
TIMEOUT = (10.0, 30.0)  # seconds to connect, and without a byte
REDIRECTS = 3
TRIES = 3
LONGEST_WAIT = 60.0  # seconds that a server may ask to wait
LEDGER = "fetched.jsonl"
PERMANENT_FAILURES = ("gone", "not an image", "too large")
ADDRESS_REFUSED = "address refused"  # not permanent: another call may name other hosts

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RateLimit:
    """How often the hosts are asked.

    Attributes:
        connections: at the same time.
        pause: seconds between two requests of one connection.
        backoff: seconds before the second attempt; doubled for each further one.
    """

    connections: int = 8
    pause: float = 0.05
    backoff: float = 1.0


def fetch_images(
    urls: Mapping[str, str],
    folder: Path,
    *,
    hosts: tuple[str, ...] = HOSTS,
    rate_limit: RateLimit | None = None,
    progress: bool = True,
) -> Counter[str]:
    """Download images into a folder; returns how many are there ("fetched", "had") or failed, by
    reason.

    Args:
        urls: file name → URL.
        hosts: names, each with its subdomains, that may be asked.
    """
    rate_limit = rate_limit or RateLimit()
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

    def fetch_one(name: str, url: str) -> dict[str, Any]:
        if not hasattr(local, "session"):
            local.session = make_session(accept="image/*")  # _fetch repeats, bodies included
        result = _fetch(local.session, url, inside(folder, name), hosts, rate_limit)
        time.sleep(rate_limit.pause)
        return {"name": name, "url": url, **result}

    with (
        open(folder / LEDGER, "a", encoding="utf-8") as ledger,
        tqdm(total=len(todo), desc="images", unit="image", disable=not progress) as bar,
        contextlib.closing(_in_parallel(fetch_one, todo, rate_limit.connections)) as results,
    ):
        for result in results:
            outcome[result["status"]] += 1
            ledger.write(json.dumps(result) + "\n")
            ledger.flush()
            bar.update()
    return outcome


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
    session: requests.Session, url: str, path: Path, hosts: tuple[str, ...], rate_limit: RateLimit
) -> dict[str, Any]:
    status = "no answer"
    for attempt in range(TRIES):
        if attempt:
            time.sleep(rate_limit.backoff * 2 ** (attempt - 1))
        try:
            answer, pause = _attempt(session, url, hosts)
        except requests.RequestException:
            status = "no answer"
            continue
        except ValueError:  # no URL at all: a host that cannot be resolved, a redirect to "[bad"
            return {"status": ADDRESS_REFUSED}
        except HTTPError:  # of urllib3; requests lets some through
            status = "no answer"
            continue
        if isinstance(answer, bytes):
            with atomic_write(path) as handle:
                handle.write(answer)
            return {"status": "fetched", "sha256": sha256(answer).hexdigest(), "bytes": len(answer)}
        status = answer
        if status in PERMANENT_FAILURES or status == ADDRESS_REFUSED:
            break
        if pause and attempt + 1 < TRIES:
            time.sleep(pause)
    return {"status": status}


def _attempt(
    session: requests.Session, url: str, hosts: tuple[str, ...]
) -> tuple[bytes | str, float]:
    """The bytes of an image, or the reason why not; and the seconds the server asks to wait."""
    asked = address(url, hosts)
    for _ in range(REDIRECTS + 1):
        if asked is None:
            return ADDRESS_REFUSED, 0.0
        with session.get(asked, stream=True, timeout=TIMEOUT, allow_redirects=False) as response:
            if response.is_redirect:
                asked = address(response.headers["Location"], hosts, asked)
                continue
            if response.status_code in (404, 410):
                return "gone", 0.0
            if response.status_code != 200:
                after = response.headers.get("Retry-After", "")
                pause = min(float(after), LONGEST_WAIT) if after.isdecimal() else 0.0
                return f"status {response.status_code}", pause
            content = _body(response)
        if isinstance(content, str):
            return content, 0.0
        return (content if is_image(content) else "not an image"), 0.0
    return "too many redirects", 0.0


def _body(response: requests.Response) -> bytes | str:
    expected = response.headers.get("Content-Length", "")
    if expected.isdecimal() and int(expected) > LARGEST:
        return "too large"
    content = bytearray()
    for block in response.iter_content(1 << 16):
        content += block
        if len(content) > LARGEST:
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

    Parsers disagree about which part of a URL is the host. Therefore the URL that requests has
    parsed is checked, and characters that parsers disagree about are refused: backslashes, white
    space, user names.

    >>> address("http://ecx.images-amazon.com/a.jpg", HOSTS)
    'http://ecx.images-amazon.com/a.jpg'
    >>> [address(u, HOSTS) for u in ("file:///etc/passwd", "http://images-amazon.com.evil.org/")]
    [None, None]
    """
    if re.search(r"[\s\\]", url):
        return None
    try:
        asked = requests.Request("GET", urljoin(base, url)).prepare().url or ""
        parts = urlsplit(asked)
        host = parts.hostname or ""
    except (requests.RequestException, HTTPError, ValueError):
        return None
    if parts.scheme not in ("http", "https") or "@" in parts.netloc or "%" in host:
        return None
    return asked if any(host == name or host.endswith(f".{name}") for name in hosts) else None


def _read_ledger(path: Path) -> dict[str, dict[str, Any]]:
    """The last entry of each name; a torn line is skipped."""
    out = {}
    if path.is_file():
        for line in path.read_text("utf-8", errors="replace").splitlines():
            try:
                entry = json.loads(line)
                out[entry["name"]] = {"url": entry["url"], "status": entry["status"], **entry}
            except (ValueError, KeyError, TypeError):
                logger.debug("a line of %s is damaged", path)
    return out


def _unchanged(path: Path, entry: Mapping[str, Any]) -> bool:
    same_size = path.is_file() and path.stat().st_size == entry.get("bytes")
    return same_size and sha256_file(path) == entry.get("sha256")
