"""User–item and user–user graphs as constant sparse matrices.

No users × items matrix is formed. Row 0 of every table is RecBole's PAD and never gets an edge.
Graphs from features are in `item_item`, learnt edge weights in `ops.edge_weights`.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from alignrec_recbole.ops.sparse import SparseOperator

LARGEST = 1 << 62  # of the integers that are sorted
MULTINOMIAL_ROWS = 1 << 24  # torch.multinomial takes no more


def normalised_interactions(pairs: tuple[np.ndarray, np.ndarray], shape: tuple[int, int]) -> Any:
    """R̂ = D_u^-½ R D_i^-½ as scipy CSR [U, I]; R is binary, isolated rows stay zero.

    >>> normalised_interactions((np.array([1, 1]), np.array([1, 2])), (2, 3)).toarray().round(4)
    array([[0.    , 0.    , 0.    ],
           [0.    , 0.7071, 0.7071]])
    """
    matrix = binary_interactions(pairs, shape)
    row, column = inverse_root(matrix.sum(1)), inverse_root(matrix.sum(0))
    return (sp.diags(row) @ matrix @ sp.diags(column)).tocsr()


def inverse_root(degrees: Any) -> np.ndarray:
    """d^-½ as a vector, 0 where d is 0."""
    degrees = np.asarray(degrees, dtype=np.float64).ravel()
    root = np.zeros_like(degrees)
    np.power(degrees, -0.5, out=root, where=degrees > 0)
    return root


def bipartite_adjacency(interactions: Any) -> SparseOperator:
    """Â = [[0, R̂], [R̂ᵀ, 0]] of a normalised interaction matrix [U, I]; no self-loops."""
    return SparseOperator(
        sp.bmat([[None, interactions], [interactions.T, None]], format="csr"), symmetric=True
    )


def random_walk_adjacency(
    pairs: tuple[np.ndarray, np.ndarray], shape: tuple[int, int], *, loops: bool = True
) -> Any:
    """D⁻¹ (A + I) of the user-item graph with self-loops, [U + I, U + I]; rows sum to 1.

    PAD rows have their self-loop alone. Without `loops` it is D⁻¹ A, the mean over a node's
    neighbours, and zero for a node without any.

    >>> graph = random_walk_adjacency((np.array([1]), np.array([1])), (2, 2))
    >>> graph.csr.toarray()[1]
    array([0. , 0.5, 0. , 0.5])
    """
    block = binary_interactions(pairs, shape)
    graph = sp.bmat([[None, block], [block.T, None]], format="csr")
    if loops:
        graph = graph + sp.identity(sum(shape))
    return SparseOperator(sp.diags(1 / np.maximum(np.asarray(graph.sum(1)).ravel(), 1)) @ graph)


def sample_edges(interactions: Any, keep_share: float, generator: torch.Generator) -> Any:
    """Â of a random share of the edges, normalised by the degrees among these.

    Edges are sampled without replacement with probability ∝ their value in R̂, (d_u d_i)^-½: those
    of popular users and items are dropped most often.

    Args:
        interactions: R̂ [U, I], scipy.
        keep_share: of the edges, 0 < share ≤ 1; rounded down to whole edges, at least one.

    Source: Zhou and Shen, FREEDOM, MM 2023, equations 4-6.
    """
    edges = interactions.tocoo()
    count = max(1, int(edges.nnz * keep_share))
    chosen = _without_replacement(torch.from_numpy(edges.data), count, generator).numpy()
    pairs = edges.row[chosen], edges.col[chosen]
    return bipartite_adjacency(normalised_interactions(pairs, edges.shape))


def _without_replacement(weights: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Places of `count` weights [n], drawn with probability ∝ the weight, none twice.

    Of exponential variables with the weights as rates, the smallest are such a draw; that is how
    torch.multinomial makes it, too.

    Source: Efraimidis and Spirakis, Information Processing Letters 2006.
    """
    if len(weights) <= MULTINOMIAL_ROWS:
        return torch.multinomial(weights, count, generator=generator)
    waiting = torch.empty_like(weights).exponential_(generator=generator).div_(weights)
    return waiting.topk(count, largest=False, sorted=False).indices


