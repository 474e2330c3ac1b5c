"""A server on this machine that answers as a script says: slowly, wrongly, in part, without end."""

from __future__ import annotations

import contextlib
import hashlib
import re
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

ENDLESS_BYTES = 64 << 20  # what "without end" means at most, so that a fault ends the test


@dataclass(frozen=True)
class Answer:
    """One answer.

    Attributes:
        content: the file as the server has it.
        status: code and reason; "" sends no status line and no headers.
        headers: sent as they are, beside those that belong to the content.
        honours_range: send the rest of the file that is asked for, with status 206.
        lengths: send Content-Length (and Content-Range).
        chunked: send the body in chunks.
        chunk: bytes of a chunk.
        cut: bytes of the body after which the connection is closed.
        pause: seconds before each byte of the part named by `slow`.
        rate: bytes per second of the body; 0: at once.
        slow: "answer" (nothing is sent for ten pauses), "headers" or "body".
        endless: "headers", "body" or "chunk size": repeated without end.
    """

    content: bytes = field(default=b"", repr=False)
    status: str = "200 OK"
    headers: tuple[tuple[str, str], ...] = ()
    honours_range: bool = True
    lengths: bool = True
    chunked: bool = False
    chunk: int = 1000
    cut: int | None = None
    pause: float = 0.0
    rate: int = 0
    slow: str = ""
    endless: str = ""

    def with_headers(self, **headers: str) -> Answer:
        """A copy with further headers; underscores stand for hyphens."""
        named = tuple((name.replace("_", "-"), value) for name, value in headers.items())
        return replace(self, headers=self.headers + named)


@dataclass
class ScriptedServer:
    """Answers requests in the order of a script; the last answer is repeated.

    Attributes:
        url: address of its file.
        script: the answers, or a mapping of paths to answers.
        asked: path and headers of each request.
    """

    url: str
    script: Sequence[Answer] | Mapping[str, Answer] = ()
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    def plays(self, *script: Answer) -> str:
        """Begin a script; returns the address."""
        self.script, self.asked = script, []
        return self.url

    def serves(self, files: Mapping[str, bytes]) -> str:
        """Serve files by name, each with its ETag; returns the address of their folder."""
        self.script, self.asked = {f"/{name}": served(body) for name, body in files.items()}, []
        return self.url.rpartition("/")[0]

    def next_answer(self, path: str, headers: dict[str, str]) -> Answer:
        """The answer to a request."""
        self.asked.append((path, headers))
        if isinstance(self.script, Mapping):
            return self.script.get(path, Answer(status="404 Not Found"))
        return self.script[min(len(self.asked), len(self.script)) - 1]


def served(content: bytes) -> Answer:
    """A file of a server that names its version."""
    return Answer(content, headers=(("ETag", f'"{hashlib.md5(content).hexdigest()}"'),))


@contextlib.contextmanager
def scripted_server(host: str = "127.0.0.1") -> Iterator[ScriptedServer]:
    """Run a server until the block ends."""
    with socket.create_server((host, 0), backlog=64) as listening:
        server = ScriptedServer(f"http://{host}:{listening.getsockname()[1]}/file")

        def accept() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                threading.Thread(target=_serve, args=(connection, server), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        try:
            yield server
        finally:
            with contextlib.suppress(OSError):
                listening.shutdown(socket.SHUT_RDWR)


def _serve(connection: socket.socket, server: ScriptedServer) -> None:
    with connection, contextlib.suppress(OSError):
        connection.settimeout(20)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        request = b""
        while b"\r\n\r\n" not in request:
            received = connection.recv(65536)
            if not received:
                return
            request += received
        lines = request.decode("latin-1").split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines[1:] if ": " in line)
        answer = server.next_answer(lines[0].split(" ")[1], headers)
        _send(connection, answer, headers)
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_WR)  # a close with unread bytes would reset


def _send(connection: socket.socket, answer: Answer, asked: dict[str, str]) -> None:
    if answer.slow == "answer":
        time.sleep(10 * answer.pause)
    start, status, headers = 0, answer.status, dict(answer.headers)
    match = re.fullmatch(r"bytes=(\d+)-", asked.get("Range", ""))
    condition = asked.get("If-Range")
    known = [value for name, value in headers.items() if name in ("ETag", "Last-Modified")]
    whole = condition is not None and condition not in known
    if match and answer.honours_range and status.startswith("200") and not whole:
        start = int(match[1])
        status = "206 Partial Content" if start < len(answer.content) else "416 Nothing"
        range_ = f"{start}-{len(answer.content) - 1}" if start < len(answer.content) else "*"
        headers.setdefault("Content-Range", f"bytes {range_}/{len(answer.content)}")
    body = answer.content[start:]
    if answer.lengths and not answer.chunked:
        headers.setdefault("Content-Length", str(len(body)))
    if answer.chunked:
        headers["Transfer-Encoding"] = "chunked"
        pieces = [body[i : i + answer.chunk] for i in range(0, len(body), answer.chunk)]
        body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in [*pieces, b""])
    head = f"HTTP/1.1 {status}\r\n" + "".join(f"{n}: {v}\r\n" for n, v in headers.items())
    sent_head = head.encode("latin-1", "replace") if status else b""
    _write(connection, sent_head, answer.pause if answer.slow == "headers" else 0)
    if answer.endless == "headers":
        return _repeat(connection, b"X-Padding: " + b"x" * 200 + b"\r\n")
    connection.sendall(b"\r\n" if status else b"")
    if answer.endless == "chunk size":
        return _repeat(connection, b"1" * 4096)
    if answer.rate:
        return _send_at(connection, body, answer.rate)
    _write(connection, body[: answer.cut], answer.pause if answer.slow == "body" else 0)
    return _repeat(connection, b"x" * 65536) if answer.endless == "body" else None


def _write(connection: socket.socket, content: bytes, pause: float) -> None:
    if not pause:
        return connection.sendall(content)
    for i in range(len(content)):
        time.sleep(pause)
        connection.sendall(content[i : i + 1])
    return None


def _send_at(connection: socket.socket, content: bytes, rate: int) -> None:
    step = max(1, rate // 50)
    for i in range(0, len(content), step):
        connection.sendall(content[i : i + step])
        time.sleep(step / rate)


def _repeat(connection: socket.socket, content: bytes) -> None:
    for _ in range(ENDLESS_BYTES // len(content)):
        connection.sendall(content)
