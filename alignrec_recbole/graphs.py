"""Graphs as constant sparse operators: propagation with an exact, cheap backward; kNN in blocks.

Nothing here is dense in items × items or users × items. Row 0 of every table is RecBole's PAD;
it never gets an edge.
"""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alignrec_recbole.kernels import inner_products, scatter_rows
from alignrec_recbole.neighbour_store import found_or_made


class SparseOperator:
    """A constant sparse matrix A that multiplies dense matrices: `A @ X`, differentiable in X.

    Keeps A, and from the first backward Aᵀ, in CSR form, so the backward (Aᵀ G) is one product and
    rebuilds nothing. The product runs as a weighted embedding bag, which on CPU is several times
    faster than torch's CSR or COO kernels (benchmarks/speed). Deep copies share the matrix: it
    never changes.

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
        """(A X)[rows], touching only these rows' edges, on CPU in the backward too."""
        return _Product.apply(dense, self, rows)

    def forward_product(self, dense: Tensor) -> Tensor:
        """A X, outside autograd."""
        return _bag(*self._on(dense, transposed=False), dense.detach())

    def backward_product(self, gradient: Tensor) -> Tensor:
        """Aᵀ G."""
        return _bag(*self._on(gradient, transposed=True), gradient.detach())

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

    def _edges_of(self, rows: Tensor, dense: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Index, offsets and weights of A[rows]; on CPU scipy takes them four times as fast."""
        if dense.device.type != "cpu":
            return _edges_of(rows, *self._on(dense, transposed=False))
        return _arrays(self._scipy(dense.dtype)[rows.numpy()])

    def _scipy(self, dtype: torch.dtype) -> sp.csr_matrix:
        """A with weights of a type of torch's, on CPU; shares their memory."""
        if dtype not in self._typed:
            weights = self._on(torch.empty(0, dtype=dtype), transposed=False)[2]
            parts = weights.numpy(), self.csr.indices, self.csr.indptr
            self._typed[dtype] = sp.csr_matrix(parts, shape=self.shape, copy=False)
        return self._typed[dtype]

    def near(self, edges: tuple[Tensor, Tensor, Tensor], dense: Tensor) -> _Near | None:
        """The part of A² that rows of A A X need, if it is small enough to pay; CPU only.

        Args:
            edges: of the rows, as `_edges_of` gives them.
            dense: X.
        """
        if dense.device.type != "cpu":
            return None
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


def _edges_of(
    rows: Tensor, index: Tensor, offsets: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The part of a matrix's arrays that makes these rows, in their order."""
    start = offsets.index_select(0, rows)
    length = offsets.index_select(0, rows + 1) - start
    ends = F.pad(length.cumsum(0), (1, 0)).to(offsets.dtype)
    total = int(ends[-1])
    shift = torch.repeat_interleave(start - ends[:-1], length, output_size=total)
    take = shift.add_(torch.arange(total, dtype=shift.dtype, device=shift.device))
    return index.index_select(0, take), ends, weights.index_select(0, take)


def _bag(index: Tensor, offsets: Tensor, weights: Tensor, dense: Tensor) -> Tensor:
    return F.embedding_bag(
        index,
        dense,
        offsets,
        mode="sum",
        per_sample_weights=weights,
        include_last_offset=True,
    )


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, dense: Tensor, operator: SparseOperator, rows: Tensor | None) -> Tensor:
        ctx.operator, ctx.rows, low = operator, rows, dense.detach()
        if rows is None:
            return operator.forward_product(low)
        index, offsets, weights = ctx.edges = operator._edges_of(rows, low)
        return _bag(index, offsets, weights, low)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        gradient, shape = gradient.contiguous(), ctx.operator.shape
        if ctx.rows is not None and gradient.device.type == "cpu":
            return _bag(*_turned(_as_csr(ctx.edges, shape[1])), gradient), None, None
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
    ) -> Any:
        ctx.graph, ctx.layers, ctx.rows, ctx.keep = graph, layers, rows, keep
        edges = graph._edges_of(rows, start.detach()) if rows is not None and layers else None
        near = graph.near(edges, start) if edges is not None and layers > 1 else None
        ctx.edges, ctx.near = edges, near
        inner = start  # Horner: x + A(x + A(x + …)), the outermost products where they are read
        for _ in range(layers - (1 if near is None else 2)):
            inner = graph.forward_product(inner).add_(start)
        total = start.clone() if rows is None else start.index_select(0, rows)
        if near is not None:
            inner = _bag(*_arrays(near.before), inner.detach())
            inner += start.index_select(0, near.nodes)
            total += _bag(*_arrays(near.last), inner)
        elif edges is not None:
            total += _bag(*edges, inner.detach())
        elif layers:
            total += graph.forward_product(inner)
        total.div_(layers + 1)
        if keep is None:
            return total
        if isinstance(keep, slice):
            return total, start[keep].clone()
        return total, start.index_select(0, keep)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, kept: Tensor | None = None) -> tuple:
        own = (gradient / (ctx.layers + 1)).contiguous()
        rows, near = ctx.rows, ctx.near
        if near is None:
            out = _whole_backward(ctx.graph, own, ctx.layers, rows, ctx.edges)
        else:
            reached = _bag(*_turned(near.last), own)
            seed = _bag(*_turned(near.before), reached)
            out = _whole_backward(ctx.graph, seed, ctx.layers - 2)
            out.index_add_(0, near.nodes, reached).index_add_(0, rows, own)
        if kept is not None and isinstance(ctx.keep, slice):
            out[ctx.keep] += kept
        elif kept is not None:
            out.index_add_(0, ctx.keep, kept)
        return out, None, None, None, None


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

    few = edges is not None and len(edges[0]) < NEAR_SHARE * graph.csr.nnz
    if edges is not None and few and own.device.type == "cpu":
        out = plus_own(_bag(*_turned(_as_csr(edges, graph.shape[1])), own))
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

    Only what the rows read is computed of the last layer and, in a large graph, of the last but
    one, forward and backward.

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
    return _LayerMean.apply(start, graph, layers, rows, keep)


