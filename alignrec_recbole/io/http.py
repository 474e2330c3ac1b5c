"""HTTP GET within limits of time, size and redirects, for servers that may do anything.

requests limits neither the time of a whole answer nor where redirects lead; the adapter here gives
each connection a deadline, and looks at the address that a redirect reached before it sends
anything there.
"""

from __future__ import annotations

import contextlib
import io
import ipaddress
import re
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3 import PoolManager
from urllib3.exceptions import HTTPError, ReadTimeoutError
from urllib3.util import Retry

PASSING = (408, 429, 500, 502, 503, 504)  # statuses of servers that are busy or restarting
BLOCK = 1 << 14  # bytes of a body that are read at once
OVERHEAD = 1 << 20  # bytes of headers and chunk sizes per answer or block
_SLOW_BODY = f"less than {BLOCK // 1024} KiB of the body in"


@dataclass(frozen=True)
class Limits:
    """Bounds of one download.

    Attributes:
        connect: seconds to connect.
        silence: seconds without a byte.
        answer: seconds until status and headers are complete.
        block: seconds per 16 KiB of the body: the slowest speed accepted.
        total: seconds per file, with all tries and pauses.
        pause: the longest that a server may ask to wait, in seconds.
        backoff: seconds before the second try; doubled for each further one.
        tries: per file.
        redirects: per try.
        size: bytes of a file, unless its own size is declared.
    """

    connect: float = 10.0
    silence: float = 10.0
    answer: float = 15.0
    block: float = 20.0
    total: float = 6 * 3600.0
    pause: float = 60.0
    backoff: float = 0.5
    tries: int = 3
    redirects: int = 5
    size: int = 4 << 30


class Failed(Exception):
    """A try that ended without the file; the next one may succeed."""


class Refused(Exception):
    """An address or answer that is not used; trying again does not help."""


class TooSlow(Refused):
    """An answer that exceeded one of the time limits."""


class AddressRefused(Refused):
    """An address that is not asked."""


class WaitRefused(Refused):
    """A server that asks to wait longer than the limit."""


class Client:
    """Requests of one thread, one file after another.

    Args:
        limits: of each file.
        accept: media types to ask for.
        permitted: whether a host name may be asked; all if None.
    """

    def __init__(
        self,
        limits: Limits,
        *,
        accept: str = "*/*",
        permitted: Callable[[str], bool] | None = None,
    ) -> None:
        self.limits, self._permitted, self._state = limits, permitted, _State()
        self._session = _Session()
        self._session.headers["Accept"] = accept
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, _Adapter(self._state))
        self._end = float("inf")

    def start_file(self) -> None:
        """The time limit of a file begins."""
        self._end = time.monotonic() + self.limits.total

    @contextlib.contextmanager
    def get(
        self, url: str, headers: Mapping[str, str] | None = None
    ) -> Iterator[requests.Response]:
        """Yield the answer to a GET after redirects, its body unread.

        Raises:
            Failed: no answer, or a broken one; in the block, too.
            Refused: an address that is not http(s), not permitted, or reached by a redirect
                though it is private and the first one is not; too many redirects; a time limit.
        """
        asked = checked_url(url, permitted=self._permitted)
        self._state.redirected = False
        for _ in range(self.limits.redirects + 1):
            with self._sent(asked, headers or {}) as response:
                target = _location(response)
                if target is None:
                    yield response
                    return
            self._state.redirected = True
            asked = checked_url(target, base=asked, permitted=self._permitted)
            if not self._state.origin_is_private and _is_private_name(urlsplit(asked).hostname):
                raise AddressRefused(f"a redirect to the private address {asked}")
        raise Refused(f"more than {self.limits.redirects} redirects")

    @contextlib.contextmanager
    def _sent(self, url: str, headers: Mapping[str, str]) -> Iterator[requests.Response]:
        self._allow(self.limits.answer, "no complete headers after")
        with (
            _named_errors(self.limits),
            self._session.get(
                url,
                headers=dict(headers),
                stream=True,
                allow_redirects=False,
                timeout=(self.limits.connect, self.limits.silence),
            ) as response,
        ):
            yield response

    def blocks(self, response: requests.Response, *, decode: bool = False) -> Iterator[bytes]:
        """The body in blocks, each within the time limit.

        Args:
            response: of `get`, whose block is still open.
            decode: undo a Content-Encoding.
        """
        self._allow(self.limits.block, _SLOW_BODY)
        received = 0  # bytes since the time limit was renewed: a server chooses the chunks
        for block in response.raw.stream(BLOCK, decode_content=decode):
            yield block
            received += len(block)
            if received >= BLOCK:
                self._allow(self.limits.block, _SLOW_BODY)
                received = 0

    def pause(self, seconds: float) -> None:
        """Sleep.

        Raises:
            TooSlow: the time limit of the file would be over.
        """
        if time.monotonic() + seconds > self._end:
            raise TooSlow(f"not complete after {self.limits.total:g} s")
        time.sleep(seconds)

    def _allow(self, seconds: float, problem: str) -> None:
        """Renew the deadline of the connections.

        Args:
            seconds: from now.
            problem: what is wrong when they are over, up to the number of seconds.
        """
        now, total = time.monotonic(), f"not complete after {self.limits.total:g} s"
        if now >= self._end:
            raise TooSlow(total)
        ends_first = now + seconds >= self._end
        self._state.deadline = min(now + seconds, self._end)
        self._state.problem = total if ends_first else f"{problem} {seconds:g} s"
        self._state.silence = self.limits.silence
        self._state.bytes_left = OVERHEAD


