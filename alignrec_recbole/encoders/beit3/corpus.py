"""The items of pre-training: token ids and decoded images."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from alignrec_recbole.data.images import stretched
from alignrec_recbole.data.items import ItemTable
from alignrec_recbole.encoders.batches import decode_ahead
from alignrec_recbole.encoders.beit3.masking import generator
from alignrec_recbole.encoders.beit3.pretrain_settings import PretrainSettings, logger
from alignrec_recbole.encoders.beit3.tokenizer import SPECIAL, Tokenizer
from alignrec_recbole.errors import DataError
from alignrec_recbole.io.files import atomic_write


@dataclass
class Corpus:
    """Items as tokens and pixels.

    Attributes:
        ids: token ids of each item, <s></s> alone where there is no text.
        pixels: uint8 [images, S, S, 3], memory-mapped.
        place: int64 [n], row in `pixels`, −1 without an image.
        train, held: item indices.
        mask: id of <mask>.
        identity: what distinguishes texts, images and tokenizer from others.
        name_and_size_hash: of the items, as identities of earlier versions had it.
    """

    ids: list[np.ndarray]
    pixels: np.ndarray
    place: np.ndarray
    train: np.ndarray
    held: np.ndarray
    mask: int
    identity: dict[str, Any] = field(default_factory=dict)
    name_and_size_hash: str = ""

    @property
    def has_text(self) -> np.ndarray:
        """bool [n]."""
        return np.array([len(ids) > SPECIAL for ids in self.ids])

    @property
    def has_image(self) -> np.ndarray:
        """bool [n]."""
        return self.place >= 0


def read_corpus(
    items: ItemTable,
    tokenizer: Tokenizer,
    folder: Path,
    side: int,
    settings: PretrainSettings,
    *,
    workers: int = 0,
    progress: bool = True,
) -> Corpus:
    """Tokenise and decode once; pixels are cached in `folder` for the next epochs and runs.

    Raises:
        DataError: fewer than two items have a text or a readable image.
    """
    ids = [np.array(tokenizer.encode(text[:100_000]), dtype=np.int64) for text in items.texts]
    pixels, place = _decode(items, folder, side, workers, progress)
    content = np.array([len(i) > SPECIAL for i in ids]) | (place >= 0)
    useful = np.flatnonzero(content)
    order = useful[generator(settings.seed, 7).permutation(len(useful))]
    held = max(1, int(settings.validation * len(order)))
    if len(order) < 2:
        raise DataError(
            f"{items.source} has too few items to learn from.",
            found=f"{len(order)} items with a text or a readable image",
            expected="at least two",
        )
    identity = {
        "items": items.content_hash(),
        "tokenizer": tokenizer.sha256,
        "max_tokens": tokenizer.max_tokens,
    }
    return Corpus(
        ids,
        pixels,
        place,
        np.sort(order[held:]),
        np.sort(order[:held]),
        tokenizer.mask,
        identity,
        items.name_and_size_hash(),
    )


def _decode(
    items: ItemTable, folder: Path, side: int, workers: int, progress: bool
) -> tuple[np.ndarray, np.ndarray]:
    stem = f"pixels-{side}-{items.content_hash()[:12]}"
    path, index = folder / f"{stem}.npy", folder / f"{stem}.json"
    part = folder / f".{stem}.npy.part"  # no run reads half-written pixels
    if index.is_file() and path.is_file():
        place = np.array(json.loads(index.read_text("utf-8")), dtype=np.int64)
        return np.load(path, mmap_mode="r"), place
    named = [i for i, image in enumerate(items.images) if image is not None]
    place = np.full(len(items.ids), -1, dtype=np.int64)
    folder.mkdir(parents=True, exist_ok=True)
    index.unlink(missing_ok=True)
    pixels = np.lib.format.open_memmap(
        part, "w+", dtype=np.uint8, shape=(max(1, len(named)), side, side, 3)
    )
    read = 0
    decoded = decode_ahead(
        partial(stretched, side=side), [[items.images[i]] for i in named], workers
    )
    bar = tqdm(decoded, total=len(named), desc="images", unit="image", disable=not progress)
    for i, (found,) in zip(named, bar, strict=True):
        if found.pixels is not None:
            pixels[read], place[i] = found.pixels, read
            read += 1
    pixels.flush()
    del pixels  # closed
    part.replace(path)
    if read < len(named):
        logger.warning("%d of %d images are missing or broken", len(named) - read, len(named))
    with atomic_write(index, "w") as handle:
        handle.write(json.dumps(place.tolist()))
    return np.load(path, mmap_mode="r"), place
