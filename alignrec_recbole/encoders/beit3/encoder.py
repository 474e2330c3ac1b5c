"""Item features from BEiT-3: one fused pass per item, pooled.

    cls        the image's summary row (AlignRec's choice)
    text-cls   the row of <s>
    mean       mean over patch rows and the rows of real text tokens
    concat     cls and text-cls side by side

An item without an image is encoded from its text alone and pooled from its text rows; one without a
text is encoded with `<s></s>`. Both are listed in the manifest. All patches of a masked image are
the model's own mask token.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from alignrec_recbole.data.images import stretched
from alignrec_recbole.encoders.base import MASKED_IMAGE, ImageInput, ItemEncoder
from alignrec_recbole.encoders.beit3.architecture import Beit3, Beit3Output
from alignrec_recbole.encoders.beit3.tokenizer import SPECIAL, UNK, Tokenizer, pad
from alignrec_recbole.features.table import Modality
from alignrec_recbole.ops.matmul import prepack_linears
from alignrec_recbole.runtime import hardware

Pooling = Literal["cls", "text-cls", "mean", "concat"]
POOLINGS = ("cls", "text-cls", "mean", "concat")
Precision = Literal["auto", "float32", "bfloat16"]
LONGEST = 100_000  # characters read of a text; 128 tokens never need so many


class Beit3Encoder(ItemEncoder):
    """A model and its tokenizer, for inference.

    Args:
        model: with or without heads; its weights become this encoder's own.
        tokenizer: the one the model was trained with.
        pooling: see the module.
        precision: auto chooses bfloat16 on processors that have units for it.
        device: where it runs.
        identity: what distinguishes these weights from others.
        notes: for the manifest.

    Raises:
        SettingError: the tokenizer has more ids than the model, or longer texts.
    """

    modality: Modality = "fused"
    masks_images: ClassVar[bool] = True

    def __init__(
        self,
        model: Beit3,
        tokenizer: Tokenizer,
        *,
        pooling: Pooling = "cls",
        precision: Precision = "auto",
        device: str = "cpu",
        identity: dict[str, Any] | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        tokenizer.check_fits(model.sizes.vocab_size)
        tokenizer.check_length(model.sizes.longest_text)
        if precision == "auto":
            precision = "bfloat16" if hardware.has_bfloat16(device) else "float32"
        self.dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
        self.model = model.eval().requires_grad_(False).to(device, self.dtype)
        prepack_linears(self.model)
        self.tokenizer, self.pooling, self.device, self.notes = tokenizer, pooling, device, notes
        self.name = "beit3"
        self.width = model.sizes.width * (2 if pooling == "concat" else 1)
        self.decode = partial(stretched, side=model.sizes.image_size)
        self.settings = {
            "architecture": model.sizes.stored(),
            "pooling": pooling,
            "precision": precision,
            "max_tokens": tokenizer.max_tokens,
            "tokenizer_sha256": tokenizer.sha256,
            "without_image": "text rows alone",
            **(identity or {}),
        }

    def text_lengths(self, texts: Sequence[str]) -> tuple[np.ndarray, dict[str, Any]]:
        """Tokens of each text, <s> and </s> included; 0 if there are no others."""
        tokens = np.zeros(len(texts), dtype=np.int64)
        unknown = truncated = 0
        for i, text in enumerate(texts):
            ids = self._ids(text)
            tokens[i] = len(ids) if len(ids) > SPECIAL else 0
            unknown += ids.count(UNK)
            truncated += len(ids) == self.tokenizer.max_tokens
        real = int(tokens.sum()) - SPECIAL * int((tokens > 0).sum())
        stats = {"unknown_token_share": unknown / max(1, real), "texts_of_full_length": truncated}
        return tokens, stats

    def _ids(self, text: str) -> list[int]:
        cleaned = text[:LONGEST].encode("utf-8", "replace").decode("utf-8")  # lone surrogates
        return self.tokenizer.encode(cleaned)

    @torch.inference_mode()
    def rows(self, texts: Sequence[str], images: Sequence[ImageInput]) -> np.ndarray:
        """Pooled rows; items with and without an image are two calls of the model."""
        out = np.empty((len(texts), self.width), dtype=np.float32)
        with_image = [i for i, image in enumerate(images) if image is not None]
        text_alone = [i for i, image in enumerate(images) if image is None]
        for members in (with_image, text_alone):
            if not members:
                continue
            ids, padding = pad([self._ids(texts[i]) for i in members])
            pixels = masked = None
            if members is with_image:
                pixels, masked = self._images([images[i] for i in members])
            padded = torch.from_numpy(padding).to(self.device)
            rows = self.model(
                pixels,
                torch.from_numpy(ids).to(self.device),
                padded if padding.any() else None,
                masked,
                cls_only=self.pooling != "mean",
            )
            out[members] = self._pool(rows, ids, padded).float().cpu().numpy()
        return out

    def _images(self, images: Sequence[ImageInput]) -> tuple[Tensor, Tensor | None]:
        side = self.model.sizes.image_size
        batch = np.zeros((len(images), side, side, 3), dtype=np.uint8)
        masked = np.zeros((len(images), self.model.sizes.patches), dtype=bool)
        for i, image in enumerate(images):
            if isinstance(image, np.ndarray):
                batch[i] = image
            else:
                masked[i] = image is MASKED_IMAGE
        pixels = normalise(torch.from_numpy(batch).to(self.device)).to(self.dtype)
        return pixels, torch.from_numpy(masked).to(self.device) if masked.any() else None

    def _pool(self, rows: Beit3Output, ids: np.ndarray, padding: Tensor) -> Tensor:
        text, vision = rows.text, rows.vision
        assert text is not None  # every item has a text, if only <s></s>
        if self.pooling == "text-cls" or (self.pooling == "cls" and vision is None):
            return text[:, 0]
        if self.pooling == "cls":
            assert vision is not None
            return vision[:, 0]
        if self.pooling == "concat":
            first = torch.zeros_like(text[:, 0]) if vision is None else vision[:, 0]
            return torch.cat([first, text[:, 0]], 1)
        inner = ~padding
        inner[:, 0] = False
        inner[torch.arange(len(inner)), (~padding).sum(1) - 1] = False  # </s>
        total = (text.float() * inner[..., None]).sum(1)
        count = inner.sum(1, keepdim=True)
        if vision is not None:
            total = total + vision[:, 1:].float().sum(1)
            count = count + vision.shape[1] - 1
        return total / count


def normalise(pixels: Tensor) -> Tensor:
    """uint8 [B, S, S, 3] → float32 [B, 3, S, S] from −1 to 1."""
    return pixels.permute(0, 3, 1, 2).float() / 127.5 - 1
