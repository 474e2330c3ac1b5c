"""Graphs as constant sparse operators: propagation with an exact, cheap backward.

Nothing here is dense in items × items or users × items. Row 0 of every table is RecBole's PAD;
it never gets an edge. Graphs from features are in `item_graphs`, learnt weights in `edges`.
"""

from __future__ import annotations

import itertools
import warnings
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from torch import Tensor

from alignrec_recbole.kernels import scatter_rows


class SparseOperator:
    """A constant sparse matrix A that multiplies dense matrices: `A @ X`, differentiable in X.

    Keeps A, and from the first backward Aᵀ, in CSR form, so the backward (Aᵀ G) is one product and
    rebuilds nothing; see `bag` for the kernel. Deep copies share the matrix: it never changes.

    Args:
        matrix: scipy sparse matrix [n, m].
        symmetric: A equals Aᵀ; only one copy is kept.
    """

    def __init__(self, matrix: sp.spmatrix, *, symmetric: bool = False) -> None:
        csr = sp.csr_matrix(matrix)
        csr.sort_indices()
        self.shape = csr.shape
        self.csr = csr
        self._symmetric = symmetric
        self._cache: dict[tuple, tuple] = {}
        self._typed: dict[torch.dtype, Any] = {}

    def __deepcopy__(self, memo: dict) -> SparseOperator:
        return self

    def __matmul__(self, dense: Tensor) -> Tensor:
        return _Product.apply(dense, self, None)

    def rows(self, rows: Tensor, dense: Tensor) -> Tensor:
        """(A X)[rows], on CPU touching only these rows' edges, in the backward too.

        On a GPU, where their number is unknown without waiting, the whole product is formed.
        """
        return _Product.apply(dense, self, rows)

    def forward_product(self, dense: Tensor) -> Tensor:
        """A X, outside autograd."""
        return bag(*self._on(dense, transposed=False), dense.detach())

    def backward_product(self, gradient: Tensor) -> Tensor:
        """Aᵀ G."""
        return bag(*self._on(gradient, transposed=True), gradient.detach())

    def _on(self, dense: Tensor, *, transposed: bool) -> tuple[Tensor, Tensor, Tensor]:
        transposed = transposed and not self._symmetric
        key = (dense.device, dense.dtype, transposed)
        if key not in self._cache:
            index, offsets, weights = _arrays(self.csr.T.tocsr() if transposed else self.csr)
            self._cache[key] = (
                index.to(dense.device),
                offsets.to(dense.device),
                weights.to(dense.device, dense.dtype),
            )
        return self._cache[key]

    def _edges_of(self, rows: Tensor, dense: Tensor) -> tuple[Tensor, Tensor, Tensor] | None:
        """Index, offsets and weights of A[rows], on CPU."""
        if dense.device.type != "cpu":
            return None
        return _arrays(self._scipy(dense.dtype)[rows.numpy()])

    def _scipy(self, dtype: torch.dtype) -> sp.csr_matrix:
        """A with weights of a type of torch's, on CPU; shares their memory."""
        if dtype not in self._typed:
            weights = self._on(torch.empty(0, dtype=dtype), transposed=False)[2]
            parts = weights.numpy(), self.csr.indices, self.csr.indptr
            self._typed[dtype] = sp.csr_matrix(parts, shape=self.shape, copy=False)
        return self._typed[dtype]

    def near(self, edges: tuple[Tensor, Tensor, Tensor], dense: Tensor) -> _Near | None:
        """The part of A² that rows of A A X need, if it is small enough to pay.

        Args:
            edges: of the rows, as `_edges_of` gives them.
            dense: X.
        """
        matrix, (index, offsets, weights) = self._scipy(dense.dtype), edges
        reached = np.zeros(self.shape[1], dtype=bool)
        reached[index.numpy()] = True
        if np.diff(matrix.indptr)[reached].sum() > NEAR_SHARE * matrix.nnz:
            return None
        nodes = np.flatnonzero(reached)
        place = np.empty(len(reached), dtype=matrix.indices.dtype)
        place[nodes] = np.arange(len(nodes))
        arrays = weights.numpy(), place[index.numpy()], offsets.numpy()
        last = sp.csr_matrix(arrays, shape=(len(offsets) - 1, len(nodes)), copy=False)
        return _Near(torch.from_numpy(nodes), last, matrix[nodes])


