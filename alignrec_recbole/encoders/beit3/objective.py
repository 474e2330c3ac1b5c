"""The pre-training loss: masked tokens of text and image."""

from __future__ import annotations

from collections.abc import Iterator

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
    has_image = (corpus.place[micro.image_of] >= 0) & (not no_image)
    has_words = np.array([bool(c.any()) for c in micro.chosen])
    with_image, without = np.flatnonzero(has_image), np.flatnonzero(~has_image & has_words)
    if mode == "joint":
        passes = [(with_image, True, True, True), (without, False, True, False)]
    else:
        both = np.flatnonzero(has_image & has_words)
        passes = [
            (both, True, True, False),
            (without, False, True, False),
            (with_image, True, False, True),
        ]
    for rows, use_image, mask_text, mask_image in passes:
        if len(rows) == 0:
            continue
        texts = micro.masked_ids if mask_text else micro.ids
        ids, padding = pad([texts[r] for r in rows])
        image = masked = None
        if use_image:
            places = corpus.place[micro.image_of[rows]]
            image = normalise(torch.from_numpy(np.stack([corpus.pixels[p] for p in places])))
            image = image.to(device)
            if micro.crops:
                image = torch.stack(
                    [micro.crops[r].of(one) for r, one in zip(rows, image, strict=True)]
                )
            masked = torch.from_numpy(micro.patches[rows]).to(device) if mask_image else None
        drop_path_scale = None
        if micro.drop_path_scale is not None:  # each pass has its own
            drop_path_scale = torch.from_numpy(
                micro.drop_path_scale[rows, 0 if mask_text else 1]
            ).to(device)
        out = model(
            image,
            torch.from_numpy(ids).to(device),
            torch.from_numpy(padding).to(device) if padding.any() else None,
            masked,
            drop_path_scale=drop_path_scale,
        )
        losses = {}
        if mask_text:
            where, _ = pad([micro.chosen[r] for r in rows])
            chosen = torch.from_numpy((where == 1) & ~padding).to(device)
            wanted, _ = pad([micro.ids[r] for r in rows])
            if chosen.any():
                logits = model.mlm_head(out.text[chosen])  # type: ignore[misc]
                words = torch.from_numpy(wanted).to(device)[chosen]
                losses["mlm"] = cross_entropy(logits.float(), words, reduction="sum")
        if mask_image and masked is not None:
            predicted = model.mim_head(out.vision[:, 1:][masked])  # type: ignore[misc]
            # in bfloat16 some codes would be others
            with torch.autocast(device.partition(":")[0], enabled=False):
                wanted_patches = target.of(image)[masked]  # type: ignore[arg-type]
            losses["mim"] = target.loss(predicted, wanted_patches)
        yield losses
