"""MMRec's models on made data, and its own harness."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.parity import checkout

MARK = "freedom"  # the module that tells a checkout of MMRec


@contextlib.contextmanager
def built(
    reference: Path,
    name: str,
    settings: dict[str, Any],
    features: dict[str, np.ndarray],
    interactions: Any,
) -> Iterator[Any]:
    """A model of MMRec on given features (text, image: [I, f]) and a scipy matrix [U, I]."""
    with (
        checkout.importable(reference, MARK),
        checkout.given(features, interactions, settings) as (config, loader),
        checkout.default_dtype(torch.float32),
        contextlib.redirect_stdout(None),
    ):
        yield getattr(importlib.import_module(f"models.{name.lower()}"), name)(config, loader)
