"""Large files are read behind a bar, in terminals alone."""

from __future__ import annotations

import gzip
import io
import sys
from pathlib import Path

import pytest

from alignrec_recbole.io import text_lines
from alignrec_recbole.io.text_lines import shown_reading


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("packed", [False, True])
def test_a_bar_in_a_terminal_and_nowhere_else(
    packed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "reviews.txt"
    content = b"a line\n" * 300_000
    path.write_bytes(gzip.compress(content) if packed else content)

    def said(stream: io.StringIO, wanted: bool, large: int) -> str:
        monkeypatch.setattr(sys, "stderr", stream)
        monkeypatch.setattr(text_lines, "LARGE", large)
        with shown_reading(wanted):
            assert sum(1 for _ in text_lines.text_lines(path)) == 300_000
        return stream.getvalue()

    assert "reviews.txt" in said(Terminal(), True, 1)
    assert said(Terminal(), False, 1) == "", "--no-progress"
    assert said(Terminal(), True, 1 << 30) == "", "small files are read at once"
    assert said(io.StringIO(), True, 1) == "", "no terminal"
