"""Image files from unknown sources: decoded to pixels, or refused with a reason.

Formats whose readers may start programs (EPS) are not tried, and sizes are checked before decoding.
"""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from alignrec_recbole.io.opening import is_regular_file

MAX_PIXELS = 64 << 20  # a larger image is refused before it is decoded
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
REASONS = ("missing", "not a file", "empty", "not an image", "too large", "damaged")


@dataclass(frozen=True)
class Decoded:
    """An image as an encoder reads it; neither attribute is set where no image was named.

    Attributes:
        pixels: uint8 [side, side, 3].
        reason: one of REASONS, why the file has no pixels.
    """

    pixels: np.ndarray | None = None
    reason: str | None = None


class UnreadableImage(Exception):
    """An image file that was refused; its message is one of REASONS."""


def centre_square(path: Path, side: int) -> Decoded:
    """The largest centred square, resized to side × side pixels."""
    try:
        image = open_image(path)
    except UnreadableImage as error:
        return Decoded(reason=str(error))
    short = min(image.size)
    left, top = (image.width - short) // 2, (image.height - short) // 2
    return _resized(image, side, (left, top, left + short, top + short))


def stretched(path: Path, side: int) -> Decoded:
    """The whole image resized to side × side pixels, whatever its proportions."""
    try:
        image = open_image(path)
    except UnreadableImage as error:
        return Decoded(reason=str(error))
    return _resized(image, side, (0, 0, image.width, image.height))


def _resized(image: Image.Image, side: int, box: tuple[int, int, int, int]) -> Decoded:
    small = image.resize((side, side), Image.Resampling.BICUBIC, box=box)
    return Decoded(np.asarray(small, dtype=np.uint8))


def open_image(path: Path) -> Image.Image:
    """An RGB image, rotated upright by its EXIF tag, transparent parts white.

    Raises:
        UnreadableImage: with the reason.
    """
    try:
        if not is_regular_file(path):  # reading a pipe would block forever
            raise UnreadableImage("not a file" if os.path.lexists(path) else "missing")
        if path.stat().st_size == 0:
            raise UnreadableImage("empty")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                image = Image.open(path, formats=FORMATS)
            except Image.DecompressionBombError:
                raise UnreadableImage("too large") from None
            except Exception:  # readers of damaged headers raise anything
                raise UnreadableImage("not an image") from None
            with image:
                if image.width * image.height > MAX_PIXELS:
                    raise UnreadableImage("too large")
                return _rgb(ImageOps.exif_transpose(image))
    except UnreadableImage:
        raise
    except Exception:  # damaged files raise anything, struct.error and IndexError included
        raise UnreadableImage("damaged") from None


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I", "F")):  # more than eight bits per pixel
        levels = np.asarray(image, dtype=np.float32)
        if not np.isfinite(levels).all():
            raise UnreadableImage("damaged")
        highest = levels.max()
        fractions = image.mode.startswith("F") and highest <= 1  # floats in 0 … 1
        top = 65535 if highest > 255 else 1 if fractions else 255
        return Image.fromarray((levels / top * 255).clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")
