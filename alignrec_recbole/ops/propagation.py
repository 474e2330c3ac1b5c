"""Layer-wise propagation over a graph: Σ_{l=0..L} Aˡ X, at all rows or at those of a batch.

The sum is evaluated by Horner's rule, X + A(X + A(X + …)), so that no layer is stored.
"""

from __future__ import annotations

from typing import Any, overload

import torch
from torch import Tensor

from alignrec_recbole.ops.rows import gather_rows, scatter_add_rows
from alignrec_recbole.ops.sparse import (
    MAX_TWO_HOP_FRACTION,
    Csr,
    SparseOperator,
    TwoHop,
    spmm,
    transposed,
)


@overload
def layer_mean(
    graph: SparseOperator, start: Tensor, layers: int, rows: Tensor | None = None
) -> Tensor: ...


@overload
def layer_mean(
    graph: SparseOperator,
    start: Tensor,
    layers: int,
    rows: Tensor,
    also_return: slice | Tensor,
) -> tuple[Tensor, Tensor]: ...


def layer_mean(
    graph: SparseOperator,
    start: Tensor,
    layers: int,
    rows: Tensor | None = None,
    also_return: slice | Tensor | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """LightGCN's read-out: (1/(L+1)) Σ_{l=0..L} Aˡ X, at all rows or at `rows` only.

    On CPU only what the rows need is computed of the last layer and, in a large graph, of the last
    but one, forward and backward.

    Args:
        graph: square operator [n, n].
        start: X [n, d].
        layers: L ≥ 0.
        rows: optional indices [b]; the result is then [b, d].
        also_return: with `rows`, a slice or indices s: X[s] is the second result. On CPU both
            share one backward, which saves a zero matrix and a sum of the size of X.

    Source: He et al., LightGCN, SIGIR 2020, equations 7-8.

    >>> import scipy.sparse as sp
    >>> swap = SparseOperator(sp.csr_matrix([[0.0, 1.0], [1.0, 0.0]]), symmetric=True)
    >>> layer_mean(swap, torch.tensor([[2.0], [0.0]]), layers=1)
    tensor([[1.],
            [1.]])
    """
    return _propagate(graph, start, layers, rows, also_return, divisor=layers + 1)


def layer_sum(
    graph: SparseOperator, start: Tensor, layers: int, rows: Tensor | None = None
) -> Tensor:
    """Σ_{l=0..L} Aˡ X, at all rows or at `rows` only; see `layer_mean`."""
    return _propagate(graph, start, layers, rows, None, divisor=1)


def _propagate(
    graph: SparseOperator,
    start: Tensor,
    layers: int,
    rows: Tensor | None,
    also_return: slice | Tensor | None,
    divisor: int,
) -> Any:
    edges = graph.edges_of(rows, start) if rows is not None and layers else None
    if rows is not None and edges is not None:
        return _BatchPropagation.apply(start, graph, layers, rows, edges, also_return, divisor)
    out = _FullPropagation.apply(start, graph, layers, divisor)
    out = out if rows is None else gather_rows(out, rows)
    if also_return is None:
        return out
    if isinstance(also_return, slice):
        return out, start[also_return]
    return out, gather_rows(start, also_return)


class _FullPropagation(torch.autograd.Function):
    """(1/divisor) Σ_{l=0..L} Aˡ X at all rows; backward (1/divisor) Σ_{l=0..L} (Aᵀ)ˡ G."""

    @staticmethod
    def forward(
        ctx: Any, start: Tensor, graph: SparseOperator, layers: int, divisor: int
    ) -> Tensor:
        ctx.graph, ctx.layers, ctx.divisor = graph, layers, divisor
        if layers == 0:
            return start / divisor
        out = _power_sum(graph.forward_product, start, layers)
        return out if divisor == 1 else out.div_(divisor)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        own = (gradient if ctx.divisor == 1 else gradient / ctx.divisor).contiguous()
        return _power_sum(ctx.graph.backward_product, own, ctx.layers), None, None, None


class _BatchPropagation(torch.autograd.Function):
    """(1/divisor) (Σ_{l=0..L} Aˡ X)[rows] for L ≥ 1, and X[s] where it is asked for; on CPU.

    The last product is over the rows' own edges A[rows]. If the edges of their neighbours T are few
    enough (`two_hop_subgraph`), the last product but one is over A[T] alone.
    """

    @staticmethod
    def forward(
        ctx: Any,
        start: Tensor,
        graph: SparseOperator,
        layers: int,
        rows: Tensor,
        edges: Csr,
        also_return: slice | Tensor | None,
        divisor: int,
    ) -> Any:
        hop = graph.two_hop_subgraph(edges, start) if layers > 1 else None
        ctx.graph, ctx.layers, ctx.rows, ctx.divisor = graph, layers, rows, divisor
        ctx.edges, ctx.hop, ctx.also_return = edges, hop, also_return
        out = start.index_select(0, rows)
        if hop is None:
            out += spmm(edges, _power_sum(graph.forward_product, start, layers - 1))
        else:
            inner = _power_sum(graph.forward_product, start, layers - 2)
            neighbours = spmm(Csr.from_scipy(hop.first), inner)
            neighbours += start.index_select(0, hop.nodes)
            out += spmm(Csr.from_scipy(hop.last), neighbours)
        if divisor != 1:
            out.div_(divisor)
        if also_return is None:
            return out
        if isinstance(also_return, slice):
            return out, start[also_return].clone()
        return out, start.index_select(0, also_return)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, of_start: Tensor | None = None) -> tuple:
        own = (gradient if ctx.divisor == 1 else gradient / ctx.divisor).contiguous()
        if ctx.hop is None:
            out = _through_edges(ctx.graph, own, ctx.layers, ctx.rows, ctx.edges)
        else:
            out = _through_two_hops(ctx.graph, own, ctx.layers, ctx.rows, ctx.hop)
        if of_start is not None and isinstance(ctx.also_return, slice):
            out[ctx.also_return] += of_start
        elif of_start is not None:
            out.index_add_(0, ctx.also_return, of_start)
        return out, None, None, None, None, None, None


