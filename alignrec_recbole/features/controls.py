"""Control feature sets: what a protocol or a model gives when features say nothing.

`random` has standard normal rows; `shuffled:NAME` has the rows of NAME dealt to the wrong items.
Both take a draw: `random@3`, `shuffled:NAME@3` (default 0).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import numpy as np

from alignrec_recbole.errors import UnknownNameError
from alignrec_recbole.features.item_order import canonical_order, seeded_order
from alignrec_recbole.features.table import FeatureManifest, ItemFeatures

RANDOM_WIDTH = 384  # that of the default sentence encoder


def is_control(name: str) -> bool:
    """Whether a feature name asks for a control set.

    >>> [is_control(n) for n in ("random", "random@2", "shuffled:lsa", "lsa")]
    [True, True, True, False]
    """
    return name.partition("@")[0] == "random" or name.startswith("shuffled:")


def control_features(
    name: str, tokens: Sequence[str], open_features: Callable[[str], ItemFeatures]
) -> ItemFeatures:
    """The control set of this name for a data set's items.

    Args:
        name: random, random@DRAW, shuffled:NAME or shuffled:NAME@DRAW.
        tokens: item token by internal id; tokens[0] is PAD.
        open_features: gives the set that is shuffled.

    Raises:
        UnknownNameError: the draw is not a whole number, or there is nothing to shuffle.
    """
    kind, at, text = name.rpartition("@")
    kind, draw = (kind, text) if at else (name, "0")
    if not draw.isdecimal() or kind == "shuffled:":
        raise UnknownNameError(
            f"There is no control set {name!r}.",
            found=name,
            expected="random, random@DRAW, shuffled:NAME or shuffled:NAME@DRAW, DRAW 0, 1, 2 …",
        )
    seed = int(draw)
    if kind == "random":
        return _random(name, tokens, seed)
    return _shuffled(name, tokens, seed, open_features(kind.removeprefix("shuffled:")))


def _random(name: str, tokens: Sequence[str], seed: int) -> ItemFeatures:
    shape = (len(tokens) - 1, RANDOM_WIDTH)
    values = np.zeros((len(tokens), RANDOM_WIDTH), dtype=np.float32)
    generator = np.random.Generator(np.random.PCG64(seed))
    values[canonical_order(tokens)] = generator.standard_normal(shape, dtype=np.float32)
    manifest = FeatureManifest(
        name=name,
        modality="text",  # stands in for a text set where a protocol asks for a modality
        encoder="control: standard normal numbers",
        settings={"draw": seed},
        source="none",
        items=None,
        shape=shape,
        dtype="float32",
        sha256="",
    )
    return derived(ItemFeatures(values, np.arange(len(tokens)) > 0, manifest), tokens)


def _shuffled(name: str, tokens: Sequence[str], seed: int, real: ItemFeatures) -> ItemFeatures:
    """Rows dealt among the items that have one, so that coverage stays as it is."""
    items, dealt = canonical_order(tokens), seeded_order(tokens, seed)
    values = np.zeros_like(real.values)
    values[items[real.present[items]]] = real.values[dealt[real.present[dealt]]]
    manifest = real.manifest.model_copy(
        update={
            "name": name,
            "encoder": f"control: rows of {real.manifest.name} dealt to random items",
            "settings": {"draw": seed, "of_sha256": real.manifest.sha256},
        }
    )
    return derived(ItemFeatures(values, real.present, manifest), tokens)


def derived(features: ItemFeatures, tokens: Sequence[str]) -> ItemFeatures:
    """Features made in memory from others, with the hash of their rows in token order."""
    order = canonical_order(tokens)
    digest = hashlib.sha256("\x1f".join(str(tokens[i]) for i in order).encode())
    digest.update(features.values[order].tobytes())
    manifest = features.manifest.model_copy(
        update={"sha256": digest.hexdigest(), "items": None, "items_sha256": None}
    )
    return ItemFeatures(features.values, features.present, manifest)
