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


# name → module with `encode(items, *, model, batch_size, progress, device) -> EncodedItems`
ENCODERS = {
    "lsa": "alignrec_recbole.encoders.lsa",
    "minilm": "alignrec_recbole.encoders.huggingface",
    "efficientnet": "alignrec_recbole.encoders.efficientnet",
    "hf": "alignrec_recbole.encoders.huggingface",
}


def encode_items(
    name: str,
    items: ItemTable,
    *,
    batch_size: int = 64,
    progress: bool = True,
    device: str = "cpu",
) -> EncodedItems:
    """Encode items by an encoder's name: lsa, minilm, efficientnet or hf:ID_OR_FOLDER.

    Raises:
        UnknownNameError: there is no such encoder.
        MissingDependencyError: it needs an extra that is not installed.
    """
    kind, colon, model = name.partition(":")
    takes_model = kind == "hf"
    if kind not in ENCODERS or takes_model != bool(model) or takes_model != bool(colon):
        near = difflib.get_close_matches(kind, ENCODERS, n=1)
        raise UnknownNameError(
            f"There is no encoder {name!r}." + (f" Did you mean {near[0]!r}?" if near else ""),
            came=name,
            expected="lsa, minilm, efficientnet or hf:MODEL (a hub id or a folder)",
        )
    module = importlib.import_module(ENCODERS[kind])
    return module.encode(
        items, model=model or kind, batch_size=batch_size, progress=progress, device=device
    )
