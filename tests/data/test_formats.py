"""Every reader on small files of its format, and any table in the ways tables are written."""

from __future__ import annotations

import csv
import gzip
import json
import tracemalloc
from collections import Counter
from pathlib import Path

import format_files as files
import numpy as np
import pandas as pd
import pytest

from alignrec_recbole.data.format_names import FORMAT_NAMES
from alignrec_recbole.data.formats import table
from alignrec_recbole.data.formats.registry import FORMATS
from alignrec_recbole.data.source import Source, core, first_of_each_pair
from alignrec_recbole.errors import DataError, SettingError


def pairs(source: Source) -> list[tuple[str, str]]:
    frame = source.interactions
    return list(zip(frame["user"].astype(str), frame["item"].astype(str), strict=True))


def content(source: Source) -> dict[str, dict[str, str]]:
    items = source.read_items({item for _, item in pairs(source)})
    return items.set_index("item").to_dict("index")


def test_the_names_are_the_formats() -> None:
    assert set(FORMAT_NAMES) == {*FORMATS, "table"}


@pytest.mark.parametrize("name", files.WRITERS)
def test_every_format_gives_its_pairs_as_text(tmp_path: Path, name: str) -> None:
    expected = files.WRITERS[name](tmp_path)
    source = first_of_each_pair(FORMATS[name].read(tmp_path))
    assert pairs(source) == expected
    assert source.interactions["user"].cat.categories.dtype == object


# Amazon Reviews 2023 ------------------------------------------------------------------------------


def test_amazon_2023_has_milliseconds_ratings_and_parents(tmp_path: Path) -> None:
    files.amazon2023(tmp_path)
    frame = FORMATS["amazon2023"].read(tmp_path).interactions
    assert frame["time"].dtype == np.int64
    assert frame["time"].tolist()[:2] == [files.START, files.START + 1000]
    assert frame["rating"].tolist()[:6] == [1.0, 2.0, 3.0, 4.0, 5.0, 1.0]
    assert set(frame["item"]) == set(files.ASINS), "not the asins of the variants"


def test_amazon_2023_metadata(tmp_path: Path) -> None:
    files.amazon2023(tmp_path)
    items = content(FORMATS["amazon2023"].read(tmp_path))
    assert items[files.ASINS[0]] == {
        "title": f"Soap & {files.ASINS[0]}", "store": "Howard", "categories": "Beauty, Soap",
        "features": "Gentle 100% pure", "description": "Line one",
        "image_url": f"https://m.media-amazon.com/images/I/{files.ASINS[0]}.jpg",
    }  # fmt: skip
    assert files.ASINS[6] not in items, "it has no line"
    assert "B0OTHER000" not in items


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"images": []}, ""),
        ({"images": None}, ""),
        ({"images": "x"}, ""),
        ({"images": [None, 3]}, ""),
        ({"images": [{"large": None, "hi_res": None, "thumb": "https://h/t"}]}, "https://h/t"),
        ({"images": [{"large": "https://h/2", "variant": "PT01"},
                     {"large": "https://h/1", "variant": "MAIN"}]}, "https://h/1"),
    ],
)  # fmt: skip
def test_amazon_2023_images(tmp_path: Path, changed: dict, expected: str) -> None:
    files.amazon2023(tmp_path)
    (tmp_path / "meta_All_Beauty.jsonl.gz").unlink()
    (tmp_path / "meta_All_Beauty.jsonl").write_bytes(
        files.lines([files.meta(files.ASINS[0], **changed), files.meta(files.ASINS[0])])
    )
    items = content(FORMATS["amazon2023"].read(tmp_path))
    assert items[files.ASINS[0]]["image_url"] == expected, "that of the first line"


def test_amazon_2023_in_the_published_folders_and_older_names(tmp_path: Path) -> None:
    files.amazon2023(tmp_path)
    entries = [dict(e, sortTimestamp=e["timestamp"]) for e in files.reviews()]
    for entry in entries:
        del entry["timestamp"]
    place = tmp_path / "raw" / "review_categories"
    place.mkdir(parents=True)
    with gzip.open(place / "All_Beauty.jsonl.gz", "wb") as handle:
        handle.write(b"\xef\xbb\xbf" + files.lines(entries).replace(b"\n", b"\r\n"))
    (tmp_path / "All_Beauty.jsonl").unlink()
    source = FORMATS["amazon2023"].read(tmp_path)
    assert pairs(source) == files.grid(files.USERS, files.ASINS)
    assert source.interactions["time"].iloc[0] == files.START


