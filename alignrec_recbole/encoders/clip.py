"""Image and text vectors of CLIP, SigLIP and other dual encoders from transformers.

`clip:MODEL` concatenates both, each L2-normalised, the block of a missing one zero;
`clip-image:MODEL` and `clip-text:MODEL` are one alone. MODEL is a hub id or a folder.

Source: Radford et al., "Learning Transferable Visual Models", ICML 2021; Zhai et al., "Sigmoid Loss
for Language Image Pre-Training", ICCV 2023.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from alignrec_recbole.data.images import centre_square, whole
from alignrec_recbole.encoders.base import EncoderRequest, ImageInput, ItemEncoder
from alignrec_recbole.encoders.model_folders import (
    check_model,
    folder_identity,
    image_library,
    quiet_transformers,
)
from alignrec_recbole.errors import FeatureError
from alignrec_recbole.features.table import Modality
from alignrec_recbole.ops.matmul import prepack_linears

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
        self.limit, self.block, side = _sizes(place, model.config)
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
        self.name = f"{kind}:{_shown(place)}"
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
    """The model's name and the hash or revision of its weights.

    Of models that see images through their processor, what that scales them with.
    """
    place = name.partition(":")[2]
    local, scaled = folder_identity(place), image_library()
    if local and not scaled:
        return {"model": _shown(place), **local}
    from transformers import AutoConfig

    check_model(place)
    try:
        config = AutoConfig.from_pretrained(place, trust_remote_code=False)
    except Exception as error:
        raise _cannot_be_loaded(place, error) from error
    own = local or {"revision": str(getattr(config, "_commit_hash", None))}
    flexible = _is_flexible(getattr(config, "vision_config", None))
    return {"model": _shown(place), **own, **(scaled if flexible else {})}


def _load(place: str) -> tuple[Any, Any, Any]:
    from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

    check_model(place)
    try:
        with quiet_transformers():
            tokenizer = AutoTokenizer.from_pretrained(place, trust_remote_code=False)
            processor = AutoImageProcessor.from_pretrained(place, trust_remote_code=False)
            model, loading = AutoModel.from_pretrained(
                place, use_safetensors=True, output_loading_info=True, trust_remote_code=False
            )
    except Exception as error:
        raise _cannot_be_loaded(place, error) from error
    if loading["missing_keys"] or not hasattr(model, "get_image_features"):
        raise FeatureError(
            f"{place!r} is not a complete dual encoder.",
            found=f"{type(model).__name__}, {len(loading['missing_keys'])} tensors missing",
            expected="a model such as CLIP or SigLIP with all its weights",
        )
    return tokenizer, processor, model


def _sizes(place: str, config: Any) -> tuple[int, int, int | None]:
    """Tokens of a text at most, width of a projected vector, pixels per side of an image.

    The side is None where the model takes images of any proportions, as NaFlex models do.
    """
    try:
        text, vision = config.text_config, config.vision_config
        block = (
            getattr(config, "projection_dim", None)
            or getattr(text, "projection_size", None)
            or text.hidden_size
        )
        tokens, width = int(text.max_position_embeddings), int(block)
        side = None if _is_flexible(vision) else int(vision.image_size)
    except (AttributeError, TypeError, ValueError) as error:
        raise _cannot_be_loaded(place, error) from error
    if min(tokens, width, 1 if side is None else side) < 1:
        raise _cannot_be_loaded(
            place, ValueError(f"tokens, width and image size {(tokens, width, side)}")
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
        raise _cannot_be_loaded(place, error) from error
    usable = np.isfinite(mean).all() and np.isfinite(deviation).all() and (deviation > 0).all()
    if not (mean.shape == deviation.shape == (3,) and usable):
        raise _cannot_be_loaded(place, ValueError("image_mean and image_std of the processor"))
    return mean, deviation


def _cannot_be_loaded(place: str, error: Exception) -> FeatureError:
    return FeatureError(
        f"The dual encoder {place!r} cannot be loaded.",
        found=f"{type(error).__name__}: {(str(error).strip() or '-').splitlines()[0]}",
        expected="a hub id that can be reached, or a folder with config, tokenizer, image "
        "processor and safetensors weights",
    )


def _shown(place: str) -> str:
    """The hub id, or the last part of a folder: a record shows nobody's folders."""
    return Path(place).resolve().name if os.path.isdir(place) else place
