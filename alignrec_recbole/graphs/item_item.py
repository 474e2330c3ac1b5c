"""Item–item graphs from features: k-nearest neighbours, normalised graphs.

No items × items matrix is formed; exact searches go block by block. Row 0 is RecBole's PAD and
never gets an edge.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from alignrec_recbole.graphs import hnsw, searches
from alignrec_recbole.graphs.knn_cache import Found, get_or_compute
from alignrec_recbole.graphs.ties import first_k, is_tied, top_k_by_place
from alignrec_recbole.graphs.user_item import inverse_root, user_cooccurrence_graph
from alignrec_recbole.ops.matmul import matmul_nt
from alignrec_recbole.ops.rows import (
    extreme_exponents,
    l2_normalize_rows,
    row_blocks,
    scaled_into_range,
)
from alignrec_recbole.ops.topk import top_k

AUTO_ROWS = 50_000  # from here on `auto` is approximate on a CPU; below, exact is about as fast
LOW_RECALL = 0.95  # below this a warning

logger = logging.getLogger(__name__)


def nearest_neighbours(
    features: Tensor,
    k: int,
    *,
    method: searches.Method = "exact",
    memory_bytes: int = 256 << 20,
    place: np.ndarray | None = None,
) -> tuple[Tensor, Tensor]:
    """Cosine k-nearest neighbours of every row.

    Zero rows (PAD, items without the modality) have no neighbours and are no one's neighbour. A row
    may be its own neighbour. Inside `knn_cache.use_cache_folder` each search is made once; inside
    `searches.searching_on` it is made on that device, and approximate ones are noted.

    Args:
        features: [n, f].
        k: neighbours per row; at most the number of non-zero rows.
        method: exact, in blocks of rows; approximate (`hnsw`); or auto: approximate on a CPU from
            AUTO_ROWS rows on, else exact.
        memory_bytes: bound on a block of similarities and the memory for ranking it.
        place: of each row among equally near ones [n], the smallest first; None, and in an
            approximate search: in no order.

    Returns:
        similarities [n, k] and indices [n, k]; index −1 where there is no neighbour.

    Raises:
        MissingDependencyError: the search is to be approximate, and FAISS is not installed.
    """
    device = searches.device_for(features)
    if is_approximate(method, len(features), device):
        return _approximate(features, k, memory_bytes)

    def exact() -> Found:
        values, indices = _search(features.to(device), k, memory_bytes, place)
        return Found(values.to(features.device), indices.to(features.device))

    found = get_or_compute(features, k, exact, place=place)
    return found.values, found.indices


def is_approximate(method: searches.Method, rows: int, device: torch.device | str) -> bool:
    """Whether a search of so many rows on a device is approximate.

    >>> [is_approximate(name, 60_000, "cpu") for name in ("exact", "auto", "approximate")]
    [False, True, True]
    """
    if method == "auto":
        return rows >= AUTO_ROWS and torch.device(device).type == "cpu"
    return method == "approximate"


def _approximate(features: Tensor, k: int, memory_bytes: int) -> tuple[Tensor, Tensor]:
    """Approximate neighbours; their recall is noted."""
    method = hnsw.description(k)

    def compute() -> Found:
        values, indices, recall = hnsw.search(scaled_into_range(features), k, memory_bytes)
        return Found(values.to(features.device), indices.to(features.device), recall)

    found = get_or_compute(features, k, compute, method)
    rows, recall = int(features.ne(0).any(1).sum()), float(found.recall or 0.0)
    sample = min(rows, hnsw.SAMPLE)
    searches.note(searches.ApproximateSearch(method, rows, k, round(recall, 4), sample))
    if recall < LOW_RECALL:
        logger.warning(
            "The approximate item graph has %.1f %% of the exact one's neighbours, measured on "
            "%d rows; knn=exact searches them all",
            100 * recall,
            sample,
        )
    return found.values, found.indices


def _search(
    features: Tensor, k: int, memory_bytes: int, place: np.ndarray | None = None
) -> tuple[Tensor, Tensor]:
    """Each block meets only the rows from its own first on: one product serves both its sides."""
    features = scaled_into_range(features)
    norms = features.norm(dim=1)
    is_zero = norms.eq(0)  # a NaN stays, and is seen in the loss
    zero_rows = torch.nonzero(is_zero).ravel()
    inverse = norms.clamp(min=torch.finfo(norms.dtype).tiny).reciprocal()
    n, most = len(features), len(features) - len(zero_rows)
    k = min(k, most)
    wide = k if place is None else min(k + 1, most)  # the next one shows whether the k-th is tied
    values = features.new_full((n, wide), -torch.inf)
    indices = torch.full((n, wide), -1, dtype=torch.int64, device=features.device)
    if k == 0:
        return values, indices
    for block in row_blocks(n, n * features.element_size() * 2, memory_bytes):
        first, height = block.start, block.stop - block.start
        left = features[block] * inverse[block, None]
        similar = matmul_nt(left, features[first:]).mul_(inverse[first:])  # no unit copy
        columns = zero_rows[zero_rows >= first] - first
        similar.index_fill_(1, columns, -torch.inf)
        similar.index_fill_(0, columns[columns < height], -torch.inf)
        _merge_best(values[block], indices[block], similar, first)
        if block.stop < n:
            below = slice(block.stop, None)
            _merge_best(values[below], indices[below], similar[:, height:].T, first)
    if wide > k:
        assert place is not None
        tied = torch.nonzero(is_tied(values, k)).ravel()
        values, indices = values[:, :k].contiguous(), indices[:, :k].contiguous()
        for block in row_blocks(len(tied), n * features.element_size() * 4, memory_bytes):
            rows = tied[block]
            similar = matmul_nt(features[rows] * inverse[rows, None], features).mul_(inverse)
            similar.index_fill_(1, zero_rows, -torch.inf)
            values[rows], indices[rows] = first_k(similar, k, place)
    return values.masked_fill_(is_zero[:, None], 0.0), indices.masked_fill_(is_zero[:, None], -1)


def _merge_best(values: Tensor, indices: Tensor, similar: Tensor, first: int) -> None:
    """Update lists [n, k] with the larger of [n, m] similarities to rows first, first + 1, ..."""
    k = values.shape[1]
    best, columns = top_k(similar, min(k, similar.shape[1]))
    best, order = torch.cat([values, best], dim=1).topk(k, dim=1)
    indices.copy_(torch.cat([indices, columns + first], dim=1).gather(1, order))
    values.copy_(best)


def item_graph(
    features: Tensor,
    k: int,
    *,
    method: searches.Method = "exact",
    weighted: bool = True,
    memory_bytes: int = 256 << 20,
    place: np.ndarray | None = None,
) -> sp.csr_matrix:
    """Normalised kNN graph S = D^-½ W D^-½ as scipy CSR [n, n].

    A row of W holds an item's k largest cosines, itself among them, negative ones as 0; if not
    `weighted`, ones in their place. D are the row sums of W, used on rows and columns alike, so S
    is in general not symmetric. An item with a zero feature row gets a self edge of weight 1; PAD
    (row 0) has no edge.

    Source: weighted, build_knn_normalized_graph of AlignRec's code; of ones, Zhou and Shen,
    FREEDOM, MM 2023, equations 1-3.
    """
    values, indices = nearest_neighbours(
        features, k, method=method, memory_bytes=memory_bytes, place=place
    )
    n, column = len(features), indices.cpu().numpy()
    is_edge: np.ndarray = column >= 0
    weight = values.clamp(min=0).cpu().numpy().astype(np.float64)[is_edge]
    row = np.repeat(np.arange(n), is_edge.sum(1))
    graph = sp.csr_matrix(
        (weight if weighted else np.ones(len(row)), (row, column[is_edge])), shape=(n, n)
    )
    return _normalised(graph)


def _normalised(graph: sp.csr_matrix) -> sp.csr_matrix:
    """D^-½ W D^-½ with the row sums D; an item without an edge, but PAD, gets a self edge first."""
    isolated = np.asarray(graph.sum(1)).ravel() <= 0
    isolated[0] = False
    graph = (graph + sp.diags(isolated.astype(np.float64))).tocsr()
    root = inverse_root(graph.sum(1))
    return (sp.diags(root) @ graph @ sp.diags(root)).tocsr()


AGREEMENT_SLACK = 1e-6  # of a cosine: rounding must not decide where all are equal


def agreed_item_graphs(
    tables: list[Tensor], k: int, place: np.ndarray | None = None, *, memory_bytes: int = 256 << 20
) -> list[sp.csr_matrix]:
    """Of each modality the normalised kNN graph among items that all modalities find similar.

    Two items are similar in a modality if their cosine there is at least the mean over all pairs;
    one that an item does not have (a zero row) is not asked. An item has its k nearest similar
    ones in the modality, itself among them, with weight 1, or fewer if fewer are similar; without
    the modality, a self edge. Exact, in blocks of rows.

    Args:
        tables: features [n, f_m] per modality.
        k: neighbours per item.
        place: of each item among equally near ones [n], the smallest first; None: in no order.
        memory_bytes: bound on the similarities of a block and the memory for ranking them.

    Returns:
        scipy CSR [n, n] per modality, D^-½ W D^-½ with the row sums D; PAD (row 0) has no edge.

    Source: Xv et al., DA-MRS, KDD 2024.
    """
    units = [l2_normalize_rows(scaled_into_range(table.detach())) for table in tables]
    given = [table.detach().any(1) for table in tables]
    means = [
        unit.sum(0, dtype=torch.float64).square().sum().item() / max(int(has.sum()), 1) ** 2
        for unit, has in zip(units, given, strict=True)
    ]
    n = len(units[0])
    edges: list[list[tuple[np.ndarray, np.ndarray]]] = [[] for _ in units]
    for block in row_blocks(n, n * units[0].element_size() * (2 * len(units) + 2), memory_bytes):
        cosines = [matmul_nt(unit[block], unit) for unit in units]
        differ = torch.zeros_like(cosines[0], dtype=torch.bool)
        for cosine, mean, has in zip(cosines, means, given, strict=True):
            differ |= (cosine < mean - AGREEMENT_SLACK) & has[block, None] & has
        for cosine, has, found in zip(cosines, given, edges, strict=True):
            cosine.masked_fill_(differ, -torch.inf)
            cosine[:, ~has] = -torch.inf
            cosine[~has[block]] = -torch.inf
            best, column = top_k_by_place(cosine, k, place)
            is_edge: np.ndarray = best.cpu().numpy() > -np.inf
            row = np.repeat(np.arange(block.start, block.stop), is_edge.sum(1))
            found.append((row, column.cpu().numpy()[is_edge]))
    graphs = []
    for found in edges:
        ends = tuple(np.concatenate(part) for part in zip(*found, strict=True))
        graphs.append(_normalised(sp.csr_matrix((np.ones(len(ends[0])), ends), shape=(n, n))))
    return graphs


def common_user_graph(
    pairs: tuple[np.ndarray, np.ndarray],
    shape: tuple[int, int],
    k: int,
    place: np.ndarray | None = None,
    *,
    least: int = 2,
) -> sp.csr_matrix:
    """Each item with the k others that most of its users share, normalised: CSR [I, I].

    Edges have weight 1, the item's own included; D^-½ W D^-½ with the row sums D. PAD (row 0) has
    no edge.

    Args:
        pairs: items and users of the interactions; a repeated pair counts once.
        shape: (I, U).
        k: neighbours per item.
        place: of each item among equals [I], the smallest first; None: the ids.
        least: common users of neighbours, at least.

    Source: Xv et al., DA-MRS, KDD 2024.

    >>> pairs = np.array([1, 1, 2, 2, 3]), np.array([1, 2, 1, 2, 2])
    >>> common_user_graph(pairs, (4, 3), k=1).toarray()
    array([[0. , 0. , 0. , 0. ],
           [0. , 0.5, 0.5, 0. ],
           [0. , 0.5, 0.5, 0. ],
           [0. , 0. , 0. , 1. ]])
    """
    counts = user_cooccurrence_graph(pairs, shape, k, place)
    own = np.ones(shape[0])
    own[0] = 0
    return _normalised(((counts >= least).astype(np.float64) + sp.diags(own)).tocsr())


def item_knn(
    features: Tensor,
    k: int,
    shrinkage: float,
    place: np.ndarray | None = None,
    *,
    memory_bytes: int = 256 << 20,
) -> sp.csr_matrix:
    """The k largest ⟨f_i, f_j⟩ / (‖f_i‖ ‖f_j‖ + h) of every row as scipy CSR [n, n]; h: shrinkage.

    Exact, in blocks of rows; a row may be its own neighbour. Zero rows have no neighbours and are
    no one's neighbour. Equally near ones are taken by their `place`, the smallest first.

    Source: Ferrari Dacrema et al., RecSys 2019 (ItemKNN-CBF).
    """
    exponents, features = extreme_exponents(features), scaled_into_range(features)
    n, norm = len(features), features.norm(dim=1)
    non_zero = norm > 0
    k = min(k, int(non_zero.sum()))
    zero_rows = torch.nonzero(~non_zero).ravel()
    weights, columns = [], []
    for block in row_blocks(n, n * features.element_size() * 3, memory_bytes):
        similar = matmul_nt(features[block], features)
        added: float | Tensor = shrinkage
        if exponents is not None:  # both sides of the fraction are scaled alike
            scale = -(exponents[block, None] + exponents)
            added = torch.ldexp(scale.new_full((), shrinkage, dtype=torch.float64), scale)
        similar.div_(torch.outer(norm[block], norm).add_(added))
        similar[:, zero_rows] = -torch.inf
        best, where = top_k_by_place(similar, k, place)
        weights.append(best[non_zero[block]])
        columns.append(where[non_zero[block]])
    row = torch.nonzero(non_zero).ravel().repeat_interleave(k).cpu().numpy()
    column = torch.cat(columns).ravel().cpu().numpy()
    weight = torch.cat(weights).ravel().cpu().numpy()
    return sp.csr_matrix((weight, (row, column)), shape=(n, n))


def largest_products(
    rows: np.ndarray, k: int, place: np.ndarray | None = None, *, memory_bytes: int = 256 << 20
) -> sp.csr_matrix:
    """The k largest ⟨f_i, f_j⟩ > 0 of every row i as scipy CSR [n, n], itself among them.

    Exact, in blocks of rows. In float32. Equals are taken by their `place`, the smallest first.

    >>> largest_products(np.array([[1.0], [2.0], [0.0]]), 1).toarray()
    array([[0., 2., 0.],
           [0., 4., 0.],
           [0., 0., 0.]], dtype=float32)
    """
    table = torch.from_numpy(np.ascontiguousarray(rows, dtype=np.float32))
    return _largest(lambda b: matmul_nt(table[b], table), len(table), k, place, memory_bytes)


def hybrid_knn(
    histories: sp.csr_matrix,
    rows: np.ndarray,
    k: int,
    content_weight: float,
    shrinkage: float,
    place: np.ndarray | None = None,
    *,
    memory_bytes: int = 256 << 20,
) -> sp.csr_matrix:
    """The k largest w_ij > 0 of every row i, without itself, as scipy CSR [I, I].

        w_ij = (1 − w) |U_i ∩ U_j| / (√(|U_i| |U_j|) + h) + w max(⟨f_i, f_j⟩, 0)

    Exact, in blocks of rows.

    Args:
        histories: ones [U, I], CSR.
        rows: f [I, f], of length 1 or 0.
        content_weight: w.
        shrinkage: h.
        place: of each item among equals [I], the smallest first; None: in no order.
    """
    table, counts = torch.from_numpy(rows), (histories.T @ histories).tocsr()
    root = np.sqrt(counts.diagonal())
    norm = np.repeat(root, np.diff(counts.indptr)) * root[counts.indices]
    counts.data = (1 - content_weight) * counts.data / (norm + shrinkage)

    def similar(block: slice) -> Tensor:
        part = matmul_nt(table[block], table).clamp_(min=0).mul_(content_weight)
        part += torch.from_numpy(counts[block].toarray().astype(np.float32))
        own = torch.arange(block.start, block.stop)
        part[own - block.start, own] = 0.0
        return part

    return _largest(similar, len(table), k, place, memory_bytes)


def _largest(
    similar: Callable[[slice], Tensor],
    n: int,
    k: int,
    place: np.ndarray | None,
    memory_bytes: int,
) -> sp.csr_matrix:
    """The k largest positive entries of each row of a matrix [n, n] that comes in blocks."""
    parts = []
    for block in row_blocks(n, n * 4 * 3, memory_bytes):
        best, where = top_k_by_place(similar(block), k, place, above=0.0)
        found = best.cpu().numpy() > 0
        row = np.repeat(np.arange(len(found)), found.sum(1))
        entries = best.cpu().numpy()[found], (row, where.cpu().numpy()[found])
        parts.append(sp.csr_matrix(entries, shape=(len(found), n)))
    return sp.vstack(parts, format="csr")