def _through_edges(
    graph: SparseOperator, own: Tensor, layers: int, rows: Tensor, edges: Csr
) -> Tensor:
    """Σ_{l=0..L} (Aᵀ)ˡ G, where G is zero but for G[rows] = `own`."""
    if len(edges.columns) < MAX_TWO_HOP_FRACTION * graph.csr.nnz:
        out = spmm(transposed(edges.to_scipy(graph.shape[1])), own)  # Aᵀ G
    else:
        out = graph.backward_product(scatter_add_rows(own, rows, graph.shape[0]))
    for _ in range(layers - 1):
        out = graph.backward_product(out.index_add_(0, rows, own))
    return out.index_add_(0, rows, own)


def _through_two_hops(
    graph: SparseOperator, own: Tensor, layers: int, rows: Tensor, hop: TwoHop
) -> Tensor:
    """G + Aᵀ G + Σ_{l=0..L-2} (Aᵀ)ˡ (Aᵀ)² G, where G is zero but for G[rows] = `own`."""
    one_hop = spmm(transposed(hop.last), own)  # (Aᵀ G)[T]; other rows are zero
    two_hops = spmm(transposed(hop.first), one_hop)  # (Aᵀ)² G
    out = _power_sum(graph.backward_product, two_hops, layers - 2)
    return out.index_add_(0, hop.nodes, one_hop).index_add_(0, rows, own)


def _power_sum(product: Any, start: Tensor, layers: int) -> Tensor:
    """Σ_{l=0..L} Aˡ X of a product X → A X; X itself if L is 0."""
    out = start
    for _ in range(layers):
        out = product(out).add_(start)
    return out
