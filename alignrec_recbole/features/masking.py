"""One modality hidden for a share of the items, the same items whatever the feature sets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from pydantic import Field

from alignrec_recbole.errors import FeatureError
from alignrec_recbole.features.controls import derived, is_control
from alignrec_recbole.features.item_order import seeded_order
from alignrec_recbole.features.table import ItemFeatures
from alignrec_recbole.settings import Settings

MASK_SEED_OFFSET = 1000  # mask seed s draws from PCG64(1000 + s)

Modality = Literal["text", "image", "audio"]


class FeatureMask(Settings):
    """Which modality is hidden, for how many items, and what stands in its place."""

    modality: Modality
    ratio: float = Field(ge=0, le=1)
    seed: int = Field(ge=-MASK_SEED_OFFSET)
    fill: Literal["zero", "mean"] = "zero"


def masked_items(tokens: Sequence[str], ratio: float, seed: int) -> np.ndarray:
    """Bool [item_num]: the first ⌊ratio · n⌋ items of a seeded order, so sets of one seed nest.

    >>> masked_items(["[PAD]", "0", "1", "2", "3"], 0.5, seed=0).tolist()
    [False, True, False, True, False]
    """
    count = int(ratio * (len(tokens) - 1) + 1e-9)
    out = np.zeros(len(tokens), dtype=bool)
    out[seeded_order(tokens, MASK_SEED_OFFSET + seed)[:count]] = True
    return out


def masked_name(name: str, modality: str) -> str:
    """The name of a fused set's second file, all of whose items were encoded without a modality.

    >>> masked_name("beit3", "image"), masked_name("shuffled:beit3@2", "text")
    ('beit3-no-image', 'shuffled:beit3-no-text@2')
    """
    name, at, draw = name.partition("@") if is_control(name) else (name, "", "")
    return f"{name}-no-{modality}{at}{draw}"


def mask_features(
    features: dict[str, ItemFeatures],
    mask: FeatureMask,
    tokens: Sequence[str],
    open_features: Callable[[str], ItemFeatures],
) -> dict[str, ItemFeatures]:
    """Feature sets with the masked items' modality gone.

    A set of the modality itself loses these rows: they become missing (`zero`), or the mean row of
    all items that have one (`mean`). A fused set takes these rows from `NAME-no-MODALITY`, the
    same items encoded with the modality masked. Other sets stay as they are.

    Raises:
        FeatureError: no set has the modality, or a fused set's second file does not fit.
        UnknownNameError: a fused set's second file is not there.
    """
    hidden = masked_items(tokens, mask.ratio, mask.seed)
    if not any(table.modality in (mask.modality, "fused") for table in features.values()):
        raise FeatureError(
            f"None of the feature sets has the modality {mask.modality!r}.",
            found=", ".join(f"{name} ({table.modality})" for name, table in features.items()),
            expected=f"a set of {mask.modality}, or a fused one",
        )
    if not hidden.any():
        return features
    out = {}
    for name, table in features.items():
        if table.modality == mask.modality:
            out[name] = _filled(table, hidden, mask.fill)
        elif table.modality == "fused":
            other = open_features(masked_name(name, mask.modality))
            out[name] = _replaced(table, other, hidden, tokens)
        else:
            out[name] = table
    return out


def _filled(table: ItemFeatures, hidden: np.ndarray, fill: str) -> ItemFeatures:
    values, present = table.values.copy(), table.present.copy()
    if fill == "zero":
        values[hidden] = 0
        present[hidden] = False
    else:
        values[hidden & present] = table.values[table.present].mean(0, dtype=np.float64)
    return ItemFeatures(values, present, table.manifest)


def _replaced(
    table: ItemFeatures, other: ItemFeatures, hidden: np.ndarray, tokens: Sequence[str]
) -> ItemFeatures:
    if other.values.shape != table.values.shape:
        raise FeatureError(
            f"{other.manifest.name} does not belong to {table.manifest.name}.",
            found=f"{other.values.shape[1]} columns",
            expected=f"{table.values.shape[1]}, from the same encoder with a modality masked",
            hint="encode the items again with that encoder",
        )
    mixed = ItemFeatures(
        np.where(hidden[:, None], other.values, table.values),
        np.where(hidden, other.present, table.present),
        table.manifest,
    )
    return derived(mixed, tokens)
