"""Graphs of what users may like beside what they have: SOIL's second order of interest.

Features are tables [n, f] per modality whose row 0 is PAD and whose zero rows are missing. Cosines
are computed in blocks of rows; no items × items matrix is formed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from alignrec_recbole.graphs.ties import top_k_by_place
from alignrec_recbole.graphs.user_item import binary_interactions, inverse_root
from alignrec_recbole.ops.edge_weights import edge_dot, gathered_dot
from alignrec_recbole.ops.matmul import matmul_nt
from alignrec_recbole.ops.rows import l2_normalize_rows, row_blocks, scaled_into_range

Pairs = tuple[np.ndarray, np.ndarray]
EQUAL = 1e-6  # of a likeness: rounding must not decide


def second_order_interactions(
    tables: Sequence[Tensor],
    pairs: Pairs,
    shape: tuple[int, int],
    k: int,
    place: np.ndarray | None = None,
    *,
    memory_bytes: int = 256 << 20,
) -> sp.csr_matrix:
    """Each user's own items and those most like them, weighted by likeness: CSR [U, I].

    Two items are as alike as the product of their cosines, over the modalities that both have.
    Among all pairs of an own item with another item, own or not, the k most alike count, and an
    item's weight is their sum, plus 1 for an own item. Pairs that are equally alike, as (i, j) and
    (j, i) of own items are, share the last places. Pairs without a likeness above 0 never count.

    Args:
        tables: features [I, f_m] per modality.
        pairs: users and items of the interactions.
        shape: (U, I).
        k: pairs per user.
        place: of each item among those equally like another [I], the smallest first; None: in no
            order.
        memory_bytes: bound on the likenesses of a block.

    Source: Su et al., SOIL, MM 2024, equations 1-3; own items as in its code.

    >>> alike = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.6, 0.8]])
    >>> pairs = np.array([1]), np.array([1])
    >>> second_order_interactions([alike], pairs, (2, 4), 2).toarray().round(4)
    array([[0. , 0. , 0. , 0. ],
           [0. , 1. , 1. , 0.6]])
    """
    own = binary_interactions(pairs, shape)
    units = [l2_normalize_rows(scaled_into_range(table)) for table in tables]
    near, likeness = _most_alike(units, k, place, memory_bytes)
    user, item = own.nonzero()
    user, second = np.repeat(user, near.shape[1]), near[item].ravel()
    weight = likeness[item].ravel()
    order = np.lexsort((-weight, user))
    order = order[weight[order] > 0]
    user, second, weight = user[order], second[order], weight[order]
    weight *= _shares(user, weight, k, shape[0])
    return (own + sp.csr_matrix((weight, (user, second)), shape=shape)).tocsr()


def _shares(user: np.ndarray, weight: np.ndarray, k: int, n_users: int) -> np.ndarray:
    """1 for a user's k largest weights, 0 for others; equals share the last places [e].

    Args:
        user: ascending [e].
        weight: descending for each user [e].
    """
    first = np.searchsorted(user, np.arange(n_users + 1))
    start, stop = first[:-1], first[1:]
    last = np.zeros(n_users)  # the k-th largest weight; 0: the user has fewer
    enough = stop - start >= k
    last[enough] = weight[start[enough] + k - 1]
    above = weight > last[user] + EQUAL
    equal = ~above & (weight >= last[user] - EQUAL)
    left = k - np.bincount(user, above, minlength=n_users)
    shared = np.minimum(left / np.maximum(np.bincount(user, equal, minlength=n_users), 1), 1)
    return above + equal * shared[user]


def _most_alike(
    units: list[Tensor], k: int, place: np.ndarray | None, memory_bytes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Of each item the k other items most like it [n, k], and their likeness, 0 if not alike.

    The likenesses are symmetric to the last bit, so that no order of rows decides among equals.
    """
    n = len(units[0])
    k = min(k, n)
    has = [unit.any(1) for unit in units]
    near = torch.zeros(n, k, dtype=torch.int64, device=units[0].device)
    for block in row_blocks(n, n * units[0].element_size() * 4, memory_bytes):
        product = torch.ones(block.stop - block.start, n, device=near.device)
        common = torch.zeros_like(product, dtype=torch.bool)
        for unit, present in zip(units, has, strict=True):
            both = present[block, None] & present
            cosine = matmul_nt(unit[block], unit).to(product.dtype)
            product.mul_(cosine.masked_fill_(~both, 1.0))
            common |= both
        product.masked_fill_(~common, -torch.inf)
        product[torch.arange(len(product)), torch.arange(block.start, block.stop)] = -torch.inf
        near[block] = top_k_by_place(product, k, place)[1]
    row = torch.arange(n, device=near.device).repeat_interleave(k)
    column, found = near.ravel(), torch.ones(n * k, dtype=torch.float64, device=near.device)
    compared = torch.zeros_like(found, dtype=torch.bool)
    for unit, present in zip(units, has, strict=True):
        both = present[row] & present[column]
        cosine = gathered_dot(row, column, unit, unit, _edges(unit, memory_bytes)).double()
        found.mul_(cosine.masked_fill_(~both, 1.0))
        compared |= both
    found.masked_fill_((row == column) | ~compared, 0.0).clamp_(min=0)
    return near.cpu().numpy(), found.view(n, k).cpu().numpy()


