"""Encoders: an item table in, one row an item out, missing modality explicit.

`encode_items(name, items)` is the one entry; encoders are loaded when asked for.
"""

from __future__ import annotations

import difflib
import importlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from alignrec_recbole.data.items import ItemTable
from alignrec_recbole.errors import UnknownNameError


@dataclass(frozen=True)
class EncodedItems:
    """Features of an item table.

    Attributes:
        matrix: float32 [n, f]; a zero row where the modality is absent.
        present: bool [n].
        modality: text, image or fused.
        encoder: what made it.
        settings: enough to make it again.
    """

    matrix: np.ndarray
    present: np.ndarray
    modality: Any
    encoder: str
    settings: dict[str, Any]


# name → module with `encode(items, *, model, batch_size, progress, device) -> EncodedItems`,
# `identity(model) -> dict` (what tells its rows from those of other settings or weights) and, where
# an item is encoded by itself, `open_encoder(model, device) -> ItemEncoder`
ENCODERS = {
    "lsa": "alignrec_recbole.encoders.lsa",
    "minilm": "alignrec_recbole.encoders.sentence",
    "efficientnet": "alignrec_recbole.encoders.efficientnet",
    "hf": "alignrec_recbole.encoders.sentence",
    "clip": "alignrec_recbole.encoders.clip",
    "clip-image": "alignrec_recbole.encoders.clip",
    "clip-text": "alignrec_recbole.encoders.clip",
}
PARAMETRIC_ENCODERS = ("hf", "clip", "clip-image", "clip-text")  # as in hf:MODEL
KNOWN = "lsa, minilm, efficientnet, or hf:MODEL, clip:MODEL, clip-image:MODEL, clip-text:MODEL"


def find_encoder(name: str) -> tuple[Any, str]:
    """The module of an encoder and the model it is to load.

    Raises:
        UnknownNameError: there is no such encoder.
    """
    kind, colon, model = name.partition(":")
    takes_model = kind in PARAMETRIC_ENCODERS
    if kind not in ENCODERS or takes_model != bool(model) or takes_model != bool(colon):
        near = difflib.get_close_matches(kind, ENCODERS, n=1)
        raise UnknownNameError(
            f"There is no encoder {name!r}." + (f" Did you mean {near[0]!r}?" if near else ""),
            found=name,
            expected=f"{KNOWN} (MODEL: a hub id or a folder)",
        )
    module = importlib.import_module(ENCODERS[kind])
    return module, name if kind.startswith("clip") else model or kind


def encoder_identity(name: str) -> dict[str, Any]:
    """What tells the rows of an encoder from those of other settings, weights or versions.

    Raises:
        UnknownNameError: there is no such encoder.
        MissingDependencyError: it needs an extra that is not installed.
    """
    module, model = find_encoder(name)
    return {"encoder": name.partition(":")[0], **module.identity(model)}


def encode_items(
    name: str,
    items: ItemTable,
    *,
    batch_size: int = 64,
    progress: bool = True,
    device: str = "cpu",
) -> EncodedItems:
    """Encode items by an encoder's name: lsa, minilm, efficientnet, hf:MODEL or clip:MODEL.

    MODEL is a hub id or a folder.

    Raises:
        UnknownNameError: there is no such encoder.
        MissingDependencyError: it needs an extra that is not installed.
    """
    module, model = find_encoder(name)
    return module.encode(
        items, model=model, batch_size=batch_size, progress=progress, device=device
    )
