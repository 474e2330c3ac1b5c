"""Trials: `doctor` answers in full sentences where the machine or the data are broken."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from bad_input import WORLD
from small_disks import SmallDisk
from trials import check_answered, run_verb, trial

from alignrec_recbole.cli import doctor

AREA = "doctor"


def loop(folder: Path) -> None:
    folder.symlink_to(folder)


def escapes(folder: Path) -> None:
    (folder / "a\x1b[31m").mkdir(parents=True)
    (folder / "a\x1b[31m" / "a\x1b[31m.inter").write_text("userID\titemID\n")
    data = WORLD.write(folder)
    (data / "x\x1b[31m.npy").write_bytes(b"")


def odd_entries(folder: Path) -> None:
    data = WORLD.write(folder)
    (data / "features").symlink_to(data / "features")
    (folder / "loop").symlink_to(folder / "loop")
    (folder / "block_world2").write_bytes(b"")


DATA: dict[str, tuple[Callable[[Path], object], str]] = {
    "a file": (lambda folder: folder.write_bytes(b""), "cannot be read: Not a directory"),
    "absent": (lambda folder: None, "does not exist"),
    "names with escapes": (escapes, r"x\x1b[31m"),
    "odd entries": (odd_entries, "block_world  features: image, text"),
}


@pytest.mark.parametrize("name", DATA)
def test_a_broken_data_folder_is_described(tmp_path: Path, name: str) -> None:
    make, words = DATA[name]
    make(tmp_path / "data")
    with trial(AREA, name):
        said = run_verb("doctor", "--data-path", tmp_path / "data")
        check_answered(said)
        assert said.status == 0
        assert words in said.output


def test_no_git_and_no_place_to_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_disk: Callable[[int], SmallDisk]
) -> None:
    disk = small_disk(1 << 20)
    disk.set_read_only(True)
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for cache, words in [
        (disk.path / "cache", "is read-only for this user"),
        (tmp_path / "file" / "cache", "is not a folder"),
        (tmp_path / "loop" / "cache", "cannot be used"),
        (tmp_path / "new", "GiB free"),
    ]:
        with trial(AREA, cache.parent.name), monkeypatch.context() as changed:
            changed.setenv("PATH", str(tmp_path / "nothing"))
            changed.setenv("ALIGNREC_CACHE", str(cache))
            said = run_verb("doctor", "--data-path", tmp_path)
            check_answered(said)
            assert said.status == 0
            assert "git        not found: records will not name a commit" in said.output
            assert words in next(x for x in said.output.split("\n") if x.startswith("  cache "))


def test_a_section_that_fails_does_not_hide_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> list[str]:
        raise RuntimeError("\x1b[31m damaged\nat length")

    monkeypatch.setattr(doctor, "hardware", broken)
    with trial(AREA, "a section fails"):
        said = run_verb("doctor")
        check_answered(said)
        assert r"not checked: \x1b[31m damaged" in said.output
        assert "Shell completion" in said.output