NEAR_SHARE = 0.6  # of all edges; with more of them whole products are faster


class _Near(NamedTuple):
    """(A A X)[rows] = last (before X).

    Attributes:
        nodes: the nodes T that the rows' edges lead to, ascending.
        last: A[rows] with columns T.
        before: A[T].
    """

    nodes: Tensor
    last: sp.csr_matrix
    before: sp.csr_matrix


def _arrays(csr: sp.csr_matrix) -> tuple[Tensor, Tensor, Tensor]:
    index, offsets, weights = map(torch.from_numpy, (csr.indices, csr.indptr, csr.data))
    return index, offsets, weights


def _as_csr(edges: tuple[Tensor, Tensor, Tensor], columns: int) -> sp.csr_matrix:
    """The rows that these arrays make, without a copy."""
    index, offsets, weights = (part.numpy() for part in edges)
    return sp.csr_matrix((weights, index, offsets), (len(offsets) - 1, columns), copy=False)


def _turned(csr: sp.csr_matrix) -> tuple[Tensor, Tensor, Tensor]:
    return _arrays(csr.T.tocsr())


def bag(index: Tensor, offsets: Tensor, weights: Tensor, dense: Tensor) -> Tensor:
    """A X of a matrix in CSR arrays, outside autograd.

    On CPU a weighted embedding bag is several times faster than torch's CSR or COO kernels
    (benchmarks/speed); on a GPU cuSPARSE's CSR kernel takes 40 % of its time.

    >>> bag(torch.tensor([0, 1]), torch.tensor([0, 2]), torch.ones(2), torch.ones(2, 1))
    tensor([[2.]])
    """
    if dense.is_cuda:
        return csr_tensor(index, offsets, weights, len(dense)) @ dense
    return F.embedding_bag(
        index,
        dense,
        offsets,
        mode="sum",
        per_sample_weights=weights,
        include_last_offset=True,
    )


