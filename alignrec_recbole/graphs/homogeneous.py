"""Graphs among nodes of one kind, users or items: who occur together, and who are alike: REARM's.

Nothing dense of nodes × nodes is formed. Row 0 is RecBole's PAD and never gets an edge.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from alignrec_recbole.graphs import searches
from alignrec_recbole.graphs.item_item import nearest_neighbours
from alignrec_recbole.graphs.ties import SLACK
from alignrec_recbole.graphs.user_item import (
    binary_interactions,
    row_softmax,
    user_cooccurrence_graph,
)

Pairs = tuple[np.ndarray, np.ndarray]


def cosine_graph(
    features: Tensor,
    k: int,
    *,
    same: np.ndarray | None = None,
    place: np.ndarray | None = None,
    method: searches.Method = "exact",
    memory_bytes: int = 256 << 20,
) -> sp.csr_matrix:
    """Of each row the k largest cosines, its own among them, divided by k: CSR [n, n].

    A zero row has a self edge of weight 1 alone.

    Args:
        features: [n, f].
        k: neighbours per row; at most the number of non-zero rows.
        same: a number per row [n]; rows with one number are equal. None: none are.
        place: of each row among equals [n], the smallest first; None: the ids.
        method, memory_bytes: as of `nearest_neighbours`.

    >>> rows = Tensor([[0, 0], [1, 0], [0.8, 0.6], [0, 0]])
    >>> cosine_graph(rows, 2).toarray().round(4)
    array([[0. , 0. , 0. , 0. ],
           [0. , 0.5, 0.4, 0. ],
           [0. , 0.4, 0.5, 0. ],
           [0. , 0. , 0. , 1. ]])
    """
    n = len(features)
    same = np.arange(n) if same is None else same
    place = np.arange(n) if place is None else place
    _, first, group = np.unique(same, return_index=True, return_inverse=True)
    members = np.lexsort((place, group))  # group by group
    size = np.bincount(group)
    begin = np.cumsum(size) - size
    place = place[members[begin]]  # of a group: its first member's
    found, indices = nearest_neighbours(
        features[torch.from_numpy(first)],
        k,
        method=method,
        memory_bytes=memory_bytes,
        place=place,
    )
    values, near = found.cpu().numpy().astype(np.float64), indices.cpu().numpy()
    step = np.cumsum(-np.diff(values, axis=1, prepend=values[:, :1]) > SLACK, axis=1)
    order = np.lexsort((place[near], step))  # equals by place within a list, too
    values, near = (np.take_along_axis(part, order, 1) for part in (values, near))
    here = np.where(near >= 0, size[near], 0)
    known = int(size[(near >= 0).any(1)].sum())
    k = max(min(k, known), 1)
    taken = np.clip(k - (np.cumsum(here, 1) - here), 0, here).ravel()
    row = np.repeat(np.arange(near.size) // max(near.shape[1], 1), taken)
    within = np.arange(len(row)) - np.repeat(np.cumsum(taken) - taken, taken)
    column = members[np.repeat(begin[near.ravel()], taken) + within]
    weight = np.repeat(values.ravel(), taken) / k
    graph = sp.csr_matrix((weight, (row, column)), shape=(len(first), n))[group]
    alone = np.diff(graph.indptr) == 0
    alone[0] = False
    return (graph + sp.diags(alone.astype(np.float64))).tocsr()


def same_items(pairs: Pairs, shape: tuple[int, int], present: np.ndarray) -> np.ndarray:
    """A number per user [U], the same for users with the same items among those that are present.

    Args:
        pairs: users and items of the interactions; a repeated pair counts once.
        shape: (U, I).
        present: bool [I].

    >>> pairs = np.array([1, 1, 2, 3]), np.array([1, 2, 1, 1])
    >>> one, two, three = same_items(pairs, (4, 3), np.ones(3, dtype=bool))[1:]
    >>> bool(one == two), bool(two == three)
    (False, True)
    """
    draws = np.random.default_rng(0).integers(-(2**62), 2**62, size=(shape[1], 2))
    sums = binary_interactions(pairs, shape).astype(np.int64) @ (draws * present[:, None])
    return np.unique(sums, axis=0, return_inverse=True)[1].ravel()


def common_shares(
    pairs: Pairs, shape: tuple[int, int], k: int, place: np.ndarray | None = None
) -> sp.csr_matrix:
    """Of each node the softmax of the numbers of common partners, of the k others with most.

    A node that shares no partner with another has the nodes with most partners instead, weighted by
    the softmax of each one's part of these nodes' partners. They are k, or fewer where of nodes
    with equally many some would be among them and some not.

    Args:
        pairs: nodes and their partners; a repeated pair counts once.
        shape: numbers of both (n, p), PAD included.
        k: others per node.
        place: of each node among equals [n], the smallest first; None: the ids.

    Returns:
        CSR [n, n]; a row sums to 1, or 0 if no node is to be had.

    >>> pairs = np.array([1, 2, 2, 3]), np.array([1, 1, 2, 3])  # 3 shares nothing, 2 has most
    >>> common_shares(pairs, (4, 4), k=1).toarray().astype(int)
    array([[0, 0, 0, 0],
           [0, 0, 1, 0],
           [0, 1, 0, 0],
           [0, 0, 1, 0]])
    """
    place = np.arange(shape[0]) if place is None else place
    shares = row_softmax(user_cooccurrence_graph(pairs, shape, k, place))
    alone = np.flatnonzero(np.diff(shares.indptr) == 0)
    alone = alone[alone > 0]
    partners = np.asarray(binary_interactions(pairs, shape).sum(1)).ravel()
    rank = np.searchsorted(np.sort(-partners), -partners, side="right")  # with all of its equals
    most = np.flatnonzero((partners > 0) & (rank <= k))
    if not len(alone) or not len(most):
        return shares
    weight = row_softmax(sp.csr_matrix(partners[None, most] / partners[most].sum())).data
    ends = np.repeat(alone, len(most)), np.tile(most, len(alone))
    return (shares + sp.csr_matrix((np.tile(weight, len(alone)), ends), shares.shape)).tocsr()


def mean_over_items(pairs: Pairs, shape: tuple[int, int], present: np.ndarray) -> sp.csr_matrix:
    """D⁻¹ R over the items that are present: CSR [U, I]; a user who has none has a zero row.

    Args:
        pairs: users and items of the interactions; a repeated pair counts once.
        shape: (U, I).
        present: bool [I].

    >>> pairs = np.array([1, 1, 1]), np.array([1, 2, 3])
    >>> mean_over_items(pairs, (2, 4), np.array([False, True, False, True])).toarray()
    array([[0. , 0. , 0. , 0. ],
           [0. , 0.5, 0. , 0.5]])
    """
    own = binary_interactions(pairs, shape) @ sp.diags(present.astype(np.float64))
    return (sp.diags(1 / np.maximum(np.asarray(own.sum(1)).ravel(), 1)) @ own).tocsr()
