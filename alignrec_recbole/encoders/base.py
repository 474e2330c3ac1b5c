"""The interface of an encoder."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from alignrec_recbole.data.images import Decoded
from alignrec_recbole.features.table import Modality

if TYPE_CHECKING:
    from alignrec_recbole.data.items import ItemTable


class Masked(Enum):
    """Content that an item has and that is masked on purpose."""

    IMAGE = "masked image"


MASKED_IMAGE = Masked.IMAGE
# pixels uint8 [H, W, 3] or samples float32 [t]; a masked image; or no file
ImageInput = np.ndarray | Masked | None


@dataclass(frozen=True)
class EncoderRequest:
    """What an encoder of single items is opened for.

    Attributes:
        name: the full name, such as st:MODEL.
        device: where it runs.
        options: of `prepare`, those that were given and that the encoder takes (EncoderEntry).
        items: that it will encode, for encoders that fit something to them.
        fitted: where such a thing is stored, without its extension.
        progress: whether downloads show a bar.
    """

    name: str
    device: str = "cpu"
    options: Mapping[str, Any] = field(default_factory=dict)
    items: ItemTable | None = None
    fitted: Path | None = None
    progress: bool = False


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
        media: which files of the items it reads, if it has `decode`.
        decode: image file → pixels uint8 [H, W, 3], or audio file → samples float32 [t], or the
            reason why there are none; None: files do not matter.
        masks_images: whether MASKED_IMAGE means more to it than no image.
        notes: what a reader must know next to numbers computed from the rows.
        earlier_name: the name under which earlier versions computed other rows with the same model.
    """

    name: str
    modality: Modality
    width: int
    settings: dict[str, Any]
    reads_text: ClassVar[bool] = True
    masks_images: ClassVar[bool] = False
    media: ClassVar[Literal["image", "audio"]] = "image"
    decode: Callable[[Path], Decoded] | None = None
    notes: Sequence[str] = ()
    earlier_name: str | None = None

    def text_lengths(self, texts: Sequence[str]) -> tuple[np.ndarray, dict[str, Any]]:
        """Length of each text, 0 where there is nothing to read; and statistics for the manifest.

        Batches are made of texts of similar length.
        """
        return np.array([len(text.strip()) for text in texts], dtype=np.int64), {}

    @abstractmethod
    def rows(self, texts: Sequence[str], images: Sequence[ImageInput]) -> np.ndarray:
        """float32 [batch, f] of items that each have a text ("" if not) or an image."""
