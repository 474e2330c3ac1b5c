"""Disk space is reserved before it is needed, and what cannot be written is named."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from alignrec_recbole.errors import WriteError
from alignrec_recbole.io.files import named_write_errors, reserve
from alignrec_recbole.io.mapped_arrays import create_array


@pytest.fixture(params=["posix_fallocate", "without", "not on this file system"])
def allocation(request, monkeypatch):
    """The ways in which space is reserved."""

    def refuse(*_):
        raise OSError(errno.EOPNOTSUPP, "not supported")

    if request.param == "without":
        monkeypatch.delattr(os, "posix_fallocate", raising=False)
    elif request.param == "not on this file system":
        monkeypatch.setattr(os, "posix_fallocate", refuse, raising=False)


@pytest.mark.usefixtures("allocation")
def test_reserved_space_is_allocated_and_content_stays(tmp_path: Path):
    path = tmp_path / "sparse"
    with open(path, "wb") as handle:
        handle.write(b"head")
        handle.truncate(3 << 20)
    assert path.stat().st_blocks * 512 < 1 << 20
    reserve(path, 3 << 20)
    assert path.stat().st_blocks * 512 >= 3 << 20
    assert path.read_bytes() == b"head".ljust(3 << 20, b"\0")


@pytest.mark.usefixtures("allocation")
def test_a_file_longer_than_the_space_asked_for_keeps_its_end(tmp_path: Path):
    path = tmp_path / "long"
    path.write_bytes(bytes(range(256)) * 16)
    reserve(path, 1000)
    reserve(path, 0)
    assert path.read_bytes() == bytes(range(256)) * 16


@pytest.mark.usefixtures("allocation")
def test_an_array_that_does_not_fit_is_refused_and_leaves_nothing(small_disk):
    disk = small_disk(64 << 10)
    with pytest.raises(WriteError, match=r"rows\.npy could not be written(.|\n)*No space left"):
        create_array(disk.path / "rows.npy", np.float32, (1000, 100))
    assert not list(disk.path.iterdir())
    disk.resize(1 << 20)
    rows = create_array(disk.path / "rows.npy", np.float32, (1000, 100))
    disk.fill(0)
    rows[:] = 1.0  # SIGBUS if a page had no block yet
    rows.flush()
    assert np.load(disk.path / "rows.npy").sum() == 100_000


def test_a_disk_without_any_space_is_named_too(small_disk):
    disk = small_disk(64 << 10)
    disk.fill(0)
    with pytest.raises(WriteError, match=r"rows\.npy could not be written"):
        create_array(disk.path / "rows.npy", np.float32, (2, 2))


def test_a_read_only_folder_is_named(small_disk):
    disk = small_disk(64 << 10)
    disk.set_read_only(True)
    with pytest.raises(WriteError, match="Read-only file system"):
        create_array(disk.path / "a" / "rows.npy", np.float32, (2, 2))


def test_other_errors_of_a_block_stay_what_they_are(tmp_path: Path):
    with pytest.raises(FileNotFoundError), named_write_errors(tmp_path / "x"):
        (tmp_path / "x").read_bytes()
    with pytest.raises(WriteError, match="x could not be written"), named_write_errors(Path("x")):
        raise PermissionError(errno.EACCES, "Permission denied")
