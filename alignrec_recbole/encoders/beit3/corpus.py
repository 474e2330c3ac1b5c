"""The items of pre-training: token ids and decoded images."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ValidationError
from tqdm.auto import tqdm

from alignrec_recbole.data.images import stretched
from alignrec_recbole.data.items import ItemTable
from alignrec_recbole.encoders.batches import decode_ahead
from alignrec_recbole.encoders.beit3.masking import generator
from alignrec_recbole.encoders.beit3.pretrain_settings import PretrainSettings, logger
from alignrec_recbole.encoders.beit3.tokenizer import SPECIAL, Tokenizer
from alignrec_recbole.errors import DataError
from alignrec_recbole.io.files import atomic_write, named_write_errors, sha256_file
from alignrec_recbole.io.mapped_arrays import create_array, open_array
from alignrec_recbole.io.opening import is_regular_file, read_text

MAX_INDEX_BYTES = 1 << 30


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
        DataError: fewer than two items have a text or a readable image, or none has both.
        WriteError: the disk has no space for the pixels.
    """
    ids = [np.array(tokenizer.encode(text[:100_000]), dtype=np.int64) for text in items.texts]
    pixels, place = _decode(items, folder, side, workers, progress)
    has_text, has_image = np.array([len(i) > SPECIAL for i in ids]), place >= 0
    useful = np.flatnonzero(has_text | has_image)
    order = useful[generator(settings.seed, 7).permutation(len(useful))]
    held = max(1, int(settings.validation * len(order)))
    if len(order) < 2:
        raise DataError(
            f"{items.source} has too few items to learn from.",
            found=f"{len(order)} items with a text or a readable image",
            expected="at least two",
        )
    if not (has_text & has_image).any():
        raise DataError(
            f"{items.source} has no item with a text and a readable image.",
            found=f"{has_text.sum()} items with a text, {has_image.sum()} with a readable image",
            expected="items with both: the alignment of the two is learnt",
            hint="name the images in a column 'image', and their folder with --images",
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
    """Pixels and the row of each item's image, decoded once and cached in the folder."""
    content = items.content_hash()
    stem = f"pixels-{side}-{content[:12]}"
    path, index = folder / f"{stem}.npy", folder / f"{stem}.json"
    part = folder / f".{stem}.npy.part"  # no run reads half-written pixels
    if is_regular_file(index) and os.path.lexists(path):
        try:
            return _read_pixels(path, index, content, len(items.ids), side)
        except DataError as error:
            if not is_regular_file(path):
                raise
            logger.warning("The cached images are decoded again: %s", error.problem)
    named = [i for i, image in enumerate(items.images) if image is not None]
    place = np.full(len(items.ids), -1, dtype=np.int64)
    pixels = create_array(part, np.uint8, (max(1, len(named)), side, side, 3))
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
    if read < len(named):
        logger.warning("%d of %d images are missing or broken", len(named) - read, len(named))
    about = PixelIndex(
        items_sha256=content, pixels_sha256=sha256_file(part), place=place.tolist()
    ).model_dump_json()
    with named_write_errors(path):
        part.replace(path)
    with atomic_write(index, "w") as handle:  # until then the index of other pixels is refused
        handle.write(about)
    return open_array(path, what="cache of images"), place


class PixelIndex(BaseModel):
    """What is stored beside decoded images.

    Attributes:
        items_sha256: of the items' content.
        pixels_sha256: of the file.
        place: row of each item's image, −1 without one; rows are in the order of the items.
    """

    items_sha256: str
    pixels_sha256: str
    place: list[int]


def _read_pixels(
    path: Path, index: Path, content: str, n: int, side: int
) -> tuple[np.ndarray, np.ndarray]:
    """The cached pixels of n items, and their places.

    Raises:
        DataError: the files are damaged, or of other items.
    """
    text = read_text(index, what="index of images", max_bytes=MAX_INDEX_BYTES)
    try:
        about = PixelIndex.model_validate_json(text)
        place = np.array(about.place, dtype=np.int64)
    except (ValidationError, OverflowError) as error:
        raise _damaged(index, "no index of images") from error
    pixels = open_array(path, what="cache of images")
    read = int((place >= 0).sum())
    fits = pixels.dtype == np.uint8 and pixels.shape == (len(pixels), side, side, 3)
    in_order = np.array_equal(place[place >= 0], np.arange(read)) and place.min(initial=0) >= -1
    if not (fits and in_order and read <= len(pixels) and len(place) == n):
        raise _damaged(index, f"{len(place)} places, {read} images, pixels {pixels.shape}")
    if (about.items_sha256, about.pixels_sha256) != (content, sha256_file(path)):
        raise _damaged(path, "another sha256")
    return pixels, place


def _damaged(path: Path, found: str) -> DataError:
    return DataError(f"{path} is damaged or belongs to other items.", found=found)
