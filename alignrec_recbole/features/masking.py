"""Masking one modality of a share of the items: the same items for all feature sets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from pydantic import Field

from alignrec_recbole.errors import FeatureError
from alignrec_recbole.features.controls import with_content_hash
from alignrec_recbole.features.derived_names import MaskFill, is_control, is_filled
from alignrec_recbole.features.imputation import Graph, imputed
from alignrec_recbole.features.item_order import seeded_order
from alignrec_recbole.features.table import ItemFeatures
from alignrec_recbole.settings import Settings

MASK_SEED_OFFSET = 1000  # the mask of seed s is drawn from PCG64(1000 + s)

Modality = Literal["text", "image", "audio"]


class FeatureMask(Settings):
    """Which modality is masked, for what share of the items, and what replaces its rows."""

    modality: Modality
    ratio: float = Field(ge=0, le=1)
    seed: int = Field(ge=-MASK_SEED_OFFSET, lt=2**63)
    fill: MaskFill = "zero"


def masked_items(tokens: Sequence[str], ratio: float, seed: int) -> np.ndarray:
    """bool [item_num]: the first ⌊ratio · n⌋ items of a seeded order.

    With one seed, the items of a smaller ratio are among those of a larger one.

    >>> masked_items(["[PAD]", "0", "1", "2", "3"], 0.5, seed=0).tolist()
    [False, True, False, True, False]
    """
    count = int(ratio * (len(tokens) - 1) + 1e-9)
    out = np.zeros(len(tokens), dtype=bool)
    out[seeded_order(tokens, MASK_SEED_OFFSET + seed)[:count]] = True
    return out


def masked_name(name: str, modality: str) -> str:
    """The name of a fused feature set's counterpart, encoded without a modality for all items.

    >>> masked_name("beit3", "image"), masked_name("shuffled:beit3@2", "text")
    ('beit3-no-image', 'shuffled:beit3-no-text@2')
    >>> masked_name("filled-mean:shuffled:beit3@1", "image")
    'filled-mean:shuffled:beit3-no-image@1'
    """
    inner = name
    while is_filled(inner):
        inner = inner.partition(":")[2]
    name, at, draw = name.partition("@") if is_control(inner) else (name, "", "")
    return f"{name}-no-{modality}{at}{draw}"


def mask_features(
    features: dict[str, ItemFeatures],
    mask: FeatureMask,
    tokens: Sequence[str],
    open_features: Callable[[str], ItemFeatures],
    graph: Graph | None = None,
) -> dict[str, ItemFeatures]:
    """Feature sets with one modality of the masked items removed.

    In a feature set of the modality, these rows become missing (`zero`), the mean row of all items
    that have one, masked or not (`mean`), or rows made of those of items that are not masked
    (imputation.py). In a fused one they are those of `NAME-no-MODALITY`, the items encoded with the
    modality masked. Others do not change.

    Args:
        features: by name.
        mask: what is masked.
        tokens: item token by internal id.
        open_features: opens the counterpart of a fused set.
        graph: of the items' neighbours, for fills that follow them.

    Raises:
        FeatureError: no feature set has the modality, or the counterpart of a fused one differs in
            shape.
        UnknownNameError: the counterpart of a fused feature set was not found.
    """
    masked = masked_items(tokens, mask.ratio, mask.seed)
    if not any(table.modality in (mask.modality, "fused") for table in features.values()):
        raise FeatureError(
            f"None of the feature sets has the modality {mask.modality!r}.",
            found=", ".join(f"{name} ({table.modality})" for name, table in features.items()),
            expected=f"{mask.modality} features, or fused ones",
        )
    if not masked.any():
        return features
    out = {}
    for name, table in features.items():
        if table.modality == mask.modality:
            out[name] = _filled(table, masked, mask.fill, graph)
        elif table.modality == "fused":
            other = open_features(masked_name(name, mask.modality))
            out[name] = _replaced(table, other, masked, tokens)
        else:
            out[name] = table
    return out


def _filled(
    table: ItemFeatures, masked: np.ndarray, fill: MaskFill, graph: Graph | None
) -> ItemFeatures:
    values, present = table.values.copy(), table.present.copy()
    if fill == "mean":
        values[masked & present] = table.values[table.present].mean(0, dtype=np.float64)
        return ItemFeatures(values, present, table.manifest)
    values[masked], present[masked] = 0, False
    if fill != "zero":
        assert graph is not None
        wanted = np.flatnonzero(masked & table.present)
        values[wanted], present[wanted] = imputed(table.values, present, wanted, fill, graph)
    return ItemFeatures(values, present, table.manifest)


def _replaced(
    table: ItemFeatures, other: ItemFeatures, masked: np.ndarray, tokens: Sequence[str]
) -> ItemFeatures:
    if other.values.shape != table.values.shape:
        raise FeatureError(
            f"{other.name} does not match {table.name}.",
            found=f"{other.values.shape[1]} columns",
            expected=f"{table.values.shape[1]} columns, of the same encoder with a modality masked",
            hint="encode the items again with that encoder",
        )
    mixed = ItemFeatures(
        np.where(masked[:, None], other.values, table.values),
        np.where(masked, other.present, table.present),
        table.manifest,
    )
    return with_content_hash(mixed, tokens)
