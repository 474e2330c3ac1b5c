"""What every encoder of single items is, and the loop that feeds it.

An encoder that looks at one item at a time is an `ItemEncoder`; `encode_table` runs it in memory,
`extraction.extract` with a store on disk that survives a kill. Both run the same batches.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from torch.utils.data import DataLoader, Dataset

from alignrec_recbole.data.items import ItemTable
from alignrec_recbole.encoders import EncodedItems
from alignrec_recbole.features.table import Modality
from alignrec_recbole.runtime import allocator
from alignrec_recbole.runtime.workers import exit_with_parent

HIDDEN = "hidden"  # in place of an image: the item has one, and it is masked
Picture = np.ndarray | str | None  # uint8 [S, S, 3], HIDDEN, or nothing
Decode = Callable[[Path], np.ndarray | str]  # to uint8 [S, S, 3], or why not


class ItemEncoder(ABC):
    """Rows of items, each from its own content alone.

    Attributes:
        name: for manifests.
        modality: text, image or fused.
        width: f.
        settings: enough to make the rows again; a hash or revision of the weights included.
        reads_text: whether texts matter.
        decode: image file → uint8 [S, S, 3] or why not; None: images don't matter.
        masks_images: whether HIDDEN means more to it than no image.
        notes: what a reader must know next to numbers made with the rows.
    """

    name: str
    modality: Modality
    width: int
    settings: dict[str, Any]
    reads_text: ClassVar[bool] = True
    masks_images: ClassVar[bool] = False
    decode: Decode | None = None
    notes: Sequence[str] = ()

    def survey(self, texts: Sequence[str]) -> tuple[np.ndarray, dict[str, Any]]:
        """Cost of each text, 0 where there is nothing to read; and facts for the manifest."""
        return np.array([len(text.strip()) for text in texts], dtype=np.int64), {}

    @abstractmethod
    def rows(self, texts: Sequence[str], pictures: Sequence[Picture]) -> np.ndarray:
        """float32 [batch, f] of items that each have a text ("" if not) or a picture."""


@dataclass(frozen=True)
class Plan:
    """Which items go through the encoder together.

    Attributes:
        batches: item indices; texts of like length meet, so that little is padded.
        readable: bool [n], whether there is a text.
        facts: of the survey.
    """

    batches: list[np.ndarray]
    readable: np.ndarray
    facts: dict[str, Any]

    def shard(self, number: int, of: int) -> list[int]:
        """Batches of one shard, 1 ≤ number ≤ of; all shards together are the whole plan."""
        return list(range(number - 1, len(self.batches), of))


def make_plan(encoder: ItemEncoder, items: ItemTable, batch_size: int) -> Plan:
    """Cut the items into batches, the same ones for the same table, encoder and size.

    Batches are shuffled, so that long ones are spread evenly and the time left can be told.
    """
    n = len(items.ids)
    if encoder.reads_text:
        cost, facts = encoder.survey(items.texts)
    else:
        cost, facts = np.zeros(n, dtype=np.int64), {}
    named = np.array([image is not None for image in items.images])
    useful = (cost > 0) | named if encoder.decode is not None else cost > 0
    if encoder.decode is None:
        named[:] = False
    order = np.lexsort((cost, named))
    order = order[useful[order]]
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    shuffled = np.random.Generator(np.random.PCG64(0)).permutation(len(batches))
    return Plan([batches[i] for i in shuffled], cost > 0, facts)


@dataclass(frozen=True)
class Batch:
    """What came of a batch.

    Attributes:
        items: indices.
        rows: float32 [batch, f]; zero where there was nothing to encode.
        has_text, has_image: bool [batch].
        reasons: why a named image was not used, by item index.
    """

    items: np.ndarray
    rows: np.ndarray
    has_text: np.ndarray
    has_image: np.ndarray
    reasons: dict[int, str] = field(default_factory=dict)


def decoded(
    decode: Decode | None, images: list[list[Path | None]], workers: int
) -> Iterator[list[np.ndarray | str | None]]:
    """Pixels of each batch of images, or why there are none; `workers` processes read ahead."""
    loader: DataLoader = DataLoader(
        _Decoding(decode, images),
        batch_size=None,
        num_workers=workers if decode is not None else 0,
        collate_fn=_as_is,
        worker_init_fn=exit_with_parent,
    )
    return iter(loader)


class _Decoding(Dataset):
    """Decoded images of a batch; runs in worker processes."""

    def __init__(self, decode: Decode | None, images: list[list[Path | None]]) -> None:
        self.decode, self.images = decode, images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, number: int) -> list[np.ndarray | str | None]:
        if self.decode is None:
            return [None] * len(self.images[number])
        return [None if p is None else self.decode(p) for p in self.images[number]]


def _as_is(sample: Any) -> Any:
    return sample


def run_batches(
    encoder: ItemEncoder,
    items: ItemTable,
    plan: Plan,
    numbers: Sequence[int],
    *,
    workers: int = 0,
    hide: str | None = None,
    seen_images: np.ndarray | None = None,
) -> Iterator[Batch]:
    """Encode the plan's batches of these numbers, in this order.

    Args:
        workers: processes that decode images ahead of the encoder; 0: none.
        hide: "text" or "image" to mask that modality of every item.
        seen_images: bool [n]: with images hidden, which items have a readable one.
    """
    shown = encoder.decode if hide != "image" else None
    paths = [[items.images[i] for i in plan.batches[k]] for k in numbers]
    images = decoded(shown, paths, workers)
    allocator.keep_freed_memory()  # here, not in the workers
    for number, found in zip(numbers, images, strict=True):
        batch = plan.batches[number]
        reasons = {int(i): p for i, p in zip(batch, found, strict=True) if isinstance(p, str)}
        pictures: list[Picture] = [None if isinstance(p, str) else p for p in found]
        has_image = np.array([p is not None for p in pictures])
        has_text = plan.readable[batch] & (hide != "text")
        use = has_text | has_image
        if hide == "image" and encoder.masks_images and seen_images is not None:
            has_image = seen_images[batch]
            pictures = [HIDDEN if there else None for there in has_image]
            # a masked image without a text is a vector of nothing
        rows = np.zeros((len(batch), encoder.width), dtype=np.float32)
        kept = np.flatnonzero(use)
        if len(kept):
            texts = [items.texts[batch[i]] if has_text[i] else "" for i in kept]
            rows[kept] = encoder.rows(texts, [pictures[i] for i in kept])
        yield Batch(batch, rows, has_text, has_image & use, reasons)


def encode_table(
    encoder: ItemEncoder, items: ItemTable, *, batch_size: int, progress: bool
) -> tuple[EncodedItems, Counter[str]]:
    """Encode a table in memory; returns the reasons why images were not used as well."""
    from tqdm import tqdm

    plan = make_plan(encoder, items, batch_size)
    matrix = np.zeros((len(items.ids), encoder.width), dtype=np.float32)
    present = np.zeros(len(items.ids), dtype=bool)
    reasons: Counter[str] = Counter()
    total = sum(map(len, plan.batches))
    with tqdm(total=total, desc=encoder.name, unit="item", disable=not progress) as bar:
        for batch in run_batches(encoder, items, plan, range(len(plan.batches))):
            matrix[batch.items] = batch.rows
            present[batch.items] = batch.has_text | batch.has_image
            reasons.update(batch.reasons.values())
            bar.update(len(batch.items))
    settings = {**encoder.settings, **plan.facts}
    return EncodedItems(matrix, present, encoder.modality, encoder.name, settings), reasons
