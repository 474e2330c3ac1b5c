"""Raw Amazon files of exactly the published formats, and a server that fails in every way."""

from __future__ import annotations

import csv
import gzip
import io
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from alignrec_recbole.cli.main import main
from alignrec_recbole.data import amazon as raw
from alignrec_recbole.data.amazon import texts
from alignrec_recbole.data.image_download import HOSTS, LEDGER, RateLimit, address, fetch_images
from alignrec_recbole.data.interactions import read_interactions
from alignrec_recbole.data.items import read_item_table
from alignrec_recbole.data.split_manifest import read_split_manifest
from alignrec_recbole.errors import DataError
from alignrec_recbole.features.mmrec import read_mapping
from alignrec_recbole.features.table import load_features
from alignrec_recbole.io.files import sha256_file
from alignrec_recbole.io.http import Limits

ASINS = [f"B{n:09d}" for n in range(8)]
USERS = [f"A{n:05d}X" for n in range(9)]


def ratings() -> list[tuple[str, str, float, int]]:
    """A dense block of 6 users × 6 items that is its own 5-core, and rows that fall away."""
    rows = [(u, i, 5.0, 1000 + 7 * n) for n, u in enumerate(USERS[:6]) for i in ASINS[:6]]
    rows += [(USERS[6], i, 3.0, 5) for i in ASINS[:4]]  # four of them: too few
    rows += [(u, ASINS[6], 1.0, 9) for u in USERS[:4]]
    rows += [rows[0]]  # the same row again
    return rows


def meta_lines() -> list[bytes]:
    """Python literals, as the real file has them, quotes and entities included."""
    entries = [
        {"asin": a, "title": f"Bike &amp; {a} 12\" \'pro\'", "brand": "Acme\tInc", "price": 9.5,
         "categories": [["Sports", "Cycling"], ["Other"]], "description": "Line\none\u2028two",
         "imUrl": f"http://127.0.0.1:PORT/ok/{a}.jpg", "related": {"also_bought": ["B1"]}}
        for a in ASINS
    ]  # fmt: skip
    del entries[2]["title"], entries[2]["brand"]
    entries[3] = {"asin": ASINS[3]}
    return [repr(entry).encode() for entry in entries if entry["asin"] != ASINS[4]]


BAD_LINES = {
    "not a literal": [b"{'asin': __import__('os').system('touch HACKED')}", b"{'asin': ",
                      b"(" * 500, b"-" * 50_000 + b"1", b"[" * 100_000],
    "not an object": [b"['asin']", b"7", b"None"],
    "no asin": [b"{'title': 'x'}", b"{'asin': 5}"],
    "bad asin": [b"{'asin': 'B1\\tx\\n5\\tEVIL'}", b"{'asin': 'B\\ud83d'}", b"{'asin': 'B\"1'}",
                 b"{'asin': '" + b"x" * 101 + b"'}"],
    "not UTF-8": [b"{'asin': '\xff'}"],
    "too long": [b"{'asin': '" + b"x" * (3 << 20) + b"'}"],
}  # fmt: skip


def write_raw(folder: Path, port: int = 1, bad: bool = True) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    lines = [line.replace(b"PORT", str(port).encode()) for line in meta_lines()]
    if bad:
        lines = [*[line for some in BAD_LINES.values() for line in some], *lines]
    with gzip.open(folder / "meta_Sports_and_Outdoors.json.gz", "wb") as handle:
        handle.write(b"\n".join(lines) + b"\n")
    with open(folder / "ratings_Sports_and_Outdoors.csv", "w", newline="") as handle:
        csv.writer(handle).writerows(ratings())
    with open(folder / "image_features_Sports_and_Outdoors.b", "wb") as handle:
        for n, asin in enumerate([*ASINS[:3], ASINS[5], "B999999999"]):
            handle.write(asin.encode() + np.full(4096, n + 1, "<f4").tobytes())
    return folder


# Metadata -----------------------------------------------------------------------------------------


def test_metadata_is_parsed_and_never_executed(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    read = raw.ParseStats()
    items = list(raw.read_meta(next(write_raw(tmp_path).glob("meta*")), read))
    assert not (tmp_path / "HACKED").exists()
    assert [item.asin for item in items] == [a for a in ASINS if a != ASINS[4]]
    assert items[0].title == "Bike & B000000000 12\" 'pro'"
    assert items[0].brand == "Acme Inc"
    assert items[0].categories == "Sports, Cycling"
    assert items[0].description == "Line one two"
    assert items[3] == raw.MetaItem(ASINS[3])
    assert read.good == 7
    assert read.bad == {kind: len(lines) for kind, lines in BAD_LINES.items()}


def test_json_lines_are_read_too(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "m.json.gz", "wt") as handle:
        handle.write(json.dumps({"asin": "B1", "title": "a", "categories": [["c"]]}) + "\n")
    assert list(raw.read_meta(tmp_path / "m.json.gz")) == [raw.MetaItem("B1", "a", "", "c")]


@pytest.mark.parametrize("damage", ["absent", "cut off", "not gzip"])
def test_damaged_metadata(tmp_path: Path, damage: str) -> None:
    path = next(write_raw(tmp_path, bad=False).glob("meta*"))
    if damage == "absent":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-20] if damage == "cut off" else b"{'asin': 'B1'}\n")
    with pytest.raises(DataError, match=r"There is no|not a whole gzip file"):
        list(raw.read_meta(path))


