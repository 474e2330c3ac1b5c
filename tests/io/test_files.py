"""Files that are written whole: permissions, and what killed writers leave."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from alignrec_recbole.io import files
from alignrec_recbole.io.files import atomic_write


@pytest.mark.parametrize(("umask", "expected"), [(0o077, 0o600), (0o022, 0o644), (0o002, 0o664)])
def test_the_umask_decides_who_may_read(tmp_path: Path, umask: int, expected: int) -> None:
    before = os.umask(umask)
    try:
        with atomic_write(tmp_path / "x", "w") as handle:
            handle.write("private")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == expected


def test_what_killed_writers_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    program = (
        "import os, signal; from pathlib import Path; "
        "from alignrec_recbole.io.files import atomic_write\n"
        f"with atomic_write(Path({str(tmp_path / 'x')!r})):\n"
        "    os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", program])
    (left,) = tmp_path.iterdir()
    alive = tmp_path / files.part_name("y")
    elsewhere = tmp_path / left.name.replace(f".{files._machine()}-", ".000000-")
    others = [tmp_path / "y.part", tmp_path / ".y.part", tmp_path / ".y.abc-1-2.part"]
    for path in (alive, elsewhere, *others):
        path.write_text("of others")
    files._looked_at.discard(tmp_path)
    with atomic_write(tmp_path / "x", "w") as handle:
        handle.write("new")
    assert not left.exists()
    assert {path.name for path in tmp_path.iterdir()} == {
        "x", alive.name, elsewhere.name, *(path.name for path in others),
    }  # fmt: skip
