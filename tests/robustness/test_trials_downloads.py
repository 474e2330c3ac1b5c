"""Generated trials: downloads from servers that are slow, broken, changed or hostile.

A download ends with the right file, or with a DownloadError in bounded time and nothing in its
place; then a second try against a good server completes.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from scripted_server import Answer, ScriptedServer, scripted_server
from trials import trial

from alignrec_recbole.data import image_download
from alignrec_recbole.data.image_download import LEDGER, RateLimit, fetch_images
from alignrec_recbole.errors import AlignRecError, DownloadError, printable
from alignrec_recbole.io import http
from alignrec_recbole.io.download import fetch_published
from alignrec_recbole.io.http import Limits

AREA = "downloads"
ONE = bytes(range(256)) * 20
OTHER = ONE[::-1]  # another version of the file, of the same length
SHA = hashlib.sha256(ONE).hexdigest()
BLOB = hashlib.sha1(b"blob %d\0" % len(ONE) + ONE).hexdigest()
PATIENT = Limits(
    silence=10, answer=10, block=10, total=30, pause=0.05, backoff=0.001, size=20_000
)  # the machine may be busy
SHORT = replace(PATIENT, silence=0.2, answer=0.4, block=0.3, total=0.8)
LIMITS = {  # of the trials whose name starts so; the limit that ends them is the only short one
    "slow body": replace(PATIENT, block=0.3),
    "slow chunks": replace(PATIENT, block=0.3),
    "slow headers": replace(PATIENT, answer=0.4),
    "silent": replace(PATIENT, silence=0.2),
}
LONGEST = 20.0  # seconds of one trial on a busy machine; the short limits add up to one
GOOD = Answer(ONE)
DIGITS = "9" * 5000

ODD = {  # one answer each, and words of the error; "" where the file arrives all the same
    "redirect to a broken IPv6 address": (
        Answer(status="302 Found", headers=(("Location", "http://[bad"),)), "http://[bad",
    ),
    "redirect to a label of 70 letters": (
        Answer(status="302 Found", headers=(("Location", f"http://{'a' * 70}.x/"),)), "aaa",
    ),
    "redirect to an empty label": (
        Answer(status="302 Found", headers=(("Location", "http://a..b/"),)), "a..b",
    ),
    "redirect to a file": (
        Answer(status="302 Found", headers=(("Location", "file:///etc/passwd"),)), "http or https",
    ),
    "redirect to ftp": (
        Answer(status="301 Moved", headers=(("Location", "ftp://localhost/a"),)), "http or https",
    ),
    "redirect without end": (
        Answer(status="302 Found", headers=(("Location", "/again"),)), "more than 5 redirects",
    ),
    "redirect with a body without end": (
        Answer(
            status="302 Found", headers=(("Location", "http://[bad"),), lengths=False,
            endless="body",
        ),
        "http://[bad",
    ),
    "redirect to nowhere": (Answer(status="302 Found"), "status 302"),
    "Content-Length abc": (GOOD.with_headers(Content_Length="abc"), "Content-Length is 'abc'"),
    "Content-Length of 5000 digits": (GOOD.with_headers(Content_Length=DIGITS), "Content-Length"),
    "Content-Length negative": (GOOD.with_headers(Content_Length="-5"), "Content-Length is '-5'"),
    "Content-Length of a terabyte": (
        GOOD.with_headers(Content_Length=str(10**12)), "1,000,000,000,000 bytes, more than 20,000",
    ),
    "416 at the first request": (Answer(status="416 No"), "416 No though the whole file"),
    "206 at the first request": (
        Answer(ONE, "206 Part").with_headers(Content_Range=f"bytes 0-{len(ONE) - 1}/{len(ONE)}"),
        "206 Part though the whole file",
    ),
    "206 with 5000 digits": (
        Answer(ONE, "206 Part").with_headers(Content_Range=f"bytes 0-{DIGITS}/{DIGITS}"), "206",
    ),
    "body without end": (Answer(lengths=False, endless="body"), "more than 20,000 bytes"),
    "headers without end": (Answer(endless="headers"), ""),
    "chunk size without end": (
        Answer(lengths=False, endless="chunk size").with_headers(Transfer_Encoding="chunked"), "",
    ),
    "slow body": (Answer(ONE, slow="body", pause=0.02), "less than 16 KiB of the body in 0.3 s"),
    "slow chunks": (
        Answer(ONE, slow="body", pause=0.02, chunked=True, chunk=2),
        "less than 16 KiB of the body in 0.3 s",
    ),
    "slow headers": (Answer(ONE, slow="headers", pause=0.2), "no complete headers after 0.4 s"),
    "silent": (Answer(ONE, slow="answer", pause=3), "no byte for 0.2 s"),
    "429 Retry-After 3600": (
        Answer(status="429 Busy").with_headers(Retry_After="3600"), "asks to wait 3600 s",
    ),
    "503 Retry-After in 2099": (
        Answer(status="503 Down").with_headers(Retry_After="Fri, 31 Dec 2099 23:59:59 GMT"),
        "asks to wait",
    ),
    "503 Retry-After of 5000 digits": (
        Answer(status="503 Down").with_headers(Retry_After=DIGITS), "503 Down",
    ),
    "503 Retry-After nonsense": (
        Answer(status="503 Down").with_headers(Retry_After="soon"), "503 Down",
    ),
    "escapes in the reason": (Answer(status="404 \x1b[31mred\x07"), r"404 \x1b[31mred\x07"),
    "no length and no checksum": (Answer(ONE, lengths=False), "does not say how long"),
    "compressed though asked not to": (GOOD.with_headers(Content_Encoding="br"), "compresses"),
    "no HTTP at all": (Answer(ONE, status=""), "could not be downloaded"),
    "an empty answer": (Answer(status="204 No Content"), "status 204"),
    "not modified": (Answer(status="304 Not Modified"), "status 304"),
}  # fmt: skip


@pytest.fixture(scope="module")
def server() -> Iterator[ScriptedServer]:
    with scripted_server() as running:
        yield running


def fetch(url: str, folder: Path, limits: Limits = PATIENT, **entry: object) -> Path:
    entries = [{"file": "a.inter", "url": url, **entry}]
    (path,) = fetch_published(entries, folder, progress=False, limits=limits)
    return path


def check_printable(error: Exception) -> None:
    assert all(printable(line) == line for line in str(error).split("\n"))


def test_a_good_answer_arrives(server: ScriptedServer, tmp_path: Path) -> None:
    assert fetch(server.plays(GOOD), tmp_path).read_bytes() == ONE


@pytest.mark.parametrize("name", ODD)
def test_an_odd_answer_is_refused_in_bounded_time(
    server: ScriptedServer, tmp_path: Path, name: str
) -> None:
    answer, words = ODD[name]
    with trial(AREA, name):
        begin = time.monotonic()
        # without a checksum only where the answer itself must be noticed
        checksum = {"sha256": SHA} if "without end" in name else {}
        with pytest.raises(DownloadError) as caught:
            fetch(server.plays(answer), tmp_path, LIMITS.get(name, PATIENT), **checksum)
        assert time.monotonic() - begin < LONGEST
        assert words in str(caught.value)
        check_printable(caught.value)
        assert not (tmp_path / "a.inter").exists()
        assert fetch(server.plays(GOOD), tmp_path).read_bytes() == ONE
        left = {path.name for path in tmp_path.iterdir()}
        assert left == {"a.inter", ".a.inter.lock"}


# Scripts -----------------------------------------------------------------------------------------

VERSIONS = st.sampled_from(
    [{}, {"ETag": '"1"'}, {"ETag": 'W/"1"'}, {"Last-Modified": "Mon, 01 Jan 2024 00:00:00 GMT"}]
)
LENGTHS = st.sampled_from(["0", "17", str(len(ONE) - 1), str(len(ONE) + 1), "abc", "-1", "5, 6"])
RANGES = st.builds(
    "bytes {}-{}/{}".format,
    *[st.sampled_from([0, 1, 100, 2560, len(ONE) - 1, len(ONE), DIGITS, "*"])] * 3,
)
STATUSES = st.sampled_from(
    ["201 Made", "204 None", "206 Part", "301 Moved", "304 Same", "403 No", "404 Gone", "408 Late",
     "416 None", "429 Busy", "500 Error", "503 Down", "999 Odd", "200 \x1b]0;x\x07"]
)  # fmt: skip
LOCATIONS = st.text(st.sampled_from("htps:/[]@.%\\aé1?# \t"), max_size=30) | st.sampled_from(
    [
        "/file",
        "//",
        "http://",
        "https://127.0.0.1:1/",
        "data:,x",
        "http://0x7f.1/",
        "http://user@h/",
    ]
)
WAITS = st.sampled_from(["0", "1", "3600", "-1", "soon", DIGITS, "Thu, 01 Jan 1970 00:00:00 GMT"])


@st.composite
def answers(draw: st.DrawFn) -> Answer:
    """An answer with up to three faults."""
    answer = Answer(draw(st.sampled_from([ONE, ONE, ONE, OTHER])))
    version = draw(VERSIONS)
    if answer.content is OTHER:  # a new version has new headers
        version = {name: value.replace("1", "2") for name, value in version.items()}
    headers = dict(version)
    for fault in draw(st.lists(st.sampled_from(FAULTS), max_size=3, unique=True)):
        if fault == "cut":
            answer = replace(answer, cut=draw(st.integers(0, len(ONE))))
        elif fault == "length":
            headers["Content-Length"] = draw(LENGTHS)
        elif fault == "range":
            headers["Content-Range"] = draw(RANGES)
        elif fault == "ignores range":
            answer = replace(answer, honours_range=False)
        elif fault == "no length":
            answer = replace(answer, lengths=False)
        elif fault == "chunked":
            answer = replace(answer, chunked=True)
        elif fault == "status":
            answer = replace(answer, status=draw(STATUSES))
            headers["Retry-After"] = draw(WAITS)
        elif fault == "location":
            answer = replace(answer, status="302 Found")
            headers["Location"] = draw(LOCATIONS)
        elif fault == "slow":
            slow = draw(st.sampled_from(["answer", "headers", "body"]))
            answer = replace(answer, slow=slow, pause=0.04)
        elif fault == "endless":
            endless = draw(st.sampled_from(["headers", "body", "chunk size"]))
            answer = replace(answer, endless=endless, lengths=False, cut=0)
    if answer.endless:
        headers.pop("Content-Length", None)
    return replace(answer, headers=tuple(headers.items()))


FAULTS = ["cut", "length", "range", "ignores range", "no length", "chunked", "status", "location",
          "endless", "slow"]  # fmt: skip
CHECKS = st.sampled_from([{}, {"sha256": SHA}, {"git_blob": BLOB}, {"bytes": len(ONE)}])
PARTS = st.sampled_from([b"", b"", ONE[:2560], OTHER[:2560], ONE, ONE + b"more", b"x"])
NOTES = st.sampled_from(["", '{"url": "URL", "ETag": "\\"1\\""}', "[" * 10**5, "\0", '{"url": []}'])


@settings(
    deadline=None, max_examples=160, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(answers(), min_size=1, max_size=4), CHECKS, PARTS, NOTES)
def test_any_script_ends_in_the_right_file_or_an_error(
    server: ScriptedServer, script: list[Answer], checks: dict, part: bytes, note: str
) -> None:
    with trial(AREA, "script"), tempfile.TemporaryDirectory() as name:
        folder, begin = Path(name), time.monotonic()
        url = server.plays(*script)
        if part:
            (folder / "a.inter.part").write_bytes(part)
        if note:
            (folder / "a.inter.part.json").write_text(note.replace("URL", url))
        try:
            arrived = fetch(url, folder, SHORT, **checks).read_bytes()
        except DownloadError as error:
            assert not (folder / "a.inter").exists()
            check_printable(error)
        else:
            check_content(arrived, script, checks, part if '"1' in note else b"")
        assert time.monotonic() - begin < LONGEST
        (folder / "a.inter").unlink(missing_ok=True)
        url = server.plays(GOOD.with_headers(ETag='"1"'))
        if not part or part == ONE[: len(part)] or checks.get("sha256") or checks.get("git_blob"):
            assert fetch(url, folder, **checks).read_bytes() == ONE


def check_content(arrived: bytes, script: list[Answer], checks: dict, part: bytes) -> None:
    """The file is the published one; without a checksum, one that the server has sent whole."""
    if "sha256" in checks or "git_blob" in checks:
        assert arrived == ONE
        return
    sent = [answer.content for answer in script]
    sent += [answer.content[: int(length)] for answer in script
             if (length := dict(answer.headers).get("Content-Length", "")).isdecimal()]  # fmt: skip
    # a rest that a server confirms to be of the version that the part is of
    sent += [part + answer.content[len(part) :] for answer in script if part]
    assert any(arrived == content for content in sent), arrived[:20]


# One version of a file ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ETag", "Last-Modified"])
def test_a_file_that_changed_in_between_is_fetched_anew(
    server: ScriptedServer, tmp_path: Path, name: str
) -> None:
    old, new = "Mon, 01 Jan 2024 00:00:00 GMT", "Tue, 02 Jan 2024 00:00:00 GMT"
    headers = {"ETag": ('"1"', '"2"'), "Last-Modified": (old, new)}[name]
    before = Answer(ONE, headers=((name, headers[0]),))
    with trial(AREA, f"changed, {name}"):
        with pytest.raises(DownloadError, match="Connection broken: IncompleteRead"):
            fetch(server.plays(replace(before, cut=3000)), tmp_path, replace(PATIENT, tries=1))
        assert (tmp_path / "a.inter.part").read_bytes() == ONE[:3000]
        after = Answer(OTHER, headers=((name, headers[1]),))
        assert fetch(server.plays(after), tmp_path).read_bytes() == OTHER
        assert server.asked[0][1]["If-Range"] == headers[0]


def test_a_file_that_did_not_change_is_continued_without_a_checksum(
    server: ScriptedServer, tmp_path: Path
) -> None:
    same = GOOD.with_headers(ETag='"1"')
    with pytest.raises(DownloadError):
        fetch(server.plays(replace(same, cut=3000)), tmp_path, replace(PATIENT, tries=1))
    assert fetch(server.plays(same), tmp_path).read_bytes() == ONE
    assert server.asked[0][1]["Range"] == "bytes=3000-"
    assert len(server.asked) == 1


@pytest.mark.parametrize("headers", [{"ETag": '"2"'}, {}])
def test_a_rest_of_another_version_is_not_added(
    server: ScriptedServer, tmp_path: Path, headers: dict
) -> None:
    """A server that disregards If-Range and has another file by now, or names none."""
    (tmp_path / "a.inter.part").write_bytes(ONE[:3000])
    note = {"url": server.url, "ETag": '"1"'}
    (tmp_path / "a.inter.part.json").write_text(json.dumps(note))
    rest = Answer(OTHER[3000:], "206 Part", tuple(headers.items())).with_headers(
        Content_Range=f"bytes 3000-{len(ONE) - 1}/{len(ONE)}"
    )
    with trial(AREA, "another version"):
        assert fetch(server.plays(rest, Answer(OTHER)), tmp_path).read_bytes() == OTHER
        assert "Range" not in server.asked[1][1]


@pytest.mark.parametrize("last", [3999, 3000, 2999, len(ONE)])
def test_a_part_of_the_rest_is_not_taken_for_the_whole(
    server: ScriptedServer, tmp_path: Path, last: int
) -> None:
    """A range that ends before the file does, or after."""
    (tmp_path / "a.inter.part").write_bytes(ONE[:3000])
    note = {"url": server.url, "ETag": '"1"'}
    (tmp_path / "a.inter.part.json").write_text(json.dumps(note))
    rest = Answer(ONE[3000 : last + 1], "206 Part", (("ETag", '"1"'),)).with_headers(
        Content_Range=f"bytes 3000-{last}/{len(ONE)}"
    )
    with trial(AREA, f"a range to {last}"):
        assert fetch(server.plays(rest, Answer(ONE)), tmp_path).read_bytes() == ONE
        assert "Range" not in server.asked[1][1]


def test_a_weak_etag_identifies_no_bytes(server: ScriptedServer, tmp_path: Path) -> None:
    weak = Answer(ONE, headers=(("ETag", 'W/"1"'),))
    with pytest.raises(DownloadError):
        fetch(server.plays(replace(weak, cut=3000)), tmp_path, replace(PATIENT, tries=1))
    assert fetch(server.plays(replace(weak, content=OTHER)), tmp_path).read_bytes() == OTHER


@pytest.mark.parametrize("part", [OTHER[:3000], ONE + b"more", OTHER], ids=["mix", "long", "whole"])
def test_a_part_that_does_not_fit_the_checksum_is_replaced(
    server: ScriptedServer, tmp_path: Path, part: bytes
) -> None:
    (tmp_path / "a.inter.part").write_bytes(part)
    with trial(AREA, "part of another file"):
        assert fetch(server.plays(GOOD), tmp_path, sha256=SHA).read_bytes() == ONE


# Limits ------------------------------------------------------------------------------------------


def test_a_wait_within_the_limit_is_shown_and_kept(
    server: ScriptedServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    busy = Answer(status="503 Down").with_headers(Retry_After="1")
    begin = time.monotonic()
    fetch(server.plays(busy, GOOD), tmp_path, replace(PATIENT, pause=2))
    assert time.monotonic() - begin >= 1
    assert "503 Down; waiting 1 s, as the server asks" in caplog.text


def test_the_time_of_a_file_includes_all_tries(server: ScriptedServer, tmp_path: Path) -> None:
    limits = replace(PATIENT, silence=0.1, total=0.5, tries=1000)
    begin = time.monotonic()
    with pytest.raises(DownloadError, match=r"not complete after 0\.5 s"):
        fetch(server.plays(Answer(slow="answer", pause=3)), tmp_path, limits)
    assert time.monotonic() - begin < 5


def test_a_declared_size_is_a_limit_and_a_check(server: ScriptedServer, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"5,120 bytes, not 5,119"):
        fetch(server.plays(GOOD), tmp_path, bytes=len(ONE) - 1)
    small = replace(PATIENT, size=100)
    assert fetch(server.plays(GOOD), tmp_path, small, bytes=len(ONE)).read_bytes() == ONE
    cut = replace(GOOD, lengths=False, cut=100)
    with pytest.raises(DownloadError, match=r"ended after 100 of 5,120 bytes"):
        fetch(server.plays(cut), tmp_path / "b", bytes=len(ONE))


@pytest.fixture
def public(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedServer]:
    """A second server, whose address counts as one of the internet."""
    monkeypatch.setattr(http, "is_private", lambda address: address == "127.0.0.1")
    with scripted_server("127.0.0.2") as running:
        yield running


def redirect(url: str) -> Answer:
    return Answer(status="302 Found", headers=(("Location", url),))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "0177.0.0.1"])
def test_a_redirect_to_a_private_address_is_refused_before_anything_is_sent(
    server: ScriptedServer, public: ScriptedServer, tmp_path: Path, host: str
) -> None:
    target = server.plays(GOOD).replace("127.0.0.1", host)
    with trial(AREA, f"redirect to {host}"):
        with pytest.raises(DownloadError, match="redirect to the private address"):
            fetch(public.plays(redirect(target)), tmp_path)
        assert not server.asked


def test_other_redirects_are_followed(
    server: ScriptedServer, public: ScriptedServer, tmp_path: Path
) -> None:
    away = public.plays(GOOD)
    assert fetch(server.plays(redirect(away)), tmp_path / "a").read_bytes() == ONE
    public.plays(redirect("/file"), GOOD)
    assert fetch(public.url, tmp_path / "b").read_bytes() == ONE
    server.plays(redirect("/file"), GOOD)  # a mirror of a laboratory may redirect to itself
    assert fetch(server.url, tmp_path / "c").read_bytes() == ONE


def test_an_open_connection_does_not_hide_a_private_address(
    server: ScriptedServer, public: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first address is looked at for each file, not for each connection."""
    client = http.Client(PATIENT)
    server.plays(GOOD)
    with client.get(server.url) as response:
        assert b"".join(client.blocks(response)) == ONE
    public.plays(redirect(server.url))
    with pytest.raises(http.AddressRefused), client.get(public.url):
        pass