def normalised_interactions(pairs: tuple[np.ndarray, np.ndarray], shape: tuple[int, int]) -> Any:
    """R̂ = D_u^-½ R D_i^-½ as scipy CSR [U, I]; R is binary, isolated rows stay zero.

    >>> normalised_interactions((np.array([1, 1]), np.array([1, 2])), (2, 3)).toarray().round(4)
    array([[0.    , 0.    , 0.    ],
           [0.    , 0.7071, 0.7071]])
    """
    matrix = _binary(pairs, shape)
    row, column = _inverse_root(matrix.sum(1)), _inverse_root(matrix.sum(0))
    return (sp.diags(row) @ matrix @ sp.diags(column)).tocsr()


def _inverse_root(degrees: Any) -> np.ndarray:
    degrees = np.asarray(degrees, dtype=np.float64).ravel()
    root = np.zeros_like(degrees)
    np.power(degrees, -0.5, out=root, where=degrees > 0)
    return root


def bipartite_adjacency(interactions: Any) -> SparseOperator:
    """Â = [[0, R̂], [R̂ᵀ, 0]] of a normalised interaction matrix [U, I]; no self-loops."""
    return SparseOperator(
        sp.bmat([[None, interactions], [interactions.T, None]], format="csr"), symmetric=True
    )


def unit_rows(features: Tensor) -> Tensor:
    """Rows divided by their L2 norm; zero rows stay zero instead of turning into NaN."""
    norm = features.norm(dim=1, keepdim=True)
    return features / torch.where(norm > 0, norm, torch.ones_like(norm))


def nearest_neighbours(
    features: Tensor, k: int, *, memory_bytes: int = 256 << 20
) -> tuple[Tensor, Tensor]:
    """Cosine k-nearest neighbours of every row, exact, in blocks of rows.

    Zero rows (PAD, items without the modality) have no neighbours and are nobody's neighbour.
    A row may be its own neighbour. Inside `neighbour_store.keep_in` they are searched once.

    Args:
        features: [n, f].
        k: neighbours a row; cut to the number of non-zero rows.
        memory_bytes: bound on the block of similarities held at once.

    Returns:
        similarities [n, k] and indices [n, k]; index −1 where there is no neighbour.
    """
    return found_or_made(features, k, lambda: _search(features, k, memory_bytes))


