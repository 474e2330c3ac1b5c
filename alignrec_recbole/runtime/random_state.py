"""The states of all random generators of a process: Python's, NumPy's, torch's and CUDA's."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator

import numpy as np
import torch


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """Leave every generator as it was, whatever the block draws or seeds.

    >>> torch.manual_seed(1) is None
    False
    >>> with kept():
    ...     drawn = torch.rand(3)
    >>> bool((torch.rand(3) == drawn).all())
    True
    """
    python, numpy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002 (RecBole samples from it)
    gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
        torch.set_rng_state(cpu)
        if gpus:
            torch.cuda.set_rng_state_all(gpus)