# Entries and what is on the disk -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("downloads", "words"),
    [
        (None, "NoneType"),
        ({}, "dict"),
        ([], "list, or empty"),
        ("a", "str"),
        ([None], "Entry 1"),
        ([{"file": "a", "url": "http://h/a"}, {"file": "a"}], "Entry 2"),
        ([{"file": "a"}], "one of `url` and `gdrive`"),
        ([{"file": "a", "url": "http://h/a", "gdrive": "1"}], "one of `url` and `gdrive`"),
        ([{"url": "http://h/a"}], "file: Field required"),
        ([{"file": 7, "url": "http://h/a"}], "file: "),
        ([{"file": "", "url": "http://h/a"}], "plain file name"),
        ([{"file": "a/b", "url": "http://h/a"}], "plain file name"),
        ([{"file": "..", "url": "http://h/a"}], "plain file name"),
        ([{"file": "a\0", "url": "http://h/a"}], "plain file name"),
        ([{"file": "x" * 300, "url": "http://h/a"}], "plain file name"),
        ([{"file": "a.part", "url": "http://h/a"}], "as partial files do"),
        ([{"file": "a", "url": ["http://h/a"]}], "url: "),
        ([{"file": "a", "url": "http://h/a", "sha": "0"}], "sha: Extra"),
        ([{"file": "a", "url": "http://h/a", "sha256": "abc"}], "sha256: "),
        ([{"file": "a", "url": "http://h/a", "bytes": -1}], "bytes: "),
        ([{"file": "a", "url": "http://h/a", "bytes": "9"}], "bytes: "),
        ([{"file": "a", "url": "http://h/a", "starts": b"("}], "Entry 1"),
        ([{"file": "a", "gdrive": "../../x"}], "gdrive: "),
        ([{"file": "a", "url": "file:///etc/passwd"}], "not one of http or https"),
        ([{"file": "a", "url": "http://"}], "not one of http or https"),
        ([{"file": "a", "url": ""}], "not one of http or https"),
        ([{"file": "a", "url": "http://h/a"}, {"file": "A", "url": "http://h/a"}], "same file"),
    ],
)
def test_entries_are_checked(tmp_path: Path, downloads: object, words: str) -> None:
    with trial(AREA, f"entries {downloads!r:.60}"):
        with pytest.raises(DownloadError) as caught:
            fetch_published(downloads, tmp_path, progress=False, limits=PATIENT)
        assert words in str(caught.value)


