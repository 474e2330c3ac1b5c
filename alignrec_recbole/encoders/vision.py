"""Vectors of image models from transformers: DINOv2, DINOv3, ViT, ConvNeXt and others.

MODEL is a hub id or a folder. Images go through the model's own processor.

Source: Oquab et al., "DINOv2", TMLR 2024; Siméoni et al., "DINOv3", 2025; Dosovitskiy et al., "An
Image is Worth 16x16 Words", ICLR 2021; Liu et al., "A ConvNet for the 2020s", CVPR 2022.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image

from alignrec_recbole.data.images import whole
from alignrec_recbole.encoders.base import EncoderRequest, ImageInput, ItemEncoder
from alignrec_recbole.encoders.model_folders import (
    cannot_be_loaded,
    image_library,
    load_model,
    model_identity,
)
from alignrec_recbole.errors import FeatureError, SettingError
from alignrec_recbole.features.table import Modality
from alignrec_recbole.ops.matmul import prepack_linears

WHAT = "image encoder"
POOLINGS = ("pooled", "cls", "mean")


class VisionEncoder(ItemEncoder):
    """Pooled output, CLS token or mean of patches of an image model, in float32.

    pooled is the model's `pooler_output`: of DINOv2 the normalised CLS token, of ConvNeXt the
    normalised mean of its maps. A ViT whose files have no trained pooler gives its CLS token unless
    `pooling` says otherwise. mean is taken over the patches, without CLS, register and detection
    tokens.

    Args:
        model: a hub id or a folder. Code that a model brings along is never run.
        pooling: one of POOLINGS; None: pooled where the model has it trained, else cls, else mean.

    Raises:
        FeatureError: the model cannot be loaded, is incomplete, is no image model or computes
            other rows of an image in every call.
        SettingError: the model has no such pooling.
    """

    modality: Modality = "image"
    reads_text: ClassVar[bool] = False
    decode = staticmethod(whole)

    def __init__(self, name: str, device: str, pooling: str | None) -> None:
        given = name.partition(":")[2]
        own = identity(name)
        self.processor, model, trained_pooler = _load(given)
        self.model, self.device = model.float().to(device).eval(), device
        prepack_linears(self.model)
        config = model.config
        tokens = [key.rpartition(".")[2] for key in model.state_dict()]
        self.first_patch = 1 + getattr(config, "num_register_tokens", 0)
        self.first_patch += "distillation_token" in tokens
        self.after_patches = int("detection_tokens" in tokens and config.num_detection_tokens)
        probe = self._probe(given)
        hidden = probe.last_hidden_state
        pooled = getattr(probe, "pooler_output", None) is not None and trained_pooler
        has_cls = hidden.ndim == 3 and any(k.endswith("cls_token") for k in model.state_dict())
        there = [p for p, has in zip(POOLINGS, (pooled, has_cls, True), strict=True) if has]
        self.pooling = pooling or there[0]
        self.has_cls = has_cls
        if self.pooling not in there:
            raise SettingError(
                f"The {WHAT} {given!r} has no pooling {self.pooling!r}.",
                found=f"{type(model).__name__}"
                + ("" if trained_pooler else ", whose files have no weights of a pooler"),
                expected=", ".join(there),
            )
        self.width = self._pool(probe).shape[1]
        self.name = f"vision:{own['model']}"
        self.settings = {**own, "pooling": self.pooling, "architecture": type(model).__name__}

    def _probe(self, given: str) -> Any:
        """The model's output for one image.

        Raises:
            FeatureError: there is none, or it differs from call to call, as that of models that
                hide patches at random does.
        """
        noise = np.random.Generator(np.random.PCG64(0)).integers(0, 256, (64, 64, 3), np.uint8)
        try:
            probes = [self._output([Image.fromarray(noise)]) for _ in range(2)]
            one, two = (probe.last_hidden_state for probe in probes)
            same = torch.allclose(one, two, atol=1e-3, equal_nan=True)
        except Exception as error:  # each architecture has inputs and outputs of its own
            raise cannot_be_loaded(WHAT, given, error) from error
        if not same:
            raise FeatureError(
                f"The {WHAT} {given!r} computes other rows of the same image in every call.",
                found=f"{type(self.model).__name__}, which draws random numbers",
                expected="a model whose output depends on the image alone",
                hint="of a masked autoencoder, convert the weights to those of its plain ViT",
            )
        return probes[0]

    @torch.inference_mode()
    def rows(self, texts: Sequence[str], images: Sequence[ImageInput]) -> np.ndarray:
        """All images in one call of the model."""
        pictures = [Image.fromarray(image) for image in images if isinstance(image, np.ndarray)]
        return self._pool(self._output(pictures)).float().cpu().numpy()

    @torch.inference_mode()
    def _output(self, pictures: list[Image.Image]) -> Any:
        found = self.processor(pictures, return_tensors="pt").to(self.device)
        return self.model(pixel_values=found["pixel_values"])

    def _pool(self, output: Any) -> torch.Tensor:
        hidden = output.last_hidden_state  # [b, tokens, f] or maps [b, f, h, w]
        if self.pooling == "pooled":
            return output.pooler_output.flatten(1)
        if self.pooling == "cls":
            return hidden[:, 0]
        if hidden.ndim == 4:
            return hidden.mean((2, 3))
        first, last = self.first_patch if self.has_cls else 0, hidden.shape[1] - self.after_patches
        return hidden[:, first:last].mean(1)


def open_encoder(request: EncoderRequest) -> VisionEncoder:
    """The encoder `vision:MODEL`."""
    return VisionEncoder(request.name, request.device, request.options.get("pooling"))


def identity(name: str) -> dict[str, Any]:
    """The model's name, the hash of all its files, and what scales the images."""
    return {**model_identity(name.partition(":")[2], WHAT), **image_library()}


def _load(given: str) -> tuple[Any, Any, bool]:
    """Processor and model, and whether the weights of the pooler are in the files."""
    from transformers import AutoImageProcessor, AutoModel

    processor, model, missing = load_model(
        given, WHAT, AutoImageProcessor, AutoModel, may_miss="pooler."
    )
    if model.main_input_name != "pixel_values":
        raise FeatureError(
            f"{given!r} is no {WHAT}.",
            found=type(model).__name__,
            expected="a model of images alone, such as DINOv2, ViT or ConvNeXt",
            hint="name models of images and texts as clip:MODEL or st:MODEL",
        )
    return processor, model, not missing