def test_reading_is_a_stream(tmp_path: Path) -> None:
    import tracemalloc

    path = tmp_path / "m.json.gz"
    with gzip.open(path, "wb", compresslevel=1) as handle:
        for n in range(2_000):
            handle.write(repr({"asin": f"B{n:09d}", "description": "x" * 2000}).encode() + b"\n")
    tracemalloc.start()
    assert sum(1 for _ in raw.read_meta(path)) == 2_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2e6, "4 MB of text went through"


# Interactions -------------------------------------------------------------------------------------


def slow_core(rows: list[tuple[str, str, float, int]]) -> set[tuple[str, str]]:
    pairs = {(u, i) for u, i, *_ in rows}
    while True:
        users, items = Counter(p[0] for p in pairs), Counter(p[1] for p in pairs)
        kept = {p for p in pairs if users[p[0]] >= 5 and items[p[1]] >= 5}
        if kept == pairs:
            return kept
        pairs = kept


@pytest.mark.parametrize("seed", range(5))
def test_the_core_by_its_definition(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = [(f"u{a}", f"i{b}", 1.0, int(t)) for a, b, t in
            zip(rng.integers(0, 30, 300) ** 2 // 20, rng.integers(0, 30, 300), range(300),
                strict=True)]  # fmt: skip
    expected = slow_core(rows)
    table = pd.DataFrame(rows, columns=["user", "item", "rating", "timestamp"])
    frame, numbers = raw.load_interactions([table[:100], table[100:]], None)
    users, items = list(numbers.users), list(numbers.items)
    assert {
        (users[u], items[i]) for u, i in zip(frame.userID, frame.itemID, strict=True)
    } == expected
    assert list(numbers.users.values()) == list(range(len(users)))
    by_appearance = raw.load_interactions([table], None, None, "appearance")[1]
    order = [r[1] for r in rows if (r[0], r[1]) in expected]
    assert list(by_appearance.items) == list(dict.fromkeys(order)), "as in MMRec"
    assert set(items) == set(order)
    assert raw.load_interactions([table], None)[1] == numbers
    if len(items) > 3:
        assert raw.load_interactions([table], None, None, "random", 1)[1] != numbers


def test_ratings_and_reviews_agree(tmp_path: Path) -> None:
    write_raw(tmp_path)
    with gzip.open(tmp_path / "reviews_Sports_5.json.gz", "wb") as handle:
        for user, item, rating, when in ratings():
            entry = {"reviewerID": user, "asin": item, "overall": rating, "unixReviewTime": when}
            handle.write(json.dumps(entry).encode() + b"\n")
    frames = [
        raw.load_interactions(raw.read_interactions(tmp_path / name), None)
        for name in ("ratings_Sports_and_Outdoors.csv", "reviews_Sports_5.json.gz")
    ]
    pd.testing.assert_frame_equal(frames[0][0], frames[1][0])
    assert frames[0][1] == frames[1][1]
    assert len(frames[0][0]) == 36


def test_a_pair_is_one_row_the_earliest() -> None:
    rows = [*ratings(), (USERS[0], ASINS[0], 2.0, 1), (USERS[0], ASINS[0], 3.0, 9_999)]
    rows += [(USERS[6], ASINS[0], 3.0, 6)]  # five rows now, but four items
    table = pd.DataFrame(rows, columns=["user", "item", "rating", "timestamp"])
    frame, numbers = raw.load_interactions([table[:20], table[20:]], None)
    assert not frame.duplicated(["userID", "itemID"]).any()
    assert USERS[6] not in numbers.users
    pair = (numbers.users[USERS[0]], numbers.items[ASINS[0]])
    kept = frame[(frame.userID == pair[0]) & (frame.itemID == pair[1])]
    assert kept[["rating", "timestamp"]].to_numpy().tolist() == [[2.0, 1.0]]


@pytest.mark.parametrize("odd", ["\t", "\n", "\x1f", '"', " ", "\u2028", "x" * 100])
def test_ids_that_would_forge_rows_are_dropped_and_counted(odd: str) -> None:
    rows = ratings()
    rows += [(u, f"B{odd}", 1.0, 3) for u in USERS[:6]]
    rows += [(f"A{odd}1", i, 1.0, 3) for i in ASINS[:6]] + [("", ASINS[0], 1.0, 3)]
    table = pd.DataFrame(rows, columns=["user", "item", "rating", "timestamp"])
    read = raw.ParseStats()
    frame, numbers = raw.load_interactions([table], None, read)
    assert (sorted(numbers.users), sorted(numbers.items)) == (USERS[:6], ASINS[:6])
    assert len(frame) == 36
    assert read.bad == {"bad user or item id": 13}


def test_reviews_with_ids_that_would_forge_rows(tmp_path: Path) -> None:
    odd = [("B\ud83d", USERS[0]), (ASINS[0], "A\t\n"), (ASINS[0], 7)]
    with gzip.open(tmp_path / "reviews_x_5.json.gz", "wt") as handle:
        for item, user in [*odd, *[(i, u) for u in USERS[:5] for i in ASINS[:5]]]:
            handle.write(json.dumps({"reviewerID": user, "asin": item, "unixReviewTime": 1}) + "\n")
    read = raw.ParseStats()
    chunks = raw.read_interactions(tmp_path / "reviews_x_5.json.gz", read)
    assert len(raw.load_interactions(chunks, None, read)[0]) == 25
    assert read.bad == {"bad user or item id": 2, "no user or item": 1}


@pytest.mark.parametrize("time", ["yesterday", None, [1], 1e300, float("nan")])
def test_a_review_without_a_time_is_counted(tmp_path: Path, time) -> None:
    with gzip.open(tmp_path / "reviews_x_5.json.gz", "wt") as handle:
        for item, user in [(i, u) for u in USERS[:5] for i in ASINS[:5]]:
            entry = {"reviewerID": user, "asin": item, "unixReviewTime": 1, "overall": "good"}
            handle.write(repr(entry) + "\n")
        entry = {"reviewerID": USERS[6], "asin": ASINS[0], "unixReviewTime": time}
        handle.write(repr(entry).replace("nan", "1e999") + "\n")
    read = raw.ParseStats()
    frame, numbers = raw.load_interactions(
        raw.read_interactions(tmp_path / "reviews_x_5.json.gz", read), None, read
    )
    assert len(frame) == 25
    assert frame["rating"].isna().all()
    assert USERS[6] not in numbers.users
    assert sum(read.bad.values()) == 1


def test_halves_of_surrogate_pairs_in_texts(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "m.json.gz", "wb") as handle:
        handle.write(b"{'asin': 'B1', 'title': 'smile \\ud83d\\ude00', 'brand': 'a\\ude00b'}\n")
        handle.write(b'{"asin": "B2", "title": "cut \\ud83d", "categories": [["\\ud83d"]]}\n')
    items = list(raw.read_meta(tmp_path / "m.json.gz"))
    assert [item.title for item in items] == ["smile \U0001f600", "cut \ufffd"]
    assert (items[0].brand, items[1].categories) == ("a\ufffdb", "\ufffd")
    raw.write_items(items, raw.IdMapping({}, {"B1": 0, "B2": 1}, False), tmp_path / "items.tsv")


def test_a_released_numbering_is_kept() -> None:
    table = pd.DataFrame(ratings(), columns=["user", "item", "rating", "timestamp"])
    given = raw.IdMapping({USERS[1]: 0, USERS[0]: 1}, {ASINS[6]: 0, ASINS[0]: 1}, True)
    frame, numbers = raw.load_interactions([table], given)
    assert numbers is given
    assert sorted(zip(frame.userID, frame.itemID, strict=True)) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    with pytest.raises(DataError, match=r"No interactions remain"):
        raw.load_interactions([table], raw.IdMapping({"nobody": 0}, {"nothing": 0}, True))
    with pytest.raises(DataError, match=r"No interactions remain"):
        raw.load_interactions([table[:20]], None)


@pytest.mark.parametrize("content", ["a,b,c,d\n", "u,i,5.0\nx\n", "u,i,5.0,12,7\n" * 2])
def test_damaged_ratings(tmp_path: Path, content: str) -> None:
    (tmp_path / "ratings_x.csv").write_text(content)
    with pytest.raises(DataError, match=r"ratings_x\.csv is not a (rating file|regular table)"):
        raw.load_interactions(raw.read_interactions(tmp_path / "ratings_x.csv"), None)


# Image features -----------------------------------------------------------------------------------


def test_image_features_by_asin_with_mmrecs_mean(tmp_path: Path) -> None:
    path = next(write_raw(tmp_path).glob("*.b"))
    numbers = raw.IdMapping({}, {a: n for n, a in enumerate(reversed(ASINS[:5]))}, True)
    raw.write_image_features(path, numbers, tmp_path / "f" / "image-4096.npy")
    table = load_features(tmp_path / "f" / "image-4096.npy")
    assert table.matrix.shape == (5, 4096)
    assert table.matrix[:, 7].tolist() == [2.0, 2.0, 3.0, 2.0, 1.0]  # B4, B3 (means), B2, B1, B0
    assert table.manifest.items == ["0", "1", "2", "3", "4"]
    assert table.manifest.settings["filled_with_mean"] == ["0", "1"]
    assert table.manifest.notes == ["2 items have the mean vector"]
    assert not list((tmp_path / "f").glob(".*"))


@pytest.mark.parametrize("damage", ["cut off", "other bytes", "other items"])
def test_damaged_image_features(tmp_path: Path, damage: str) -> None:
    path = next(write_raw(tmp_path).glob("*.b"))
    if damage == "cut off":
        path.write_bytes(path.read_bytes()[:-1])
    elif damage == "other bytes":
        path.write_bytes(b"\x00" * 40_000)
    numbers = raw.IdMapping(
        {}, {"B777777777": 0} if damage == "other items" else {ASINS[0]: 0}, True
    )
    with pytest.raises(DataError, match=r"not a file of image features|none of the items"):
        raw.write_image_features(path, numbers, tmp_path / "f" / "x.npy")
    assert not list((tmp_path / "f").glob("*"))
    assert not list((tmp_path / "f").glob(".*"))


# The server ---------------------------------------------------------------------------------------


def picture(colour: str) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(out, "JPEG")
    return out.getvalue()


class Server(BaseHTTPRequestHandler):
    """/KIND/…: answers in the way KIND says; counts requests by path."""

    asked: ClassVar[Counter[str]] = Counter()
    at_once: ClassVar[list[int]] = [0, 0]  # now, most
    lock = threading.Lock()

    def do_GET(self) -> None:
        with self.lock:
            self.asked[self.path] += 1
            self.at_once[0] += 1
            self.at_once[1] = max(self.at_once)
        try:
            self.answer(self.path.split("/")[1], self.asked[self.path])
        finally:
            with self.lock:
                self.at_once[0] -= 1

    def answer(self, kind: str, times: int) -> None:
        image = picture("red")
        if kind == "slow":
            time.sleep(0.05)
        if kind in ("ok", "slow", "third") and not (kind == "third" and times < 3):
            return self.send(200, image)
        if kind == "gone":
            return self.send(404, b"no")
        if kind == "busy":
            return self.send(503 if times == 1 else 200, image, {"Retry-After": "0"})
        if kind == "page":
            return self.send(200, b"<html>Sorry</html>")
        if kind == "empty":
            return self.send(200, b"")
        if kind == "huge":
            return self.send(200, image, {"Content-Length": str(1 << 31)})
        if kind == "cut":
            return self.send(200, image[:50], {"Content-Length": str(len(image))})
        if kind == "away":
            return self.send(302, b"", {"Location": "http://169.254.169.254/secret"})
        if kind == "nowhere":
            return self.send(302, b"", {"Location": "http://[bad/"})
        if kind == "moved":
            return self.send(301, b"", {"Location": "/ok/moved.jpg"})
        if kind == "loop":
            return self.send(302, b"", {"Location": "/loop/x"})
        if kind == "error":
            return self.send(500, b"")
        self.connection.close()  # "third" for the first two times, "hang up"
        return None

    def send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    Server.asked.clear()
    Server.at_once = [0, 0]
    running = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    thread = threading.Thread(target=running.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{running.server_address[1]}"
    running.shutdown()
    running.server_close()


quick = partial(
    fetch_images,
    hosts=("127.0.0.1",),
    rate_limit=RateLimit(4, pause=0),
    limits=Limits(backoff=0.01, redirects=3, size=20 << 20),
    progress=False,
)
FAILING = {
    "gone": "gone", "page": "not an image", "empty": "not an image", "huge": "too large",
    "cut": "no answer", "away": "address refused", "loop": "more than 3 redirects",
    "error": "status 500", "hangup": "no answer", "nowhere": "address refused",
}  # fmt: skip


def test_images_of_a_server_that_fails_in_every_way(server: str, tmp_path: Path) -> None:
    good = ["ok", "third", "busy", "moved"]
    urls = {f"{kind}.jpg": f"{server}/{kind}/x" for kind in [*good, *FAILING]}
    urls |= {"file.jpg": "file:///etc/passwd", "odd.jpg": "http://[::1", "none.jpg": "nonsense"}
    outcome = quick(urls, tmp_path)
    expected = Counter(FAILING.values()) + Counter({"fetched": len(good), "address refused": 3})
    if outcome["ended early"]:  # which of the two the client sees is its version's choice
        expected += Counter({"ended early": 1})
        expected["no answer"] -= 1
    assert outcome == expected
    assert sorted(p.name for p in tmp_path.glob("*.jpg")) == sorted(f"{k}.jpg" for k in good)
    assert all((tmp_path / f"{kind}.jpg").read_bytes() == picture("red") for kind in good)
    assert Server.asked["/third/x"] == 3
    assert Server.asked["/gone/x"] == 1, "what is gone is not asked for again"


def test_fetching_goes_on_where_it_stopped(server: str, tmp_path: Path) -> None:
    urls = {f"{n}.jpg": f"{server}/ok/{n}" for n in range(6)} | {"g.jpg": f"{server}/gone/1"}
    quick(dict(list(urls.items())[:3]), tmp_path)
    (tmp_path / "1.jpg").write_bytes(b"changed")
    with open(tmp_path / LEDGER, "a") as ledger:
        ledger.write('{"name": "2.jpg", "url"')  # torn by a kill
    with open(tmp_path / LEDGER, "a") as ledger:
        ledger.write("\n")
    outcome = quick(urls, tmp_path)
    assert outcome == {"had": 2, "fetched": 4, "gone": 1}
    assert Server.asked["/ok/0"] == 1
    assert Server.asked["/ok/1"] == 2, "its checksum was another"
    again = quick(urls, tmp_path)
    assert again == {"had": 6, "gone": 1}
    assert Server.asked["/gone/1"] == 1


def test_no_more_connections_than_asked(server: str, tmp_path: Path) -> None:
    quick({f"{n}.jpg": f"{server}/slow/{n}" for n in range(24)}, tmp_path)
    assert 1 < Server.at_once[1] <= 4


def test_only_named_hosts_are_asked(server: str, tmp_path: Path) -> None:
    outcome = fetch_images({"a.jpg": f"{server}/ok/1"}, tmp_path, progress=False)
    assert outcome == {"address refused": 1}
    assert not Server.asked
    outcome = quick({"a.jpg": f"{server}/ok/1"}, tmp_path)
    assert outcome == {"fetched": 1}, "the refusal was of other hosts"


@pytest.mark.parametrize(
    "url",
    [
        "http://evil.org/images-amazon.com",
        "http://notimages-amazon.com/a",
        "http://images-amazon.com@evil.org/a",
        "http://user@images-amazon.com/a",
        r"http://evil.org\@images-amazon.com/a",
        r"http://evil.org\.images-amazon.com/a",
        "http://images-amazon.com\t.evil.org/a",
        "http://images-amazon.com /a",
        "http://evil.org?@images-amazon.com/a",
        "http://evil.org#@images-amazon.com/a",
        "http://images-amazon.com%2f.evil.org/a",
        "http://evil.org%2f.images-amazon.com/a",
        "http://images-amazon.com:0x/a",
        "http://[::1",
        "//evil.org/a",
        "images-amazon.com/a",
        "ftp://images-amazon.com/a",
    ],
)
def test_addresses_that_are_refused(url: str) -> None:
    assert address(url, HOSTS) is None
    assert address(url, HOSTS, "https://evil.org/") is None


def test_addresses_that_are_asked() -> None:
    assert address("HTTP://ECX.Images-Amazon.com/é", HOSTS) == (
        "http://ecx.images-amazon.com/%C3%A9"
    )
    assert address("../b.jpg", HOSTS, "https://images-amazon.com/x/a") == (
        "https://images-amazon.com/b.jpg"
    )


def test_an_address_that_parsers_read_differently_is_not_asked(server: str, tmp_path: Path) -> None:
    outcome = fetch_images(
        {"a.jpg": server + r"\@images-amazon.com/ok/secret"}, tmp_path, progress=False
    )
    assert outcome == {"address refused": 1}
    assert not Server.asked


@pytest.mark.parametrize("host", ["a..127.0.0.1", "a" * 70 + ".127.0.0.1"])
def test_a_hostile_address_does_not_end_the_fetch(server: str, tmp_path: Path, host: str) -> None:
    outcome = quick({"a.jpg": f"http://{host}/x.jpg", "b.jpg": f"{server}/ok/1"}, tmp_path)
    assert outcome == {"address refused": 1, "fetched": 1}


# The command --------------------------------------------------------------------------------------


def test_from_raw_files_to_features(server: str, tmp_path: Path, capsys) -> None:
    folder = write_raw(tmp_path / "raw", int(server.rsplit(":", 1)[1]))
    command = ["prepare", "--dataset", "shop", "--data-path", str(tmp_path), "--raw", str(folder),
               "--image-hosts", "127.0.0.1", "--quiet"]  # fmt: skip
    assert main([*command, "--encoder", "lsa"]) == 0
    said = capsys.readouterr().out
    assert "lines not a literal" in said
    shop = tmp_path / "shop"
    items = read_item_table(shop / "items.tsv")
    assert items.ids == [str(n) for n in range(6)]
    assert items.text_columns == ["title", "brand", "categories", "description"]
    numbers = read_mapping(shop / "i_id_mapping.csv")
    place = [numbers[asin] for asin in ASINS[:6]]
    texts = [items.texts[number] for number in place]
    assert texts[0] == "Bike & B000000000 12\" 'pro'. Acme Inc. Sports, Cycling. Line one two"
    assert texts[2] == "Sports, Cycling. Line one two"
    assert texts[3] == texts[4] == "", "one has no fields, one no metadata"
    images = [items.images[number] for number in place]
    assert [p is not None and p.is_file() for p in images] == [True] * 3 + [False] * 2 + [True]
    frame = pd.read_csv(shop / "shop.inter", sep="\t")
    assert list(frame.columns) == ["userID", "itemID", "rating", "timestamp", "x_label"]
    assert len(frame) == 36
    made = read_split_manifest(shop, "shop")
    assert made is not None
    assert (made.numbering, made.split, made.seed) == ("random", "user-random:0.8,0.1,0.1", 999)
    assert made.interactions == [24, 6, 6]
    assert made.source == {
        "ratings_Sports_and_Outdoors.csv": sha256_file(folder / "ratings_Sports_and_Outdoors.csv")
    }
    assert load_features(shop / "features" / "image-4096.npy").matrix.shape == (6, 4096)
    assert sorted(load_features(shop / "features" / "lsa.npy").manifest.missing) == sorted(
        str(number) for number in place[3:5]
    )
    assert sorted(numbers) == ASINS[:6]
    assert raw.find_id_mapping(shop) is None, "its own mapping is not MMRec's"
    few = "userID\titemID\n0\t0\n5\t5\n"
    (shop / "shop.inter").write_text(few)
    assert main(command) == 0
    assert "shop.inter was there, fits and stays" in capsys.readouterr().out
    assert (shop / "shop.inter").read_text() == few
    assert Server.asked[f"/ok/{ASINS[0]}.jpg"] == 1


@pytest.mark.parametrize(
    ("options", "numbering", "split"),
    [
        (["--numbering", "appearance", "--split", "none"], "appearance", "none"),
        (["--split", "global-time:1010,1030", "--seed", "3"], "random", "global-time:1010,1030"),
        (["--split", "leave-last-out"], "random", "leave-last-out"),
    ],
)
def test_numbers_and_split_of_a_choice(tmp_path: Path, options, numbering, split) -> None:
    folder = write_raw(tmp_path / "raw")
    with open(folder / "ratings_Sports_and_Outdoors.csv", "w", newline="") as handle:
        rows = [(user, item, 5.0, 1000 + 7 * int(item[1:])) for user, item, *_ in ratings()]
        csv.writer(handle).writerows(rows)
    command = ["import-amazon", str(folder), "--data-path", str(tmp_path), "--no-images"]
    assert main([*command, "--dataset", "shop", *options]) == 0
    made = read_split_manifest(tmp_path / "shop", "shop")
    assert made is not None
    assert (made.numbering, made.split, made.seed) == (
        numbering, split, 3 if "--seed" in options else 999
    )  # fmt: skip
    frame = pd.read_csv(tmp_path / "shop" / "shop.inter", sep="\t")
    if split.startswith("global"):
        assert frame.groupby("x_label")["timestamp"].agg(["min", "max"]).to_numpy().tolist() == [
            [1000, 1007], [1014, 1028], [1035, 1035]
        ]  # fmt: skip
        assert made.only_later == {
            "users": 0, "user_interactions": 0, "items": 4, "item_interactions": 24
        }  # fmt: skip
    if numbering == "appearance":
        assert list(read_mapping(tmp_path / "shop" / "i_id_mapping.csv")) == ASINS[:6]


def test_a_split_that_the_source_has_not_is_refused(tmp_path: Path, capsys) -> None:
    folder = write_raw(tmp_path / "raw")
    command = ["import-amazon", str(folder), "--data-path", str(tmp_path), "--dataset", "shop"]
    assert main([*command, "--no-images", "--split", "released"]) == 2
    assert "the source has none" in capsys.readouterr().err
    assert main([*command, "--no-images", "--split", "monthly"]) == 2
    assert "Split 'monthly' is unknown" in capsys.readouterr().err


def prepare_shop(folder: Path) -> int:
    return main(["prepare", "--dataset", "shop", "--data-path", str(folder / "data"),
                 "--raw", str(folder / "raw"), "--no-images", "--quiet"])  # fmt: skip


def mapping_files(folder: Path, users: list[str], items: list[str]) -> None:
    for name, ids in (("u", users), ("i", items)):
        lines = "".join(f"{own}\t{number}\n" for number, own in enumerate(ids))
        (folder / f"{name}_id_mapping.csv").write_text(f"id\tnumber\n{lines}")


def released(users: list[str], items: list[str], timestamps: str) -> str:
    """A NAME.inter of other people, with their numbers."""
    rows = [r for r in dict.fromkeys(ratings()) if r[0] in users and r[1] in items]
    when = {"real": lambda n, row: row[3], "counted": lambda n, _: n, "none": lambda *_: ""}
    lines = [f"{users.index(row[0])}\t{items.index(row[1])}\t{when[timestamps](n, row)}\t{n % 3}"
             for n, row in enumerate(rows)]  # fmt: skip
    name = "other" if timestamps == "none" else "timestamp"
    return "\n".join([f"userID\titemID\t{name}\tx_label", *lines]) + "\n"


OTHERS = {
    "pairs": ([*USERS[:7]], [*ASINS[:7]], "counted"),  # rows that the 5-core has not
    "timestamps": (USERS[5::-1], ASINS[:6], "real"),  # a dense block: only these differ
}


@pytest.mark.parametrize("differ", OTHERS)
def test_a_split_of_other_numbers_is_refused_and_nothing_written(
    tmp_path: Path, capsys, differ: str
) -> None:
    write_raw(tmp_path / "raw")
    shop = tmp_path / "data" / "shop"
    shop.mkdir(parents=True)
    (shop / "shop.inter").write_text(released(*OTHERS[differ]))
    assert prepare_shop(tmp_path) == 2
    assert "uses different item ids" in capsys.readouterr().err
    assert [path.name for path in shop.iterdir()] == ["shop.inter"]


@pytest.mark.parametrize("timestamps", ["real", "counted", "none"])
@pytest.mark.parametrize("place", ["raw", "data/shop"])
def test_a_released_split_is_met_by_its_mapping(
    tmp_path: Path, capsys, timestamps: str, place: str
) -> None:
    users, items = USERS[5::-1], [*ASINS[3:7], *ASINS[:3]]
    write_raw(tmp_path / "raw")
    shop = tmp_path / "data" / "shop"
    shop.mkdir(parents=True)
    (shop / "shop.inter").write_text(released(users, items, timestamps))
    mapping_files(tmp_path / place, users, items)
    assert prepare_shop(tmp_path) == 0
    assert "MMRec's mapping" in capsys.readouterr().out
    assert [line.split("\t")[1] for line in (shop / "items.tsv").read_text().split("\n")[1:-1]] == (
        items
    )
    assert len(read_interactions(shop / "shop.inter").users) == 40
    assert prepare_shop(tmp_path) == 0, "again, with what is there now"


def test_a_mapping_that_comes_later_does_not_renumber(tmp_path: Path, capsys) -> None:
    write_raw(tmp_path / "raw")
    shop = tmp_path / "data" / "shop"
    assert prepare_shop(tmp_path) == 0
    before = {path: path.read_bytes() for path in shop.iterdir() if path.is_file()}
    mapping_files(tmp_path / "raw", USERS[6::-1], ASINS)
    assert prepare_shop(tmp_path) == 2
    assert "uses different item ids" in capsys.readouterr().err
    assert before == {path: path.read_bytes() for path in shop.iterdir() if path.is_file()}
    (shop / "shop.inter").unlink()
    assert prepare_shop(tmp_path) == 0
    given = raw.find_id_mapping(tmp_path / "raw")
    assert raw.find_id_mapping(shop) == given, "its own mapping made way"
    mapping_files(tmp_path / "raw", USERS, ASINS)
    assert prepare_shop(tmp_path) == 2
    assert "Two mappings" in capsys.readouterr().err


def test_a_split_that_is_no_table_is_refused(tmp_path: Path, capsys) -> None:
    write_raw(tmp_path / "raw")
    shop = tmp_path / "data" / "shop"
    shop.mkdir(parents=True)
    (shop / "shop.inter").write_text("a\tb\n1\t2\n")
    assert prepare_shop(tmp_path) == 2
    assert "no users or no items" in capsys.readouterr().err


def test_raw_folders_that_do_not_say_what_to_take(tmp_path: Path, capsys) -> None:
    folder = write_raw(tmp_path / "raw")
    (folder / "ratings_Baby.csv").write_text("")
    command = ["prepare", "--dataset", "shop", "--data-path", str(tmp_path), "--raw", str(folder)]
    assert main(command) == 2
    assert "Expected exactly one ratings_*.csv" in capsys.readouterr().err
    for path in folder.glob("ratings*"):
        path.unlink()
    assert main(command) == 2
    (folder / "i_id_mapping.csv").write_text("asin\titemID\nB1\t0\n")
    with pytest.raises(DataError, match=r"only i_id_mapping\.csv"):
        raw.find_id_mapping(folder)


def test_the_core_is_reached_in_several_rounds() -> None:
    """A user who loses an item to the first round has too few in the second, and so on."""
    rows = [(f"u{u}", f"i{i}", 1.0, 1) for u in range(5) for i in range(5)]
    rows += [("chain", f"i{i}", 1.0, 1) for i in range(4)] + [("chain", "rare", 1.0, 1)]
    rows += [(f"u{u}", "rare", 1.0, 1) for u in range(3)] + [("poor", "rare", 1.0, 1)]
    table = pd.DataFrame(rows, columns=["user", "item", "rating", "timestamp"])
    frame, numbers = raw.load_interactions([table], None)
    assert len(frame) == 25
    assert (len(numbers.users), len(numbers.items)) == (5, 5)


def test_the_first_entry_of_an_item_is_its_text(tmp_path: Path) -> None:
    entries = [raw.MetaItem("B1", "first"), raw.MetaItem("B1", "second"), raw.MetaItem("B2", "b")]
    raw.write_items(entries, raw.IdMapping({}, {"B1": 0, "B2": 1}, False), tmp_path / "items.tsv")
    assert read_item_table(tmp_path / "items.tsv").texts == ["first", "b"]


@pytest.mark.parametrize("broken", [0.0, np.nan, np.inf])
def test_broken_image_rows_become_the_mean(tmp_path: Path, broken: float) -> None:
    rows = [(ASINS[0], 1.0), (ASINS[1], broken), (ASINS[2], 3.0)]
    with open(tmp_path / "image_features_x.b", "wb") as handle:
        for asin, value in rows:
            handle.write(asin.encode() + np.full(4096, value, "<f4").tobytes())
    numbers = raw.IdMapping({}, {asin: n for n, asin in enumerate(ASINS[:3])}, True)
    out = tmp_path / "f" / "x.npy"
    manifest = raw.write_image_features(tmp_path / "image_features_x.b", numbers, out)
    assert load_features(out).matrix[:, 0].tolist() == [1.0, 2.0, 3.0]
    assert manifest.settings["not_finite_or_zero"] == 1
    assert manifest.settings["filled_with_mean"] == ["1"]


def rewrite_ratings(folder: Path, order: tuple[int, ...]) -> None:
    path = next(folder.glob("ratings*"))
    rows = [line.split(",") for line in path.read_text().split()]
    path.write_text("".join(",".join(row[i] for i in order) + "\n" for row in rows))


def test_the_columns_of_2018_give_the_same_files(tmp_path: Path, capsys) -> None:
    write_raw(tmp_path / "raw")
    assert prepare_shop(tmp_path) == 0
    shop = tmp_path / "data" / "shop"
    names = ("items.tsv", "shop.inter", "u_id_mapping.csv", "i_id_mapping.csv")
    before = {name: (shop / name).read_bytes() for name in names}
    (shop / "shop.inter").unlink()
    rewrite_ratings(tmp_path / "raw", (1, 0, 2, 3))
    assert prepare_shop(tmp_path) == 0
    assert "item,user,rating,timestamp" in capsys.readouterr().out
    assert {name: (shop / name).read_bytes() for name in names} == before


def test_entries_of_2018(tmp_path: Path) -> None:
    entry = {"asin": "B1", "title": "var aPageStart = (new Date()).getTime();", "brand": "Acme",
             "category": ["Home", "Lamp"], "description": ["Nice &amp; <b>warm</b>", "<br>light"],
             "imageURL": ["http://x/small.jpg"],
             "imageURLHighRes": ["http://x/large.jpg"]}  # fmt: skip
    with gzip.open(tmp_path / "m.json.gz", "wt") as handle:
        handle.write(json.dumps(entry) + "\n")
    read = raw.ParseStats()
    assert list(raw.read_meta(tmp_path / "m.json.gz", read)) == [
        raw.MetaItem("B1", "", "Acme", "Home, Lamp", "Nice & warm light", "http://x/large.jpg")
    ]
    assert read.scripts == 1


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="no bytes"),
        pytest.param(gzip.compress(b""), id="nothing packed"),
        pytest.param(gzip.compress(b"no item\n"), id="no item"),
        pytest.param(gzip.compress(b"{'asin': 'B999999999', 'title': 'x'}\n"), id="another item"),
        pytest.param(gzip.compress(b"{'asin': 'B000000001'}\n"), id="no text"),
    ],
)
def test_metadata_without_items_replaces_no_table(tmp_path: Path, capsys, content: bytes) -> None:
    write_raw(tmp_path / "raw")
    assert prepare_shop(tmp_path) == 0
    shop = tmp_path / "data" / "shop"
    before = (shop / "items.tsv").read_bytes()
    next((tmp_path / "raw").glob("meta*")).write_bytes(content)
    assert prepare_shop(tmp_path) == 2
    assert "DataError" in capsys.readouterr().err
    assert (shop / "items.tsv").read_bytes() == before


