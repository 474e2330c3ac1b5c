"""Augmented, masked micro-batches of items for pre-training."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from alignrec_recbole.encoders.beit3.corpus import Corpus
from alignrec_recbole.encoders.beit3.masking import generator, mask_patches, mask_text
from alignrec_recbole.encoders.beit3.pretrain_settings import PretrainSettings

VALIDATION_EPOCH = -1  # masks of the held-out items, the same at each evaluation


@dataclass(frozen=True)
class CropBox:
    """A random crop of an image, possibly mirrored."""

    top: int
    left: int
    height: int
    width: int
    mirrored: bool

    def of(self, image: Tensor) -> Tensor:
        """The crop, resized to the whole [3, S, S]."""
        part = image[:, self.top : self.top + self.height, self.left : self.left + self.width]
        part = interpolate(
            part[None], image.shape[1:], mode="bilinear", antialias=True, align_corners=False
        )[0]
        return part.flip(2) if self.mirrored else part


def draw_drop_path(rate: float, layers: int, rng: np.random.Generator) -> np.ndarray:
    """Drop path: float32 [2 passes, layers, 2 branches], 0 or 1 / (1 − the layer's rate).

    The rate rises linearly from 0 at the first layer.

    >>> draw_drop_path(0.5, 2, generator(0))[0].tolist()
    [[1.0, 1.0], [0.0, 2.0]]
    """
    rates = np.linspace(0, rate, layers)[:, None]
    return ((rng.random((2, layers, 2)) >= rates) / (1 - rates)).astype(np.float32)


def draw_crop(side: int, least: float, rng: np.random.Generator) -> CropBox:
    """A random crop: area `least` … 1 of the image, sides 3 : 4 … 4 : 3, mirrored half the time.

    Source: BEiT-3's fine-tuning crops so, with `least` 0.5.

    >>> draw_crop(100, 0.5, generator(0))
    CropBox(top=0, left=0, height=76, width=99, mirrored=False)
    """
    area, ratio = rng.uniform(least, 1), math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
    height, width = (
        min(side, max(1, round(side * math.sqrt(area * r)))) for r in (1 / ratio, ratio)
    )
    top, left = (int(rng.integers(side - n + 1)) for n in (height, width))
    return CropBox(top, left, height, width, bool(rng.random() < 0.5))


@dataclass(frozen=True)
class MicroBatch:
    """Masked items of one forward pass; `image_of` differs from `items` only in the controls."""

    items: np.ndarray
    image_of: np.ndarray
    ids: list[np.ndarray]
    masked_ids: list[np.ndarray]
    chosen: list[np.ndarray]  # words to predict
    patches: np.ndarray  # bool [B, patches], to predict
    crops: list[CropBox] | None = None  # of the images; None: whole
    drop_path_scale: np.ndarray | None = None  # of branches, [B, 2 passes, layers, 2]; None: all 1


def make_micro_batch(
    corpus: Corpus,
    members: np.ndarray,
    grid: int,
    epoch: int,
    settings: PretrainSettings,
    image_of: np.ndarray | None = None,
    num_layers: int = 0,
) -> MicroBatch:
    """Draw the masks of some items for an epoch.

    Args:
        num_layers: of the model, if drop path is used.
    """
    image_of = members if image_of is None else image_of
    masked, chosen = [], []
    for i in members:
        rng = generator(settings.seed, epoch, int(i), 0)
        out = mask_text(corpus.ids[i].tolist(), settings.text_mask, corpus.mask, rng)
        masked.append(out[0])
        chosen.append(out[1])
    patches = np.zeros((len(members), grid * grid), dtype=bool)
    for row, i in enumerate(image_of):
        if corpus.place[i] >= 0:
            rng = generator(settings.seed, epoch, int(i), 1)
            patches[row] = mask_patches(grid, settings.image_mask, rng)
    crops = None
    if settings.crop < 1 and epoch != VALIDATION_EPOCH:
        side = corpus.pixels.shape[1]
        rngs = (generator(settings.seed, epoch, int(i), 2) for i in image_of)
        crops = [draw_crop(side, settings.crop, rng) for rng in rngs]
    drop_path_scale = None
    if settings.drop_path and num_layers:
        rngs = (generator(settings.seed, epoch, int(i), 3) for i in members)
        drop_path_scale = np.stack(
            [draw_drop_path(settings.drop_path, num_layers, rng) for rng in rngs]
        )
    ids = [corpus.ids[i] for i in members]
    return MicroBatch(members, image_of, ids, masked, chosen, patches, crops, drop_path_scale)


def count_targets(batch: MicroBatch) -> Tensor:
    """float64 [2]: words and patches to predict."""
    words = sum(int(c.sum()) for c in batch.chosen)
    return torch.tensor([words, int(batch.patches.sum())], dtype=torch.float64)
