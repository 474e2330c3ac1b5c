"""Checks that every encoder passes, usable for an encoder of your own:

    from functools import partial
    from alignrec_recbole.encoders.encode import encode_items
    from alignrec_recbole.testing.encoder_checks import EncoderCase, encoder_checks, sample_items

    case = EncoderCase(partial(encode_items, "lsa", progress=False), sample_items(folder), folder)
    for check in encoder_checks():
        check(case)

A check raises AssertionError with what it saw.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from alignrec_recbole.data.items import ItemTable
from alignrec_recbole.encoders.base import EncodedItems
from alignrec_recbole.features.table import Modality, align, load_features, save_features
from alignrec_recbole.io.files import sha256_file

TOLERANCE = 1e-5
WORDS = (
    ("red", "racing", "bike", "with", "bell"),
    ("blue", "tent", "for", "two", "campers"),
    ("green", "fishing", "rod", "and", "reel"),
    ("yellow", "rain", "jacket", "light", "hood"),
)


@dataclass(frozen=True)
class EncoderCase:
    """An encoder under test.

    Attributes:
        encode: `encode(items, batch_size=…) -> EncodedItems`.
        items: a table of at least six items with distinct contents and some without (sample_items).
        folder: where feature files may be written.
    """

    encode: Callable[..., EncodedItems]
    items: ItemTable
    folder: Path

    def rows(self, items: ItemTable | None = None) -> EncodedItems:
        """Rows of a table, all in one batch."""
        items = items or self.items
        return self.encode(items, batch_size=len(items.ids))


Check = Callable[[EncoderCase], None]


def encoder_checks() -> Iterator[Check]:
    """All checks."""
    yield check_contract
    yield check_same_twice
    yield check_batch_size
    yield check_item_order
    yield check_content_decides
    yield check_missing_declared
    yield check_written_and_read


def sample_items(folder: Path, count: int = 12) -> ItemTable:
    """Items with distinct texts of unequal length and striped PNG images in `folder/images`.

    Item 2 has no text, item 5 no image.
    """
    from PIL import Image

    images: list[Path | None] = []
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for i in range(count):
        stripes = np.zeros((40, 30 + i, 3), dtype=np.uint8)
        stripes[:: 2 + i % 5, :, i % 3] = 255
        stripes[:, i::7] = 90 + 10 * i
        path = folder / "images" / f"{i}.png"
        Image.fromarray(stripes).save(path)
        images.append(path)
    texts = []
    for i in range(count):
        words = WORDS[i % 4] + WORDS[(i // 4 + 1) % 4][: 1 + i % 5]
        texts.append(" ".join(words) + f". model{i}")
    texts[2], images[5] = "", None
    return ItemTable([f"item{i}" for i in range(count)], texts, images, "sample", ["title"])


def check_contract(case: EncoderCase) -> None:
    """float32 [n, f], finite; a zero row where, and only where, the modality is absent."""
    encoded = case.rows()
    n = len(case.items.ids)
    shape, kind = encoded.matrix.shape, encoded.matrix.dtype
    assert len(shape) == 2, f"shape {shape}, not [n, f]"
    assert shape[0] == n, f"{shape[0]} rows for {n} items"
    assert kind == np.float32, f"dtype {kind}, not float32"
    assert (encoded.present.shape, encoded.present.dtype) == ((n,), bool), "present is not bool [n]"
    assert encoded.modality in ("text", "image", "audio", "fused"), encoded.modality
    assert np.isfinite(encoded.matrix).all(), "NaN or infinity"
    apart = np.flatnonzero(encoded.matrix.any(axis=1) != encoded.present)
    wrong = [case.items.ids[i] for i in apart]
    assert not wrong, f"zero rows and 'present' disagree for {wrong}"


def check_same_twice(case: EncoderCase) -> None:
    """The same table gives the same rows, bit by bit."""
    first, second = case.rows(), case.rows()
    assert np.array_equal(first.matrix, second.matrix), _difference(first.matrix, second.matrix)
    assert np.array_equal(first.present, second.present)
    assert first.settings == second.settings, f"{first.settings} then {second.settings}"


def check_batch_size(case: EncoderCase) -> None:
    """Batches of one, of five and of all give the same rows."""
    whole = case.rows()
    for size in (1, 5):
        rows = case.encode(case.items, batch_size=size)
        assert _near(rows.matrix, whole.matrix), (
            f"batches of {size}: {_difference(rows.matrix, whole.matrix)}"
        )
        assert np.array_equal(rows.present, whole.present), (
            f"batches of {size}: other items present"
        )


def check_item_order(case: EncoderCase) -> None:
    """A table in another order gives the same rows in that order."""
    straight = case.rows()
    order = np.random.default_rng(0).permutation(len(case.items.ids))
    mixed = case.rows(_reordered(case.items, order))
    assert _near(mixed.matrix, straight.matrix[order]), _difference(
        mixed.matrix, straight.matrix[order]
    )
    assert np.array_equal(mixed.present, straight.present[order]), "other items present"


def check_content_decides(case: EncoderCase) -> None:
    """Equal contents give equal rows whatever the token; distinct contents distinct rows."""
    items, first = case.items, case.rows()
    here = np.flatnonzero(first.present)
    twins = ItemTable(
        [*items.ids, "twin"],
        [*items.texts, items.texts[here[0]]],
        [*items.images, items.images[here[0]]],
        items.source,
        items.text_columns,
    )
    matrix = case.rows(twins).matrix
    assert _near(matrix[-1], matrix[here[0]]), "equal contents, unequal rows"
    for i in here[1:]:
        assert not _near(first.matrix[i], first.matrix[here[0]]), (
            f"{items.ids[here[0]]} and {items.ids[i]} differ, their rows do not"
        )


def check_missing_declared(case: EncoderCase) -> None:
    """An item stripped of its content is declared absent and has a zero row; the others stay."""
    before = case.rows()
    gone = int(np.flatnonzero(before.present)[1])
    texts, images = list(case.items.texts), list(case.items.images)
    texts[gone], images[gone] = "", None
    after = case.rows(replace(case.items, texts=texts, images=images))
    assert not after.present[gone], f"{case.items.ids[gone]} has no content but counts as present"
    assert not after.matrix[gone].any(), f"{case.items.ids[gone]} has no content but a row"
    kept = np.delete(before.present, gone)
    assert np.array_equal(np.delete(after.present, gone), kept), "other items became absent"


def check_written_and_read(case: EncoderCase) -> None:
    """Saved, read and aligned by token, every row is the one written, and absence is kept."""
    encoded, ids = case.rows(), case.items.ids
    modality: Modality = encoded.modality
    path = case.folder / "encoder_check.npy"
    manifest = save_features(
        path,
        encoded.matrix,
        name="encoder_check",
        modality=modality,
        encoder=encoded.encoder,
        settings=encoded.settings,
        source=case.items.source,
        items=ids,
        missing=[i for i, there in zip(ids, encoded.present, strict=True) if not there],
    )
    assert manifest.sha256 == sha256_file(path), "the manifest's sha256 is not the file's"
    backwards = align(load_features(path), ["[PAD]", *ids[::-1]])
    assert np.array_equal(backwards.values[1:], encoded.matrix[::-1]), "rows changed on the way"
    assert np.array_equal(backwards.present[1:], encoded.present[::-1]), "absence was lost"


def _reordered(items: ItemTable, order: np.ndarray) -> ItemTable:
    return replace(
        items,
        ids=[items.ids[i] for i in order],
        texts=[items.texts[i] for i in order],
        images=[items.images[i] for i in order],
    )


def _near(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and bool(np.allclose(a, b, rtol=TOLERANCE, atol=TOLERANCE))


def _difference(a: np.ndarray, b: np.ndarray) -> str:
    if a.shape != b.shape:
        return f"shapes {a.shape} and {b.shape}"
    return f"rows differ by up to {np.abs(a.astype(float) - b).max():.2e}"
