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
LONGEST = 2048  # pixels of a side that a model's own processor is given
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
REASONS = ("missing", "not a file", "empty", "not an image", "too large", "damaged")


@dataclass(frozen=True)
class Decoded:
    """A file as an encoder reads it; no attribute is set where no file was named.

    Attributes:
        pixels: of an image, uint8 [height, width, 3].
        reason: why the file has neither pixels nor samples; of an image one of REASONS.
        samples: of an audio file, float32 [t].
    """

    pixels: np.ndarray | None = None
    reason: str | None = None
    samples: np.ndarray | None = None

    @property
    def content(self) -> np.ndarray | None:
        """The pixels or the samples."""
        return self.samples if self.pixels is None else self.pixels


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


def whole(path: Path, longest: int = LONGEST) -> Decoded:
    """The whole image in its own proportions; a longer side than `longest` is scaled to it."""
    try:
        image = open_image(path)
    except UnreadableImage as error:
        return Decoded(reason=str(error))
    image.thumbnail((longest, longest), Image.Resampling.BICUBIC)
    return Decoded(np.array(image, dtype=np.uint8))


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