def _search(features: Tensor, k: int, memory_bytes: int) -> tuple[Tensor, Tensor]:
    norms = features.norm(dim=1)
    alive = norms.ne(0)  # a NaN stays, and is seen in the loss
    inverse = norms.clamp(min=torch.finfo(norms.dtype).tiny).reciprocal()
    k = min(k, int(alive.sum()))
    n = len(features)
    values = torch.zeros(n, k, dtype=features.dtype, device=features.device)
    indices = torch.full((n, k), -1, dtype=torch.int64, device=features.device)
    if k == 0:
        return values, indices
    dead = torch.nonzero(~alive).ravel()
    block = max(1, memory_bytes // (n * features.element_size() * 2))
    for start in range(0, n, block):
        left = features[start : start + block] * inverse[start : start + block, None]
        similar = inner_products(left, features).mul_(inverse)  # [block, n]; no unit copy is made
        similar[:, dead] = -torch.inf
        best, where = similar.topk(k, dim=1)
        here = alive[start : start + block, None]
        values[start : start + block] = torch.where(here, best, 0.0)
        indices[start : start + block] = torch.where(here, where, -1)
    return values, indices


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
    root = _inverse_root(graph.sum(1))
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
    root = _inverse_root(graph.sum(1))
    return (sp.diags(root) @ graph @ sp.diags(root)).tocsr()


def neighbour_products(x: Tensor, indices: Tensor) -> Tensor:
    """⟨x_i, x_j⟩ for the neighbours j of every row i, differentiable in both places of x.

    Never holds more than a block of the [n, k, d] products' factors.

    Args:
        x: [n, d].
        indices: [n, k]; −1 gives 0.

    >>> neighbour_products(torch.tensor([[1.0], [2.0]]), torch.tensor([[1, 0], [1, -1]]))
    tensor([[2., 1.],
            [4., 0.]])
    """
    return _NeighbourProducts.apply(x, indices)


_NEIGHBOUR_ROWS = 512


class _NeighbourProducts(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, indices: Tensor) -> Tensor:
        ctx.save_for_backward(x, indices)
        out = x.new_empty(indices.shape)
        for start in range(0, len(x), _NEIGHBOUR_ROWS):
            cut = slice(start, start + _NEIGHBOUR_ROWS)
            out[cut] = torch.einsum("nd,nkd->nk", x[cut], x[indices[cut].clamp(min=0)])
        return out.masked_fill_(indices < 0, 0.0)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        x, indices = ctx.saved_tensors
        gradient = gradient.masked_fill(indices < 0, 0.0)
        out = torch.zeros_like(x)
        for start in range(0, len(x), _NEIGHBOUR_ROWS):
            cut = slice(start, start + _NEIGHBOUR_ROWS)
            place, weight = indices[cut].clamp(min=0), gradient[cut]
            out[cut] += torch.einsum("nk,nkd->nd", weight, x[place])
            spread = weight[:, :, None] * x[cut, None]
            out.index_add_(0, place.ravel(), spread.view(-1, x.shape[1]))
        return out, None


def neighbour_sums(weights: Tensor, indices: Tensor, x: Tensor) -> Tensor:
    """Σ_k w_ik x_j over the neighbours j = indices[i, k], differentiable in w and x.

    For a graph that is learnt; a constant one is a SparseOperator.

    Args:
        weights: [n, k]; those of index −1 count nothing.
        indices: [n, k].
        x: [m, d].

    >>> one = torch.tensor([[2.0, 3.0]])
    >>> neighbour_sums(one, torch.tensor([[1, -1]]), torch.tensor([[5.0], [7.0]]))
    tensor([[14.]])
    """
    return _NeighbourSums.apply(weights.masked_fill(indices < 0, 0.0), indices, x)


class _NeighbourSums(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weights: Tensor, indices: Tensor, x: Tensor) -> Tensor:
        ctx.save_for_backward(weights, indices, x)
        offsets = torch.arange(0, indices.numel() + 1, indices.shape[1], device=x.device)
        place = indices.clamp(min=0).ravel()
        return _bag(place, offsets, weights.detach().ravel(), x.detach())

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, Tensor]:
        weights, indices, x = ctx.saved_tensors
        for_weights, for_x = torch.empty_like(weights), torch.zeros_like(x)
        for start in range(0, len(weights), _NEIGHBOUR_ROWS):
            cut = slice(start, start + _NEIGHBOUR_ROWS)
            place, back = indices[cut].clamp(min=0), gradient[cut]
            for_weights[cut] = torch.einsum("nd,nkd->nk", back, x[place])
            spread = weights[cut, :, None] * back[:, None]
            for_x.index_add_(0, place.ravel(), spread.view(-1, x.shape[1]))
        return for_weights, None, for_x


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


def shrunk_neighbours(
    features: Tensor, k: int, shrink: float, *, memory_bytes: int = 256 << 20
) -> Any:
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
        similar = inner_products(features[cut], features)
        similar.div_(torch.outer(norm[cut], norm).add_(shrink))
        similar[:, dead] = -torch.inf
        best, where = similar.topk(k, dim=1)
        kept.append(best[alive[cut]])
        places.append(where[alive[cut]])
    row = torch.nonzero(alive).ravel().repeat_interleave(k).cpu().numpy()
    column = torch.cat(places).ravel().cpu().numpy()
    weight = torch.cat(kept).ravel().cpu().numpy()
    return sp.csr_matrix((weight, (row, column)), shape=(n, n))


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
    root = _inverse_root(graph.sum(1))
    return (sp.diags(root) @ graph @ sp.diags(root)).tocsr()