@pytest.mark.parametrize("left", ["u_id_mapping.csv", "i_id_mapping.csv"])
def test_a_kill_between_the_two_mapping_files_is_made_good(tmp_path: Path, left: str) -> None:
    write_raw(tmp_path / "raw")
    mapping_files(tmp_path / "raw", USERS[5::-1], ASINS[:6])
    assert prepare_shop(tmp_path) == 0
    shop = tmp_path / "data" / "shop"
    whole = raw.find_id_mapping(shop)
    (other,) = {"u_id_mapping.csv", "i_id_mapping.csv"} - {left}
    (shop / other).unlink()
    assert prepare_shop(tmp_path) == 0
    assert raw.find_id_mapping(shop) == whole
    (shop / other).unlink()
    (shop / left).write_text("id\tnumber\nelse\t0\n")
    assert prepare_shop(tmp_path) == 2, "a part of another mapping"


def test_a_huge_number_in_a_review_is_none(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "reviews_x_5.json.gz", "wt") as handle:
        for n, (item, user) in enumerate((i, u) for u in USERS[:5] for i in ASINS[:5]):
            entry = {"reviewerID": user, "asin": item, "unixReviewTime": 1, "overall": 10**400}
            handle.write(json.dumps({**entry, "overall": 4} if n else entry) + "\n")
        entry = {"reviewerID": USERS[6], "asin": ASINS[0], "unixReviewTime": 10**400, "overall": 4}
        handle.write(json.dumps(entry) + "\n")
    read = raw.ParseStats()
    chunks = raw.read_interactions(tmp_path / "reviews_x_5.json.gz", read)
    frame, _ = raw.load_interactions(chunks, None, read)
    assert frame["rating"].isna().tolist() == [True] + [False] * 24
    assert read.bad == {"no time": 1}


