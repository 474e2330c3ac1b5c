"""Pairs of items with nearly the same text or image."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image
from sklearn.feature_extraction.text import TfidfVectorizer

from alignrec_recbole.audit import duplicates
from alignrec_recbole.audit.duplicates import hash_of_image, same_images, same_texts


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


def listed(pairs: duplicates.Pairs) -> list[tuple[int, int]]:
    return list(zip(*(part.tolist() for part in pairs), strict=True))


def test_same_images_are_those_of_a_search_over_all_pairs() -> None:
    """Hashes near each other, in equal ones, and in one that lacks."""
    generator = np.random.default_rng(0)
    hashes: list[int | None] = [None]
    for centre in generator.integers(0, 2**63, 20).tolist():
        for count in (0, 0, 1, 1, 2, 2, 3):
            turned = generator.choice(64, count, replace=False).tolist()
            hashes.append(centre ^ sum(1 << bit for bit in turned))
    wanted = [
        (a, b)
        for a, first in enumerate(hashes)
        for b, second in enumerate(hashes)
        if a != b and first is not None and second is not None and (first ^ second).bit_count() <= 2
    ]
    assert listed(same_images(hashes)) == wanted
    assert len(wanted) > 100


def test_many_alike_images_are_compared_in_a_moment() -> None:
    """Images on a plain ground: half of each hash is zero."""
    hashes = np.random.default_rng(0).integers(0, 2**32, 40_000).tolist()
    began = time.process_time()
    same_images([*hashes, hashes[7] ^ 3])
    assert time.process_time() - began < 5  # over all pairs of a part, 80 seconds


def test_equal_texts_are_compared_once() -> None:
    texts = ["red shoe", "green tea", "Red shoe!", "", "red  SHOE", "?"]
    pairs, notes = same_texts(texts)
    assert listed(pairs) == [(0, 2), (0, 4), (2, 0), (2, 4), (4, 0), (4, 2)]
    assert notes == ()


@pytest.mark.parametrize("threshold", [0.6, 0.8, 0.95])
def test_same_texts_are_those_of_a_search_over_all_pairs(threshold: float) -> None:
    """Copies of texts in which up to six of twelve words are others."""
    generator = np.random.default_rng(0)
    texts = []
    for _ in range(40):
        words = generator.zipf(1.3, 12) % 200
        for count in (0, 1, 2, 4, 6):
            changed = words.copy()
            changed[generator.choice(12, count, replace=False)] = generator.zipf(1.3, count) % 200
            texts.append(" ".join(f"w{word}" for word in changed))
    cosines = TfidfVectorizer().fit_transform(texts)
    near = (cosines @ cosines.T).toarray() >= threshold - 1e-6
    np.fill_diagonal(near, False)
    pairs, notes = same_texts(texts, threshold)
    assert listed(pairs) == list(zip(*(part.tolist() for part in np.nonzero(near)), strict=True))
    assert len(pairs[0]) > 30
    assert notes == ()


def test_a_text_of_many_items_is_a_placeholder() -> None:
    """20,000 items without a description of their own, beside two that are the same."""
    texts = [*["no description is known"] * 20_000, "red shoe", "red shoe"]
    began = time.process_time()
    pairs, notes = same_texts(texts)
    assert time.process_time() - began < 5
    assert listed(pairs) == [(20_000, 20_001), (20_001, 20_000)]
    assert notes == ("20,000 items have a text that more than 50 items have.",)


def test_a_search_that_is_cut_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "MOST_PAIRS", 10)
    monkeypatch.setattr(duplicates, "BLOCK", 2)
    texts = [f"{name} {name}" for name in ("one", "two", "three", "four") for _ in range(4)]
    pairs, notes = same_texts([*texts, "one two three"])
    assert len(pairs[0]) == 4 * 12  # of equal texts, which are not searched
    assert notes == ()
    alike = [" ".join(["word"] * 20 + [f"w{n}"]) for n in range(10)]
    _, notes = same_texts(alike, threshold=0.1)
    assert notes == (
        "More than 10 pairs of items have the same text: 2 of 10 texts were compared with the "
        "others.",
    )