def test_amazon_2023_ready_split_is_kept_and_not_filtered(tmp_path: Path) -> None:
    expected = files.amazon2023_split(tmp_path)
    source = FORMATS["amazon2023"].read(tmp_path)
    assert sorted(pairs(source)) == sorted(expected)
    assert np.bincount(source.interactions["split"]).tolist() == [28, 7, 7]
    assert source.core == 1
    assert source.interactions["time"].dtype == np.int64


def test_amazon_2023_repeated_reviews_keep_the_earliest(tmp_path: Path) -> None:
    files.amazon2023(tmp_path)
    first = files.reviews()[0]
    with open(tmp_path / "All_Beauty.jsonl", "ab") as handle:
        handle.write(files.lines([dict(first, timestamp=5, rating=2.0), dict(first, timestamp=9)]))
    source = first_of_each_pair(FORMATS["amazon2023"].read(tmp_path))
    assert source.skipped == {"repeated user and item": 2}
    row = source.interactions[
        (source.interactions["user"] == files.USERS[0])
        & (source.interactions["item"] == files.ASINS[1])
    ]
    assert row[["time", "rating"]].to_numpy().tolist() == [[5, 2.0]]


def test_amazon_2023_a_rating_of_many_digits(tmp_path: Path) -> None:
    line = dict(files.reviews()[0], rating=10**400)
    (tmp_path / "All_Beauty.jsonl").write_bytes(files.lines([line]))
    with pytest.raises(DataError, match="line 1"):
        FORMATS["amazon2023"].read(tmp_path)


def test_reviews_are_a_stream(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "Big.jsonl.gz", "wb", compresslevel=1) as handle:
        text = "x" * 2000
        for n in range(20_000):
            handle.write(files.lines([files.review(f"U{n % 50}", f"B{n % 40}", n, text=text)]))
    tracemalloc.start()
    assert len(FORMATS["amazon2023"].read(tmp_path).interactions) == 20_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12e6, "44 MB of text went through"


# The others ---------------------------------------------------------------------------------------


def test_microlens_titles_and_covers(tmp_path: Path) -> None:
    files.microlens(tmp_path)
    source = FORMATS["microlens"].read(tmp_path)
    items = content(source)
    assert {item: row["title"] for item, row in items.items()} == {
        "1": "Funny cat, again 😺 #cat", "2": "plain", "63": 'say "hi"', "65": "",
        "109": "two lines", "111": "",
    }  # fmt: skip
    covers = tmp_path / "MicroLens-50k_covers"
    shown = {item: row["image"] for item, row in items.items() if row["image"]}
    assert shown == {"63": str(covers / "63.jpg"), "111": str(covers / "111.png")}
    assert source.interactions["time"].iloc[0] == 1583378629552


def test_microlens_100k_titles_have_no_header(tmp_path: Path) -> None:
    files.microlens(tmp_path)
    (tmp_path / "MicroLens-50k_titles.csv").unlink()
    (tmp_path / "MicroLens-50k_covers").rename(tmp_path / "covers")
    (tmp_path / "MicroLens-50k_pairs.csv").rename(tmp_path / "MicroLens-100k_pairs.csv")
    (tmp_path / "MicroLens-100k_title_en.csv").write_text('1,A cat\n2,"Two, three"\n', "utf-8-sig")
    items = content(FORMATS["microlens"].read(tmp_path))
    assert items["1"] == {"title": "A cat", "image": ""}
    assert items["2"]["title"] == "Two, three"
    assert items["63"]["image"] == str(tmp_path / "covers" / "63.jpg")


def test_microlens_histories_have_an_order_and_no_times(tmp_path: Path) -> None:
    expected = files.microlens_histories(tmp_path)
    source = FORMATS["microlens"].read(tmp_path)
    assert pairs(source) == expected
    assert "time" not in source.interactions


