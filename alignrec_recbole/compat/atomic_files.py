"""How RecBole reads atomic files: missing cells, and cells read verbatim."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any

from alignrec_recbole.compat.patching import ModuleProxy


def patch_fill_nan(dataset: Any) -> bool:
    """pandas 3 makes chained `feat[c].fillna(inplace=True)` do nothing.

    A missing token then becomes the smallest int64 and a missing float stays NaN, without a word;
    an empty sequence cell fails in `split`. No upstream report known.
    """
    import numpy as np
    import pandas as pd
    from recbole.utils import FeatureType

    frame = pd.DataFrame({"a": [1.0, np.nan]})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        frame["a"].fillna(value=0, inplace=True)
    if not frame["a"].isna().any():
        return False

    def _fill_nan(self: Any) -> None:
        for name in self.feat_name_list:
            feat = getattr(self, name)
            for field in feat:
                kind = self.field2type[field]
                if kind == FeatureType.TOKEN:
                    feat[field] = feat[field].fillna(value=0)
                elif kind == FeatureType.FLOAT:
                    feat[field] = feat[field].fillna(value=feat[field].mean())
                else:
                    dtype = np.int64 if kind == FeatureType.TOKEN_SEQ else np.float64
                    empty = np.array([], dtype=dtype)
                    feat[field] = feat[field].apply(
                        lambda cell, empty=empty: empty if isinstance(cell, float) else cell
                    )

    def read_csv(*arguments: Any, **keywords: Any) -> Any:
        frame = outer.read_csv(*arguments, **keywords)
        for column in frame.columns:
            if str(column).endswith("_seq"):  # the header's "name:token_seq"
                frame[column] = frame[column].fillna("")
        return frame

    outer = dataset.pd
    dataset.Dataset._fill_nan = _fill_nan
    dataset.pd = ModuleProxy(outer, read_csv=read_csv)
    return True


_MISSING_NUMBERS = ["", "nan", "NaN", "NA", "N/A", "null", "None"]


@contextlib.contextmanager
def read_cells_verbatim() -> Iterator[None]:
    """RecBole reads the cells of atomic files verbatim: "NA" is a token, `"` a character.

    pandas' defaults would read some names as missing values and join lines between two marks.
    """
    from recbole.data.dataset import dataset as module

    from alignrec_recbole.io.tsv import AS_WRITTEN

    outer = module.pd

    def read_csv(*arguments: Any, **keywords: Any) -> Any:
        types = keywords.get("dtype") or {}
        missing = {name: [""] if kind is str else _MISSING_NUMBERS for name, kind in types.items()}
        return outer.read_csv(*arguments, **keywords, **AS_WRITTEN, na_values=missing)

    module.pd = ModuleProxy(outer, read_csv=read_csv)
    try:
        yield
    finally:
        module.pd = outer
