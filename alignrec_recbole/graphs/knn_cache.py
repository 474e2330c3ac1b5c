"""k-nearest-neighbour lists cached on disk, so that many runs on the same features search once.

A file's name is the SHA-256 of the feature values, their shape and type, k and the search's
version, so other features never get these lists. Nothing is cached outside `use_cache_folder`.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from pathlib import Path

import safetensors
import torch
from safetensors.torch import load_file, save
from torch import Tensor

from alignrec_recbole.io.files import atomic_write

VERSION = 2  # of the search in item_item.nearest_neighbours

logger = logging.getLogger(__name__)
_folder: ContextVar[Path | None] = ContextVar("neighbour folder", default=None)

Lists = tuple[Tensor, Tensor]


@contextlib.contextmanager
def use_cache_folder(folder: Path | None) -> Iterator[None]:
    """Inside, neighbour lists are cached in `folder`; None: always computed."""
    token = _folder.set(folder)
    try:
        yield
    finally:
        _folder.reset(token)


def get_or_compute(features: Tensor, k: int, compute: Callable[[], Lists]) -> Lists:
    """The cached lists of these features, or those of `compute`, which are then cached.

    Args:
        features: [n, f].
        k: neighbours per row.
        compute: gives similarities [n, k'] and indices [n, k'], k' ≤ k, −1 for none.
    """
    folder = _folder.get()
    if folder is None:
        return compute()
    path = folder / f"neighbours-{_digest(features, k)}.safetensors"
    if path.is_file():
        lists = _read(path, len(features))
        if lists is not None:
            return lists[0].to(features), lists[1].to(features.device)
    values, indices = compute()
    lists_bytes = save({"values": values.cpu().contiguous(), "indices": indices.cpu().contiguous()})
    with atomic_write(path) as file:
        file.write(lists_bytes)
    return values, indices


def _digest(features: Tensor, k: int) -> str:
    values = features.detach().cpu().contiguous()
    digest = hashlib.sha256(f"{VERSION} {k} {tuple(values.shape)} {values.dtype}".encode())
    digest.update(values.view(torch.uint8).numpy().data)
    return digest.hexdigest()[:32]


def _read(path: Path, n: int) -> Lists | None:
    """The lists of a file; None, with a warning, if it is damaged."""
    try:
        stored = load_file(path)
        values, indices = stored["values"], stored["indices"]
        fits = indices.dtype == torch.int64 and values.shape == indices.shape and len(indices) == n
        if fits and (not indices.numel() or -1 <= indices.min() <= indices.max() < n):
            return values, indices
    except (OSError, KeyError, safetensors.SafetensorError):
        pass
    logger.warning("%s is damaged; the neighbours are searched again", path)
    return None
