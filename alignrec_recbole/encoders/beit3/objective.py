"""The pre-training loss: masked tokens of text and image."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from alignrec_recbole.encoders.beit3.architecture import Beit3
from alignrec_recbole.encoders.beit3.corpus import Corpus
from alignrec_recbole.encoders.beit3.encoder import normalise
from alignrec_recbole.encoders.beit3.microbatch import MicroBatch
from alignrec_recbole.encoders.beit3.targets import Target
from alignrec_recbole.encoders.beit3.tokenizer import pad


def loss_sums(
    model: Beit3,
    target: Target,
    corpus: Corpus,
    micro: MicroBatch,
    mode: str,
    device: str,
    no_image: bool = False,
) -> Iterator[dict[str, Tensor]]:
    """Sums of the losses over masked words ("mlm") and patches ("mim"), for each forward pass.

    Args:
        no_image: use no image (what can be predicted of the words from the words alone).
    """
    for part in _passes(corpus, micro, mode, no_image):
        rows = part.rows
        texts = micro.masked_ids if part.mask_text else micro.ids
        ids, padding = pad([texts[r] for r in rows])
        image = _images(corpus, micro, rows, device) if part.use_image else None
        masked = torch.from_numpy(micro.patches[rows]).to(device) if part.mask_image else None
        drop_path_scale = None
        if micro.drop_path_scale is not None:  # each pass has its own
            scale = micro.drop_path_scale[rows, 0 if part.mask_text else 1]
            drop_path_scale = torch.from_numpy(scale).to(device)
        out = model(
            image,
            torch.from_numpy(ids).to(device),
            torch.from_numpy(padding).to(device) if padding.any() else None,
            masked,
            drop_path_scale=drop_path_scale,
        )
        losses = {}
        if part.mask_text:
            where, _ = pad([micro.chosen[r] for r in rows])
            chosen = torch.from_numpy((where == 1) & ~padding).to(device)
            wanted, _ = pad([micro.ids[r] for r in rows])
            if chosen.any():
                logits = model.mlm_head(out.text[chosen])  # type: ignore[misc]
                words = torch.from_numpy(wanted).to(device)[chosen]
                losses["mlm"] = cross_entropy(logits.float(), words, reduction="sum")
        if image is not None and masked is not None:
            predicted = model.mim_head(out.vision[:, 1:][masked])  # type: ignore[misc]
            # in bfloat16 some codes would be others
            with torch.autocast(device.partition(":")[0], enabled=False):
                wanted_patches = target.of(image)[masked]
            losses["mim"] = target.loss(predicted, wanted_patches)
        yield losses


@dataclass(frozen=True)
class _Pass:
    """Items of a micro-batch that share a forward pass, and what is masked in it."""

    rows: np.ndarray
    use_image: bool
    mask_text: bool
    mask_image: bool


def _passes(corpus: Corpus, micro: MicroBatch, mode: str, no_image: bool) -> list[_Pass]:
    """The forward passes of a mode that have items."""
    has_image = (corpus.place[micro.image_of] >= 0) & (not no_image)
    has_words = np.array([bool(c.any()) for c in micro.chosen])
    with_image, without = np.flatnonzero(has_image), np.flatnonzero(~has_image & has_words)
    if mode == "joint":
        passes = [_Pass(with_image, True, True, True), _Pass(without, False, True, False)]
    else:
        both = np.flatnonzero(has_image & has_words)
        passes = [
            _Pass(both, True, True, False),
            _Pass(without, False, True, False),
            _Pass(with_image, True, False, True),
        ]
    return [part for part in passes if len(part.rows)]


def _images(corpus: Corpus, micro: MicroBatch, rows: np.ndarray, device: str) -> Tensor:
    """The normalised images of these rows, cropped if the micro-batch has crops."""
    places = corpus.place[micro.image_of[rows]]
    image = normalise(torch.from_numpy(np.stack([corpus.pixels[p] for p in places]))).to(device)
    if not micro.crops:
        return image
    return torch.stack([micro.crops[r].of(one) for r, one in zip(rows, image, strict=True)])