@pytest.mark.parametrize(
    ("line", "says"),
    [("A1,B1,5.0,soon", "'soon' as the timestamp in line 3"), ("A1,B1,x,1", "'x' as the rating"),
     ("A1,B1,5.0", "first line 3 with 3 cells"), ("user,item,rating,timestamp", "line 3")],
)  # fmt: skip
def test_ratings_name_the_line(tmp_path: Path, line: str, says: str) -> None:
    (tmp_path / "ratings_x.csv").write_text(f"A1,B1,5.0,1\n\n{line}\n")
    with pytest.raises(DataError) as caught:
        list(raw.read_interactions(tmp_path / "ratings_x.csv"))
    assert says in str(caught.value)


@pytest.mark.data
def test_real_asins_meet_the_released_split(shared_data: Path, tmp_path: Path) -> None:
    """Published features are keyed by ASIN, the released split by number."""
    rows = [line.split("\t")[:2] for line in
            (shared_data / "sports" / "items.tsv").read_text().splitlines()[1:]]  # fmt: skip
    numbers = raw.IdMapping({}, {asin: int(number) for number, asin in rows}, True)
    with open(tmp_path / "image_features_x.b", "wb") as handle:
        for number, asin in rows[5:0:-1]:
            handle.write(asin.encode() + np.full(4096, int(number) + 1, "<f4").tobytes())
    (tmp_path / "f").mkdir()
    few = raw.IdMapping({}, dict(list(numbers.items.items())[:6]), True)
    raw.write_image_features(tmp_path / "image_features_x.b", few, tmp_path / "f" / "x.npy")
    table = load_features(tmp_path / "f" / "x.npy")
    assert table.matrix[1:, 0].tolist() == [2, 3, 4, 5, 6]
    assert table.manifest.settings["filled_with_mean"] == ["0"]


@pytest.mark.parametrize(
    ("item", "says"),
    [
        ("99999999999999", "99,999,999,999,999|not those of"),
        ("inf", "not numbered"),
        ("-1", "'-1'"),
    ],
)
def test_item_numbers_of_another_data_set_are_refused(item: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "x.inter"
    path.write_text(f"userID\titemID\tx_label\n1\t{item}\t0\n1\t2\t1\n1\t3\t2\n")
    with pytest.raises(DataError, match=says):
        texts._check_degrees(path, np.array([1]))