def interest_graphs(
    tables: Sequence[Tensor],
    pairs: Pairs,
    shape: tuple[int, int],
    k: int,
    place: np.ndarray | None = None,
    *,
    memory_bytes: int = 256 << 20,
) -> list[sp.csr_matrix]:
    """Of each modality a normalised graph from users' items to what is most like all of them.

    For every modality, a user's k items of the largest sum of cosines with the user's own items are
    their interest. An own item has an edge to each item of the interest by any modality. Its weight
    is the cosine in the graph's modality, 0 if negative, once per user who has it.

    Args:
        tables, pairs, shape, memory_bytes: as of `second_order_interactions`.
        k: items per user and modality.
        place: of each item among those of equal sums [I], the smallest first; None: in no order.

    Returns:
        CSR [I, I] per modality, D^-½ W D^-½ with the row sums D, on rows and columns alike; not
        symmetric. An item that nobody has, has no edge.

    Source: Su et al., SOIL, MM 2024, equations 6-8; one summand per user as in its code.

    >>> alike = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
    >>> pairs = np.array([1, 1, 1]), np.array([1, 2, 3])  # item 2 is most like all three
    >>> interest_graphs([alike], pairs, (2, 4), 1)[0].toarray().round(2)
    array([[0.  , 0.  , 0.  , 0.  ],
           [0.  , 0.  , 0.89, 0.  ],
           [0.  , 0.  , 1.  , 0.  ],
           [0.  , 0.  , 0.77, 0.  ]])
    """
    own = binary_interactions(pairs, shape)
    units = [l2_normalize_rows(scaled_into_range(table)) for table in tables]
    chosen = sum(_interest(unit, own, k, place, memory_bytes) for unit in units)
    counts = (own.T @ (chosen > 0).astype(np.float64)).tocsr()
    pattern = counts.indptr, counts.tocoo().row, counts.indices
    offsets, row, column = (
        torch.from_numpy(part.astype(np.int64)).to(units[0].device) for part in pattern
    )
    out = []
    for unit in units:
        found = edge_dot(offsets, row, column, unit, unit, _edges(unit, memory_bytes)).double()
        cosine = found.clamp_(min=0).cpu().numpy()
        graph = sp.csr_matrix((counts.data * cosine, counts.indices, counts.indptr), counts.shape)
        root = inverse_root(graph.sum(1))
        out.append((sp.diags(root) @ graph @ sp.diags(root)).tocsr())
    return out


def _interest(
    unit: Tensor, own: sp.csr_matrix, k: int, place: np.ndarray | None, memory_bytes: int
) -> sp.csr_matrix:
    """Each user's k items of the largest sum of cosines with the own ones: ones in CSR [U, I]."""
    missing = ~unit.any(1)
    rows = unit.cpu().numpy()
    users, items = [], []
    width = (2 * own.shape[1] + 2 * unit.shape[1]) * unit.element_size()
    for block in row_blocks(own.shape[0], width, memory_bytes):
        profile = torch.from_numpy(own[block].astype(rows.dtype) @ rows).to(unit.device)
        score = matmul_nt(profile, unit).to(profile.dtype)
        score[:, missing] = -torch.inf
        score[~profile.any(1)] = -torch.inf
        best, column = top_k_by_place(score, k, place)
        is_edge: np.ndarray = best.cpu().numpy() > -np.inf
        users.append(np.repeat(np.arange(block.start, block.stop), is_edge.sum(1)))
        items.append(column.cpu().numpy()[is_edge])
    ends = np.concatenate(users), np.concatenate(items)
    return sp.csr_matrix((np.ones(len(ends[0])), ends), shape=own.shape)


def _edges(unit: Tensor, memory_bytes: int) -> int:
    """How many edges' rows [f], three times, fit into so many bytes; at least one."""
    return max(memory_bytes // (3 * unit.shape[1] * unit.element_size()), 1)