def csr_tensor(index: Tensor, offsets: Tensor, weights: Tensor, columns: int) -> Tensor:
    """A matrix in CSR arrays as torch's sparse tensor, unchecked and without a copy."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
        size = len(offsets) - 1, columns
        return torch.sparse_csr_tensor(offsets, index, weights, size, check_invariants=False)


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, dense: Tensor, operator: SparseOperator, rows: Tensor | None) -> Tensor:
        ctx.operator, ctx.rows, low = operator, rows, dense.detach()
        ctx.edges = edges = operator._edges_of(rows, low) if rows is not None else None
        if edges is not None:
            return bag(*edges, low)
        out = operator.forward_product(low)
        return out if rows is None else out.index_select(0, rows)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        gradient, shape = gradient.contiguous(), ctx.operator.shape
        if ctx.edges is not None:
            return bag(*_turned(_as_csr(ctx.edges, shape[1])), gradient), None, None
        if ctx.rows is not None:
            gradient = scatter_rows(gradient, ctx.rows, shape[0])
        return ctx.operator.backward_product(gradient), None, None


class _LayerMean(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        start: Tensor,
        graph: SparseOperator,
        layers: int,
        rows: Tensor | None,
        keep: slice | Tensor | None,
        divisor: int,
    ) -> Any:
        ctx.graph, ctx.layers, ctx.rows, ctx.keep = graph, layers, rows, keep
        ctx.divisor = divisor
        edges = graph._edges_of(rows, start.detach()) if rows is not None and layers else None
        near = graph.near(edges, start) if edges is not None and layers > 1 else None
        ctx.edges, ctx.near = edges, near
        inner = start  # Horner: x + A(x + A(x + …)), the outermost products where they are read
        outermost = 0 if edges is None else 1 if near is None else 2
        for _ in range(layers - outermost):
            inner = graph.forward_product(inner).add_(start)
        if rows is None:
            total = inner if layers else start.clone()
        else:
            total = (inner if edges is None else start).index_select(0, rows)
        if near is not None:
            inner = bag(*_arrays(near.before), inner.detach())
            inner += start.index_select(0, near.nodes)
            total += bag(*_arrays(near.last), inner)
        elif edges is not None:
            total += bag(*edges, inner.detach())
        if divisor != 1:
            total.div_(divisor)
        if keep is None:
            return total
        if isinstance(keep, slice):
            return total, start[keep].clone()
        return total, start.index_select(0, keep)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, kept: Tensor | None = None) -> tuple:
        own = (gradient if ctx.divisor == 1 else gradient / ctx.divisor).contiguous()
        rows, near = ctx.rows, ctx.near
        if near is None:
            out = _whole_backward(ctx.graph, own, ctx.layers, rows, ctx.edges)
        else:
            reached = bag(*_turned(near.last), own)
            seed = bag(*_turned(near.before), reached)
            out = _whole_backward(ctx.graph, seed, ctx.layers - 2)
            out.index_add_(0, near.nodes, reached).index_add_(0, rows, own)
        if kept is not None and isinstance(ctx.keep, slice):
            out[ctx.keep] += kept
        elif kept is not None:
            out.index_add_(0, ctx.keep, kept)
        return out, None, None, None, None, None


def _whole_backward(
    graph: SparseOperator,
    own: Tensor,
    layers: int,
    rows: Tensor | None = None,
    edges: tuple[Tensor, Tensor, Tensor] | None = None,
) -> Tensor:
    """g + Aᵀ(g + Aᵀ(g + …)), where g is `own` or, if there are rows, zero but at these.

    `edges` are those of the rows: where they are few, the first product is over them only.
    """

    def plus_own(product: Tensor) -> Tensor:
        return product.add_(own) if rows is None else product.index_add_(0, rows, own)

    if edges is not None and len(edges[0]) < NEAR_SHARE * graph.csr.nnz:
        out = plus_own(bag(*_turned(_as_csr(edges, graph.shape[1])), own))
        layers -= 1
    else:
        out = own if rows is None else scatter_rows(own, rows, graph.shape[0])
    for _ in range(layers):
        out = plus_own(graph.backward_product(out))
    return out


def layer_mean(
    graph: SparseOperator,
    start: Tensor,
    layers: int,
    rows: Tensor | None = None,
    keep: slice | Tensor | None = None,
) -> Any:
    """LightGCN's read-out: (1/(L+1)) Σ_{l=0..L} Aˡ X, at all rows or at `rows` only.

    On CPU only what the rows read is computed of the last layer and, in a large graph, of the last
    but one, forward and backward.

    Args:
        graph: square operator [n, n].
        start: X [n, d].
        layers: L ≥ 0.
        rows: optional indices [b]; the result is then [b, d].
        keep: also return X[keep], a slice or indices; both results then share one backward, which
            spares a table of zeros and a sum over all of X.

    Source: He et al., LightGCN, SIGIR 2020, equations 7-8.

    >>> import scipy.sparse as sp
    >>> swap = SparseOperator(sp.csr_matrix([[0.0, 1.0], [1.0, 0.0]]), symmetric=True)
    >>> layer_mean(swap, torch.tensor([[2.0], [0.0]]), layers=1)
    tensor([[1.],
            [1.]])
    """
    return _LayerMean.apply(start, graph, layers, rows, keep, layers + 1)


def layer_sum(
    graph: SparseOperator, start: Tensor, layers: int, rows: Tensor | None = None
) -> Tensor:
    """Σ_{l=0..L} Aˡ X, at all rows or at `rows` only; as `layer_mean`."""
    return _LayerMean.apply(start, graph, layers, rows, None, 1)


def normalised_interactions(pairs: tuple[np.ndarray, np.ndarray], shape: tuple[int, int]) -> Any:
    """R̂ = D_u^-½ R D_i^-½ as scipy CSR [U, I]; R is binary, isolated rows stay zero.

    >>> normalised_interactions((np.array([1, 1]), np.array([1, 2])), (2, 3)).toarray().round(4)
    array([[0.    , 0.    , 0.    ],
           [0.    , 0.7071, 0.7071]])
    """
    matrix = _binary(pairs, shape)
    row, column = inverse_root(matrix.sum(1)), inverse_root(matrix.sum(0))
    return (sp.diags(row) @ matrix @ sp.diags(column)).tocsr()


def inverse_root(degrees: Any) -> np.ndarray:
    """d^-½ as a vector, 0 where d is."""
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

    PAD rows keep their self-loop, and nothing else. Without `loops` it is D⁻¹ A, the mean of a
    node's neighbours, and zero for a node that has none.

    >>> graph = random_walk_adjacency((np.array([1]), np.array([1])), (2, 2))
    >>> graph.csr.toarray()[1]
    array([0. , 0.5, 0. , 0.5])
    """
    block = _binary(pairs, shape)
    graph = sp.bmat([[None, block], [block.T, None]], format="csr")
    if loops:
        graph = graph + sp.identity(sum(shape))
    return SparseOperator(sp.diags(1 / np.maximum(np.asarray(graph.sum(1)).ravel(), 1)) @ graph)


