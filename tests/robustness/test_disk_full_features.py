"""A full disk ends making features and pre-training in one sentence; with space they go on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from small_disks import SmallDisk
from trials import check_refused, run_verb, trial

from alignrec_recbole.data.items import ItemTable
from alignrec_recbole.encoders.base import ImageInput, ItemEncoder
from alignrec_recbole.encoders.extraction import ExtractionSpec, extract
from alignrec_recbole.errors import WriteError
from alignrec_recbole.testing.encoder_checks import sample_items

Mount = Callable[[int], SmallDisk]


class Wide(ItemEncoder):
    """Rows of 4 kB."""

    name, modality, width, settings = "wide", "text", 1000, {"version": 1}

    def rows(self, texts: Sequence[str], images: Sequence[ImageInput]) -> np.ndarray:
        return np.array([[len(text)] * 1000 for text in texts], dtype=np.float32)


@pytest.mark.parametrize("size", [16 << 10, 300 << 10, 600 << 10])
def test_features_end_in_a_sentence_and_go_on(small_disk: Mount, size: int) -> None:
    """Not even the rows fit, or the rows and not the finished file beside them."""
    disk = small_disk(size)
    texts = ["x" * (n + 1) for n in range(100)]  # 400 kB of rows
    items = ItemTable([str(n) for n in range(100)], texts, [None] * 100, "t", ["title"])
    spec = ExtractionSpec(disk.path / "features", "f", batch_size=8, progress=False)
    with trial("disk full", f"features, {size} bytes"):
        with pytest.raises(WriteError, match="could not be written"):
            extract(Wide(), items, spec)
        disk.resize(4 << 20)
        assert extract(Wide(), items, spec).matrix[:, 0].tolist() == list(range(1, 101))
        names = {path.name for path in spec.folder.iterdir()}
        assert names == {"f.npy", "f.json"}


@pytest.mark.parametrize("size", [8 << 10, 48 << 10, 256 << 10, 4 << 20, 9 << 20])
def test_pretraining_ends_in_a_sentence_and_goes_on(
    small_disk: Mount, tmp_path: Path, size: int
) -> None:
    """The tokenizer, the pixels, the state or the weights do not fit."""
    items = sample_items(tmp_path / "items", 16)
    rows = [
        f"{i}\t{text}\t{image.name if image else ''}"
        for i, text, image in zip(items.ids, items.texts, items.images, strict=True)
    ]
    table = tmp_path / "items.tsv"
    table.write_text("id\ttitle\timage\n" + "\n".join(rows) + "\n")
    images = next(path for path in items.images if path).parent
    disk = small_disk(size)
    command = [
        "pretrain", "--dataset", "d", "--items", table, "--images", images, "--random-init",
        "--image-size", "64", "--pieces", "120", "--epochs", "1", "--batch-size", "8",
        "--micro-batch", "8", "--threads", "1", "--quiet", "--output", disk.path / "run",
    ]  # fmt: skip
    with trial("disk full", f"pre-training, {size} bytes"):
        check_refused(
            run_verb(*command), "could not be written", "No space left", kind="WriteError"
        )
        disk.resize(64 << 20)
        assert run_verb(*command).status == 0
        assert (disk.path / "run" / "model.safetensors").is_file()
