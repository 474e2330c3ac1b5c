"""What RecBole does beside training: FLOP counts and process barriers."""

from __future__ import annotations

import warnings
from typing import Any

from alignrec_recbole.compat.patching import ModuleProxy, replace_function


def patch_flops(utils: Any) -> bool:
    """get_flops deep-copies the model, which fails on CSR tensors, before training starts.

    A count that fails is reported as 0 with a warning. What it draws (dropout, negatives) does not
    move the generators that training draws from.
    """
    from alignrec_recbole.runtime import random_state

    original = utils.get_flops

    def get_flops(*arguments: Any, **keywords: Any) -> Any:
        try:
            with random_state.kept():
                return original(*arguments, **keywords)
        except Exception as error:
            warnings.warn(f"FLOPs could not be counted: {error}", RuntimeWarning, stacklevel=2)
            return 0

    replace_function(original, get_flops)
    return True


def patch_barrier(dataset: Any) -> bool:
    """After a download, a single process calls torch.distributed.barrier() and fails.

    Without a process group there is nothing to wait for. RecBole #1989.
    """
    torch = dataset.torch

    def barrier(*arguments: Any, **keywords: Any) -> None:
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.barrier(*arguments, **keywords)

    dataset.torch = ModuleProxy(torch, distributed=ModuleProxy(torch.distributed, barrier=barrier))
    return True
