"""The interface of an encoder."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from alignrec_recbole.data.images import Decoded
from alignrec_recbole.features.table import Modality


class Masked(Enum):
    """Content that an item has and that is masked on purpose."""

    IMAGE = "masked image"


MASKED_IMAGE = Masked.IMAGE
ImageInput = np.ndarray | Masked | None  # pixels uint8 [S, S, 3], a masked image, or no image


@dataclass(frozen=True)
class EncodedItems:
    """Features of an item table.

    Attributes:
        matrix: float32 [n, f]; a zero row where the modality is missing.
        present: bool [n].
        modality: text, image or fused.
        encoder: name of the encoder.
        settings: enough to make the rows again.
    """

    matrix: np.ndarray
    present: np.ndarray
    modality: Modality
    encoder: str
    settings: dict[str, Any]


class ItemEncoder(ABC):
    """Rows of items, each from its own content alone.

    Attributes:
        name: for manifests.
        modality: text, image or fused.
        width: f.
        settings: enough to make the rows again; a hash or revision of the weights included.
        reads_text: whether texts matter.
        decode: image file → pixels uint8 [S, S, 3] or the reason why there are none; None: images
            do not matter.
        masks_images: whether MASKED_IMAGE means more to it than no image.
        notes: what a reader must know next to numbers computed from the rows.
    """

    name: str
    modality: Modality
    width: int
    settings: dict[str, Any]
    reads_text: ClassVar[bool] = True
    masks_images: ClassVar[bool] = False
    decode: Callable[[Path], Decoded] | None = None
    notes: Sequence[str] = ()

    def text_lengths(self, texts: Sequence[str]) -> tuple[np.ndarray, dict[str, Any]]:
        """Length of each text, 0 where there is nothing to read; and statistics for the manifest.

        Batches are made of texts of similar length.
        """
        return np.array([len(text.strip()) for text in texts], dtype=np.int64), {}

    @abstractmethod
    def rows(self, texts: Sequence[str], images: Sequence[ImageInput]) -> np.ndarray:
        """float32 [batch, f] of items that each have a text ("" if not) or an image."""