@pytest.mark.parametrize("name", ["a.inter.part", "a.inter.part.json", "a.inter", ".a.inter.lock"])
@pytest.mark.parametrize("kind", ["folder", "link", "loop"])
def test_what_is_in_the_way_is_named(
    server: ScriptedServer, tmp_path: Path, name: str, kind: str
) -> None:
    """A link is never written through."""
    folder, victim, path = tmp_path / "d", tmp_path / "victim", tmp_path / "d" / name
    folder.mkdir()
    victim.write_bytes(b"precious")
    if kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(victim if kind == "link" else path)
    with trial(AREA, f"{name} is a {kind}"):
        with pytest.raises(AlignRecError, match=r"a\.inter"):
            fetch(server.plays(GOOD), folder, sha256=SHA)
        assert victim.read_bytes() == b"precious"


def test_a_file_instead_of_the_folder(server: ScriptedServer, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"")
    for folder in (tmp_path / "f", tmp_path / "f" / "below"):
        with trial(AREA, "no folder"), pytest.raises(DownloadError, match="is not a folder"):
            fetch(server.plays(GOOD), folder)


# Images ------------------------------------------------------------------------------------------


def picture() -> bytes:
    out = BytesIO()
    Image.new("RGB", (8, 8), "red").save(out, "PNG")
    return out.getvalue()


