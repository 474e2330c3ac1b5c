"""Models of MMRec, and of forks with one model of their own, on synthetic data."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

from benchmarks.reference import checkout

MARK = "freedom"  # the module by which a checkout of MMRec is recognised


@contextlib.contextmanager
def built(
    reference: Path,
    name: str,
    settings: dict[str, Any],
    features: dict[str, np.ndarray],
    interactions: Any,
    mark: str = MARK,
    places: list[np.ndarray] | None = None,
) -> Iterator[Any]:
    """A model on given features (text, image: [I, f]) and a scipy matrix [U, I].

    Args:
        mark: the module by which the checkout is recognised, one of `checkout.SOURCES`.
        places: of the users and of the items among equals, by their numbers; default: in order.
    """
    fork = mark in checkout.AT_ROOT  # such a model also takes the time
    with (
        checkout.importable(reference, mark),
        mock.patch("os.getcwd", return_value="") if fork else contextlib.nullcontext(),
        checkout.given(features, interactions, settings, places) as (config, loader),
        checkout.default_dtype(torch.float32),
        contextlib.redirect_stdout(None),
    ):
        kind = getattr(importlib.import_module(f"models.{name.lower()}"), name)
        yield kind(config, loader, *([""] if fork else []))
