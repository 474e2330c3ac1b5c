"""Random feature tables: a training step costs the same whatever their values."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd


def write_features(folder: Path, interactions: Path, widths: Mapping[str, int]) -> None:
    """Write folder/NAME.npy [I, width], seeded normal, row = itemID, for every name.

    Values have mean 1, so that cosines of rows are positive, as most encoders' are: SOIL's
    reference takes roots of their sums.

    Args:
        folder: must exist.
        interactions: an .inter file in MMRec's layout, for the number of items.
        widths: columns by name, drawn in this order.
    """
    items = int(pd.read_csv(interactions, sep="\t", usecols=["itemID"]).itemID.max()) + 1
    rng = np.random.default_rng(0)
    for name, width in widths.items():
        values = rng.standard_normal((items, width), dtype=np.float32)
        np.save(folder / f"{name}.npy", values + 1)
