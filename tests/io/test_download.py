"""Downloads against a local server that fails in the ways servers do."""

import gzip
import hashlib
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from filelock import FileLock

from alignrec_recbole.errors import DownloadError, WriteError
from alignrec_recbole.io import download
from alignrec_recbole.io.http import Limits

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
        if self.path == "/down":
            return self.send_error(503)
        if self.path == "/zip" and "gzip" in self.headers.get("Accept-Encoding", ""):
            return self.send_zipped()
        start = int((self.headers.get("Range") or "bytes=0-")[6:-1])
        if self.path == "/deaf":
            start = 0  # a server that ignores Range
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        cut = self.path in ("/short", "/deaf", "/slow") and tries == 1
        self.wfile.write(CONTENT[start : len(CONTENT) // 3 if cut else None])
        if self.path == "/slow" and tries == 1:
            time.sleep(1)
        return None

    def send_zipped(self):
        body = gzip.compress(CONTENT)
        self.send_response(200)
        self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server():
    Handler.requests = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()


QUICK = Limits(backoff=0.01)


def fetch(url, folder, limits=QUICK, **entry):
    entry = {"file": "a.inter", "url": url, "sha256": SHA, **entry}
    download.fetch_published([entry], folder, progress=False, limits=limits)
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


def test_a_transfer_that_stalls_is_continued(server, tmp_path):
    limits = Limits(silence=0.2, backoff=0.01)
    assert fetch(f"{server}/slow", tmp_path, limits).read_bytes() == CONTENT
    assert int(Handler.requests[1][1][6:-1]) > 0


def test_a_server_that_compresses_is_asked_not_to(server, tmp_path):
    assert fetch(f"{server}/zip", tmp_path).read_bytes() == CONTENT
    assert len(Handler.requests) == 1


def test_a_server_that_stays_down_is_given_up(server, tmp_path):
    with pytest.raises(DownloadError, match="503"):
        fetch(f"{server}/down", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".a.inter.lock"]


def test_a_server_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DownloadError, match=r"127\.0\.0\.1:1/a could not be downloaded"):
        fetch("http://127.0.0.1:1/a", tmp_path)


def test_without_a_checksum_the_seen_one_is_told_and_nothing_old_is_continued(
    server, tmp_path, caplog
):
    (tmp_path / "a.inter.part").write_bytes(b"half of another file")
    assert fetch(f"{server}/good", tmp_path, sha256=None).read_bytes() == CONTENT
    assert SHA in caplog.text
    assert Handler.requests == [("/good", None)]


def test_google_drive_goes_by_file_id(tmp_path, monkeypatch):
    def fake(*, id, output, resume, use_cookies, **_):
        assert id == "1Ab"
        assert resume, "a checksum decides"
        assert not use_cookies
        with open(output, "wb") as handle:
            handle.write(CONTENT)
        return output

    monkeypatch.setattr("gdown.download", fake)
    entry = {"file": "image_feat.npy", "gdrive": "1Ab", "sha256": SHA}
    download.fetch_published([entry], tmp_path, progress=False)
    assert (tmp_path / "image_feat.npy").read_bytes() == CONTENT


def test_google_drive_that_refuses_says_what_to_do(tmp_path, monkeypatch):
    def refuse(**_):
        raise RuntimeError("Too many users have viewed or downloaded this file")

    monkeypatch.setattr("gdown.download", refuse)
    with pytest.raises(DownloadError, match="Too many users") as caught:
        download.fetch_published([{"file": "x.npy", "gdrive": "1Ab"}], tmp_path, progress=False)
    assert "save it as x.npy" in str(caught.value)


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


@pytest.mark.parametrize("checksum", [SHA, None])
def test_of_several_at_once_one_fetches(server, tmp_path, checksum):
    def one():
        fetch(f"{server}/slow", tmp_path, sha256=checksum)

    threads = [threading.Thread(target=one) for _ in range(3)]
    for thread in threads:
        thread.start()
        time.sleep(0.1)
    for thread in threads:
        thread.join()
    assert (tmp_path / "a.inter").read_bytes() == CONTENT
    assert len(Handler.requests) == 2, "the transfer that broke off, and its end"
    assert not (tmp_path / "a.inter.part").exists()


def test_a_folder_that_cannot_be_written_to(server, tmp_path):
    (tmp_path / ".a.inter.lock").mkdir()
    with pytest.raises(DownloadError, match="cannot be written"):
        fetch(f"{server}/good", tmp_path)


def test_content_of_another_kind_is_refused_and_fetched_again(server, tmp_path):
    with pytest.raises(DownloadError, match="not the published file"):
        fetch(f"{server}/good", tmp_path, sha256=None, starts=b"PK")
    assert not (tmp_path / "a.inter").exists()
    assert not (tmp_path / "a.inter.part").exists()
    (tmp_path / "a.inter").write_bytes(b"<html>")
    fetch(f"{server}/good", tmp_path, sha256=None, starts=rb"PK|\x00\x01")
    assert (tmp_path / "a.inter").read_bytes() == CONTENT


@pytest.mark.parametrize("module", ["io.download", "encoders.extraction"])
def test_locks_need_no_posix_module(module):
    """Windows has no fcntl."""
    check = f"import sys; sys.modules['fcntl'] = None; import alignrec_recbole.{module}"
    run = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_a_name_cannot_leave_the_folder(server, tmp_path):
    with pytest.raises(DownloadError, match=r"Entry 1(.|\n)*file: (.|\n)*not a plain file name"):
        fetch(f"{server}/good", tmp_path / "in", file="../out")


# Google Drive ------------------------------------------------------------------------------------


def drive(monkeypatch, tmp_path, action, limits=QUICK, **entry):
    """Download by file id, with `action(output, progress, cancel)` in place of gdown."""

    def fake(*, output, progress, cancel, **_):
        action(Path(output), progress, cancel)
        return output

    monkeypatch.setattr("gdown.download", fake)
    entry = {"file": "x.npy", "gdrive": "1Ab", **entry}
    download.fetch_published([entry], tmp_path, progress=False, limits=limits)


def test_google_drive_has_a_limit_of_size(monkeypatch, tmp_path):
    def large(output, progress, cancel):
        progress(100, None)
        progress(100, 10**12)

    with pytest.raises(DownloadError, match="more than 1,000 bytes"):
        drive(monkeypatch, tmp_path, large, Limits(size=1000))
    with pytest.raises(DownloadError, match="more than 99 bytes"):
        drive(monkeypatch, tmp_path, large, bytes=99)
    assert not (tmp_path / "x.npy").exists()


def test_google_drive_has_a_limit_of_time(monkeypatch, tmp_path):
    def silent(output, progress, cancel):
        assert cancel.wait(20)
        raise RuntimeError("Download cancelled")

    with pytest.raises(DownloadError, match="Download cancelled"):
        drive(monkeypatch, tmp_path, silent, Limits(total=0.1))

    def slow(output, progress, cancel):
        time.sleep(0.2)
        progress(1, 2)

    with pytest.raises(DownloadError, match=r"not complete after 0\.1 s"):
        drive(monkeypatch, tmp_path, slow, Limits(total=0.1))


def test_google_drive_without_a_message_and_with_other_content(monkeypatch, tmp_path):
    def refuse(*_):
        raise RuntimeError

    with pytest.raises(DownloadError, match="could not be downloaded"):
        drive(monkeypatch, tmp_path, refuse)
    with pytest.raises(DownloadError, match="not the published file"):
        drive(monkeypatch, tmp_path, lambda output, *_: output.write_bytes(b"html"), sha256=SHA)
    assert [path.name for path in tmp_path.iterdir()] == [".x.npy.lock"]


def test_google_drive_on_a_full_disk(monkeypatch, small_disk):
    disk = small_disk(64 << 10)
    with pytest.raises(WriteError, match="No space left"):
        drive(monkeypatch, disk.path, lambda output, *_: output.write_bytes(bytes(1 << 20)))
    drive(monkeypatch, disk.path, lambda output, *_: output.write_bytes(b"now"))
    assert (disk.path / "x.npy").read_bytes() == b"now"


def test_parts_of_google_drive_are_not_mixed_without_a_checksum(monkeypatch, tmp_path):
    names = ["x.npy.part12345678.part", "x.npy.part123456789.part", "x.npy", "y.part12345678.part"]
    for name in names:
        (tmp_path / name).write_bytes(b"old")
    drive(monkeypatch, tmp_path, lambda output, *_: output.write_bytes(b"new"), starts=b"new")
    assert {path.name for path in tmp_path.iterdir()} == {*names[1:], ".x.npy.lock"}
    assert (tmp_path / "x.npy").read_bytes() == b"new"


def test_a_lock_that_another_process_never_frees_is_named(server, tmp_path):
    error = pytest.raises(DownloadError, match=r"being downloaded by another(.|\n)*0\.1 s")
    with FileLock(tmp_path / ".a.inter.lock"), error:
        fetch(f"{server}/good", tmp_path, Limits(total=0.1))
    assert fetch(f"{server}/good", tmp_path).read_bytes() == CONTENT


def test_a_file_larger_than_the_free_space_is_refused_before_it_arrives(server, small_disk):
    disk = small_disk(64 << 10)
    with pytest.raises(WriteError, match="No space left: 1,024,000 bytes to come"):
        fetch(f"{server}/good", disk.path)
    assert [path.name for path in disk.path.iterdir()] == [".a.inter.lock"]
