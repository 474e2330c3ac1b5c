"""Item graphs from features: neighbours searched in blocks, constant graphs, learnt weights.

Nothing here is dense in items × items. Row 0 is RecBole's PAD; it never gets an edge.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from alignrec_recbole.graphs.knn_cache import get_or_compute
from alignrec_recbole.graphs.user_item import inverse_root
from alignrec_recbole.ops.matmul import matmul_nt
from alignrec_recbole.ops.topk import top_k


def nearest_neighbours(
    features: Tensor, k: int, *, memory_bytes: int = 256 << 20
) -> tuple[Tensor, Tensor]:
    """Cosine k-nearest neighbours of every row, exact, in blocks of rows.

    Zero rows (PAD, items without the modality) have no neighbours and are nobody's neighbour.
    A row may be its own neighbour. Inside `knn_cache.use_cache_folder` they are searched once.

    Args:
        features: [n, f].
        k: neighbours a row; cut to the number of non-zero rows.
        memory_bytes: bound on the similarities held at once and what ranking them takes.

    Returns:
        similarities [n, k] and indices [n, k]; index −1 where there is no neighbour.
    """
    return get_or_compute(features, k, lambda: _search(features, k, memory_bytes))


def _search(features: Tensor, k: int, memory_bytes: int) -> tuple[Tensor, Tensor]:
    """Rows meet only the rows from their own block on: one product serves both of its sides."""
    norms = features.norm(dim=1)
    dead = norms.eq(0)  # a NaN stays, and is seen in the loss
    gone = torch.nonzero(dead).ravel()
    inverse = norms.clamp(min=torch.finfo(norms.dtype).tiny).reciprocal()
    n, k = len(features), min(k, len(features) - len(gone))
    values = features.new_full((n, k), -torch.inf)
    indices = torch.full((n, k), -1, dtype=torch.int64, device=features.device)
    if k == 0:
        return values, indices
    block = max(1, memory_bytes // (n * features.element_size() * 2))
    for start in range(0, n, block):
        stop = min(start + block, n)
        left = features[start:stop] * inverse[start:stop, None]
        similar = matmul_nt(left, features[start:]).mul_(inverse[start:])  # no unit copy
        places = gone[gone >= start] - start
        similar.index_fill_(1, places, -torch.inf)
        similar.index_fill_(0, places[places < stop - start], -torch.inf)
        _keep_best(values[start:stop], indices[start:stop], similar, start)
        if stop < n:
            _keep_best(values[stop:], indices[stop:], similar[:, stop - start :].T, start)
    return values.masked_fill_(dead[:, None], 0.0), indices.masked_fill_(dead[:, None], -1)


def _keep_best(values: Tensor, indices: Tensor, similar: Tensor, first: int) -> None:
    """Put into [n, k] lists what is larger in [n, m] similarities to rows first, first + 1, ..."""
    k = values.shape[1]
    best, where = top_k(similar, min(k, similar.shape[1]))
    best, order = torch.cat([values, best], dim=1).topk(k, dim=1)
    indices.copy_(torch.cat([indices, where + first], dim=1).gather(1, order))
    values.copy_(best)


def item_graph(features: Tensor, k: int, *, memory_bytes: int = 256 << 20) -> Any:
    """Normalised item–item kNN graph S = D^-½ W D^-½ as scipy CSR [n, n].

    W holds each item's k largest cosines (itself among them), negative ones clamped to 0; D are the
    row sums of W, used on rows and columns alike, so S is in general not symmetric. An item with a
    zero feature row keeps a single self edge of weight 1; PAD (row 0) has no edge.

    Source: build_knn_normalized_graph's definition as tabulated in the project notes on AlignRec.
    """
    values, indices = nearest_neighbours(features, k, memory_bytes=memory_bytes)
    n = len(features)
    weight = values.clamp(min=0).cpu().numpy().astype(np.float64)
    column = indices.cpu().numpy()
    kept: np.ndarray = column >= 0
    row = np.repeat(np.arange(n), kept.sum(1))
    graph = sp.csr_matrix((weight[kept], (row, column[kept])), shape=(n, n))
    lonely = np.asarray(graph.sum(1)).ravel() <= 0
    lonely[0] = False
    graph = (graph + sp.diags(lonely.astype(np.float64))).tocsr()
    root = inverse_root(graph.sum(1))
    return (sp.diags(root) @ graph @ sp.diags(root)).tocsr()


def unweighted_item_graph(features: Tensor, k: int, *, memory_bytes: int = 256 << 20) -> Any:
    """Normalised item–item kNN graph D^-½ A D^-½ as scipy CSR [n, n] with A of ones.

    A row of A marks an item's k nearest by cosine, itself among them; D are its row sums. An item
    with a zero feature row keeps a single self edge of weight 1; PAD (row 0) has no edge.

    Source: Zhou and Shen, FREEDOM, MM 2023, equations 1-3.
    """
    _, indices = nearest_neighbours(features, k, memory_bytes=memory_bytes)
    n = len(features)
    column = indices.cpu().numpy()
    kept: np.ndarray = column >= 0
    row = np.repeat(np.arange(n), kept.sum(1))
    graph = sp.csr_matrix((np.ones(len(row)), (row, column[kept])), shape=(n, n))
    lonely = np.asarray(~kept.any(axis=1))
    lonely[0] = False
    graph = (graph + sp.diags(lonely.astype(np.float64))).tocsr()
    root = inverse_root(graph.sum(1))
    return (sp.diags(root) @ graph @ sp.diags(root)).tocsr()


def item_knn(features: Tensor, k: int, shrink: float, *, memory_bytes: int = 256 << 20) -> Any:
    """The k largest ⟨f_i, f_j⟩ / (‖f_i‖ ‖f_j‖ + shrink) of every row as scipy CSR [n, n].

    Exact, in blocks of rows; a row may be its own neighbour. Zero rows have no neighbours and are
    nobody's neighbour.

    Source: Ferrari Dacrema et al., RecSys 2019 (ItemKNN-CBF).
    """
    n, norm = len(features), features.norm(dim=1)
    alive = norm > 0
    k = min(k, int(alive.sum()))
    dead = torch.nonzero(~alive).ravel()
    block = max(1, memory_bytes // (n * features.element_size() * 3))
    kept, places = [], []
    for start in range(0, n, block):
        cut = slice(start, start + block)
        similar = matmul_nt(features[cut], features)
        similar.div_(torch.outer(norm[cut], norm).add_(shrink))
        similar[:, dead] = -torch.inf
        best, where = similar.topk(k, dim=1)
        kept.append(best[alive[cut]])
        places.append(where[alive[cut]])
    row = torch.nonzero(alive).ravel().repeat_interleave(k).cpu().numpy()
    column = torch.cat(places).ravel().cpu().numpy()
    weight = torch.cat(kept).ravel().cpu().numpy()
    return sp.csr_matrix((weight, (row, column)), shape=(n, n))
