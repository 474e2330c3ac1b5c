"""Generated trials: readers of data sets, against a plain reading of the same bytes."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import math
import os
import struct
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from trials import trial

from alignrec_recbole.data import amazon
from alignrec_recbole.data.amazon.ratings import ITEM_FIRST, USER_FIRST, column_order, read_ratings
from alignrec_recbole.data.atomic import MISSING_NUMBERS, read_atomic_file, read_types
from alignrec_recbole.data.dataset_paths import find_dataset, present_datasets, split_files
from alignrec_recbole.data.html_text import plain_text
from alignrec_recbole.data.images import REASONS, centre_square
from alignrec_recbole.data.interactions import read_interactions
from alignrec_recbole.data.items import find_item_table, read_item_table
from alignrec_recbole.encoders import lsa
from alignrec_recbole.errors import DataError, UnknownNameError

T = TypeVar("T")

MMREC = "userID\titemID\tx_label\n" + "".join(
    f"u{u}\ti{i}\t{(u + i) % 3}\n" for u in range(4) for i in range(4)
)
TYPED = "user_id:token\titem_id:token\trating:float\ttags:token_seq\n" + "".join(
    f"u{u}\ti{i}\t{u}.5\ta b{i}\n" for u in range(3) for i in range(4)
)
ITEMS = "item_id\ttitle\tbrand\timage\n" + "".join(
    f"{i}\tred bike {i}\tAcme\t{i}.png\n" for i in range(8)
)
RATINGS = "".join(
    f"A{u}X,B00{i},{u}.0,{1_400_000_000 + 7 * i}\n" for u in range(4) for i in range(4)
)

PIECES = [b"\t", b"\n", b"\r", b"\r\n", b" ", b"\0", b'"', b"\xff", b"\xc3", b"\xef\xbb\xbf", b",",
          b"u0", b"i1", b"0", b"9" * 400, b"nan", b"1e999", b"_", b"\xc2\xa0", b"\xe2\x80\xa8",
          "灯".encode(), b"\x1b[31m", b"\t\t", b"\n\n", b":", b"-"]  # fmt: skip


@st.composite
def edited(draw: st.DrawFn, text: str) -> bytes:
    """A valid file with up to four bytes or pieces replaced, inserted or removed."""
    data = text.encode()
    for _ in range(draw(st.integers(0, 4))):
        place = draw(st.integers(0, len(data)))
        piece = draw(st.sampled_from(PIECES) | st.binary(min_size=1, max_size=2))
        data = data[:place] + piece + data[place + draw(st.integers(0, 3)) :]
    return data


@contextlib.contextmanager
def file(name: str, data: bytes) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        path.write_bytes(data)
        yield path


def attempt(read: Callable[[], T]) -> tuple[T | None, str]:
    """What a reader returns, or the text of the error by which it refuses its input."""
    try:
        return read(), ""
    except (DataError, UnknownNameError) as error:
        return None, str(error)


def plain_rows(data: bytes, separator: str) -> list[list[str]] | None:
    """Header and rows of a separated file, read without any library; None if it is irregular."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return None
    lines = [line.removesuffix("\r") for line in text.removeprefix("\ufeff").split("\n")]
    if any("\r" in line or "\0" in line for line in lines) or not lines[0].strip():
        return None
    rows = [line.split(separator) for line in lines if line.strip(" ")]
    if any(len(row) != len(rows[0]) for row in rows) or len(set(rows[0])) < len(rows[0]):
        return None
    return rows if len(rows) > 1 else None


def plain_interactions(data: bytes) -> list[tuple[str, ...]] | None:
    rows = plain_rows(data, "\t")
    if rows is None:
        return None
    columns = [[n for n in names if n in rows[0]] for names in
               (("userID", "user_id"), ("itemID", "item_id"), ("x_label",))]  # fmt: skip
    if not columns[0] or not columns[1]:
        return None
    wanted = [rows[0].index(names[0]) for names in columns if names]
    out = [tuple(row[i] if i == wanted[-1] and len(wanted) > 2 else row[i].strip() for i in wanted)
           for row in rows[1:]]  # fmt: skip
    pairs = [row[:2] for row in out]
    if not all(all(pair) for pair in pairs) or len(set(pairs)) < len(pairs):
        return None
    if len(wanted) > 2 and {row[2] for row in out} != {"0", "1", "2"}:
        return None
    return out


