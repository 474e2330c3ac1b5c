"""Encode an item table in memory by an encoder's name, and store the rows."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from alignrec_recbole.data.items import ItemTable
from alignrec_recbole.encoders.base import EncodedItems, EncoderRequest
from alignrec_recbole.encoders.batches import encode_table
from alignrec_recbole.encoders.registry import EncoderEntry, find_encoder
from alignrec_recbole.errors import DataError, SettingError
from alignrec_recbole.features.table import FeatureTable, load_features, save_features

logger = logging.getLogger(__name__)


def encoder_identity(name: str, items: ItemTable) -> dict[str, Any]:
    """What distinguishes the rows of an encoder from those of other settings, weights or versions.

    Args:
        name: of the encoder.
        items: what it encodes; an encoder of whole tables may read some in another way.

    Raises:
        UnknownNameError: there is no such encoder.
        SettingError: the name alone does not choose the weights.
        MissingDependencyError: its extra is not installed.
    """
    entry = _by_name(name)
    module = entry.load()
    of_table = module.identity_of_table(items) if entry.kind == "whole_table" else {}
    return {"encoder": entry.name, **module.identity(name), **of_table}


def encode_items(
    name: str,
    items: ItemTable,
    *,
    batch_size: int = 64,
    progress: bool = True,
    device: str = "cpu",
) -> EncodedItems:
    """Encode items by an encoder's name, such as lsa, minilm or st:MODEL.

    Args:
        batch_size: items per batch, of encoders of single items.
        device: where such an encoder runs.

    Raises:
        UnknownNameError: there is no such encoder.
        SettingError: the name alone does not choose the weights.
        MissingDependencyError: its extra is not installed.
        DataError: no item has a text, or none a readable image.
    """
    entry = _by_name(name)
    module = entry.load()
    if entry.kind == "whole_table":
        return module.encode(items)
    encoder = module.open_encoder(EncoderRequest(name, device, items=items, progress=progress))
    encoded, reasons = encode_table(encoder, items, batch_size=batch_size, progress=progress)
    if encoder.decode is not None:
        encoded.settings["broken_images"] = reasons.total()
        _report_broken(items.with_files(encoder.media), encoded, reasons.total(), encoder.media)
    return encoded


def save_encoded(
    path: Path, encoded: EncodedItems, items: ItemTable, name: str, **settings: Any
) -> FeatureTable:
    """Write an encoder's rows of an item table and open them; `settings` go into the manifest."""
    save_features(
        path,
        encoded.matrix,
        name=name,
        modality=encoded.modality,
        encoder=encoded.encoder,
        settings={**json.loads(json.dumps(encoded.settings, default=str)), **settings},
        source=items.source,
        items=items.ids,
        missing=[i for i, there in zip(items.ids, encoded.present, strict=True) if not there],
    )
    return load_features(path)


def _by_name(name: str) -> EncoderEntry:
    entry = find_encoder(name)
    if not entry.by_name:
        raise SettingError(
            f"The encoder {name!r} cannot be used by its name alone.",
            found="no weights",
            expected="a feature file made with the weights you choose",
            hint=f"run_benchmark.py prepare --dataset NAME --encoder {name} --weights base",
        )
    return entry


def _report_broken(items: ItemTable, encoded: EncodedItems, broken: int, media: str) -> None:
    named = sum(image is not None for image in items.images)
    if broken:
        example = next(
            (
                item
                for item, image, present in zip(
                    items.ids, items.images, encoded.present, strict=True
                )
                if image is not None and not present
            ),
            None,
        )
        logger.warning(
            "%d of %d %s are missing or broken and count as no %s%s",
            broken,
            named,
            "images" if media == "image" else "audio files",
            media,
            "" if example is None else f", for example item {example!r}",
        )
    if encoded.modality == media and not encoded.present.any():
        one = "image" if media == "image" else "audio file"
        raise DataError(
            f"{items.source} has no readable {one}.",
            found=f"{named} items name an {one}, none can be decoded",
            expected="image files in images/ beside the table"
            if media == "image"
            else "WAV or FLAC files in audio/ beside the table",
        )
