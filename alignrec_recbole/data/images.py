"""Image files that anyone may have made: decoded to pixels, or refused with a reason.

Formats whose readers may start programs (EPS) are not tried, and sizes are checked before decoding.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

MAX_PIXELS = 64 << 20  # a larger image is refused before it is decoded
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
REASONS = ("missing", "not a file", "empty", "not an image", "too large", "damaged")


def centre_square(path: Path, side: int) -> np.ndarray | str:
    """The largest centred square, resized: uint8 [side, side, 3], or one of REASONS."""
    picture = open_picture(path)
    if isinstance(picture, str):
        return picture
    short = min(picture.size)
    left, top = (picture.width - short) // 2, (picture.height - short) // 2
    return _resized(picture, side, (left, top, left + short, top + short))


def stretched(path: Path, side: int) -> np.ndarray | str:
    """The whole image resized, its proportions not kept: uint8 [side, side, 3], or a reason."""
    picture = open_picture(path)
    if isinstance(picture, str):
        return picture
    return _resized(picture, side, (0, 0, picture.width, picture.height))


def _resized(picture: Image.Image, side: int, box: tuple[int, int, int, int]) -> np.ndarray:
    small = picture.resize((side, side), Image.Resampling.BICUBIC, box=box)
    return np.asarray(small, dtype=np.uint8)


def open_picture(path: Path) -> Image.Image | str:
    """An RGB image, turned upright by its EXIF tag, transparent parts white; or one of REASONS."""
    try:
        if not path.is_file():  # a pipe would block for ever
            return "not a file" if path.exists() else "missing"
        if path.stat().st_size == 0:
            return "empty"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                image = Image.open(path, formats=FORMATS)
            except Image.DecompressionBombError:
                return "too large"
            except Exception:  # readers of damaged headers raise anything
                return "not an image"
            with image:
                if image.width * image.height > MAX_PIXELS:
                    return "too large"
                return _rgb(ImageOps.exif_transpose(image))
    except Exception:  # damaged files raise anything, struct.error and IndexError included
        return "damaged"


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
