"""Names and behaviour that numpy, scipy and pandas have changed since RecBole 1.2.1.

RecBole's modules get a view of the library that has them; the library itself is not changed.
"""

from __future__ import annotations

import contextlib
from typing import Any

from alignrec_recbole.compat.patching import ModuleProxy

NUMPY_READERS = (  # modules that read a removed name of numpy
    "recbole.data.dataset.dataset",
    "recbole.data.interaction",
    "recbole.evaluator.metrics",
    "recbole.trainer.hyper_tuning",
)
DOK_UPDATERS = (  # modules that call dok_matrix._update
    "recbole.model.general_recommender.gcmc",
    "recbole.model.general_recommender.lightgcn",
    "recbole.model.general_recommender.ncl",
    "recbole.model.general_recommender.ngcf",
    "recbole.model.general_recommender.spectralcf",
    "recbole.model.knowledge_aware_recommender.kgin",
    "recbole.model.knowledge_aware_recommender.mcclk",
)


def patch_numpy_names(configurator: Any) -> bool:
    """Config() sets numpy.float and others from np.float_ and others, which numpy 2 has removed.

    Config leaves numpy alone instead; `view_numpy` serves the modules that read the names. Code
    outside RecBole that expects a Config to have set them needs its own. RecBole #1604, #1714.
    """
    import numpy as np

    if hasattr(np, "float_"):
        return False
    configurator.Config.compatibility_settings = lambda self: None
    return True


def view_numpy(reader: Any) -> bool:
    """Give a module of RecBole numpy with the names float and str, which numpy 1.24 has removed."""
    import numpy as np

    if hasattr(np, "float_"):  # Config sets the names
        return False
    reader.np = ModuleProxy(np, float=np.float64, str=np.str_)
    return True


def patch_dok_update(model: Any) -> bool:
    """LightGCN and six others fill a dok_matrix by `_update`, which scipy 1.13 has removed.

    RecBole #2034, #2090, #2185.
    """
    import scipy.sparse as sp

    if hasattr(sp.dok_matrix, "_update"):
        return False

    class dok_matrix(sp.dok_matrix):
        def _update(self, data: dict) -> None:
            self._dict.update(data)

    model.sp = ModuleProxy(sp, dok_matrix=dok_matrix)
    return True


def patch_agg_len(dataset: Any) -> bool:
    """pandas 3 lets `Series.agg(len)` reduce to one number; RecBole expects a length per row.

    Every loaded token_seq column fails with "Length of values (1) does not match". The frames that
    RecBole reads and merges become `RowLengthFrame`s. No upstream report known.
    """
    import pandas as pd

    with contextlib.suppress(TypeError, ValueError):
        if list(pd.Series([[1], [1, 2]]).agg(len)) == [1, 2]:
            return False
    from alignrec_recbole.compat.frames import RowLengthFrame

    outer = dataset.pd
    dataset.pd = ModuleProxy(
        outer,
        read_csv=lambda *given, **options: RowLengthFrame(outer.read_csv(*given, **options)),
        merge=lambda *given, **options: RowLengthFrame(outer.merge(*given, **options)),
    )
    return True