def _binary(pairs: tuple[np.ndarray, np.ndarray], shape: tuple[int, int]) -> Any:
    """R [U, I] of ones; a repeated pair is one edge."""
    matrix = sp.csr_matrix((np.ones(len(pairs[0])), pairs), shape=shape)
    matrix.data[:] = 1.0
    return matrix


# Edges with learnt weights ----------------------------------------------------------------------


class Edges(nn.Module):
    """The user-item graph in both directions, for weights that are learnt.

    Edge e goes from node `sender[e]` to node `receiver[e]`, nodes being users, then items. Edges
    are sorted by receiver, so the first half ends in users; `reverse[e]` is the same pair the other
    way round. Constant weights are a SparseOperator.

    Args:
        pairs: users and items; a repeated pair is one edge.
        shape: (user_num, item_num).

    >>> edges = Edges((np.array([0, 1]), np.array([0, 0])), (2, 1))
    >>> edges.sender, edges.receiver, edges.reverse
    (tensor([2, 2, 0, 1]), tensor([0, 1, 2, 2]), tensor([2, 3, 0, 1]))
    """

    sender: Tensor
    receiver: Tensor
    reverse: Tensor
    offsets: Tensor

    def __init__(self, pairs: tuple[np.ndarray, np.ndarray], shape: tuple[int, int]) -> None:
        super().__init__()
        user, item = np.unique(np.stack(pairs), axis=1).astype(np.int64)  # by user, then item
        back = np.lexsort((user, item))  # by item, then user
        receiver = np.concatenate([user, shape[0] + item[back]])
        counts = np.bincount(receiver, minlength=sum(shape))
        for name, values in {
            "sender": np.concatenate([shape[0] + item, user[back]]),
            "receiver": receiver,
            "reverse": np.concatenate([len(user) + np.argsort(back), back]),
            "offsets": np.concatenate([[0], np.cumsum(counts)]),
        }.items():
            self.register_buffer(name, torch.from_numpy(values), persistent=False)

    def products(self, x: Tensor) -> Tensor:
        """⟨x_r, x_s⟩ of every edge's ends [2E], x [n, d]."""
        return _EdgeProducts.apply(x, self)

    def softmax(self, scores: Tensor) -> Tensor:
        """exp(s_e) over its sum among the edges of the same receiver, [2E].

        Scores are exponentiated as they are: cosines, say.
        """
        return _EdgeSoftmax.apply(scores, self)

    def sums(self, weights: Tensor, x: Tensor) -> Tensor:
        """Σ_e w_e x_s over the edges that end in each node [n, d]; weights [2E], x [n, d]."""
        return _EdgeSums.apply(weights, x, self)

    def products_of(self, left: Tensor, right: Tensor, count: int) -> Tensor:
        """⟨l_r, r_s⟩ of the first edges, in blocks, outside autograd."""
        out = left.new_empty(count)
        for start in range(0, count, _EDGES):
            cut = slice(start, min(start + _EDGES, count))
            pair = left[self.receiver[cut]].mul_(right[self.sender[cut]])
            out[cut] = pair.sum(1)
        return out

    def bag(self, weights: Tensor, x: Tensor) -> Tensor:
        """`sums` outside autograd."""
        return _bag(self.sender, self.offsets, weights.detach(), x.detach())

    def totals(self, values: Tensor) -> Tensor:
        """Each edge gets the sum of the values [2E] of all edges to its receiver."""
        zeros = values.new_zeros(len(self.offsets) - 1)
        return zeros.index_add_(0, self.receiver, values)[self.receiver]


_EDGES = 1 << 15


class _EdgeProducts(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, edges: Edges) -> Tensor:
        ctx.edges = edges
        ctx.save_for_backward(x)
        half = len(edges.sender) // 2  # the other half are the same pairs
        out = edges.products_of(x, x, half)
        return torch.cat([out, out[edges.reverse[half:]]])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (x,), edges = ctx.saved_tensors, ctx.edges
        return edges.bag(gradient + gradient[edges.reverse], x), None


class _EdgeSoftmax(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scores: Tensor, edges: Edges) -> Tensor:
        share = scores.exp()
        share /= edges.totals(share)
        ctx.edges = edges
        ctx.save_for_backward(share)
        return share

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (share,) = ctx.saved_tensors
        own = gradient * share
        return own - share * ctx.edges.totals(own), None


class _EdgeSums(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weights: Tensor, x: Tensor, edges: Edges) -> Tensor:
        ctx.edges = edges
        ctx.save_for_backward(weights, x)
        return edges.bag(weights, x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        (weights, x), edges = ctx.saved_tensors, ctx.edges
        gradient = gradient.contiguous()
        for_weights = edges.products_of(gradient, x, len(weights))
        return for_weights, edges.bag(weights[edges.reverse], gradient), None