@settings(deadline=None, max_examples=250)
@given(edited(MMREC))
def test_mmrecs_layout_is_read_as_it_is_written_or_refused(data: bytes) -> None:
    with trial("data", "mmrec"), file("x.inter", data) as path:
        expected = plain_interactions(data)
        table, error = attempt(lambda: read_interactions(path))
        if table is None:
            assert expected is None, error
            assert "x.inter" in error
        else:
            columns = [table.users, table.items]
            columns += [] if table.labels is None else [table.labels.astype(str)]
            assert list(zip(*columns, strict=True)) == expected


def plain_typed(data: bytes) -> dict[str, list] | None:
    rows = plain_rows(data, "\t")
    if rows is None:
        return None
    types = [entry.partition(":")[::2] for entry in rows[0]]
    kinds = {"token", "token_seq", "float", "float_seq"}
    names = [name for name, _ in types]
    if not all(name and kind in kinds for name, kind in types) or len(set(names)) < len(names):
        return None
    if any(dict(types).get(name) != "token" for name in ("user_id", "item_id")):
        return None
    out: dict[str, list] = {}
    for (name, kind), cells in zip(types, zip(*rows[1:], strict=True), strict=True):
        try:
            if kind == "token":
                ids = name in ("user_id", "item_id")
                out[name] = [cell.strip() if ids else cell or None for cell in cells]
                if ids and not all(out[name]):
                    return None
            elif kind == "float":
                if any("_" in cell or cell.strip() in MISSING_NUMBERS for cell in cells):
                    return None
                out[name] = [float(cell) for cell in cells]
                if not all(map(math.isfinite, out[name])):
                    return None
            else:
                out[name] = [[part for part in cell.split(" ") if part] for cell in cells]
                if kind == "float_seq":
                    out[name] = [list(map(float, row)) for row in out[name]]
        except ValueError:
            return None
    return out


@settings(deadline=None, max_examples=250)
@given(edited(TYPED))
def test_recboles_layout_is_read_as_it_is_written_or_refused(data: bytes) -> None:
    with trial("data", "atomic"), file("x.inter", data) as path:
        expected, ids = plain_typed(data), ["user_id", "item_id"]
        types, error = attempt(lambda: read_types(path, ids))
        if types is not None:
            frame, error = attempt(
                lambda: read_atomic_file(path, types, list(types), ids=ids, complete=True)
            )
        if error:
            assert expected is None, error
            assert "x.inter" in error
            return
        assert expected is not None
        assert list(frame) == list(expected)
        for name, values in expected.items():
            found = [list(v) if isinstance(v, np.ndarray) else v for v in frame[name].tolist()]
            assert [None if v != v else v for v in found] == values, name


@settings(deadline=None, max_examples=200)
@given(edited(ITEMS))
def test_item_tables_are_read_as_they_are_written_or_refused(data: bytes) -> None:
    with trial("data", "items"), file("items.tsv", data) as path:
        rows = plain_rows(data.replace(b"\r\n", b"\n"), "\t")
        table, error = attempt(lambda: read_item_table(path))
        if table is None:
            assert "items.tsv" in error or "The path '" in error
        else:
            assert len(set(table.ids)) == len(table.ids)
            if rows and b'"' not in data:
                place = [column.strip() for column in rows[0]].index("item_id")
                assert table.ids == [row[place].strip() for row in rows[1:]]


JOINED = RATINGS.replace("A0X,B000", '"A0X,"B000', 1).encode()


@settings(deadline=None, max_examples=200)
@given(edited(RATINGS))
@example(JOINED)
def test_ratings_are_read_as_they_are_written_or_refused(data: bytes) -> None:
    with trial("data", "ratings"), file("ratings_x.csv", data) as path:
        chunks, error = attempt(lambda: list(read_ratings(path)))
        if chunks is None:
            assert "ratings_x.csv" in error
            return
        rows = [row for chunk in chunks for row in chunk.itertuples(index=False)]
        lines = data.decode().removeprefix("\ufeff").split("\n")
        plain = [line.removesuffix("\r").split(",") for line in lines if line.strip(" \r")]
        if data[:1] != b'"' and data[3:4] != b'"':
            assert [list(row[:2]) for row in rows] == [row[:2] for row in plain]
        for row, cells in zip(rows, plain, strict=True):
            for value, cell in zip(row[2:], cells[2:], strict=True):
                same = float(cell) if cell.strip() else math.nan
                assert value == same or (value != value and same != same)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12)
    | st.sampled_from([10**400, -(10**400), "9" * 5000, "B001", "<b>x", "\ud800"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=5,
)  # fmt: skip
KEYS = ["asin", "reviewerID", "overall", "unixReviewTime", "title", "brand", "categories",
        "category", "description", "imUrl", "imageURL", "imageURLHighRes"]  # fmt: skip
ENTRIES = st.lists(st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=6), max_size=4)


