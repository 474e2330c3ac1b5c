"""Trials: broken files of every format are refused by file, place and reason."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import format_files as files
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trials import check_refused, run_verb, trial

from alignrec_recbole.data.formats import table
from alignrec_recbole.data.formats.registry import FORMATS
from alignrec_recbole.data.source import Source, first_of_each_pair
from alignrec_recbole.errors import DataError

Edit = Callable[[bytes], bytes]


def line(number: int, new: str | bytes) -> Edit:
    """Replace a line, counted from 1."""

    def edit(data: bytes) -> bytes:
        rows = data.split(b"\n")
        rows[number - 1] = new if isinstance(new, bytes) else new.encode()
        return b"\n".join(rows)

    return edit


def all_of(new: bytes) -> Edit:
    return lambda data: new


def cut(size: int) -> Edit:
    return lambda data: data[:size]


def packed_and_cut(data: bytes) -> bytes:
    return gzip.compress(data)[:-12]


def packed_and_changed(data: bytes) -> bytes:
    packed = bytearray(gzip.compress(data))
    packed[len(packed) // 2] ^= 0xFF
    return bytes(packed)


def bad_review(**changed: object) -> Edit:
    return line(3, json.dumps(files.review("U1", "B1", 5, **changed)))


def without(key: str) -> Edit:
    entry = files.review("U1", "B1", 5)
    del entry[key]
    return line(3, json.dumps(entry))


TEXT: list[tuple[str, Edit, str]] = [  # of every text file
    ("nothing", all_of(b""), "{file}"),
    ("latin 1", line(3, b"caf\xe9"), "not UTF-8.*line 3"),
    ("utf 16", lambda data: data.decode().encode("utf-16"), "not UTF-8"),
    ("a zero byte", line(3, b"a\0b"), "zero byte in line 3"),
    ("a carriage return", line(3, b"a\rb"), "carriage return in line 3"),
    ("a cut gzip file", packed_and_cut, "not a whole gzip file"),
    ("a changed gzip file", packed_and_changed, "not a whole gzip file|cannot be used|not"),
    ("an endless line", all_of(b"x" * (17 << 20)), "a line of more than"),
]

REVIEWS: list[tuple[str, Edit, str]] = [
    *TEXT,
    ("not JSON", line(3, "{'user_id': 'U1'}"), "not JSON: line 3"),
    ("half a line", line(3, '{"user_id": "U1", "paren'), "not JSON: line 3"),
    ("a list", line(3, "[1, 2]"), "no JSON object: line 3"),
    ("a number", line(3, "7"), "no JSON object: line 3"),
    ("deep", line(3, "[" * 100_000), "not JSON: line 3"),
    ("a number of 5,000 digits", line(3, '{"timestamp": ' + "9" * 5000 + "}"), "JSON: line 3"),
    ("no user", without("user_id"), "line 3(.|\n)*user_id = None"),
    ("no item", without("parent_asin"), "line 3(.|\n)*parent_asin = None"),
    ("no time", without("timestamp"), "line 3(.|\n)*timestamp = None"),
    ("no rating", without("rating"), "line 3(.|\n)*rating = None"),
    ("a number as user", bad_review(user_id=5), "line 3(.|\n)*user_id = 5"),
    ("an empty user", bad_review(user_id=""), "user id .*line 3(.|\n)*empty"),
    ("a blank item", bad_review(parent_asin="  "), "item id .*line 3(.|\n)*empty"),
    ("a tab in an item", bad_review(parent_asin="a\tb"), "item id .*line 3"),
    ("a line end in a user", bad_review(user_id="a\nb"), "user id .*line 3"),
    ("half a character", bad_review(user_id="a\ud83d"), "user id .*line 3"),
    ("a direction mark", bad_review(user_id="a\u202eb"), "user id .*line 3"),
    ("a long item", bad_review(parent_asin="B" * 501), "item id .*line 3(.|\n)*500"),
    ("a time as text", bad_review(timestamp="5"), "line 3(.|\n)*timestamp = '5'"),
    ("a decimal time", bad_review(timestamp=5.5), "line 3(.|\n)*timestamp = 5.5"),
    ("a truth value as time", bad_review(timestamp=True), "line 3(.|\n)*timestamp = True"),
    ("a time beyond all", bad_review(timestamp=10**30), "line 3(.|\n)*timestamp"),
    ("a rating as text", bad_review(rating="5"), "line 3(.|\n)*rating = '5'"),
    ("no number as rating", bad_review(rating=float("nan")), "line 3(.|\n)*rating = nan"),
    ("a negative rating", bad_review(rating=-1), "line 3(.|\n)*rating = -1"),
    ("an infinite rating", bad_review(rating=float("inf")), "line 3(.|\n)*rating = inf"),
]  # fmt: skip

RATINGS: list[tuple[str, Edit, str]] = [
    *TEXT,
    ("no header", line(1, "U1,B1,5.0,7"), "no column 'user_id'"),
    ("another header", line(1, "user,item,rating,timestamp"), "no column 'user_id'"),
    ("tabs", lambda data: data.replace(b",", b"\t"), "no column 'user_id'"),
    ("a column twice", line(1, "user_id,parent_asin,rating,rating"), "column 'rating' twice"),
    ("a header alone", all_of(b"user_id,parent_asin,rating,timestamp\n"), "no interactions"),
    ("a short row", line(3, "U1,B1,5.0"), "3 cells in the row of line 3"),
    ("a long row", line(3, "U1,B1,5.0,7,8"), "5 cells in the row of line 3"),
    ("no user", line(3, ",B1,5.0,7"), "user id .*line 3(.|\n)*empty"),
    ("no item", line(3, "U1,,5.0,7"), "item id .*line 3(.|\n)*empty"),
    ("no rating", line(3, "U1,B1,,7"), "rating .*line 3"),
    ("no time", line(3, "U1,B1,5.0,"), "time .*line 3"),
    ("a text as time", line(3, "U1,B1,5.0,today"), "time .*line 3(.|\n)*'today'"),
    ("a date among numbers", line(3, "U1,B1,5.0,2020-01-01"), "time .*line 3"),
    ("no number as time", line(3, "U1,B1,5.0,nan"), "time .*line 3"),
    ("an infinite rating", line(3, "U1,B1,1e999,7"), "rating .*line 3"),
    ("an underscore", line(3, "U1,B1,5.0,1_000"), "time .*line 3"),
    ("other digits", line(3, "U1,B1,5.0,٣"), "time .*line 3"),
    ("a time beyond 64 bits", line(3, "U1,B1,5.0," + "9" * 30), "time .*line 3(.|\n)*64 bits"),
    ("an open mark", line(3, 'U1,"B1,5.0'), "(not a regular table|cells in the row)"),
    ("text after a mark", line(3, 'U1,"B"1,5.0,7,x'), "in the row that starts in line 3"),
]  # fmt: skip

PAIRS: list[tuple[str, Edit, str]] = [
    *TEXT,
    ("no header", line(1, "36,2,1583378629552"), "no column 'user'"),
    ("semicolons", lambda data: data.replace(b",", b";"), "no column 'user'"),
    ("no times", line(1, "user,item,time"), "no column 'timestamp'"),
    ("a short row", line(3, "36,2"), "2 cells in the row of line 3"),
    ("no item", line(3, "36,,1583378629552"), "item id .*line 3"),
    ("no user", line(3, " ,2,1583378629552"), "user id .*line 3"),
    ("a text as time", line(3, "36,2,x"), "time .*line 3"),
    ("no time", line(3, "36,2,"), "time .*line 3"),
    ("a header alone", all_of(b"user,item,timestamp\n"), "no interactions"),
    ("a control character", line(3, "36,2\x1b[31m,5"), "item id .*line 3"),
]

HISTORIES: list[tuple[str, Edit, str]] = [
    *TEXT,
    ("no tab", line(2, "37 1 2 3"), "no history: line 2"),
    ("two tabs", line(2, "37\t1\t2"), "no history: line 2"),
    ("no items", line(2, "37\t"), "no history: line 2"),
    ("two blanks", line(2, "37\t1  2"), "no history: line 2"),
    ("a blank at the end", line(2, "37\t1 "), "no history: line 2"),
    ("no user", line(2, "\t1 2"), "user id .*line 2"),
    ("a user twice", line(2, "36\t1 2"), "user id .*line 2(.|\n)*another line"),
    ("a long item", line(2, "37\t" + "1" * 501), "item id .*line 2"),
    ("commas", line(2, "37,1,2"), "no history: line 2"),
    ("a control character", line(2, "37\t1\x07"), "item id .*line 2"),
]

JSON_SPLITS: list[tuple[str, Edit, str]] = [
    ("nothing", all_of(b""), "not valid JSON"),
    ("half a file", cut(9), "not valid JSON"),
    ("latin 1", all_of(b'{"0": ["\xe9"]}'), "not UTF-8"),
    ("a list", all_of(b"[[0, 1]]"), "no table of the items"),
    ("no interactions", all_of(b'{"0": []}'), "no table of the items"),
    ("an empty object", all_of(b"{}"), "no table of the items"),
    ("a number for a list", all_of(b'{"0": 5}'), "for user '0'"),
    ("an object in a list", all_of(b'{"0": [{"a": 1}]}'), "for user '0'"),
    ("a decimal", all_of(b'{"0": [1.5]}'), "for user '0'"),
    ("a truth value", all_of(b'{"0": [true]}'), "for user '0'"),
    ("null", all_of(b'{"0": [null]}'), "for user '0'"),
    ("a user twice", all_of(b'{"0": [1], "0": [2]}'), "user '0' twice"),
    ("an empty user", all_of(b'{"": [1]}'), "empty"),
    ("a tab in an item", all_of(b'{"0": ["a\\tb"]}'), "for user '0'"),
    ("deep", all_of(b"[" * 100_000), "not valid JSON"),
    ("5,000 digits", all_of(b'{"0": [' + b"9" * 5000 + b"]}"), "not valid JSON"),
    ("an item of train again", all_of(b'{"0": [0]}'), "splits of .* overlap"),
]

PURCHASES: list[tuple[str, Edit, str]] = [
    *TEXT,
    ("no header", line(1, "2018-09-20,c,0108775015,0.05,2"), "no column 'customer_id'"),
    ("no date", line(3, ",c,0108775015,0.05,2"), "time .*line 3"),
    ("another date", line(3, "20.09.2018,c,0108775015,0.05,2"), "time .*line 3"),
    ("no such day", line(3, "2018-02-30,c,0108775015,0.05,2"), "time .*line 3"),
    ("a number as date", line(3, "17794,c,0108775015,0.05,2"), "time .*line 3"),
    ("no customer", line(3, "2018-09-20,,0108775015,0.05,2"), "user id .*line 3"),
    ("no article", line(3, "2018-09-20,c,,0.05,2"), "item id .*line 3"),
    ("a lost zero", line(3, "2018-09-20,c,108775015,0.05,2"), "lost their leading zero"),
    ("a short row", line(3, "2018-09-20,c"), "2 cells in the row of line 3"),
    ("other columns", line(1, "t_dat,customer_id,x,y,z"), "no column 'article_id'"),
]

CASES = [
    *(("amazon2023", files.amazon2023, "All_Beauty.jsonl", *case) for case in REVIEWS),
    *(("amazon2023", files.amazon2023_split, "All_Beauty.valid.csv", *case) for case in RATINGS),
    *(("microlens", files.microlens, "MicroLens-50k_pairs.csv", *case) for case in PAIRS),
    *(
        ("microlens", files.microlens_histories, "MicroLens-50k_pairs.tsv", *case)
        for case in HISTORIES
    ),
    *(("mmssl", files.mmssl, "5-core/val.json", *case) for case in JSON_SPLITS),
    *(("hm", files.hm, "transactions_train.csv", *case) for case in PURCHASES),
    *(
        ("pixelrec", files.pixelrec, "Pixel200K.csv", *case) for case in TEXT
    ),
    *(("ninerec", files.ninerec, "QB_pair.csv", *case) for case in TEXT),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "write", "file", "what", "edit", "words"),
    CASES,
    ids=[f"{name}-{file}-{what}" for name, _, file, what, *_ in CASES],
)
def test_broken_interactions(
    tmp_path: Path, name: str, write: Callable, file: str, what: str, edit: Edit, words: str
) -> None:
    with trial("formats", f"{name} {what}"):
        write(tmp_path)
        path = tmp_path / file
        path.write_bytes(edit(path.read_bytes()))
        with pytest.raises(DataError, match=f"(?s){words.format(file=path.name)}") as caught:
            first_of_each_pair(FORMATS[name].read(tmp_path))
        assert path.name in str(caught.value) or "overlap" in words
        assert len(str(caught.value)) < 4000


CONTENT_FILES = {
    "amazon2023": "meta_All_Beauty.jsonl.gz", "microlens": "MicroLens-50k_titles.csv",
    "hm": "articles.csv", "pixelrec": "Pixel200K_item_info.csv", "ninerec": "QB_item.csv",
}  # fmt: skip
CONTENT: list[tuple[str, str, Edit, str]] = [
    *((name, *case) for name in CONTENT_FILES for case in TEXT[1:]),
    ("amazon2023", "not JSON", all_of(b"x\n"), "not JSON: line 1"),
    ("amazon2023", "no item", all_of(b'{"title": "x"}\n'), "line 1"),
    ("amazon2023", "a number", all_of(b'{"parent_asin": 5}'), "line 1"),
    ("microlens", "three columns", line(1, "1,cat,x"), "(not a regular table|other columns)"),
    ("microlens", "no title", line(1, "item,text"), "no column 'title'"),
    ("microlens", "open", line(2, '1,"cat'), "not a regular table"),
    ("hm", "no names", all_of(b"article_id,x\n0108775005,y\n"), "prod_name"),
    ("hm", "lost zeros", all_of(b"article_id,prod_name\n108775005,y\n"), "zero"),
    ("pixelrec", "no ids", line(1, "a,b,c,d,e,f"), "no column 'item'"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "what", "edit", "words"), CONTENT, ids=[f"{name}-{what}" for name, what, *_ in CONTENT]
)
def test_broken_content(tmp_path: Path, name: str, what: str, edit: Edit, words: str) -> None:
    with trial("formats", f"{name} content {what}"):
        expected = files.WRITERS[name](tmp_path)
        path = tmp_path / CONTENT_FILES[name]
        path.write_bytes(edit(path.read_bytes() if path.suffix != ".gz" else b"\n\n\n\n"))
        with pytest.raises(DataError, match=f"(?s){words.format(file=path.name)}") as caught:
            FORMATS[name].read(tmp_path).read_items({item for _, item in expected})
        assert path.name in str(caught.value)


@pytest.mark.parametrize("name", files.WRITERS)
@pytest.mark.parametrize("damage", ["an empty folder", "no folder", "a file", "two", "a FIFO"])
def test_broken_folders(tmp_path: Path, name: str, damage: str) -> None:
    main = {
        "amazon2023": "All_Beauty.jsonl", "microlens": "MicroLens-50k_pairs.csv",
        "mmssl": "5-core/train.json", "hm": "transactions_train.csv",
        "pixelrec": "Pixel200K.csv", "ninerec": "QB_pair.csv",
    }[name]  # fmt: skip
    folder = tmp_path / "raw"
    with trial("formats", f"{name} {damage}"):
        if damage == "a file":
            folder.write_text("x")
        elif damage != "no folder":
            files.WRITERS[name](folder)
            path = folder / main
            if damage == "two" and name != "mmssl":
                (path.parent / f"{path.name.partition('_')[0]}2_{main}").write_bytes(b"x")
            else:
                path.unlink()
            if damage == "a FIFO":
                os.mkfifo(path)
        with pytest.raises(DataError):
            FORMATS[name].read(folder)


COMMANDS = [
    ("amazon2023", files.amazon2023, "All_Beauty.jsonl", line(3, "{'\x1b[31m"), "line 3"),
    (
        "amazon2023",
        files.amazon2023_split,
        "All_Beauty.test.csv",
        line(2, "\u202e,i,5,1"),
        "line 2",
    ),
    ("microlens", files.microlens, "MicroLens-50k_pairs.csv", line(2, "u,\x07,1"), "line 2"),
    ("mmssl", files.mmssl, "5-core/test.json", all_of(b'{"\\u001b[2J": [1]}'), "test.json"),
    ("hm", files.hm, "transactions_train.csv", line(2, "\x1b]0;x\x07,c,0108775005,1,2"), "line 2"),
    ("pixelrec", files.pixelrec, "Pixel200K.csv", line(2, "i,u\x00,5"), "line 2"),
    ("ninerec", files.ninerec, "QB_pair.csv", line(2, "u,\x9b31m"), "line 2"),
]


@pytest.mark.parametrize(
    ("name", "write", "file", "edit", "words"), COMMANDS, ids=[case[2] for case in COMMANDS]
)
def test_commands_refuse_hostile_text_and_print_none_of_it(
    tmp_path: Path, name: str, write: Callable, file: str, edit: Edit, words: str
) -> None:
    write(tmp_path / "raw")
    path = tmp_path / "raw" / file
    path.write_bytes(edit(path.read_bytes()))
    with trial("formats", f"import {name}"):
        answer = run_verb("import", tmp_path / "raw", "--format", name, "--dataset", "x",
                          "--data-path", tmp_path / "data")  # fmt: skip
        check_refused(answer, words, kind="DataError")
        assert not (tmp_path / "data").exists()


# Any table ----------------------------------------------------------------------------------------

TABLE = "who,sku,t,stars,part\n" + "".join(
    f"u{n % 3},i{n},{n},{n % 5},{('train', 'valid', 'test')[n % 3]}\n" for n in range(9)
)
ROLES = {"user": "who", "item": "sku", "time": "t", "rating": "stars", "split": "part"}
TABLES: list[tuple[str, Edit, str]] = [
    *TEXT,
    ("no such column", line(1, "who,sku,t,stars,x"), "no column 'part'"),
    ("a column twice", line(1, "who,who,sku,t,stars,part"), "(several columns|twice|regular)"),
    ("another separator", lambda data: data.replace(b",", b":"), "no column 'who'"),
    ("a header alone", all_of(b"who,sku,t,stars,part\n"), "no interactions"),
    ("no user", line(3, ",i,1,1,train"), "user id .*line 3"),
    ("no item", line(3, "u,,1,1,train"), "item id .*line 3"),
    ("no time", line(3, "u,i,,1,train"), "time .*line 3"),
    ("no rating", line(3, "u,i,1,,train"), "rating .*line 3"),
    ("a bad rating", line(3, "u,i,1,good,train"), "rating .*line 3"),
    ("a bad split", line(3, "u,i,1,1,3"), "split .*line 3"),
    ("no split", line(3, "u,i,1,1,"), "split .*line 3"),
    ("a short row", line(3, "u,i,1,1"), "4 cells in the row of line 3"),
    ("a hexadecimal time", line(3, "u,i,0x10,1,train"), "time .*line 3"),
    ("two points", line(3, "u,i,1.2.3,1,train"), "time .*line 3"),
    ("a date", line(3, "u,i,2020-01-01,1,train"), "time .*line 3"),
    ("beyond 64 bits", line(3, f"u,i,{2**63},1,train"), "time .*line 3"),
    ("exactness lost", line(3, f"u,i,{2**60},1.5,train"), None),
    ("a zip file", all_of(b"PK\x03\x04" + b"\0" * 40), "zero byte|UTF-8|no column"),
    ("half a Parquet file", all_of(b"PAR1" + b"x" * 40), "not a readable Parquet file"),
]  # type: ignore[list-item]  # fmt: skip


@pytest.mark.parametrize(("what", "edit", "words"), TABLES, ids=[what for what, *_ in TABLES])
@pytest.mark.parametrize("packed", [False, True])
def test_broken_tables(
    tmp_path: Path, what: str, edit: Edit, words: str | None, packed: bool
) -> None:
    path = tmp_path / "t.csv"
    data = edit(TABLE.encode())
    packed = packed and "gzip" not in what
    path.write_bytes(gzip.compress(data) if packed else data)
    with trial("formats", f"table {what}"):
        if words is None:  # whole and exact
            assert table.read(path, ROLES).interactions["time"].iloc[1] == 2**60
            return
        if packed and what == "half a Parquet file":
            words = "no column"
        with pytest.raises(DataError, match=f"(?s){words.format(file='t.csv')}"):
            table.read(path, ROLES)


FRAMES = {
    "no user": {"who": ["a", None]},
    "NaN": {"who": ["a", float("nan")]},
    "a decimal": {"who": [1.0, 1.5]},
    "a truth value": {"who": [True, False]},
    "bytes": {"who": [b"a", b"b"]},
    "a list": {"who": [["a"], ["b"]]},
    "blank": {"who": ["a", " "]},
    "a tab": {"sku": ["a", "b\tc"]},
    "infinite time": {"t": [1.0, float("inf")]},
    "no time": {"t": [1.0, float("nan")]},
    "NaT": {"t": pd.to_datetime(["2020-01-01", None])},
    "a truth value as time": {"t": [True, False]},
    "an unsigned time": {"t": np.array([1, 2**64 - 1], dtype=np.uint64)},
    "a text as time": {"t": ["2020-01-01", "yesterday"]},
    "a bad rating": {"stars": ["1", "x"]},
    "a bad split": {"part": ["train", "dev"]},
}


@pytest.mark.parametrize("what", FRAMES)
@pytest.mark.parametrize("parquet", [False, True])
def test_broken_frames(tmp_path: Path, what: str, parquet: bool) -> None:
    frame = pd.DataFrame(
        {"who": ["a", "b"], "sku": ["x", "y"], "t": [1, 2], "stars": [1, 2], "part": [0, 1]}
    )
    for name, values in FRAMES[what].items():
        frame[name] = values
    with trial("formats", f"frame {what}"):
        if parquet:
            pytest.importorskip("pyarrow")
            frame.to_parquet(tmp_path / "t.parquet")
            with pytest.raises(DataError, match=r"row [12]"):
                table.read(tmp_path / "t.parquet", ROLES)
        else:
            with pytest.raises(DataError, match=r"row [12]"):
                table.from_frame(frame, ROLES)


def attempt(read: Callable[[], Source]) -> Source | str:
    """What a reader returns, or the text of its refusal."""
    try:
        return read()
    except DataError as error:
        return str(error)


CELL = st.text(
    st.sampled_from(list('ab "\t,;é\n\r\x00\x1b\u202e0123.-')) | st.characters(codec="utf-8"),
    max_size=6,
)


@settings(deadline=None, max_examples=300)
@given(st.lists(st.tuples(CELL, CELL), min_size=1, max_size=6), st.sampled_from([",", "\t"]))
def test_what_a_csv_writer_wrote_is_read_back_or_refused(
    rows: list[tuple[str, str]], separator: str
) -> None:
    """The csv module is the other implementation: written by it, read here."""
    handle = io.StringIO()
    writer = csv.writer(handle, delimiter=separator, lineterminator="\n", quoting=csv.QUOTE_ALL)
    writer.writerows([("who", "sku"), *rows])
    with trial("formats", "written csv"), tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "t.csv")
        path.write_bytes(handle.getvalue().encode())
        expected = [tuple(cell.strip() for cell in row) for row in rows]
        found = attempt(lambda: table.read(path, {"user": "who", "item": "sku"}))
        if isinstance(found, str):
            assert not all(cell.isprintable() and cell for row in expected for cell in row), found
        else:
            frame = found.interactions
            assert list(zip(frame["user"], frame["item"], strict=True)) == expected


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_a_damaged_line_of_reviews_is_named_or_harmless(data: st.DataObject) -> None:
    entries = files.lines(files.reviews()[:6]).split(b"\n")[:-1]
    number = data.draw(st.integers(0, 5))
    place = data.draw(st.integers(0, len(entries[number]) - 1))
    piece = data.draw(st.binary(min_size=1, max_size=3).filter(lambda some: b"\n" not in some))
    entries[number] = entries[number][:place] + piece + entries[number][place + 1 :]
    with trial("formats", "damaged review"), tempfile.TemporaryDirectory() as folder:
        Path(folder, "A.jsonl").write_bytes(b"\n".join(entries) + b"\n")
        found = attempt(lambda: FORMATS["amazon2023"].read(Path(folder)))
        if isinstance(found, str):
            assert f"line {number + 1}" in found
        else:
            frame = found.interactions
            parsed = json.loads(entries[number])
            row = frame.iloc[number]
            assert (row["user"], row["item"]) == (
                parsed["user_id"].strip(), parsed["parent_asin"].strip(),
            )  # fmt: skip
            assert (row["time"], row["rating"]) == (parsed["timestamp"], parsed["rating"])
