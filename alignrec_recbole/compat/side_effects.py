"""What RecBole does beside training: FLOP counts and process barriers."""

from __future__ import annotations

import sys
import warnings
from typing import Any

from alignrec_recbole.compat.checkpoint_patches import _QUICK_START
from alignrec_recbole.compat.patching import View

# Side effects -----------------------------------------------------------------------------------


def patch_flops() -> bool:
    """get_flops deep-copies the model, which fails on CSR tensors; the figure is a nicety.

    A failed count is reported as 0 with a warning instead of ending the run before training.
    """
    from recbole import utils as package
    from recbole.utils import utils as module

    original = module.get_flops
    if getattr(original, "_alignrec_patched", False):
        return False

    def get_flops(*arguments: Any, **keywords: Any) -> Any:
        try:
            return original(*arguments, **keywords)
        except Exception as error:
            warnings.warn(f"FLOPs could not be counted: {error}", RuntimeWarning, stacklevel=2)
            return 0

    get_flops._alignrec_patched = True  # type: ignore[attr-defined]
    module.get_flops = package.get_flops = get_flops
    if hasattr(sys.modules.get(_QUICK_START), "get_flops"):
        sys.modules[_QUICK_START].get_flops = get_flops  # type: ignore[attr-defined]
    return True


def patch_barrier() -> bool:
    """After a download a single process calls torch.distributed.barrier() and dies.

    Without a process group there is nobody to wait for. RecBole #1989.
    """
    import torch
    from recbole.data.dataset import dataset as module

    if isinstance(module.torch, View):
        return False

    def barrier(*arguments: Any, **keywords: Any) -> None:
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.barrier(*arguments, **keywords)

    module.torch = View(torch, distributed=View(torch.distributed, barrier=barrier))
    return True