PICTURE = Answer(picture())
quick_images = partial(
    fetch_images,
    hosts=("127.0.0.1",),
    rate_limit=RateLimit(2, pause=0),
    limits=PATIENT,
    progress=False,
)


@pytest.mark.parametrize(
    ("name", "answer", "status"),
    [
        ("slow body", replace(PICTURE, slow="body", pause=0.2), "too slow"),
        ("slow headers", replace(PICTURE, slow="headers", pause=0.2), "too slow"),
        ("silent", Answer(slow="answer", pause=3), "no answer"),
        ("503 Retry-After 3600", Answer(status="503 Down").with_headers(Retry_After="3600"),
         "asked to wait"),
        ("body without end", Answer(lengths=False, endless="body"), "too large"),
        ("headers without end", Answer(endless="headers"), "no answer"),
        ("a bomb", PICTURE.with_headers(Content_Encoding="gzip"), "no answer"),
        ("Content-Length abc", PICTURE.with_headers(Content_Length="abc"), "fetched"),
        ("Content-Length of 5000 digits", PICTURE.with_headers(Content_Length=DIGITS), "too large"),
        ("redirect away", redirect("http://[bad"), "address refused"),
        ("redirect to another port", redirect("http://127.0.0.1:1/"), "no answer"),
    ],
)  # fmt: skip
def test_an_image_from_a_hostile_server_ends_in_a_reason(
    server: ScriptedServer, tmp_path: Path, name: str, answer: Answer, status: str
) -> None:
    with trial("images", name):
        begin = time.monotonic()
        limits = LIMITS.get(name, PATIENT)
        outcome = quick_images({"a.png": server.plays(answer)}, tmp_path, limits=limits)
        assert time.monotonic() - begin < LONGEST
        assert outcome == {status: 1}
        assert (tmp_path / "a.png").exists() == (status == "fetched")
        if status not in image_download.PERMANENT_FAILURES and status != "fetched":
            assert quick_images({"a.png": server.plays(PICTURE)}, tmp_path) == {"fetched": 1}


