"""Item tables: every layout gives the same table, and no broken one is read as if it were whole."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import recbole

from alignrec_recbole.data import items as items_module
from alignrec_recbole.data.items import ItemTable, find_item_table, read_item_table
from alignrec_recbole.errors import DataError, MissingDependencyError
from alignrec_recbole.io.separated import unquoted

TSV = "item_id\tasin\ttitle\timage\tbrand\n7\tB1\tRed bike\ta.jpg\tAcme\n3\tB2\t\t\t\n"


def written(folder: Path, content: str | bytes, name: str = "items.tsv") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_text_image_and_identifiers_are_told_apart(tmp_path: Path) -> None:
    table = read_item_table(written(tmp_path, TSV))
    assert table.ids == ["7", "3"]
    assert table.texts == ["Red bike. Acme", ""]
    assert table.images == [tmp_path / "images" / "a.jpg", None]
    assert table.text_columns == ["title", "brand"]
    assert table.source == "items.tsv"


def test_images_may_lie_elsewhere(tmp_path: Path) -> None:
    table = read_item_table(written(tmp_path, TSV), tmp_path / "posters")
    assert table.images[0] == tmp_path / "posters" / "a.jpg"


@pytest.mark.parametrize("column", ["item_id", "itemID", "id", "item_id:token"])
def test_names_of_the_id_column(tmp_path: Path, column: str) -> None:
    table = read_item_table(written(tmp_path, f"title\t{column}\nBike\t7\n"))
    assert (table.ids, table.texts) == (["7"], ["Bike"])


def test_recbole_numbers_are_not_text(tmp_path: Path) -> None:
    header = "item_id:token\tname:token_seq\tprice:float\tvector:float_seq\tyear:token\n"
    table = read_item_table(
        written(tmp_path, header + "1\tRed bike\t9.5\t0.1 0.2\t1999\n", "x.item")
    )
    assert table.texts == ["Red bike. 1999"]


def test_parquet_equals_tsv(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="extra 'parquet' is not installed")
    frame = pd.DataFrame(
        {
            "item_id": [7, 3],
            "asin": ["B1", "B2"],
            "title": ["Red bike", None],
            "image": ["a.jpg", None],
            "brand": ["Acme", np.nan],
        }
    )
    frame.to_parquet(tmp_path / "items.parquet")
    expected = read_item_table(written(tmp_path, TSV))
    (tmp_path / "items.tsv").unlink()
    found = find_item_table(tmp_path, "any")
    assert (found.ids, found.texts, found.images) == (expected.ids, expected.texts, expected.images)
    assert found.content_hash() == expected.content_hash()


def test_parquet_lists_and_absent_numbers(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="extra 'parquet' is not installed")
    frame = pd.DataFrame({"id": ["a", "b"], "tags": [["red", "bike"], None], "year": [1999, None]})
    frame.to_parquet(tmp_path / "items.parquet")
    assert read_item_table(tmp_path / "items.parquet").texts == ["red, bike. 1999", ""]


def test_a_small_parquet_file_of_millions_of_equal_rows_is_refused(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow", reason="extra 'parquet' is not installed")
    pq = pytest.importorskip("pyarrow.parquet")
    same = pa.DictionaryArray.from_arrays(np.zeros(1_500_000, np.int32), ["a"])
    pq.write_table(pa.table({"id": same, "title": same}), tmp_path / "items.parquet")
    assert (tmp_path / "items.parquet").stat().st_size < 10_000
    with pytest.raises(DataError, match="far more cells"):
        read_item_table(tmp_path / "items.parquet")


def test_parquet_without_pyarrow_names_the_extra(tmp_path, monkeypatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ImportError("Missing optional dependency 'pyarrow'")

    monkeypatch.setattr(pd, "read_parquet", refuse)
    with pytest.raises(MissingDependencyError, match=r"alignrec-recbole\[parquet\]"):
        read_item_table(written(tmp_path, b"PAR1", "items.parquet"))


def test_a_table_is_found_in_the_documented_order(tmp_path: Path) -> None:
    written(tmp_path, "item_id:token\tname:token_seq\n1\tfrom atomic\n", "d.item")
    assert find_item_table(tmp_path, "d").texts == ["from atomic"]
    written(tmp_path, "item_id\ttitle\n1\tfrom tsv\n")
    assert find_item_table(tmp_path, "d").texts == ["from tsv"]
    written(tmp_path, "item_id,title\n1,from csv\n", "items.csv")
    assert find_item_table(tmp_path, "d").texts == ["from tsv"]
    (tmp_path / "items.tsv").unlink()
    assert find_item_table(tmp_path, "d").texts == ["from csv"]
    with pytest.raises(DataError, match=r"no items\.tsv, items\.csv, items\.parquet or e\.item"):
        find_item_table(tmp_path / "nowhere", "e")


# Commas ------------------------------------------------------------------------------------------


def test_commas_equal_tabs(tmp_path: Path) -> None:
    tabs = read_item_table(written(tmp_path, TSV))
    commas = read_item_table(written(tmp_path, TSV.replace("\t", ","), "items.csv"))
    assert replace(commas, source=tabs.source) == tabs


def test_a_spreadsheet_export_is_read(tmp_path: Path) -> None:
    content = '\ufeffid,title\r\n1,"Red, and ""fast"""\r\n2,"two\r\nlines"\r\n3,12" disc\r\n'
    path = written(tmp_path, content.replace('12" disc', "disc"), "items.csv")
    assert read_item_table(path).texts == ['Red, and "fast"', "two\nlines", "disc"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("id,title\n1,red, and fast\n", ("comma-separated", "line 2: 3 cells", "one comma")),
        ("id;title\n1;red\n", ("no id column", "separated by commas")),
        (",,\n,\n", ("comma-separated", "line 2: 2 cells")),
    ],
    ids=["unquoted", "semicolons", "no values"],
)
def test_other_commas_are_refused(tmp_path: Path, content: str, words: tuple[str, ...]) -> None:
    with pytest.raises(DataError) as caught:
        read_item_table(written(tmp_path, content, "items.csv"))
    for word in words:
        assert word in str(caught.value)


