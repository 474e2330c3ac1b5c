"""How RecBole holds the columns of atomic files: missing cells, and times."""

from __future__ import annotations

import warnings
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


def patch_time_order(dataset: Any) -> bool:
    """RecBole orders by times that it has rounded to float32: those of 2 minutes become equal.

    The rows are put in the order of the exact times before they are rounded; RecBole's own sorting
    is stable and keeps that order. No upstream report known.
    """
    import torch

    if int(torch.FloatTensor([1_500_000_001.0])[0]) == 1_500_000_001:
        return False
    original = dataset.Dataset._change_feat_format

    def _change_feat_format(self: Any) -> None:
        ordered = self.benchmark_filename_list is None and self.config["eval_args"]["order"] == "TO"
        if ordered and self.time_field in self.inter_feat:
            self.inter_feat = self.inter_feat.sort_values(
                self.time_field, kind="stable", ignore_index=True
            )
        original(self)

    dataset.Dataset._change_feat_format = _change_feat_format
    return True
