"""Broken files of interactions, in both layouts."""

from __future__ import annotations

import numpy as np
import pytest
from bad_input import (
    ATOMIC,
    INTER,
    WORLD,
    Bad,
    Place,
    appended,
    arguments,
    atomic,
    check_refused,
    content,
    first_line,
    whole,
)
from records import read_records

from alignrec_recbole.cli.main import main
from alignrec_recbole.errors import DataError
from alignrec_recbole.training.sampler import PairSampler

CASES = [
    Bad(
        "missing column",
        content(INTER, lambda b: b.replace(b"itemID", b"thing", 1)),
        "DataError",
        (INTER, "no column itemID or item_id", "thing"),
    ),
    Bad(
        "column twice",
        content(INTER, lambda b: b.replace(b"x_label", b"userID", 1)),
        "DataError",
        (INTER, "'userID' twice"),
    ),
    Bad(
        "wrong delimiter",
        content(INTER, lambda b: b.replace(b"\t", b",")),
        "DataError",
        (INTER, "one column", "delimiter"),
    ),
    Bad(
        "duplicate interaction",
        content(INTER, lambda b: b + first_line(b)),
        "DataError",
        (INTER, "same interaction twice", "1 repeated", "user 'u", "item 'i", "line 122"),
    ),
    Bad(
        "interaction in two splits",
        content(INTER, lambda b: b + first_line(b).rsplit(b"\t", 1)[0] + b"\t2\n"),
        "DataError",
        (INTER, "same interaction twice", "two splits"),
    ),
    Bad("empty user", appended("\ti01\t0"), "DataError", (INTER, "'userID'", "1 of them", "121")),
    Bad("blank item", appended("u00\t  \t0"), "DataError", (INTER, "'itemID'", "1 of them")),
    Bad(
        "not UTF-8",
        appended("ü\ti01\t0", encoding="latin-1"),
        "DataError",
        (INTER, "not UTF-8", "0xfc", "iconv"),
    ),
    Bad(
        "UTF-16",
        content(INTER, lambda b: b.decode().encode("utf-16")),
        "DataError",
        (INTER, "not UTF-8", "position 0"),
    ),
    Bad("label outside 0, 1, 2", appended("u00\ti99\t3"), "DataError", (INTER, "'3'", "line 122")),
    Bad(
        "labels as decimals",
        content(INTER, lambda b: b.replace(b"\t0\n", b"\t0.0\n")),
        "DataError",
        (INTER, "72 rows", "'0.0'"),
    ),
    Bad("short line", appended("u00\ti99"), "DataError", (INTER, "line 122", "2 cells", "3")),
    Bad("long line", appended("u00\ti99\t0\tx"), "DataError", (INTER, "line 122", "4 cells", "3")),
    Bad(
        "all lines long",
        content(INTER, lambda b: b.replace(b"\n", b"\t1\n").replace(b"\t1\n", b"\n", 1)),
        "DataError",
        (INTER, "120 lines", "4 cells"),
    ),
    Bad(
        "cut in the last line",
        content(INTER, lambda b: b[:-3]),
        "DataError",
        (INTER, "line 121", "2 cells"),
    ),
    Bad("empty file", content(INTER, lambda b: b""), "DataError", (INTER, "is empty")),
    Bad(
        "header only",
        content(INTER, lambda b: b.split(b"\n")[0] + b"\n"),
        "DataError",
        (INTER, "no rows"),
    ),
    Bad(
        "no training rows",
        content(INTER, lambda b: b.replace(b"\t0\n", b"\t1\n")),
        "DataError",
        (INTER, "no training rows", "x_label = 0"),
    ),
    Bad(
        "no test rows",
        content(INTER, lambda b: b.replace(b"\t2\n", b"\t1\n")),
        "DataError",
        (INTER, "no test rows"),
    ),
    Bad(
        "atomic: column without a type",
        atomic(lambda b: b.replace(b"item_id:token", b"item_id")),
        "DataError",
        ("block_world.train.inter", "'item_id'", "item_id:token"),
        ATOMIC,
    ),
    Bad(
        "atomic: unknown type",
        atomic(lambda b: b.replace(b"item_id:token", b"item_id:tokn")),
        "DataError",
        ("block_world.train.inter", "'item_id:tokn'"),
        ATOMIC,
    ),
    Bad(
        "atomic: missing column",
        atomic(lambda b: b.replace(b"item_id:token", b"thing:token")),
        "DataError",
        ("block_world.train.inter", "no column 'item_id'", "ITEM_ID_FIELD"),
        ATOMIC,
    ),
    Bad(
        "atomic: short line",
        atomic(lambda b: b + b"u00\n"),
        "DataError",
        ("block_world.train.inter", "line 74", "1 cells"),
        ATOMIC,
    ),
    Bad(
        "atomic: not UTF-8",
        atomic(lambda b: b + b"\xfc\ti01\n"),
        "DataError",
        ("block_world.train.inter", "0xfc"),
        ATOMIC,
    ),
    Bad(
        "atomic: duplicate interaction",
        atomic(lambda b: b + first_line(b)),
        "DataError",
        ("same interaction twice", "1 repeated", "remove the repeated rows"),
        ATOMIC,
    ),
    Bad(
        "atomic: a split is not there",
        whole,
        "DataError",
        ("block_world.train.inter", "--data-path"),
        ATOMIC,
    ),
    Bad(
        "item table of RecBole empty",
        content("block_world.item", lambda b: b""),
        "DataError",
        ("block_world.item is empty",),
    ),
    Bad(
        "item table without ids",
        content("items.tsv", lambda b: b.replace(b"item_id", b"thing", 1)),
        "DataError",
        ("items.tsv has no id column", "thing"),
        features="lsa",
    ),
    Bad(
        "item table names an item twice",
        content("items.tsv", lambda b: b + first_line(b)),
        "DataError",
        ("items.tsv names an item twice", "1 repeated"),
        features="lsa",
    ),
    Bad(
        "item table without an item",
        content("items.tsv", lambda b: b"\n".join(b.split(b"\n")[:-2]) + b"\n"),
        "FeatureError",
        ("no row for 1 of the data set's 24 items", "item 'i"),
        features="lsa",
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_refused(place: Place, case: Bad, capsys: pytest.CaptureFixture[str]) -> None:
    check_refused(place, case, capsys)


def test_each_case_has_a_name_of_its_own() -> None:
    assert len({case.name for case in CASES}) == len(CASES)


HARMLESS = {
    "byte order mark": content(INTER, lambda b: b"\xef\xbb\xbf" + b),
    "Windows line ends": content(INTER, lambda b: b.replace(b"\n", b"\r\n")),
    "blank lines": content(INTER, lambda b: b.replace(b"\n", b"\n\n")),
    "no line end at the end": content(INTER, lambda b: b[:-1]),
}


@pytest.mark.parametrize("name", HARMLESS)
def test_harmless_oddities_are_read(place: Place, name: str) -> None:
    HARMLESS[name](place)
    assert main(arguments(place)) == 0


def test_quotation_marks_are_characters(place: Place) -> None:
    """A quoting reader would take the lines between two marks for one cell."""
    lines = (place.data / INTER).read_text().splitlines()
    users = {f'"{u}' if u in ("u00", "u01") else u: None for u in WORLD.users}
    quoted = [f'"{line}' if line.split("\t")[0] in ("u00", "u01") else line for line in lines[1:]]
    (place.data / INTER).write_text("\n".join([lines[0], *quoted]) + "\n")
    assert main([*arguments(place), "--overwrite"]) == 0
    found = max(read_records(place.output / "runs"), key=lambda r: r.started_utc)
    assert found.data["users"] == len(users)
    assert sum(found.data["interactions"]) == len(lines) - 1


def test_recboles_layout_is_read_as_it_is(place: Place) -> None:
    """pandas takes NA for absent, and what stands between two marks for one cell."""
    atomic(lambda b: b)(place)
    names = {"u00": '"u00', "u01": '"u01', "u02": "NA", "u03": "null"}
    for path in place.data.glob("block_world.*.inter"):
        lines = [line.split("\t") for line in path.read_text().splitlines()]
        rows = ["\t".join([names.get(cells[0], cells[0]), *cells[1:]]) for cells in lines]
        path.write_text("\n".join(rows) + "\n")
    assert main([*arguments(place), *ATOMIC, "--overwrite"]) == 0
    found = max(read_records(place.output / "runs"), key=lambda r: r.started_utc)
    assert found.data["users"] == len(WORLD.users)


def test_a_user_who_has_everything_is_named() -> None:
    with pytest.raises(DataError, match=r"(?s)every training item.*user id 1 with 2 items"):
        PairSampler(np.array([1, 1, 2]), np.array([1, 2, 1]))