# Quotation marks and line ends -------------------------------------------------------------------


def test_cells_quoted_as_a_whole_lose_their_quotes(tmp_path: Path) -> None:
    path = written(tmp_path, 'id\ttitle\tplot\n1\t"So ""it"" is"\tx\n2\t""\ty\n')
    assert read_item_table(path).texts == ['So "it" is. x', "y"]


def test_a_stray_quotation_mark_swallows_nothing(tmp_path: Path) -> None:
    """Read with quotes, rows 2 and 3 would silently become a part of row 1."""
    path = written(tmp_path, 'id\ttitle\tplot\n1\t"12 inch\ta\n2\tb\tc\n3\td"\te\n4\tf"\tg\n')
    table = read_item_table(path)
    assert table.ids == ["1", "2", "3", "4"]
    assert table.texts[0] == '"12 inch. a'


def test_quoted_cells_may_hold_tabs_and_lines(tmp_path: Path) -> None:
    path = written(tmp_path, 'id\tplot\n1\t"one\ttwo\nthree"\n2\tfour\n')
    assert read_item_table(path).texts == ["one\ttwo\nthree", "four"]


@pytest.mark.parametrize("odd", ["\u2028", "\x85", "\x0b", "\x0c", "\x1c"])
def test_only_line_feeds_end_a_row(tmp_path: Path, odd: str) -> None:
    table = read_item_table(written(tmp_path, f"id\ttitle\n1\tRed{odd}bike\n2\tTent\n"))
    assert table.texts == [f"Red{odd}bike", "Tent"]


@pytest.mark.parametrize(
    "change",
    [
        lambda text: "\ufeff" + text,
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.replace("\n", "\n\n"),
        lambda text: text.rstrip("\n"),
    ],
    ids=["byte order mark", "Windows line ends", "blank lines", "no last line end"],
)
def test_harmless_oddities(tmp_path: Path, change) -> None:
    expected = read_item_table(written(tmp_path, TSV))
    assert read_item_table(written(tmp_path, change(TSV))) == expected


@pytest.mark.parametrize("cell", ["", " ", "nan", "NaN", '""'])
def test_absent_cells_add_nothing(tmp_path: Path, cell: str) -> None:
    table = read_item_table(written(tmp_path, f"id\ttitle\timage\n1\t{cell}\t{cell}\n"))
    assert (table.texts, table.images) == ([""], [None])


# Broken tables -----------------------------------------------------------------------------------

