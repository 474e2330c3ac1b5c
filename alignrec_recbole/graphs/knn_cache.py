"""k-nearest-neighbour lists cached on disk, so that many runs on the same features search once.

A file's name is the SHA-256 of the feature values, their shape and type, k, the order of equals,
the search's version and, of an approximate search, its index, parameters and library's version. The
file's header repeats it, so other features never get these lists. Nothing is cached outside
`use_cache_folder`.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import NamedTuple

import numpy as np
import safetensors
import torch
from safetensors.torch import save
from torch import Tensor

from alignrec_recbole.errors import AlignRecError, printable
from alignrec_recbole.io.files import atomic_write
from alignrec_recbole.io.opening import open_input

VERSION = 3  # of the search in item_item.nearest_neighbours, and of the file
MAX_BYTES = 64 << 30
RECALL = "recall"  # in a file's header, of an approximate search

logger = logging.getLogger(__name__)
_folder: ContextVar[Path | None] = ContextVar("neighbour folder", default=None)

Lists = tuple[Tensor, Tensor]


class Found(NamedTuple):
    """Similarities [n, k'], indices [n, k'] (−1 for none), and an approximate search's recall."""

    values: Tensor
    indices: Tensor
    recall: float | None = None


@contextlib.contextmanager
def use_cache_folder(folder: Path | None) -> Iterator[None]:
    """Inside, neighbour lists are cached in `folder`; None: always computed."""
    token = _folder.set(folder)
    try:
        yield
    finally:
        _folder.reset(token)


def get_or_compute(
    features: Tensor,
    k: int,
    compute: Callable[[], Found],
    method: str = "",
    place: np.ndarray | None = None,
) -> Found:
    """The cached lists of these features, or those of `compute`, which are then cached.

    Args:
        features: [n, f].
        k: neighbours per row.
        compute: searches; k' ≤ k.
        method: of an approximate search, with its parameters; empty: exact.
        place: of each row among equally near ones [n]; None: in no order.
    """
    folder = _folder.get()
    if folder is None:
        return compute()
    digest = _digest(features, k, method, place)
    path = folder / f"neighbours-{digest[:32]}.safetensors"
    if os.path.lexists(path):
        cached = _read(path, digest, features, k, bool(method))
        if cached is not None:
            device = features.device
            return Found(cached.values.to(device), cached.indices.to(device), cached.recall)
    found = compute()
    lists = found.values.cpu().contiguous(), found.indices.cpu().contiguous()
    recall = {} if found.recall is None else {RECALL: repr(found.recall)}
    lists_bytes = save(
        {"values": lists[0], "indices": lists[1]},
        metadata={"digest": _with_lists(digest + recall.get(RECALL, ""), lists), **recall},
    )
    try:
        with atomic_write(path) as file:
            file.write(lists_bytes)
    except OSError as error:
        logger.warning("The neighbours are not cached: %s", printable(str(error)))
    return found


def _digest(features: Tensor, k: int, method: str = "", place: np.ndarray | None = None) -> str:
    values = features.detach().cpu().contiguous()
    text = f"{VERSION} {k} {tuple(values.shape)} {values.dtype}{method and ' '}{method}"
    digest = hashlib.sha256(text.encode())
    digest.update(values.view(torch.uint8).numpy().data)
    if place is not None:
        digest.update(np.ascontiguousarray(place, dtype=np.int64).data)
    return digest.hexdigest()


def _with_lists(digest: str, lists: Lists) -> str:
    """Hash of the features' digest and the lists."""
    out = hashlib.sha256(digest.encode())
    for tensor in lists:
        out.update(tensor.contiguous().numpy().data)
    return out.hexdigest()


def _read(
    path: Path, digest: str, features: Tensor, k: int, approximate: bool = False
) -> Found | None:
    """The lists of a file; None, with a warning, if it is damaged or of other features."""
    with contextlib.suppress(
        AlignRecError, OSError, KeyError, RecursionError, safetensors.SafetensorError, ValueError
    ):
        with open_input(path, what="cache", max_bytes=MAX_BYTES):
            pass  # a regular file
        with safetensors.safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            noted = metadata.get("digest")
            recall = metadata[RECALL] if approximate else ""
            values, indices = file.get_tensor("values"), file.get_tensor("indices")
        expected = _with_lists(digest + recall, (values, indices))
        if _fits(values, indices, features, k) and noted == expected:
            return Found(values, indices, float(recall) if approximate else None)
    logger.warning("%s is damaged; the neighbours are searched again", path)
    return None


def _fits(values: Tensor, indices: Tensor, features: Tensor, k: int) -> bool:
    """Whether the lists may be those of the features."""
    n = len(features)
    return (
        (values.dtype, indices.dtype) == (features.dtype, torch.int64)
        and values.shape == indices.shape
        and indices.ndim == 2
        and len(indices) == n
        and indices.shape[1] <= k
        and (not indices.numel() or bool(indices.min() >= -1 and indices.max() < n))
    )
