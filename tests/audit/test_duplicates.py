"""Pairs of items with nearly the same text or image."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import EpsImagePlugin, Image

from alignrec_recbole.audit.duplicates import hash_of_image


def test_an_image_file_never_starts_a_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pillow's reader of EPS runs Ghostscript, whatever the file's name."""
    started = []
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *args, **more: started.append(args))
    Image.new("RGB", (16, 16), "red").save(tmp_path / "a.jpg", format="EPS")
    assert hash_of_image(tmp_path / "a.jpg") is None
    assert not started


def test_files_that_are_no_images_have_no_hash(tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("no image")
    Image.linear_gradient("L").rotate(90).save(tmp_path / "image.png")
    assert hash_of_image(tmp_path / "text.jpg") is None
    assert hash_of_image(tmp_path / "absent.jpg") is None
    assert hash_of_image(tmp_path / "image.png") is not None