def test_mmssl_splits_and_features(tmp_path: Path) -> None:
    files.mmssl(tmp_path)
    source = FORMATS["mmssl"].read(tmp_path)
    assert source.interactions["split"].tolist() == [0] * 7 + [1] * 2 + [2] * 3
    assert source.features == {
        "image": tmp_path / "image_feat.npy", "text": tmp_path / "text_feat.npy",
    }  # fmt: skip


def test_hm_days_texts_and_leading_zeros(tmp_path: Path) -> None:
    files.hm(tmp_path)
    source = first_of_each_pair(FORMATS["hm"].read(tmp_path))
    assert source.skipped == {"repeated user and item": 1}
    assert source.interactions["time"].iloc[0] == 1537401600  # 2018-09-20, UTC
    items = content(source)
    assert items["0108775005"]["detail_desc"] == 'Jersey top, with "narrow" straps.'
    assert items["0108775005"]["image"] == str(tmp_path / "images" / "010" / "0108775005.jpg")
    assert items["0108775015"]["image"] == ""


def test_hm_articles_that_lead_out_of_the_images(tmp_path: Path) -> None:
    files.hm(tmp_path)
    files.image(tmp_path / "secret.jpg")
    for name in ("transactions_train.csv", "articles.csv"):
        path = tmp_path / name
        path.write_text(path.read_text().replace(files.ARTICLES[1], "../secret"))
    (tmp_path / "images").mkdir(exist_ok=True)
    source = FORMATS["hm"].read(tmp_path)
    with pytest.raises(DataError, match="leads out of its folder"):
        content(source)


def test_pixelrec_and_ninerec_content(tmp_path: Path) -> None:
    files.pixelrec(tmp_path / "p")
    items = content(FORMATS["pixelrec"].read(tmp_path / "p"))
    assert items["i0"] == {
        "title": "猫, 可爱", "tag": "animals", "description": "a b", "image": "",
    }  # fmt: skip
    assert items["i17"]["image"].endswith("i17.jpg")
    files.ninerec(tmp_path / "n")
    items = content(FORMATS["ninerec"].read(tmp_path / "n"))
    assert items["20"] == {"title_zh": "二", "title_en": "two, three", "image": ""}
    assert items["30"]["image"].endswith("30.jpg")


def test_ninerec_with_a_header_and_times(tmp_path: Path) -> None:
    (tmp_path / "KU_pair.csv").write_text("user,item,timestamp\nu,1,5\nu,2,4\n")
    source = FORMATS["ninerec"].read(tmp_path)
    assert pairs(source) == [("u", "1"), ("u", "2")]
    assert source.interactions["time"].tolist() == [5, 4]


# Any table ----------------------------------------------------------------------------------------

COLUMNS = {"user": "who", "item": "sku"}
ODD = ["a b", "x/y", "é中😀", "007", "98765432109876543210", "0.10", "NA", "null", '12" disc', "-1"]


def write(folder: Path, text: str | bytes, name: str = "t.csv") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize("separator", [",", "\t", ";", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("packed", [False, True])
def test_odd_ids_are_read_as_they_are(
    tmp_path: Path, separator: str, end: str, mark: str, packed: bool
) -> None:
    rows = [["who", "sku", "n"], *[[f"u{n % 3}", name, str(n)] for n, name in enumerate(ODD)]]
    data = (mark + end.join(separator.join(row) for row in rows)).encode()
    path = write(tmp_path, gzip.compress(data) if packed else data)
    source = table.read(path, {**COLUMNS, "time": "n"})
    assert pairs(source) == [(f"u{n % 3}", name) for n, name in enumerate(ODD)]
    assert source.interactions["time"].tolist() == list(range(len(ODD)))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('who,sku\n"a,b",c\n', [("a,b", "c")]),
        ('who,sku\n"a ""b""",c\n', [('a "b"', "c")]),
        ('who\tsku\n"a\tb"\tc\n"d"\te\n', None),  # a tab is no part of an id
        ('who,sku,text\nu,i,"a\nb"\nu,j,x\n', [("u", "i"), ("u", "j")]),
        ("who,sku\n\nu,i\n  \nu,j\n", [("u", "i"), ("u", "j")]),
        ("who, sku\n u , i \n", [("u", "i")]),
        ('"who","sku"\n"u","i"\n', [("u", "i")]),
        ("who:token,sku:token\nu,i\n", [("u", "i")]),
        ('who,sku\n"u,i\n', [('"u', "i")]),  # a stray mark is a character
    ],
)
def test_quotation_marks_and_blanks(
    tmp_path: Path, text: str, expected: list[tuple[str, str]] | None
) -> None:
    path = write(tmp_path, text)
    if expected is None:
        with pytest.raises(DataError, match=r"user id that cannot be used in line 2"):
            table.read(path, COLUMNS)
    else:
        assert pairs(table.read(path, COLUMNS)) == expected