def user_cooccurrence_graph(
    pairs: tuple[np.ndarray, np.ndarray],
    shape: tuple[int, int],
    k: int,
    place: np.ndarray | None = None,
    *,
    entries: int = 1 << 22,
) -> Any:
    """For every user the k others with most items in common, weighted by their number: CSR [U, U].

    A user has fewer than k neighbours if fewer share an item with them.

    Args:
        pairs: users and items of the interactions; a repeated pair counts once.
        shape: (U, I).
        k: neighbours per user.
        place: of each user among equals [U], a permutation, the smallest first; None: the ids.
        entries: bound on the counts in memory, beyond those of one user.

    Source: Wang et al., DualGNN, IEEE Transactions on Multimedia 2021: its graph of users.

    >>> pairs = np.array([1, 1, 2, 2, 3]), np.array([1, 2, 1, 2, 2])
    >>> user_cooccurrence_graph(pairs, (4, 3), k=1).toarray().astype(int)
    array([[0, 0, 0, 0],
           [0, 0, 2, 0],
           [0, 2, 0, 0],
           [0, 1, 0, 0]])
    """
    items_of = binary_interactions(pairs, shape)
    users_of, users = items_of.T.tocsr(), shape[0]
    place = np.arange(users) if place is None else place
    by_place = np.argsort(place)
    # a row's entries are sorted as one integer: by row, then falling count, then place
    most = int(np.diff(items_of.indptr).max(initial=0))
    stride = (most + 1) * users
    bound = np.cumsum(items_of @ np.diff(users_of.indptr))  # of the entries of R Rᵀ up to a row
    block = bound // entries + np.arange(users) // max(1, LARGEST // stride)
    parts = []
    for start, stop in itertools.pairwise([0, *(np.flatnonzero(np.diff(block)) + 1), users]):
        counts = (items_of[start:stop] @ users_of).tocoo()
        key = counts.row.astype(np.int64) * (most + 1) + (most - counts.data.astype(np.int64))
        key = (key * users + place[counts.col])[counts.row + start != counts.col]
        key.sort()
        ends = np.searchsorted(key, np.arange(stop - start + 1) * stride)
        of_row = np.diff(ends)
        best = np.arange(len(key)) - np.repeat(ends[:-1], of_row) < k
        row = np.repeat(np.arange(stop - start), np.minimum(of_row, k))
        rest, column = np.divmod(key[best], users)
        number = (most - rest % (most + 1)).astype(np.float64)
        parts.append(sp.csr_matrix((number, (row, by_place[column])), shape=(stop - start, users)))
    return sp.vstack(parts, format="csr")


def row_softmax(graph: Any) -> Any:
    """e^a / Σ e^a over the entries of every row of a scipy CSR matrix; empty rows stay empty.

    >>> row_softmax(sp.csr_matrix([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0]])).toarray()
    array([[0.5, 0.5, 0. ],
           [0. , 0. , 0. ]])
    """
    out = sp.csr_matrix(graph, dtype=np.float64, copy=True)
    row = np.repeat(np.arange(out.shape[0]), np.diff(out.indptr))
    out.data = np.exp(out.data - out.max(1).toarray().ravel()[row])
    out.data /= np.bincount(row, out.data, minlength=out.shape[0])[row]
    return out


def extended_adjacency(
    pairs: tuple[np.ndarray, np.ndarray], shape: tuple[int, int], items: Any
) -> Any:
    """D^-½ A D^-½ of A = [[0, R], [Rᵀ, B]], B edges among items: scipy CSR [U + I, U + I].

    D are the row sums of A, used on rows and columns alike; isolated rows stay zero.

    >>> pairs = np.array([1]), np.array([1])
    >>> graph = extended_adjacency(pairs, (2, 3), sp.csr_matrix(([3.0], ([1], [2])), shape=(3, 3)))
    >>> graph.toarray()[3]  # item 1: its user has degree 1, item 2 has no row of its own
    array([0. , 0.5, 0. , 0. , 0. ])
    """
    block = binary_interactions(pairs, shape)
    graph = sp.bmat([[None, block], [block.T, items]], format="csr")
    root = inverse_root(graph.sum(1))
    return (sp.diags(root) @ graph @ sp.diags(root)).tocsr()


def binary_interactions(pairs: tuple[np.ndarray, np.ndarray], shape: tuple[int, int]) -> Any:
    """R [U, I] of ones; a repeated pair is one edge."""
    matrix = sp.csr_matrix((np.ones(len(pairs[0])), pairs), shape=shape)
    matrix.data[:] = 1.0
    return matrix
