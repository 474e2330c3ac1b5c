"""Items through an encoder, batch by batch, with images decoded ahead."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import DataLoader, Dataset

from alignrec_recbole.data.images import Decoded
from alignrec_recbole.data.items import ItemTable
from alignrec_recbole.encoders.base import MASKED_IMAGE, EncodedItems, ImageInput, ItemEncoder
from alignrec_recbole.errors import FeatureError
from alignrec_recbole.runtime import allocator
from alignrec_recbole.runtime.workers import exit_with_parent

NO_IMAGE = Decoded()


@dataclass(frozen=True)
class Plan:
    """Which items go through the encoder together.

    Attributes:
        batches: item indices; texts of similar length share a batch, so that little is padded.
        has_text: bool [n].
        stats: of the texts, for the manifest.
    """

    batches: list[np.ndarray]
    has_text: np.ndarray
    stats: dict[str, Any]

    def shard(self, number: int, of: int) -> list[int]:
        """Batches of one shard, 1 ≤ number ≤ of; all shards together are the whole plan."""
        return list(range(number - 1, len(self.batches), of))


def make_plan(encoder: ItemEncoder, items: ItemTable, batch_size: int) -> Plan:
    """Split the items into batches, the same ones for the same table, encoder and batch size.

    Batches are shuffled, so that long ones are spread evenly and the time left can be estimated.
    """
    n = len(items.ids)
    if encoder.reads_text:
        lengths, stats = encoder.text_lengths(items.texts)
    else:
        lengths, stats = np.zeros(n, dtype=np.int64), {}
    has_text = lengths > 0
    names_image = np.array([image is not None for image in items.images])
    if encoder.decode is None:
        names_image[:] = False
    order = np.lexsort((lengths, names_image))
    order = order[(has_text | names_image)[order]]
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    shuffled = np.random.Generator(np.random.PCG64(0)).permutation(len(batches))
    return Plan([batches[i] for i in shuffled], has_text, stats)


@dataclass(frozen=True)
class Batch:
    """An encoded batch.

    Attributes:
        items: indices.
        rows: float32 [batch, f]; zero where there was nothing to encode.
        has_text, has_image: bool [batch].
        reasons: why an image that the table names was not used, by item index.
    """

    items: np.ndarray
    rows: np.ndarray
    has_text: np.ndarray
    has_image: np.ndarray
    reasons: dict[int, str] = field(default_factory=dict)


def decode_ahead(
    decode: Callable[[Path], Decoded] | None, images: list[list[Path | None]], workers: int
) -> Iterator[list[Decoded]]:
    """The decoded images of each batch; `workers` processes work ahead of the caller."""
    loader: DataLoader = DataLoader(
        _DecodedBatches(decode, images),
        batch_size=None,
        num_workers=workers if decode is not None else 0,
        collate_fn=_unchanged,
        worker_init_fn=exit_with_parent,
    )
    return iter(loader)


class _DecodedBatches(Dataset):
    """Decoded images of a batch; runs in worker processes."""

    def __init__(
        self, decode: Callable[[Path], Decoded] | None, images: list[list[Path | None]]
    ) -> None:
        self.decode, self.images = decode, images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, number: int) -> list[Decoded]:
        if self.decode is None:
            return [NO_IMAGE] * len(self.images[number])
        return [NO_IMAGE if p is None else self.decode(p) for p in self.images[number]]


def _unchanged(sample: Any) -> Any:
    return sample


def run_batches(
    encoder: ItemEncoder,
    items: ItemTable,
    plan: Plan,
    numbers: Sequence[int],
    *,
    workers: int = 0,
    mask_modality: str | None = None,
    readable_images: np.ndarray | None = None,
) -> Iterator[Batch]:
    """Encode the plan's batches of these numbers, in this order.

    Args:
        workers: processes that decode images ahead of the encoder; 0: none.
        mask_modality: "text" or "image" to mask that modality of every item.
        readable_images: bool [n]; which items have a readable image, where images are masked.
    """
    decode = encoder.decode if mask_modality != "image" else None
    paths = [[items.images[i] for i in plan.batches[k]] for k in numbers]
    decoded = decode_ahead(decode, paths, workers)
    allocator.phase("train")  # here, not in the workers
    for number, found in zip(numbers, decoded, strict=True):
        batch = plan.batches[number]
        reasons = {int(i): d.reason for i, d in zip(batch, found, strict=True) if d.reason}
        images: list[ImageInput] = [d.content for d in found]
        has_image = np.array([image is not None for image in images])
        has_text = plan.has_text[batch] & (mask_modality != "text")
        encodable = has_text | has_image
        if mask_modality == "image" and encoder.masks_images and readable_images is not None:
            has_image = readable_images[batch]
            images = [MASKED_IMAGE if has else None for has in has_image]
            # a masked image without a text has no content: its row stays zero
        rows = np.zeros((len(batch), encoder.width), dtype=np.float32)
        used = np.flatnonzero(encodable)
        if len(used):
            texts = [items.texts[batch[i]] if has_text[i] else "" for i in used]
            rows[used] = _encoded(encoder, texts, [images[i] for i in used])
        read = rows.any(1)  # of a text without a known token, static models give zero
        yield Batch(batch, rows, has_text & read, has_image & encodable & read, reasons)


def _encoded(
    encoder: ItemEncoder, texts: Sequence[str], images: Sequence[ImageInput]
) -> np.ndarray:
    """The encoder's rows.

    Raises:
        FeatureError: it failed, or its rows are not finite.
    """
    try:
        rows = encoder.rows(texts, images)
    except (IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise FeatureError(
            f"The encoder {encoder.name} failed on a batch of {len(texts)} items.",
            found=f"{type(error).__name__}: {(str(error).strip() or '-').splitlines()[0]}",
            expected="a model whose tokenizer and sizes belong together, and enough memory",
            hint="use the complete model, or a smaller --batch-size",
        ) from error
    if not np.isfinite(rows).all():
        raise FeatureError(
            f"The encoder {encoder.name} computed NaN or infinity.",
            found=f"{(~np.isfinite(rows)).any(1).sum()} of {len(rows)} rows of a batch",
            expected="finite numbers",
            hint="use other weights, or --precision float32",
        )
    return rows


def encode_table(
    encoder: ItemEncoder, items: ItemTable, *, batch_size: int, progress: bool
) -> tuple[EncodedItems, Counter[str]]:
    """Encode a table in memory; also returns the reasons why files were not used."""
    from tqdm.auto import tqdm

    items = items.with_files(encoder.media)
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
    settings = {**encoder.settings, **plan.stats}
    return EncodedItems(matrix, present, encoder.modality, encoder.name, settings), reasons
