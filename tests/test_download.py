"""Downloads against a local server that fails in the ways servers do."""

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from alignrec_recbole.data import download
from alignrec_recbole.errors import DataError, DownloadError

CONTENT = bytes(range(256)) * 4000
SHA = hashlib.sha256(CONTENT).hexdigest()


class Handler(BaseHTTPRequestHandler):
    requests: list = []  # noqa: RUF012 (shared on purpose)

    def do_GET(self):
        self.requests.append((self.path, self.headers.get("Range")))
        tries = sum(path == self.path for path, _ in self.requests)
        if self.path == "/gone":
            return self.send_error(404)
        if self.path == "/shaky" and tries == 1:
            return self.send_error(500)
        start = int((self.headers.get("Range") or "bytes=0-")[6:-1])
        if self.path == "/deaf":
            start = 0  # a server that ignores Range
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        stop = len(CONTENT) // 3 if self.path in ("/short", "/deaf") and tries == 1 else None
        self.wfile.write(CONTENT[start:stop])
        return None

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server():
    Handler.requests = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()


def fetch(url, folder, **entry):
    entry = {"file": "a.inter", "url": url, "sha256": SHA, **entry}
    download.fetch_published([entry], folder, progress=False)
    return folder / "a.inter"


def test_a_whole_file_is_verified_and_not_fetched_twice(server, tmp_path):
    assert fetch(f"{server}/good", tmp_path).read_bytes() == CONTENT
    fetch(f"{server}/good", tmp_path)
    assert len(Handler.requests) == 1


@pytest.mark.parametrize("path", ["/short", "/deaf", "/shaky"])
def test_a_broken_transfer_is_continued_or_repeated(server, tmp_path, path):
    assert fetch(server + path, tmp_path).read_bytes() == CONTENT
    if path == "/short":  # continued where whole blocks had arrived
        start = int(Handler.requests[1][1][6:-1])
        assert 0 < start <= len(CONTENT) // 3


def test_what_had_arrived_before_is_continued(server, tmp_path):
    (tmp_path / "a.inter.part").write_bytes(CONTENT[:1000])
    assert fetch(f"{server}/good", tmp_path).read_bytes() == CONTENT
    assert Handler.requests == [("/good", "bytes=1000-")]


def test_other_content_is_refused_and_the_old_file_stays(server, tmp_path):
    (tmp_path / "a.inter").write_bytes(b"old")
    with pytest.raises(DownloadError, match="not the published file"):
        fetch(f"{server}/good", tmp_path, sha256="0" * 64)
    assert (tmp_path / "a.inter").read_bytes() == b"old"
    assert not (tmp_path / "a.inter.part").exists()


def test_a_missing_address_says_so_at_once(server, tmp_path):
    with pytest.raises(DownloadError, match="404"):
        fetch(f"{server}/gone", tmp_path)
    assert len(Handler.requests) == 1


def test_a_git_object_id_verifies_too(server, tmp_path):
    blob = hashlib.sha1(b"blob %d\0" % len(CONTENT) + CONTENT).hexdigest()
    fetch(f"{server}/good", tmp_path, sha256=None, git_blob=blob)
    with pytest.raises(DownloadError, match="git blob"):
        fetch(f"{server}/good", tmp_path / "b", sha256=None, git_blob="0" * 40)


def test_a_name_cannot_leave_the_folder(server, tmp_path):
    with pytest.raises(DataError, match="leads out"):
        fetch(f"{server}/good", tmp_path / "in", file="../out")