@settings(deadline=None, max_examples=150)
@given(ENTRIES, st.booleans())
def test_entries_of_any_shape_are_read_or_counted(entries: list[dict], as_json: bool) -> None:
    good = {"asin": "B001", "reviewerID": "A1", "overall": 5, "unixReviewTime": 7, "title": "t"}
    lines = [json.dumps(entry) if as_json else repr(entry) for entry in [*entries, good]]
    packed = gzip.compress("\n".join(lines).encode("utf-8", "surrogatepass"))
    with trial("data", "raw entries"), file("meta_x.json.gz", packed) as path:
        read = amazon.ParseStats()
        items = list(amazon.read_meta(path, read))
        assert items[-1].asin == "B001"
        assert read.good + sum(read.bad.values()) == len(lines)
        for item in items:
            assert not any(c in text for text in vars(item).values() for c in "\t\n\r\0")
        rated = amazon.ParseStats()
        for chunk in amazon.read_interactions(path, rated):
            with contextlib.suppress(DataError):  # nobody has five interactions here
                amazon.load_interactions([chunk], None, rated)


@settings(deadline=None, max_examples=60)
@given(edited(MMREC))
def test_damaged_gzip_files_are_refused(data: bytes) -> None:
    packed = gzip.compress(repr({"asin": "B001"}).encode() * 3)
    damaged = packed[: len(data) % 20] + data
    with trial("data", "gzip"), file("meta_x.json.gz", damaged) as path:
        items, error = attempt(lambda: list(amazon.read_meta(path)))
        assert items is None
        assert "meta_x.json.gz" in error


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data sets with odd names, one of which is only odd files."""
    folder = tmp_path_factory.mktemp("shelf")
    for name in ("shop", "block [1] world", "Läden 5", "a.b"):
        (folder / name).mkdir()
        (folder / name / f"{name}.inter").write_text(MMREC)
    (folder / "loop").symlink_to("loop")
    (folder / "pipe").mkdir()
    os.mkfifo(folder / "pipe" / "pipe.inter")
    (folder / "dirs" / "dirs.inter").mkdir(parents=True)
    return folder


ODD_NAMES = ["*", "**", "?hop", "sho[p]", "x" * 300, ".", "..", "./", "./shop", "shop/",
             "\ud800", "\x1b[31m", "", " shop", "/etc", "../shelf", "a\0b", "loop",
             "pipe", "dirs"]  # fmt: skip


@settings(deadline=None, max_examples=120)
@given(st.text(max_size=20) | st.sampled_from(ODD_NAMES))
def test_names_of_data_sets_are_found_or_refused(shelf: Path, name: str) -> None:
    with trial("data", "name"):
        found, error = attempt(lambda: find_dataset(name, shelf))
        if found is None:
            assert "\x1b" not in error
            assert error.encode()
        else:
            assert found.name == name
            assert (found / f"{name}.inter").is_file() or name == "ml-100k"


def test_names_with_blanks_and_brackets_are_names(shelf: Path) -> None:
    for name in ("shop", "block [1] world", "Läden 5", "a.b"):
        assert find_dataset(name, shelf) == (shelf / name).resolve()
    assert present_datasets([shelf]) == sorted(["shop", "block [1] world", "Läden 5", "a.b"])


def pictures() -> list[bytes]:
    out = []
    for kind in ("PNG", "JPEG", "TIFF", "GIF", "BMP", "WEBP"):
        stream = io.BytesIO()
        Image.new("RGB", (12, 9), (200, 40, 90)).save(stream, kind)
        out.append(stream.getvalue())
    return out


PICTURES = pictures()


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_damaged_images_are_pixels_or_a_reason(data: st.DataObject) -> None:
    content = bytearray(data.draw(st.sampled_from(PICTURES)))
    for _ in range(data.draw(st.integers(0, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(0, len(content)) | st.just(len(content)))]
    with trial("data", "image"), file("x.img", bytes(content)) as path:
        decoded = centre_square(path, 4)
        assert (decoded.pixels is None) != (decoded.reason is None)
        assert decoded.reason is None or decoded.reason in REASONS
        assert decoded.pixels is None or decoded.pixels.shape == (4, 4, 3)


# One by one ---------------------------------------------------------------------------------------


def of_levels(levels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(levels).save(stream, "TIFF")
    return stream.getvalue()


@pytest.mark.parametrize(
    ("levels", "value"),
    [
        (np.full((4, 4), 0.5, np.float32), 127),
        (np.full((4, 4), 1.0, np.float32), 255),
        (np.full((4, 4), 0.0, np.float32), 0),
        (np.full((4, 4), 100.0, np.float32), 100),
        (np.full((4, 4), 30000, np.uint16), 116),
        (np.full((4, 4), 1, np.uint16), 1),
        (np.full((4, 4), np.nan, np.float32), None),
        (np.full((4, 4), np.inf, np.float32), None),
    ],
)
def test_levels_of_images_with_more_than_eight_bits(levels: np.ndarray, value: int | None) -> None:
    with trial("data", "levels"), file("x.tif", of_levels(levels)) as path:
        decoded = centre_square(path, 2)
        assert (None if decoded.pixels is None else int(decoded.pixels[0, 0, 0])) == value
        assert decoded.reason == ("damaged" if value is None else None)


def large_png(width: int, height: int) -> bytes:
    import zlib

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("width", "height"), [(8193, 8192), (1 << 27, 1), (100_000, 100_000)])
def test_an_image_of_too_many_pixels_is_not_decoded(width: int, height: int) -> None:
    with trial("data", "large image"), file("x.png", large_png(width, height)) as path:
        assert centre_square(path, 2).reason == "too large"


@pytest.mark.parametrize("kind", ["loop", "fifo", "folder", "long", "absent"])
def test_images_that_are_no_files(tmp_path: Path, kind: str) -> None:
    (tmp_path / "images").mkdir()
    name = "x" * 300 if kind == "long" else "a.png"
    path = tmp_path / "images" / name
    if kind == "loop":
        path.symlink_to("a.png")
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    (tmp_path / "items.tsv").write_text(f"id\ttitle\timage\n1\tcap\t{name}\n")
    with trial("data", kind):
        table = find_item_table(tmp_path, "shop")
        expected = "missing" if kind in ("long", "absent") else "not a file"
        assert table.images[0] is not None
        assert centre_square(table.images[0], 4).reason == expected
        assert len(table.content_hash()) == 64
        assert len(table.name_and_size_hash()) == 64


REFUSED = {
    "mac line ends": (MMREC.replace("\n", "\r").encode(), "carriage return in line 1"),
    "carriage return inside": (MMREC.replace("u1\ti2\t0", "u1\ti2\t0\ru9\ti9\t0").encode(),
                               "carriage return in line 8"),
    "zero byte": (MMREC.replace("u1", "u\0", 1).encode(), "zero byte in line 6"),
    "many columns": (b"\t" * 199_999 + b"x\n", "200,000"),
    "header without end": (b"a" * (2 << 20), "header of x.inter is too long"),
    "line without end": (MMREC.encode() + b"a" * (20 << 20), "not a text file of lines"),
    "latin-1": (MMREC.replace("u1\ti0", "é\ti0").encode("latin-1"), "0xe9 in line 6 at position 0"),
    "repeated with a blank": ((MMREC + " u0\ti0 \t1\n").encode(), "in line 18"),
    "label below blank lines": (MMREC.replace("u0\ti1\t1", "\n\nu0\ti1\t7").encode(), "line 5"),
    "only labels 0 and 1": (MMREC.replace("\t2\n", "\t1\n").encode(), "no test rows"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_readers_name_the_line(name: str) -> None:
    data, says = REFUSED[name]
    with trial("data", name), file("x.inter", data) as path:
        with pytest.raises(DataError) as caught:
            read_interactions(path)
        assert says in str(caught.value)
        assert len(str(caught.value)) < 2000


@pytest.mark.parametrize("kind", ["fifo", "folder", "loop", "device", "absent"])
@pytest.mark.parametrize("reader", ["interactions", "types", "items", "ratings", "meta", "order"])
def test_what_is_no_file_is_refused_at_once(tmp_path: Path, kind: str, reader: str) -> None:
    path = tmp_path / "x.inter"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind in ("loop", "device"):
        path.symlink_to("x.inter" if kind == "loop" else "/dev/zero")
    readers = {
        "interactions": read_interactions,
        "types": lambda path: read_types(path, []),
        "items": read_item_table,
        "ratings": lambda path: list(read_ratings(path)),
        "meta": lambda path: list(amazon.read_meta(path)),
        "order": lambda path: column_order(path, []),
    }
    with trial("data", f"{reader} {kind}"), pytest.raises(DataError, match=r"x\.inter"):
        readers[reader](path)


@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("ends", [b"\n", b"\r\n"])
def test_byte_order_marks_and_line_ends_change_nothing(bom: bytes, ends: bytes) -> None:
    data = bom + MMREC.encode().replace(b"\n", ends)
    with trial("data", "bom"), file("x.inter", data) as path:
        table = read_interactions(path)
        assert (table.users[0], len(table.users)) == ("u0", 16)
        assert table.labels is not None
        assert table.labels[:3].tolist() == [0, 1, 2]
    data = bom + TYPED.encode().replace(b"\n", ends)
    with trial("data", "typed bom"), file("x.inter", data) as path:
        types = read_types(path, ["user_id"])
        assert list(types) == ["user_id", "item_id", "rating", "tags"]


def test_blanks_around_ids_are_no_part_of_them() -> None:
    data = MMREC.replace("u1\t", " u1\t").replace("\ti2\t", "\ti2 \t").encode()
    with trial("data", "blanks"), file("x.inter", data) as path:
        table = read_interactions(path)
        assert set(table.users) == {"u0", "u1", "u2", "u3"}
        assert set(table.items) == {"i0", "i1", "i2", "i3"}


@pytest.mark.parametrize(
    ("cells", "dtype"),
    [
        (["1500000000", "1500000001"], np.float64),
        (["-62135593800", "1e3"], np.float64),
        (["9007199254740993", "9007199254740992"], np.int64),
        (["1700000000000000001", "5"], np.int64),
        (["-9007199254740993", "5"], np.int64),
        (["1700000000000000001", "0.5"], np.float64),
    ],
)
def test_times_are_not_rounded(cells: list[str], dtype: type) -> None:
    data = "user_id:token\titem_id:token\ttimestamp:float\n" + "".join(
        f"u\ti{n}\t{cell}\n" for n, cell in enumerate(cells)
    )
    with trial("data", "times"), file("x.inter", data.encode()) as path:
        types = read_types(path, [])
        frame = read_atomic_file(path, types, list(types), ids=["user_id"], complete=True)
        assert frame["timestamp"].dtype == dtype
        assert frame["timestamp"].tolist() == [
            int(cell) if dtype is np.int64 else float(cell) for cell in cells
        ]


@pytest.mark.parametrize(
    ("header", "says"),
    [
        ("user_id:token\titem_id:float", "ids in column 'item_id'"),
        ("user_id:token_seq\titem_id:token", "user_id:token_seq in the header"),
        ("user_id:token\titem_id:token\tuser_id:float", "'user_id' twice"),
        ("user_id:token\t:token", "':token' in the header"),
        ("userID:token\titem_id:token", "set USER_ID_FIELD"),
    ],
)
def test_types_that_do_not_fit(header: str, says: str) -> None:
    with trial("data", header), file("x.inter", header.encode() + b"\na\tb\n") as path:
        with pytest.raises(DataError) as caught:
            read_types(path, ["user_id", "item_id"])
        assert says in str(caught.value)


def test_siblings_are_no_part_of_a_data_set(tmp_path: Path) -> None:
    with trial("data", "siblings"):
        (tmp_path / "x.inter").write_text(MMREC)
        (tmp_path / "x.zero.inter").symlink_to("/dev/zero")
        (tmp_path / "x.folder.inter").mkdir()
        os.mkfifo(tmp_path / "x.pipe.inter")
        (tmp_path / "x.train.inter").write_text(TYPED)
        (tmp_path / "xy.inter").write_text(TYPED)
        assert [path.name for path in split_files(tmp_path, "x")] == ["x.train.inter"]


@pytest.mark.parametrize(
    ("rows", "items", "expected"),
    [
        (["u1,i1,5,1", "u2,i2,5,1"], {"i1"}, USER_FIRST),
        (["i1,u1,5,1", "i2,u2,5,1"], {"i1"}, ITEM_FIRST),
        (["u1,i1,5,1"], {"other"}, USER_FIRST),
        (["B000000001,A000000000001X,5,1"], (), ITEM_FIRST),
        (["A000000000001X,B000000001,5,1"], (), USER_FIRST),
        (['"i1","u1",5,1'], {"i1"}, ITEM_FIRST),
        ([], {"i1"}, USER_FIRST),
        (["i1,i2,5,1"], {"i1", "i2"}, USER_FIRST),  # as many in either: the order of 2014
    ],
)
def test_the_order_of_rating_columns(rows: list[str], items: set[str], expected: tuple) -> None:
    with trial("data", "order"), file("ratings_x.csv", "\n".join(rows).encode()) as path:
        assert column_order(path, items) == expected


HTML = {
    "1 < 2 > 0 <3 a <c d": "1 < 2 > 0 <3 a <c d",
    "<p>a</p><p>b</p>": "a b",
    "<b>B</b>old": "Bold",
    "&lt;br&gt;x&amp;amp;": "x&amp;",
    "a<!-- c -->b": "a b",
    "a<SCRIPT type='x'>var y = '<b>';</script >b": "a b",
    "a<script>never ends": "a",
    'a<style\n media="x">p {}</style>b': "a b",
    "<img src=x onerror=y>z": "z",
    "<bride>": "<bride>",
}


@pytest.mark.parametrize("text", HTML)
def test_html_is_no_text(text: str) -> None:
    with trial("data", "html"):
        assert " ".join(plain_text(text).split()) == HTML[text]


def test_html_with_many_open_tags_is_read_at_once() -> None:
    """Every one of them was searched for its end up to the end of the text."""
    with trial("data", "html"):
        start = time.process_time()
        plain_text("<script " * 40_000)
        assert time.process_time() - start < 2


@pytest.mark.parametrize(
    ("texts", "like"),
    [
        (["红色自行车", "蓝色自行车", "露营帐篷", "双人帐篷"], (0, 1, 2)),
        (["赤い自転車", "青い自転車", "緑のテント", "テント"], (0, 1, 2)),
        (["จักรยานสีแดง", "จักรยานสีฟ้า", "เต็นท์", "เต็นท์สีเขียว"], (0, 1, 2)),
    ],
)
def test_lsa_of_unspaced_scripts(texts: list[str], like: tuple[int, int, int]) -> None:
    table = item_table(texts)
    with trial("data", "lsa"):
        rows = lsa.encode(table).matrix
        near, far = rows[like[0]] @ rows[like[1]], rows[like[0]] @ rows[like[2]]
        assert near > 0.2 + far
        assert lsa.identity_of_table(table)


def item_table(texts: list[str]):
    data = "id\ttitle\n" + "".join(f"{i}\t{text}\n" for i, text in enumerate(texts))
    with file("items.tsv", data.encode()) as path:
        return read_item_table(path)


def test_lsa_of_one_word_and_of_spaced_texts() -> None:
    with trial("data", "lsa"):
        assert lsa.encode(item_table(["same"] * 5)).matrix.tolist() == [[1.0]] * 5
        assert lsa.identity_of_table(item_table(["red bike", "Straße"])) == {}


def test_a_line_far_down_is_named(tmp_path: Path) -> None:
    """Files are checked in blocks of 1 MiB."""
    rows = [f"user {n}\titem {n}\t{n % 3}\n" for n in range(100_000)]
    with trial("data", "far down"):
        for odd, says in (("a\tb\n", "line 90001 with 2 cells"), ("a\0\tb\t0\n", "line 90001")):
            data = "".join(["userID\titemID\tx_label\n", *rows[:89_999], odd, *rows[89_999:]])
            with file("x.inter", data.encode()) as path, pytest.raises(DataError, match=says):
                read_interactions(path)


def test_metadata_without_items_or_with_items_of_others(tmp_path: Path) -> None:
    with trial("data", "no items"), file("meta_x.json.gz", b"") as path:
        with pytest.raises(DataError, match="describes no item"):
            list(amazon.read_meta(path))
        mapping = amazon.IdMapping({}, {"B2": 0}, False)
        with pytest.raises(DataError, match="no item in common"):
            amazon.write_items([amazon.MetaItem("B1", "t")], mapping, tmp_path / "items.tsv")
        assert not list(tmp_path.iterdir())


def test_an_item_table_with_a_column_twice() -> None:
    with trial("data", "columns"), file("items.tsv", b"id\timage\timage\n1\ta\tb\n") as path:
        table, error = attempt(lambda: read_item_table(path))
        assert table is None
        assert "'image' twice" in error
