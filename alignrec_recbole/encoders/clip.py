"""Image and text vectors of CLIP, SigLIP and other dual encoders from transformers.

`clip:MODEL` concatenates both, each L2-normalised, the block of a missing one zero;
`clip-image:MODEL` and `clip-text:MODEL` are one alone. MODEL is a hub id or a folder.

Source: Radford et al., "Learning Transferable Visual Models", ICML 2021; Zhai et al., "Sigmoid Loss
for Language Image Pre-Training", ICCV 2023.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image

from alignrec_recbole.data.images import centre_square, whole
from alignrec_recbole.encoders.base import EncoderRequest, ImageInput, ItemEncoder
from alignrec_recbole.encoders.model_folders import (
    cannot_be_loaded,
    check_model,
    find_model,
    image_library,
    load_model,
    model_identity,
    shown_name,
)
from alignrec_recbole.features.table import Modality
from alignrec_recbole.ops.matmul import prepack_linears

WHAT = "dual encoder"
SIDES: dict[str, Modality] = {"clip": "fused", "clip-image": "image", "clip-text": "text"}


class DualEncoder(ItemEncoder):
    """Projected vectors of a dual encoder.

    Args:
        name: clip, clip-image or clip-text, a colon, and the model.
        device: where it runs.

    Raises:
        FeatureError: the model cannot be loaded or has no two towers.
    """

    def __init__(self, name: str, device: str) -> None:
        kind, _, place = name.partition(":")
        self.modality = SIDES[kind]
        self.tokenizer, processor, model = _load(place)
        self.model, self.device = model.float().to(device).eval(), device
        prepack_linears(self.model)
        self.limit, self.block, side = _sizes(place, model.config, self.tokenizer)
        self.width = self.block * (2 if self.modality == "fused" else 1)
        self.uses_text = self.modality != "image"
        # NaFlex models read images of any proportions; their own processor makes the patches
        self.processor = processor if side is None else None
        if self.modality != "text":
            self.decode = whole if side is None else partial(centre_square, side=side)
        # SigLIP was trained on texts padded to full length, and reads their padding
        self.pad_fully = model.config.model_type.startswith("siglip")
        if side is not None:
            self.mean, self.deviation = _colours(place, processor)
        self.name = f"{kind}:{shown_name(place)}"
        self.settings = {
            **identity(name),
            "side": side,
            "max_tokens": self.limit,
            "normalise": True,
            "crop": "centre square" if side else "none: the model's own patches",
        }

    def text_lengths(self, texts: Sequence[str]) -> tuple[np.ndarray, dict[str, Any]]:
        """Lengths; 0 where only images matter."""
        lengths, stats = super().text_lengths(texts)
        return lengths if self.uses_text else np.zeros_like(lengths), stats

    @torch.inference_mode()
    def rows(self, texts: Sequence[str], images: Sequence[ImageInput]) -> np.ndarray:
        """One block per tower; the block of a missing modality is zero."""
        blocks = []
        if self.modality != "text":
            blocks.append(self._block(list(images), self._images))
        if self.uses_text:
            blocks.append(self._block([t or None for t in texts], self._texts))
        return np.concatenate(blocks, axis=1)

    def _block(self, contents: Sequence[Any], encode: Any) -> np.ndarray:
        out = np.zeros((len(contents), self.block), dtype=np.float32)
        there = [i for i, content in enumerate(contents) if content is not None]
        if there:
            vectors = encode([contents[i] for i in there])
            vectors = getattr(vectors, "pooler_output", vectors)  # transformers 5 wraps them
            out[there] = torch.nn.functional.normalize(vectors, dim=1).cpu().numpy()
        return out

    def _images(self, images: list[np.ndarray]) -> Any:
        if self.processor is not None:
            found = self.processor([Image.fromarray(i) for i in images], return_tensors="pt")
            return self.model.get_image_features(**found.to(self.device))
        pixels = (np.stack(images).astype(np.float32) / 255 - self.mean) / self.deviation
        batch = torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)))
        return self.model.get_image_features(pixel_values=batch.to(self.device))

    def _texts(self, texts: list[str]) -> Any:
        tokens = self.tokenizer(
            texts,
            padding="max_length" if self.pad_fully else True,
            truncation=True,
            max_length=self.limit,
            return_tensors="pt",
        ).to(self.device)
        return self.model.get_text_features(**tokens)


def open_encoder(request: EncoderRequest) -> DualEncoder:
    """A dual encoder by its full name, such as clip:openai/clip-vit-base-patch32."""
    return DualEncoder(request.name, request.device)


def identity(name: str) -> dict[str, Any]:
    """The model's name and the hash of its files.

    Of models that see images through their processor, what that scales them with.
    """
    place = name.partition(":")[2]
    identity, scaled = model_identity(place, WHAT), image_library()
    return {**identity, **(scaled if scaled and _reads_any_proportions(place) else {})}


def _reads_any_proportions(place: str) -> bool:
    from transformers import AutoConfig

    folder = str(find_model(place, WHAT))
    check_model(folder)
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:
        raise cannot_be_loaded(WHAT, place, error) from error
    return _is_flexible(getattr(config, "vision_config", None))


class _Inputs:
    """Tokenizer and image processor of a model."""

    @staticmethod
    def from_pretrained(folder: str, **options: Any) -> tuple[Any, Any]:
        from transformers import AutoImageProcessor, AutoTokenizer

        return (
            AutoTokenizer.from_pretrained(folder, **options),
            AutoImageProcessor.from_pretrained(folder, **options),
        )


def _load(place: str) -> tuple[Any, Any, Any]:
    from transformers import AutoModel

    (tokenizer, processor), model, _ = load_model(place, WHAT, _Inputs, AutoModel)
    if not hasattr(model, "get_image_features"):
        raise cannot_be_loaded(
            WHAT, place, ValueError(f"{type(model).__name__} has no tower of images")
        )
    return tokenizer, processor, model


def _sizes(place: str, config: Any, tokenizer: Any) -> tuple[int, int, int | None]:
    """Tokens of a text at most, width of a projected vector, pixels per side of an image.

    A tower like RoBERTa's has fewer usable positions than its config names; its tokenizer knows.
    The side is None where the model takes images of any proportions, as NaFlex models do.
    """
    try:
        text, vision = config.text_config, config.vision_config
        block = (
            getattr(config, "projection_dim", None)
            or getattr(text, "projection_size", None)
            or text.hidden_size
        )
        tokens = min(int(text.max_position_embeddings), int(tokenizer.model_max_length))
        width = int(block)
        side = None if _is_flexible(vision) else int(vision.image_size)
    except (AttributeError, TypeError, ValueError) as error:
        raise cannot_be_loaded(WHAT, place, error) from error
    if min(tokens, width, 1 if side is None else side) < 1:
        raise cannot_be_loaded(
            WHAT, place, ValueError(f"tokens, width and image size {(tokens, width, side)}")
        )
    return tokens, width, side


def _is_flexible(vision: Any) -> bool:
    """Whether a vision tower takes images of any proportions."""
    return not hasattr(vision, "image_size") and hasattr(vision, "num_patches")


def _colours(place: str, processor: Any) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of the three colours that the model was trained with."""
    try:
        mean, deviation = (
            np.asarray(v, dtype=np.float32) for v in (processor.image_mean, processor.image_std)
        )
    except (AttributeError, TypeError, ValueError) as error:
        raise cannot_be_loaded(WHAT, place, error) from error
    usable = np.isfinite(mean).all() and np.isfinite(deviation).all() and (deviation > 0).all()
    if not (mean.shape == deviation.shape == (3,) and usable):
        raise cannot_be_loaded(WHAT, place, ValueError("image_mean and image_std of the processor"))
    return mean, deviation
