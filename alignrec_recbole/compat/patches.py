"""RecBole 1.2.1, unmodified, on current Python, numpy, pandas, scipy and torch.

Each patch is one function: why, where it is reported, and a probe of the behaviour it repairs. On a
stack that does not need it, the probe says so and nothing is changed. `apply()` runs them all once;
patches of modules that may never be imported wait until they are.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from alignrec_recbole.compat.atomic_files import patch_fill_nan
from alignrec_recbole.compat.checkpoint_patches import (
    patch_checkpoint_names,
    patch_checkpoints,
    patch_load_data_and_model,
)
from alignrec_recbole.compat.config import (
    patch_command_line,
    patch_config_strings,
    patch_cuda_visible_devices,
    patch_folders,
)
from alignrec_recbole.compat.imports import patch_ray, patch_sklearn, require_recbole
from alignrec_recbole.compat.libraries import patch_agg_len, patch_dok_update, patch_numpy_names
from alignrec_recbole.compat.side_effects import patch_barrier, patch_flops
from alignrec_recbole.registry.stock_recbole import patch_model_names

PATCHES: dict[str, Callable[[], bool]] = {
    patch.__name__: patch
    for patch in (
        patch_ray,
        patch_sklearn,
        patch_numpy_names,
        patch_dok_update,
        patch_agg_len,
        patch_fill_nan,
        patch_config_strings,
        patch_command_line,
        patch_cuda_visible_devices,
        patch_model_names,
        patch_checkpoints,
        patch_load_data_and_model,
        patch_checkpoint_names,
        patch_flops,
        patch_barrier,
        patch_folders,
    )
}
_applied: dict[str, bool] = {}


def apply() -> dict[str, bool]:
    """Apply every patch that this stack needs, once; returns name → whether it changed anything.

    ALIGNREC_WITHOUT_PATCHES, a comma-separated list of names, leaves some out (tests use it).
    """
    require_recbole()
    left_out = set(filter(None, os.environ.get("ALIGNREC_WITHOUT_PATCHES", "").split(",")))
    for name, patch in PATCHES.items():
        if name not in _applied and name not in left_out:
            _applied[name] = patch()
    return dict(_applied)
