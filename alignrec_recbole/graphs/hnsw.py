"""Approximate k-nearest neighbours by cosine: a graph of FAISS, whose lists are scored exactly.

The index is a hierarchical navigable small world graph (Malkov and Yashunin, TPAMI 2020): time
grows about as n log n instead of n². Two searches by one thread have equal lists; with several
threads rows are inserted in another order each time.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from alignrec_recbole.errors import MissingDependencyError
from alignrec_recbole.ops.matmul import matmul_nt
from alignrec_recbole.ops.rows import row_blocks
from alignrec_recbole.ops.topk import top_k

LINKS = 16  # per node and level, M
BUILD_WIDTH = 80  # candidates per insertion, efConstruction
SEARCH_WIDTH = 64  # candidates per search, efSearch; at least 2k
SAMPLE, SAMPLE_SEED = 1000, 0  # rows whose lists are compared with exact ones
EQUAL = 1e-6  # cosines that differ by less are equally near


def description(k: int) -> str:
    """The index, its parameters and the library's version, which the lists depend on.

    Raises:
        MissingDependencyError: FAISS is not installed.
    """
    return (
        f"HNSW, M {LINKS}, efConstruction {BUILD_WIDTH}, efSearch {_search_width(k)}, "
        f"faiss {_faiss().__version__}"
    )


def search(features: Tensor, k: int, memory_bytes: int) -> tuple[Tensor, Tensor, float]:
    """Lists as of `item_item.nearest_neighbours`, and their recall on SAMPLE rows.

    Args:
        features: [n, f], on any device; the index is made on the CPU.
        k: neighbours per row.
        memory_bytes: bound on the blocks that are searched and scored; the index has a copy of the
            features and some 140 bytes per row, and while it is made there is a second copy.

    Raises:
        MissingDependencyError: FAISS is not installed.
    """
    faiss, table = _faiss(), features.detach().cpu()
    norms = table.norm(dim=1)
    rows = torch.nonzero(norms).ravel()
    inverse = norms.clamp(min=torch.finfo(norms.dtype).tiny).reciprocal()
    n, k = len(table), min(k, len(rows))
    values = table.new_zeros(n, k)
    indices = torch.full((n, k), -1, dtype=torch.int64)
    if k == 0:
        return values, indices, 1.0
    faiss.omp_set_num_threads(torch.get_num_threads())
    index = faiss.IndexHNSWFlat(table.shape[1], LINKS, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction, index.hnsw.efSearch = BUILD_WIDTH, _search_width(k)
    row_bytes = table.shape[1] * (k + 4) * table.element_size()
    unit = table[rows].mul_(inverse[rows, None]).float()
    index.add(unit.numpy())  # all at once: FAISS then inserts them in a random order
    del unit
    for block in row_blocks(len(rows), row_bytes, memory_bytes):
        own = rows[block]
        unit = table[own] * inverse[own, None]
        found = torch.from_numpy(index.search(unit.float().numpy(), k)[1])
        near = rows[found.clamp(min=0)]
        cosines = torch.einsum("nf,nkf->nk", unit, table[near]) * inverse[near]
        cosines.masked_fill_(found < 0, -torch.inf)
        cosines, order = cosines.sort(dim=1, descending=True, stable=True)
        near = near.masked_fill(found < 0, -1).gather(1, order)
        values[own], indices[own] = cosines.masked_fill(near < 0, 0.0), near
    return values, indices, _recall(table, inverse, rows, values, indices, memory_bytes)


def _recall(
    table: Tensor,
    inverse: Tensor,
    rows: Tensor,
    values: Tensor,
    indices: Tensor,
    memory_bytes: int,
) -> float:
    """Mean share of the exact lists' length that is at least as near as their last entry."""
    n, k = values.shape
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(SAMPLE_SEED))
    sample, found = rows[order[:SAMPLE]], 0
    is_zero = torch.ones(n, dtype=torch.bool).index_fill_(0, rows, False)
    zero_rows = torch.nonzero(is_zero).ravel()
    for block in row_blocks(len(sample), n * table.element_size() * 2, memory_bytes):
        own = sample[block]
        similar = matmul_nt(table[own] * inverse[own, None], table).mul_(inverse)
        similar.index_fill_(1, zero_rows, -torch.inf)
        last = top_k(similar, k)[0][:, -1:]
        found += int(((values[own] >= last - EQUAL) & (indices[own] >= 0)).sum())
    return found / (len(sample) * k)


def _search_width(k: int) -> int:
    return max(SEARCH_WIDTH, 2 * k)


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise MissingDependencyError.of_extra(
            "Approximate item graphs (knn) need FAISS.", "ann", str(error)
        ) from error
    return faiss