def test_quoted_cells_are_as_long_as_they_are(tmp_path: Path) -> None:
    """Longer than the csv module reads unless it is told to."""
    text = "x" * (csv.field_size_limit() + 1)
    path = write(tmp_path, f'who,sku,text\nu,i,"{text},\n"\nu,j,x\n')
    for bad in (None, Counter[str]()):
        assert pairs(table.read(path, COLUMNS, bad=bad)) == [("u", "i"), ("u", "j")]
        assert not bad
    write(tmp_path, f'sku,title\ni,"{text},\n"\nj,"b, c"\n', "items.csv")
    items = content(table.read(path, COLUMNS, tmp_path / "items.csv"))
    assert items["i"]["title"] == f"{text},"


def test_columns_without_a_header(tmp_path: Path) -> None:
    path = write(tmp_path, "196\t242\t3\t881250949\n186\t302\t3\t891717742\n", "u.data")
    named = table.parse_columns("user=#1,item=#2,rating=#3,time=#4")
    frame = table.read(path, named).interactions
    assert frame["user"].tolist() == ["196", "186"]
    assert frame["rating"].tolist() == [3.0, 3.0]
    assert frame["time"].tolist() == [881250949, 891717742]


@pytest.mark.parametrize(
    ("cells", "expected", "kind"),
    [
        (["9007199254740993", "-5"], [9007199254740993, -5], np.int64),
        (["1.5", "2"], [1.5, 2.0], np.float64),
        (["1e3", " 2 "], [1000.0, 2.0], np.float64),
        (["2020-01-01", "1970-01-01T00:00:01Z"], [1577836800, 1], np.int64),
        (["1970-01-01 00:00:00.5", "1970-01-02"], [0.5, 86400.0], np.float64),
    ],
)
def test_times_are_exact(tmp_path: Path, cells: list[str], expected: list, kind: type) -> None:
    rows = "".join(f"u,i{n},{cell}\n" for n, cell in enumerate(cells))
    path = write(tmp_path, "who,sku,t\n" + rows)
    times = table.read(path, {**COLUMNS, "time": "t"}).interactions["time"]
    assert times.tolist() == expected
    assert times.dtype == kind


def test_splits_by_number_and_by_name(tmp_path: Path) -> None:
    path = write(tmp_path, "who,sku,s\nu,a,train\nu,b,VALID\nu,c,2\n")
    frame = table.read(path, {**COLUMNS, "split": "s"}).interactions
    assert frame["split"].tolist() == [0, 1, 2]


def test_items_of_a_table(tmp_path: Path) -> None:
    files.image(tmp_path / "images" / "a.png")
    write(tmp_path, "sku,title,image\n007,<b>Red</b> bike,a.png\n8,,none.png\n9,x,\n", "items.csv")
    path = write(tmp_path, "who,sku\nu,007\nu,8\nv,10\n")
    items = content(table.read(path, COLUMNS, tmp_path / "items.csv"))
    assert items == {
        "007": {"title": "Red bike", "image": str(tmp_path / "images" / "a.png")},
        "8": {"title": "", "image": ""},
    }


