"""Control features, which carry no information about the items: a lower bound for any encoder.

`random` has standard normal rows; `shuffled:NAME` permutes the rows of NAME across items. Append
`@1`, `@2`, … for another seed (default 0).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import numpy as np

from alignrec_recbole.features.control_names import parse_control
from alignrec_recbole.features.item_order import canonical_order, seeded_order
from alignrec_recbole.features.table import FeatureManifest, ItemFeatures

RANDOM_WIDTH = 384  # that of the default sentence encoder


def control_features(
    name: str, tokens: Sequence[str], open_features: Callable[[str], ItemFeatures]
) -> ItemFeatures:
    """The control features of this name for a data set's items.

    Args:
        name: random, random@SEED, shuffled:NAME or shuffled:NAME@SEED.
        tokens: item token by internal id; tokens[0] is PAD.
        open_features: returns the features that are shuffled.

    Raises:
        UnknownNameError: the seed is not a whole number, or NAME is empty.
    """
    kind, source, seed = parse_control(name)
    if kind == "random":
        return _random(name, tokens, seed)
    return _shuffled(name, tokens, seed, open_features(source))


def _random(name: str, tokens: Sequence[str], seed: int) -> ItemFeatures:
    shape = (len(tokens) - 1, RANDOM_WIDTH)
    values = np.zeros((len(tokens), RANDOM_WIDTH), dtype=np.float32)
    generator = np.random.Generator(np.random.PCG64(seed))
    values[canonical_order(tokens)] = generator.standard_normal(shape, dtype=np.float32)
    manifest = FeatureManifest(
        name=name,
        modality="text",  # counts as text where a protocol needs a modality
        encoder="control: standard normal numbers",
        settings={"draw": seed},
        source="none",
        items=None,
        shape=shape,
        dtype="float32",
        sha256="",
    )
    return with_content_hash(ItemFeatures(values, np.arange(len(tokens)) > 0, manifest), tokens)


def _shuffled(name: str, tokens: Sequence[str], seed: int, real: ItemFeatures) -> ItemFeatures:
    """Rows permuted among the items that have one; the same items stay missing."""
    items, permuted = canonical_order(tokens), seeded_order(tokens, seed)
    values = np.zeros_like(real.values)
    values[items[real.present[items]]] = real.values[permuted[real.present[permuted]]]
    manifest = real.manifest.model_copy(
        update={
            "name": name,
            "encoder": f"control: rows of {real.manifest.name} dealt to random items",
            "settings": {"draw": seed, "of_sha256": real.manifest.sha256},
        }
    )
    return with_content_hash(ItemFeatures(values, real.present, manifest), tokens)


def with_content_hash(features: ItemFeatures, tokens: Sequence[str]) -> ItemFeatures:
    """Features computed in memory, whose manifest then has the SHA-256 of their rows.

    The rows are hashed in the canonical order of the tokens, after the tokens.
    """
    order = canonical_order(tokens)
    digest = hashlib.sha256("\x1f".join(str(tokens[i]) for i in order).encode())
    digest.update(features.values[order].tobytes())
    manifest = features.manifest.model_copy(
        update={"sha256": digest.hexdigest(), "items": None, "items_sha256": None}
    )
    return ItemFeatures(features.values, features.present, manifest)