def thinned_adjacency(interactions: Any, share: float, generator: torch.Generator) -> Any:
    """Â of a drawn share of the edges, normalised by the degrees that are left.

    Edges are drawn without replacement with probability ∝ their value in R̂, (d_u d_i)^-½: those of
    popular users and items leave first.

    Args:
        interactions: R̂ [U, I], scipy.
        share: 0 < share ≤ 1; rounded down to whole edges, at least one.

    Source: Zhou and Shen, FREEDOM, MM 2023, equations 4-6.
    """
    edges = interactions.tocoo()
    kept = max(1, int(edges.nnz * share))
    chosen = torch.multinomial(torch.from_numpy(edges.data), kept, generator=generator).numpy()
    pairs = edges.row[chosen], edges.col[chosen]
    return bipartite_adjacency(normalised_interactions(pairs, edges.shape))


def co_interaction_graph(
    pairs: tuple[np.ndarray, np.ndarray], shape: tuple[int, int], k: int, *, entries: int = 1 << 22
) -> Any:
    """The k users that have most items in common with a user, by their number: CSR [U, U].

    Among equals the smaller id is taken; nobody is his own neighbour. A user has fewer than k
    neighbours if fewer share an item with him.

    Args:
        pairs: users and items of the interactions; a repeated pair counts once.
        shape: (U, I).
        k: neighbours a user.
        entries: bound on the counts held at once, beyond those of one user.

    Source: Wang et al., DualGNN, IEEE Transactions on Multimedia 2021: its graph of users.

    >>> pairs = np.array([1, 1, 2, 2, 3]), np.array([1, 2, 1, 2, 2])
    >>> co_interaction_graph(pairs, (4, 3), k=1).toarray().astype(int)
    array([[0, 0, 0, 0],
           [0, 0, 2, 0],
           [0, 2, 0, 0],
           [0, 1, 0, 0]])
    """
    has = _binary(pairs, shape)
    had_by = has.T.tocsr()
    most = np.cumsum(has @ np.diff(had_by.indptr))  # bounds the entries of the first rows of R Rᵀ
    cuts = [0, *(np.flatnonzero(np.diff(most // entries)) + 1).tolist(), shape[0]]
    parts = []
    for start, stop in itertools.pairwise(cuts):
        counts = (has[start:stop] @ had_by).tocoo()
        other = counts.row + start != counts.col
        row, column, number = counts.row[other], counts.col[other], counts.data[other]
        order = np.lexsort((column, -number, row))
        row, column, number = row[order], column[order], number[order]
        first = np.searchsorted(row, np.arange(stop - start))
        kept = np.arange(len(row)) - first[row] < k
        parts.append(
            sp.csr_matrix((number[kept], (row[kept], column[kept])), shape=(stop - start, shape[0]))
        )
    return sp.vstack(parts, format="csr")


def softmax_rows(graph: Any) -> Any:
    """e^a / Σ e^a over the entries of every row of a scipy CSR matrix; empty rows stay empty.

    >>> softmax_rows(sp.csr_matrix([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0]])).toarray()
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
    block = _binary(pairs, shape)
    graph = sp.bmat([[None, block], [block.T, items]], format="csr")
    root = inverse_root(graph.sum(1))
    return (sp.diags(root) @ graph @ sp.diags(root)).tocsr()


def _binary(pairs: tuple[np.ndarray, np.ndarray], shape: tuple[int, int]) -> Any:
    """R [U, I] of ones; a repeated pair is one edge."""
    matrix = sp.csr_matrix((np.ones(len(pairs[0])), pairs), shape=shape)
    matrix.data[:] = 1.0
    return matrix