def wait_asked(response: requests.Response, limits: Limits) -> float:
    """The seconds that a busy server asks to wait; 0 if it names none or nonsense.

    Raises:
        WaitRefused: they are more than the limit.
    """
    header = response.headers.get("Retry-After", "")
    try:
        seconds = Retry().parse_retry_after(header) if header else 0.0
    except (HTTPError, ValueError, OverflowError):
        return 0.0
    if seconds > limits.pause:
        host = urlsplit(response.url).hostname
        raise WaitRefused(
            f"status {response.status_code}; {host} asks to wait {seconds:.0f} s, "
            f"more than {limits.pause:g} s"
        )
    return seconds


def checked_url(url: str, *, base: str = "", permitted: Callable[[str], bool] | None = None) -> str:
    """The URL as requests will send it.

    Parsers disagree about which part of a URL is the host. Therefore the URL that requests has
    parsed is checked, and characters that parsers disagree about are refused: backslashes, white
    space, user names.

    Args:
        url: absolute, or relative to `base`.
        base: the URL of the page that leads to `url`.
        permitted: whether a host name may be asked; all if None.

    Raises:
        AddressRefused: it is not http(s), cannot be parsed, or is not permitted.
    """
    refused = AddressRefused(f"the address {url!r} is not one of http or https")
    if re.search(r"[\s\\\x00-\x1f\x7f]", url):
        raise refused
    try:
        asked = requests.Request("GET", urljoin(base, url)).prepare().url or ""
        parts = urlsplit(asked)
        host, _ = parts.hostname or "", parts.port
        host.encode("idna")  # labels that are empty or too long
    except (requests.RequestException, HTTPError, ValueError) as error:
        raise refused from error
    if parts.scheme not in ("http", "https") or not host or "@" in parts.netloc or "%" in host:
        raise refused
    if permitted is not None and not permitted(host):
        raise AddressRefused(f"the host {host} is not among those that may be asked")
    return asked


def is_private(address: str) -> bool:
    """Whether an IP address is not one of the public internet.

    >>> [is_private(a) for a in ("127.0.0.1", "10.1.2.3", "::ffff:192.168.0.1", "8.8.8.8")]
    [True, True, True, False]
    """
    parsed = ipaddress.ip_address(address.partition("%")[0])
    mapped = getattr(parsed, "ipv4_mapped", None)
    return not (mapped or parsed).is_global


def _is_private_name(host: str | None) -> bool:
    """Whether a host is private by its name alone; behind a proxy nothing else is known."""
    try:
        return is_private(host or "")
    except ValueError:
        return (host or "").rstrip(".").endswith("localhost")


def _location(response: requests.Response) -> str | None:
    """Where a redirect leads; None if the response is none."""
    if not response.is_redirect:
        return None
    # http.client reads headers as Latin-1, servers send UTF-8
    return response.headers["Location"].encode("latin-1", "replace").decode("utf-8", "replace")


@contextlib.contextmanager
def _named_errors(limits: Limits) -> Iterator[None]:
    """Turn errors of requests and urllib3 into Failed and Refused."""
    try:
        yield
    except requests.ConnectTimeout as error:
        raise Failed(f"no connection within {limits.connect:g} s") from error
    except (requests.ReadTimeout, ReadTimeoutError) as error:
        raise Failed(f"no byte for {limits.silence:g} s") from error
    except (requests.RequestException, HTTPError) as error:
        if isinstance(error, ValueError):  # addresses that are found wrong when they are used
            raise AddressRefused(str(error)) from error
        raise Failed(str(_reason(error))) from error


