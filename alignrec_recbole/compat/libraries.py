"""Names and behaviour that numpy, scipy and pandas have changed since RecBole 1.2.1."""

from __future__ import annotations

import contextlib
import sys
from typing import Any

from alignrec_recbole.compat.patching import _works

# numpy, scipy, pandas ---------------------------------------------------------------------------


def patch_numpy_names() -> bool:
    """Config() assigns np.float_, np.complex_ and np.unicode_, which numpy 2 has removed.

    RecBole itself reads np.float and np.str only; absent names are set, present ones left alone.
    RecBole #1604, #1714.
    """
    import numpy as np
    from recbole.config import Config

    if _works(lambda: Config.compatibility_settings(None)):
        return False

    def compatibility_settings(self: Any) -> None:
        for name, kind in (("float", np.float64), ("str", np.str_), ("int", np.int64),
                           ("object", np.object_), ("complex", np.complex128)):  # fmt: skip
            if name not in np.__dict__:
                setattr(np, name, kind)

    Config.compatibility_settings = compatibility_settings
    compatibility_settings(None)
    return True


def patch_dok_update() -> bool:
    """LightGCN and six others fill a dok_matrix through `_update`, removed in scipy 1.13.

    RecBole #2034, #2090, #2185.
    """
    import scipy.sparse as sp

    if hasattr(sp.dok_matrix, "_update"):
        return False

    def _update(self: Any, data: dict) -> None:
        self._dict.update(data)

    sp.dok_matrix._update = _update
    return True


def patch_agg_len() -> bool:
    """pandas 3 lets `Series.agg(len)` reduce to one number; RecBole wants a length a row.

    Every loaded token_seq column fails with "Length of values (1) does not match". The meaning of
    agg changes for `len`, called from RecBole's own modules, alone. No upstream report known.
    """
    import pandas as pd

    original = pd.Series.agg
    if getattr(original, "_alignrec_patched", False):
        return False
    with contextlib.suppress(TypeError, ValueError):
        if list(pd.Series([[1], [1, 2]]).agg(len)) == [1, 2]:
            return False

    def agg(self: Any, func: Any = None, *arguments: Any, **keywords: Any) -> Any:
        if func is len and sys._getframe(1).f_globals.get("__name__", "").startswith("recbole"):
            return self.map(len)
        return original(self, func, *arguments, **keywords)

    agg._alignrec_patched = True  # type: ignore[attr-defined]
    pd.Series.agg = agg
    return True