def test_parquet_and_frames_are_read_alike(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    frame = pd.DataFrame(
        {
            "who": np.array([2**63 - 1, 7, 7], dtype=np.int64),
            "sku": ["007", "é", "a b"],
            "when": pd.to_datetime(
                ["2020-01-01 00:00:00", "2020-01-02 00:00:01", "1969-12-31 00:00:00"]
            ),
            "stars": np.array([1, 2, 5], dtype=np.int8),
        }
    )
    items = pd.DataFrame({"sku": ["é", "007"], "tags": [["a", "b"], None], "year": [1999.0, None]})
    frame.to_parquet(tmp_path / "t.parquet")
    items.to_parquet(tmp_path / "i.parquet")
    columns = {**COLUMNS, "time": "when", "rating": "stars"}
    for source in (
        table.read(tmp_path / "t.parquet", columns, tmp_path / "i.parquet"),
        table.from_frame(frame, columns, items),
    ):
        assert pairs(source) == [(str(2**63 - 1), "007"), ("7", "é"), ("7", "a b")]
        assert source.interactions["time"].tolist() == [1577836800, 1577923201, -86400]
        assert source.interactions["rating"].tolist() == [1.0, 2.0, 5.0]
        assert content(source) == {
            "é": {"tags": "a, b", "year": "1999"}, "007": {"tags": "", "year": ""},
        }  # fmt: skip


def test_large_ids_beside_a_null_keep_their_content(tmp_path: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    even, odd = 2**60, 2**60 + 1  # equal as float64
    items = {"sku": pa.array([odd, even, None]), "title": ["of odd", "of even", "of none"]}
    pq.write_table(pa.table(items), tmp_path / "i.parquet")
    read = table.content_reader(tmp_path / "i.parquet", "sku")
    assert read([str(even), str(odd)]).to_dict("records") == [
        {"item": str(odd), "title": "of odd"}, {"item": str(even), "title": "of even"},
    ]  # fmt: skip


def test_rounded_ids_of_content_are_refused() -> None:
    frame = pd.DataFrame({"who": ["a"], "sku": [2**60]})
    items = pd.DataFrame({"sku": [1.0, float(2**60)], "title": ["one", "rounded"]})
    with pytest.raises(DataError, match=r"frame of items has .* in row 2"):
        content(table.from_frame(frame, COLUMNS, items))


def test_whole_floats_are_ids_and_others_are_refused() -> None:
    good = pd.DataFrame({"who": [1.0, 2.0], "sku": [3, 4]})
    assert pairs(table.from_frame(good, COLUMNS)) == [("1", "3"), ("2", "4")]
    for bad in (1.5, float("nan"), 2.0**60, None, True, b"x"):
        frame = pd.DataFrame({"who": pd.Series(["a", bad], dtype=object), "sku": [3, 4]})
        with pytest.raises(DataError, match="row 2"):
            table.from_frame(frame, COLUMNS)


@pytest.mark.parametrize(
    "text",
    ["", "user=a", "item=b", "user=a,item=b,when=c", "user=a,user=b,item=c", "user=,item=b"],
)  # fmt: skip
def test_columns_that_cannot_be_read(text: str) -> None:
    with pytest.raises(SettingError):
        table.parse_columns(text)


# Filters ------------------------------------------------------------------------------------------


def test_cores_of_users_and_items_apart() -> None:
    frame = pd.DataFrame(
        [("a", "x"), ("a", "y"), ("b", "x"), ("b", "z"), ("c", "x")], columns=["who", "sku"]
    )
    source = table.from_frame(frame, COLUMNS)
    assert pairs(core(source, 2, 1)) == [("a", "x"), ("a", "y"), ("b", "x"), ("b", "z")]
    assert pairs(core(source, 1, 2)) == [("a", "x"), ("b", "x"), ("c", "x")]
    kept = core(source, 1, 2)
    assert list(kept.interactions["item"].cat.categories) == ["x"]
    assert kept.skipped == {"user or item with too few rows": 2}
    with pytest.raises(DataError, match="No interactions of the DataFrame remain"):
        core(source, 3, 3)


def test_a_pair_in_two_splits_is_refused() -> None:
    frame = pd.DataFrame({"who": ["a", "a"], "sku": ["x", "x"], "s": ["train", "test"]})
    with pytest.raises(DataError, match="overlap"):
        first_of_each_pair(table.from_frame(frame, {**COLUMNS, "split": "s"}))


def test_json_of_odd_shapes_is_named_by_its_user(tmp_path: Path) -> None:
    files.mmssl(tmp_path)
    (tmp_path / "5-core" / "val.json").write_text(json.dumps({"7": [1, {"a": 2}]}))
    with pytest.raises(DataError, match="for user '7'"):
        FORMATS["mmssl"].read(tmp_path)