def _reason(error: Exception) -> object:
    """What urllib3 wraps in MaxRetryError, and requests in ConnectionError."""
    wrapped: Any = error
    while isinstance(wrapped, Exception) and wrapped.args:
        inner = getattr(wrapped, "reason", None) or wrapped.args[0]
        if not isinstance(inner, (str, Exception)):
            break
        wrapped = inner
    return wrapped


class _Session(requests.Session):
    def get_redirect_target(self, response: requests.Response) -> None:  # type: ignore[override]
        """No redirect: requests would parse its address and read its whole body."""


class _State:
    """What the connections of a client must know.

    Attributes:
        deadline: the time (monotonic) until which bytes may arrive.
        problem: what is wrong after the deadline.
        silence: seconds without a byte.
        bytes_left: how many may arrive until the deadline is renewed.
        redirected: whether the next request follows a redirect.
        origin_is_private: whether the first address was a private one.
    """

    def __init__(self) -> None:
        self.deadline, self.problem, self.silence = float("inf"), "", 10.0
        self.bytes_left = OVERHEAD
        self.redirected, self.origin_is_private = False, False

    def check_peer(self, connected: socket.socket) -> None:
        """Refuse a private address that a redirect from a public one has led to."""
        address = connected.getpeername()[0]
        if not self.redirected:
            self.origin_is_private = is_private(address)
        elif is_private(address) and not self.origin_is_private:
            raise AddressRefused(f"a redirect to the private address {address}")


class _Reader(io.RawIOBase):
    """Bytes of a socket until the deadline."""

    def __init__(self, raw: Any, connected: socket.socket, state: _State) -> None:
        self._raw, self._socket, self._state = raw, connected, state

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        state = self._state
        left = state.deadline - time.monotonic()
        if left <= 0:
            raise TooSlow(state.problem)
        if state.bytes_left <= 0:
            raise Refused("the server sends headers without end")
        self._socket.settimeout(min(left, state.silence))
        try:
            count = self._raw.readinto(buffer)
        except TimeoutError as error:
            if left <= state.silence:
                raise TooSlow(state.problem) from error
            raise
        state.bytes_left -= count
        return count

    def close(self) -> None:
        try:
            self._raw.close()
        finally:
            super().close()


class _Adapter(HTTPAdapter):
    """Connections that obey a client's state; urllib3 repeats nothing by itself."""

    def __init__(self, state: _State) -> None:
        self._state = state
        super().__init__()
        _limit_connections(self.poolmanager, state, through_proxy=False)

    def proxy_manager_for(self, proxy: str, **proxy_kwargs: Any) -> PoolManager:
        known = proxy in self.proxy_manager
        manager = super().proxy_manager_for(proxy, **proxy_kwargs)
        if not known:
            _limit_connections(manager, self._state, through_proxy=True)
        return manager


def _limit_connections(manager: PoolManager, state: _State, *, through_proxy: bool) -> None:
    manager.pool_classes_by_scheme = {
        scheme: _limited(pool, state, through_proxy)
        for scheme, pool in manager.pool_classes_by_scheme.items()
    }


def _limited(pool: Any, state: _State, through_proxy: bool) -> Any:
    """A subclass of a pool of urllib3 whose connections obey the state."""

    class Response(pool.ConnectionCls.response_class):
        def __init__(self, sock: socket.socket, *arguments: Any, **keywords: Any) -> None:
            super().__init__(sock, *arguments, **keywords)
            raw: Any = self.fp.detach()
            self.fp: io.BufferedReader = io.BufferedReader(_Reader(raw, sock, state))

    class Connection(pool.ConnectionCls):
        response_class = Response

        def connect(self) -> None:
            super().connect()
            self._check()

        def request(self, *arguments: Any, **keywords: Any) -> None:
            if self.sock is not None:  # an open connection, used again
                self._check()
            super().request(*arguments, **keywords)

        def _check(self) -> None:
            if through_proxy:
                return
            try:
                state.check_peer(self.sock)
            except AddressRefused:
                self.close()
                raise

    class Pool(pool):
        ConnectionCls = Connection

    Pool.__name__ = pool.__name__  # urllib3 shows it in errors
    return Pool
