"""Files from outside are opened in one way: what is refused, and in which words."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from alignrec_recbole.errors import AlignRecError, DataError, RecordError, printable
from alignrec_recbole.io.files import inside
from alignrec_recbole.io.names import check_name, is_safe_name
from alignrec_recbole.io.opening import is_regular_file, open_input, read_bytes, read_json


def test_a_link_to_a_regular_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"text")
    (tmp_path / "b").symlink_to("a")
    assert read_bytes(tmp_path / "b", max_bytes=4) == b"text"


@pytest.mark.parametrize("kind", ["fifo", "folder", "loop", "missing", "device", "large"])
def test_what_is_no_regular_file_is_refused_without_waiting(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "loop":
        path.symlink_to("x.json")
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "large":
        path.write_bytes(b"x" * 11)
    words = {"fifo": "a FIFO", "folder": "a folder", "device": "device", "large": "11 bytes"}
    with pytest.raises(RecordError, match=r"x\.json") as raised:
        read_json(path, what="record", error=RecordError, max_bytes=10)
    assert words.get(kind, "") in str(raised.value)
    assert is_regular_file(path) == (kind == "large")


@pytest.mark.parametrize("name", ["a" * 300, "a\0b", "\ud800"])
def test_a_name_that_no_file_has_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError), open_input(tmp_path / name):
        pass
    assert not is_regular_file(tmp_path / name)


@pytest.mark.parametrize("text", ["{", "[" * 200_000, "1" * 5000, "\udcff"])
def test_text_that_is_no_json_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(DataError, match=r"not (valid JSON|UTF-8)"):
        read_json(path)


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(b"\xef\xbb\xbf[1]")
    assert read_json(path) == [1]


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\\b", "*", "a\x1b", " a", "a" * 181, 3])
def test_names_that_are_no_file_name_are_refused(name: object) -> None:
    assert not is_safe_name(name)
    with pytest.raises(DataError, match="name of a data set"):
        check_name(name, "data set", DataError)


def test_errors_print_no_control_characters_and_stay_short() -> None:
    error = AlignRecError("a\x1b[2Jb", found="x" * 9000)
    assert "\x1b" not in str(error)
    assert "\\x1b[2J" in str(error)
    assert len(str(error)) < 2000
    assert printable("ab\ncd\tef") == "ab\ncd ef"


def test_a_link_to_itself_is_no_path_inside_a_folder(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    for name in ("loop/x", "a\0b", "../x", "/x"):
        with pytest.raises(DataError):
            inside(tmp_path, name)