def test_a_host_that_asks_to_wait_is_not_asked_again(
    server: ScriptedServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server.plays(Answer(status="429 Busy").with_headers(Retry_After="3600"))
    urls = {f"{i}.png": f"{server.url}/{i}" for i in range(50)}
    outcome = quick_images(urls, tmp_path)
    assert len(server.asked) <= 2, "one request of each connection"
    assert outcome["asked to wait"] + outcome["host not asked again"] == 50
    assert caplog.text.count("asks to wait 3600 s") == 1
    assert len((tmp_path / LEDGER).read_text().splitlines()) == outcome["asked to wait"]
    server.plays(PICTURE)
    assert quick_images(urls, tmp_path) == {"fetched": 50}


def test_a_host_without_answers_is_left(
    server: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_download, "MAX_FAILURES", 3)
    server.plays(Answer(slow="body", content=b"x" * 99, pause=0.2))
    urls = {f"{i}.png": f"{server.url}/{i}" for i in range(40)}
    outcome = quick_images(urls, tmp_path, limits=LIMITS["slow body"])
    assert outcome["host not asked again"] >= 35
    assert outcome["too slow"] >= 3


@pytest.mark.parametrize(
    "ledger",
    [b"[" * 200_000, b'{"name":' * 60_000, b"\xff\xfe\0", b"x" * 200_000, b"[1]", b'"a"', b"null",
     b'{"name": [], "url": 1, "status": 2}', b'{"name": "a.png", "url": "u", "status": {}}',
     b'{"name": "a.png"', b'{"name": "a.png", "bytes": 1' + b"0" * 5000 + b"}"],
    ids=lambda content: repr(content[:20]),
)  # fmt: skip
def test_a_damaged_ledger_costs_nothing_but_its_lines(
    server: ScriptedServer, tmp_path: Path, ledger: bytes
) -> None:
    (tmp_path / LEDGER).write_bytes(ledger)
    urls = {"a.png": server.plays(PICTURE)}
    with trial("images", "ledger"):
        assert quick_images(urls, tmp_path) == {"fetched": 1}
        assert quick_images(urls, tmp_path) == {"had": 1}, "the next line is whole"


@pytest.mark.parametrize("kind", ["fifo", "folder", "loop", "link"])
def test_a_ledger_that_is_no_file_is_named(
    server: ScriptedServer, tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "d" / LEDGER
    path.parent.mkdir()
    (tmp_path / "victim").write_bytes(b"precious\n")
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(path if kind == "loop" else tmp_path / "victim")
    with trial("images", f"ledger is a {kind}"):
        with pytest.raises(AlignRecError, match=r"fetched\.jsonl"):
            quick_images({"a.png": server.plays(PICTURE)}, path.parent)
        assert (tmp_path / "victim").read_bytes() == b"precious\n"
