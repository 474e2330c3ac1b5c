"""Lines that cannot be used: an error with the first, or skipped and counted."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
from trials import trial

from alignrec_recbole.cli.main import main
from alignrec_recbole.data.formats import table
from alignrec_recbole.data.formats.registry import FORMATS
from alignrec_recbole.errors import DataError, SettingError
from alignrec_recbole.io.separated import MAX_QUOTED_LINES, SeparatedFile

GOOD = [("u1", "i1", 5), ("u1", "i2", 6), ("u2", "i1", 7), ("u3", "i3", 8)]
COLUMNS = {"user": "user", "item": "item", "time": "time"}
CELLS, MARKS = "another number of cells", "quotation marks in odd places"


def pairs(frame: pd.DataFrame) -> list[tuple[str, str]]:
    return list(zip(frame["user"].astype(str), frame["item"].astype(str), strict=True))


def review(user: object, item: object, time: object, rating: object = 4.0) -> str:
    return json.dumps({"user_id": user, "parent_asin": item, "timestamp": time, "rating": rating})


TABLE = {  # a line of a table and why it is skipped
    "u9,i9": "another number of cells",
    "u9,i9,5,6": "another number of cells",
    "u9,i9,late": "unusable time",
    "u9,i9,": "unusable time",
    "u9,i9,nan": "unusable time",
    ",i9,5": "unusable user id",
    "u9,,5": "unusable item id",
    "u9,i\x1b9,5": "unusable item id",
}
REVIEWS = {
    "{": "not JSON",
    "[1]": "no JSON object",
    '{"user_id": "u9"} x': "not JSON",
    review(None, "i9", 5): "not a text: user_id and parent_asin",
    review("u9", 7, 5): "not a text: user_id and parent_asin",
    review("u9", "i9", "5"): "not whole milliseconds since 1970: timestamp",
    review("u9", "i9", 5, -1): "not a number from 0: rating",
    review("u\x1b", "i9", 5): "unusable user id",
}


@pytest.mark.parametrize("place", [0, 2, 4])
@pytest.mark.parametrize("number", range(len(TABLE)))
def test_tables(number: int, place: int, tmp_path: Path) -> None:
    line, reason = list(TABLE.items())[number]
    lines = [",".join(map(str, row)) for row in GOOD]
    lines.insert(place, line)
    path = tmp_path / "t.csv"
    path.write_text("\n".join(["user,item,time", *lines]) + "\n")
    with trial("formats", f"skips {line!r} at {place}"):
        with pytest.raises(DataError, match=r"t\.csv"):
            table.read(path, COLUMNS)
        bad: Counter[str] = Counter()
        source = table.read(path, COLUMNS, bad=bad)
        assert pairs(source.interactions) == [row[:2] for row in GOOD]
        assert source.interactions["time"].tolist() == [5, 6, 7, 8]
        assert bad == {reason: 1}
        assert "u9" not in source.interactions["user"].cat.categories


@pytest.mark.parametrize("place", [0, 4])
@pytest.mark.parametrize("number", range(len(REVIEWS)))
def test_reviews(number: int, place: int, tmp_path: Path) -> None:
    line, reason = list(REVIEWS.items())[number]
    lines = [review(*row) for row in GOOD]
    lines.insert(place, line)
    (tmp_path / "Cat.jsonl").write_text("\n".join(lines) + "\n")
    with trial("formats", f"skips {line!r} at {place}"):
        with pytest.raises(DataError, match=r"Cat\.jsonl"):
            FORMATS["amazon2023"].read(tmp_path)
        bad: Counter[str] = Counter()
        source = FORMATS["amazon2023"].read(tmp_path, bad)
        assert pairs(source.interactions) == [row[:2] for row in GOOD]
        assert bad == {reason: 1}


def test_other_formats(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    histories = "u1\ti1 i2\nu2\nu1\ti9\nu3\ti1 i\x1b i3\n"
    (tmp_path / "m" / "MicroLens-x_pairs.tsv").write_text(histories)
    bad: Counter[str] = Counter()
    found = FORMATS["microlens"].read(tmp_path / "m", bad).interactions
    assert pairs(found) == [("u1", "i1"), ("u1", "i2"), ("u3", "i1"), ("u3", "i3")]
    assert sum(bad.values()) == 3
    with pytest.raises(SettingError, match="no lines that could be skipped"):
        FORMATS["mmssl"].read(tmp_path, Counter())


def test_dates_are_decided_by_the_first_line_that_has_one(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("user,item,time\na,b,soon\na,c,2020-01-01\nb,c,2020-01-02\n")
    bad: Counter[str] = Counter()
    assert len(table.read(path, COLUMNS, bad=bad).interactions) == 2
    assert sum(bad.values()) == 1


def test_files_that_cannot_be_read_are_errors_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    for content in (b"", b"user,item,time\n\xff,b,5\n", b"user,item,time\nx\n", b"a,b\n1,2\n"):
        path.write_bytes(content)
        with pytest.raises(DataError):
            table.read(path, COLUMNS, bad=Counter())


@pytest.mark.parametrize(
    ("lines", "reasons"),
    [
        (['u,i,"stray'], {MARKS: 1}),  # nothing closes it
        (['u,i,"stray', 'u,i "x",4'], {MARKS: 1}),  # the next mark is one in a cell
        (['u,i,"stray', 'u,12",4'], {CELLS: 1}),  # the next mark closes it
        (['u,i,"stray', 'u,i,"stray'], {MARKS: 2}),
        (['u,"i\n,\n"x",4'], {MARKS: 1, CELLS: 2}),  # each line of it is bad
    ],
)
def test_a_stray_quotation_mark_swallows_no_other_rows(
    lines: list[str], reasons: dict[str, int], tmp_path: Path
) -> None:
    good = [f"u{n % 7},i{n},{n}" for n in range(MAX_QUOTED_LINES + 9)]
    good[5] = 'u5,"i5\n",5'  # quoted over two lines
    path = tmp_path / "t.csv"
    rows = ["user,item,time", *good[:9], "a,b,c,d", *lines[:1], *good[9:12], *lines[1:], *good[12:]]
    path.write_text("\n".join(rows) + "\n")
    with trial("formats", f"skips {lines}"):
        bad: Counter[str] = Counter()
        source = table.read(path, COLUMNS, bad=bad)
        usable = [f"i{n}" for n in range(len(good))]
        found = [item for item in source.interactions["item"] if item in usable]
        assert found == usable
        assert bad == Counter(reasons) + Counter({CELLS: 1})


def test_bad_lines_are_numbered_as_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text('user,item\nu,"i\n1"\n\nu,"i\nu,"j"\nu,i2\n')
    bad: Counter[str] = Counter()
    (batch,) = SeparatedFile(path, bad=bad).batches(["item"])
    assert batch.cells == [["i\n1", "j", "i2"]]
    assert list(batch.lines) == [2, 6, 7]
    assert bad == {MARKS: 1}
    with pytest.raises(DataError, match="in the row that starts in line 5"):
        list(SeparatedFile(path).batches(["item"]))


def test_a_cell_over_too_many_lines_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    for ends, usable in ((MAX_QUOTED_LINES - 1, True), (MAX_QUOTED_LINES, False)):
        path.write_text('user,item\nu,"i' + "\n" * ends + '"\n')
        file = SeparatedFile(path)
        if usable:
            assert [batch.lines for batch in file.batches(["item"])] == [[2]]
        else:
            with pytest.raises(DataError, match="a quoted cell over more than 1000 lines"):
                list(file.batches(["item"]))


def test_the_verb_counts_them_in_summary_and_manifest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "t.csv"
    lines = [f"u{n % 5},i{n % 7},{n}" for n in range(35)]
    path.write_text("\n".join(["user,item,time", "x", *lines, "u1,i1,never", "y"]) + "\n")
    command = ["import", str(path), "--columns", "user=user,item=item,time=time", "--dataset", "d"]
    command += ["--data-path", str(tmp_path / "data"), "--no-progress"]
    assert main(command) == 2
    assert not (tmp_path / "data").exists()
    capsys.readouterr()
    assert main([*command, "--on-bad-line", "skip"]) == 0
    shown = capsys.readouterr().out
    assert "skipped, bad lines: another number of cells" in shown
    manifest = json.loads((tmp_path / "data" / "d" / "d.split.json").read_text())
    assert manifest["skipped"] == {
        "bad lines: another number of cells": 2,
        "bad lines: unusable time": 1,
    }
    assert sum(manifest["interactions"]) == 35