BROKEN = {
    "empty file": ("", r"items\.tsv is empty"),
    "header alone": ("id\ttitle\n", "has a header but no items"),
    "no id column": ("asin\ttitle\nB1\tBike\n", "(?s)has no id column.*asin, title"),
    "commas": ("id,title\n1,Bike\n", "(?s)has no id column.*id,title.*tab"),
    "not UTF-8": (b"id\ttitle\n1\tCaf\xe9\n", "(?s)not UTF-8.*0xe9 in line 2 at position 5"),
    "short row": (
        "id\ttitle\n1\tBike\n2\n",
        "(?s)1 rows with another number of cells, first in line 3: 1 cells",
    ),
    "long row": ("id\ttitle\n1\tBike\tx\n", "(?s)first in line 2: 3 cells.*2 cells in every row"),
    "id twice": ("id\ttitle\n1\tA\n2\tB\n1\tC\n", "(?s)names an item twice.*'1'; 1 repeated"),
    "id twice but for a space": ("id\ttitle\n1\tA\n1 \tB\n", "names an item twice"),
    "no id": ("id\ttitle\n1\tA\n \tB\n", "(?s)without an id.*first in row 2"),
    "image outside": ("id\timage\n1\t../../x.jpg\n", "leads out of its folder"),
    "image at the root": ("id\timage\n1\t/etc/x.jpg\n", "leads out of its folder"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_tables(tmp_path: Path, case: str) -> None:
    content, says = BROKEN[case]
    with pytest.raises(DataError, match=says):
        read_item_table(written(tmp_path, content))


def test_missing_and_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="There is no item table"):
        read_item_table(tmp_path / "items.tsv")
    with pytest.raises(DataError, match="is not a regular file"):
        read_item_table(tmp_path)
    pytest.importorskip("pyarrow", reason="extra 'parquet' is not installed")
    with pytest.raises(DataError, match="not a readable Parquet file"):
        read_item_table(written(tmp_path, b"PAR1 but not really", "items.parquet"))


# Content hash ------------------------------------------------------------------------------------


def test_the_hash_follows_the_content(tmp_path: Path) -> None:
    image = written(tmp_path, b"one", "a.jpg")
    table = ItemTable(["1", "2"], ["red", "blue"], [image, None], "items.tsv", ["title"])
    same = ItemTable(["1", "2"], ["red", "blue"], [image, None], "other.tsv", ["name"])
    assert table.content_hash() == same.content_hash()
    others = [
        ItemTable(["2", "1"], ["red", "blue"], [image, None], "items.tsv", ["title"]),
        ItemTable(["1", "2"], ["red", "green"], [image, None], "items.tsv", ["title"]),
        ItemTable(["1", "2"], ["red", "blue"], [None, image], "items.tsv", ["title"]),
    ]
    assert len({t.content_hash() for t in [table, *others]}) == 4
    before = table.content_hash()
    image.write_bytes(b"another image")
    changed = table.content_hash()
    image.unlink()
    assert len({before, changed, table.content_hash()}) == 3


# Real tables -------------------------------------------------------------------------------------


def test_an_exchanged_image_of_equal_name_size_and_time_changes_the_hash(tmp_path: Path) -> None:
    image = written(tmp_path, b"one", "a.jpg")
    table = ItemTable(["1"], ["red"], [image], "items.tsv", ["title"])
    before, earlier = table.content_hash(), table.name_and_size_hash()
    times = image.stat()
    image.write_bytes(b"two")
    os.utime(image, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert table.content_hash() != before
    assert table.content_hash(images=False) == replace(table, images=[None]).content_hash()
    assert table.name_and_size_hash() == earlier


def test_an_image_is_known_by_its_bytes_alone(tmp_path: Path) -> None:
    images = [written(tmp_path, b"one", name) for name in ("a.jpg", "b.jpg")]
    one, other = (ItemTable(["1"], ["red"], [i], "items.tsv", ["title"]) for i in images)
    assert one.content_hash() == other.content_hash()


def test_the_bytes_of_an_image_are_read_once(tmp_path: Path, monkeypatch) -> None:
    image = written(tmp_path, b"one", "a.jpg")
    table = ItemTable(["1"], ["red"], [image], "items.tsv", ["title"])
    before = table.content_hash()
    monkeypatch.setattr(items_module, "sha256_file", lambda path: pytest.fail("read again"))
    assert table.content_hash() == before


def test_tables_without_images_keep_the_hash_that_earlier_versions_stored() -> None:
    table = ItemTable(["1", "2"], ["red", ""], [None, None], "items.tsv", ["title"])
    stored = "bdcf376ceb3b4cf5c34020748b70ca2f39962788c07bb666697f5ccefc720419"
    assert table.content_hash() == table.content_hash(images=False) == stored
    assert table.name_and_size_hash() == stored


def test_a_path_with_a_zero_byte_is_refused(tmp_path):
    (tmp_path / "items.tsv").write_text("id\ttitle\timage\n1\tcap\ta\0.png\n")
    with pytest.raises(DataError, match="null byte"):
        read_item_table(tmp_path / "items.tsv")


def test_movielens_from_the_recbole_wheel() -> None:
    folder = Path(recbole.__file__).parent / "dataset_example" / "ml-100k"
    table = find_item_table(folder, "ml-100k")
    assert len(table.ids) == 1682
    assert table.text_columns == ["movie_title", "release_year", "class"]
    assert table.texts[1] == "GoldenEye. 1995. Action Adventure Thriller"


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "count", "images"),
    [("sports", 18357, 0), ("lfm2k", 1425, 0), ("ml-100k-posters", 1682, 1667)],
)
def test_real_tables(shared_data: Path, name: str, count: int, images: int) -> None:
    if not (shared_data / name).is_dir():
        pytest.skip(f"no {name} in {shared_data}")
    table = find_item_table(shared_data / name, name)
    assert len(table.ids) == count
    assert sum(path is not None for path in table.images) == images
    assert all(path.is_file() for path in table.images if path)
    assert all(table.texts)
    assert not [text for text in table.texts if '""' in text], "a quoted cell was not unquoted"


def test_doctests_cover_quotes() -> None:
    assert unquoted('"') == '"'
    assert unquoted('"a"b"') == '"a"b"'
