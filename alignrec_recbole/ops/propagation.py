"""Layer-wise propagation over a graph: Σ_{l=0..L} Aˡ X, at all rows or at those of a batch.

The sum is evaluated by Horner's rule, X + A(X + A(X + …)), so that no layer is stored.
"""

from __future__ import annotations

from typing import Any, overload

import torch
from torch import Tensor

from alignrec_recbole.ops.rows import scatter_add_rows
from alignrec_recbole.ops.sparse import Csr, RowEdges, SparseOperator, TwoHop, spmm, transposed


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

    On CPU only what the rows need is computed of the last layer and of the last but one where that
    is a small part of the graph, forward and backward.

    Args:
        graph: square operator [n, n].
        start: X [n, d].
        layers: L ≥ 0.
        rows: optional indices [b]; the result is then [b, d].
        also_return: with `rows`, a slice or indices s: X[s] is the second result. Both share one
            backward, which saves a zero matrix and a sum of the size of X.

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


def layers_at_rows(graph: SparseOperator, start: Tensor, layers: int, rows: Tensor) -> Tensor:
    """(Aˡ X)[rows] for l = 0..L: [L + 1, b, d]; no layer is stored but at the rows.

    >>> import scipy.sparse as sp
    >>> swap = SparseOperator(sp.csr_matrix([[0.0, 1.0], [1.0, 0.0]]), symmetric=True)
    >>> layers_at_rows(swap, torch.tensor([[2.0], [0.0]]), 1, torch.tensor([0])).flatten()
    tensor([2., 0.])
    """
    return _LayersAtRows.apply(start, graph, layers, rows)


class _LayersAtRows(torch.autograd.Function):
    """Backward Σ_l (Aᵀ)ˡ G_l by Horner's rule, where G_l is zero but for the rows."""

    @staticmethod
    def forward(
        ctx: Any, start: Tensor, graph: SparseOperator, layers: int, rows: Tensor
    ) -> Tensor:
        part = graph.row_edges(rows, start) if layers else None
        ctx.graph, ctx.rows, ctx.part, ctx.size = graph, rows, part, len(start)
        layer, out = start, [start.index_select(0, rows)]
        for number in range(1, layers + 1):
            if number == layers and part is not None:
                out.append(spmm(part.edges, layer).index_select(0, part.position))
            else:
                layer = graph.forward_product(layer)
                out.append(layer.index_select(0, rows))
        return torch.stack(out)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        *others, last = gradient.unbind()
        if ctx.part is None:
            out = scatter_add_rows(last, ctx.rows, ctx.size)
        else:
            own = scatter_add_rows(last, ctx.part.position, len(ctx.part.rows))
            out = spmm(transposed(ctx.part.edges.to_scipy(ctx.graph.shape[1])), own)
            out.index_add_(0, ctx.rows, others.pop())
        for layer in reversed(others):
            out = ctx.graph.backward_product(out).index_add_(0, ctx.rows, layer)
        return out, None, None, None


def _propagate(
    graph: SparseOperator,
    start: Tensor,
    layers: int,
    rows: Tensor | None,
    also_return: slice | Tensor | None,
    divisor: int,
) -> Any:
    if rows is None:
        return _FullPropagation.apply(start, graph, layers, divisor)
    return _BatchPropagation.apply(start, graph, layers, rows, also_return, divisor)


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
    """(1/divisor) (Σ_{l=0..L} Aˡ X)[rows], and X[s] where it is asked for.

    Where the rows' edges A[rows] are few (`row_edges`), the last product is over them alone. If the
    edges of their neighbours T are few as well (`two_hop_subgraph`), the last product but one is
    over A[T] alone.
    """

    @staticmethod
    def forward(
        ctx: Any,
        start: Tensor,
        graph: SparseOperator,
        layers: int,
        rows: Tensor,
        also_return: slice | Tensor | None,
        divisor: int,
    ) -> Any:
        part = graph.row_edges(rows, start) if layers else None
        hop = graph.two_hop_subgraph(part.edges, start) if part and layers > 1 else None
        ctx.graph, ctx.layers, ctx.rows, ctx.divisor = graph, layers, rows, divisor
        ctx.part, ctx.hop, ctx.also_return, ctx.size = part, hop, also_return, len(start)
        if part is None:
            out = _power_sum(graph.forward_product, start, layers)
        else:
            out = _at_distinct_rows(graph, start, layers, part, hop)
        if divisor != 1:
            out = out.div_(divisor) if layers else out / divisor
        out = out.index_select(0, rows if part is None else part.position)
        if also_return is None:
            return out
        if isinstance(also_return, slice):
            return out, start[also_return].clone()
        return out, start.index_select(0, also_return)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, of_start: Tensor | None = None) -> tuple:
        part = ctx.part
        place = (ctx.rows, ctx.size) if part is None else (part.position, len(part.rows))
        own = scatter_add_rows(gradient, *place)
        if ctx.divisor != 1:
            own.div_(ctx.divisor)
        if part is None:
            out = _power_sum(ctx.graph.backward_product, own, ctx.layers)
        else:
            out = _from_distinct_rows(ctx.graph, own, ctx.layers, part, ctx.hop)
        if of_start is not None and isinstance(ctx.also_return, slice):
            out[ctx.also_return] += of_start
        elif of_start is not None:
            out.index_add_(0, ctx.also_return, of_start)
        return out, None, None, None, None, None


def _at_distinct_rows(
    graph: SparseOperator, start: Tensor, layers: int, part: RowEdges, hop: TwoHop | None
) -> Tensor:
    """(Σ_{l=0..L} Aˡ X)[rows]."""
    out = start.index_select(0, part.rows)
    if hop is None:
        return out.add_(spmm(part.edges, _power_sum(graph.forward_product, start, layers - 1)))
    inner = _power_sum(graph.forward_product, start, layers - 2)
    neighbours = spmm(Csr.from_scipy(hop.first), inner).add_(start.index_select(0, hop.nodes))
    return out.add_(spmm(Csr.from_scipy(hop.last), neighbours))


def _from_distinct_rows(
    graph: SparseOperator, own: Tensor, layers: int, part: RowEdges, hop: TwoHop | None
) -> Tensor:
    """Σ_{l=0..L} (Aᵀ)ˡ G, where G is zero but for G[rows] = `own`."""
    if hop is None:
        out = spmm(transposed(part.edges.to_scipy(graph.shape[1])), own)  # Aᵀ G
        for _ in range(layers - 1):
            out = graph.backward_product(out.index_add_(0, part.rows, own))
        return out.index_add_(0, part.rows, own)
    # G + Aᵀ G + Σ_{l=0..L-2} (Aᵀ)ˡ (Aᵀ)² G
    one_hop = spmm(transposed(hop.last), own)  # (Aᵀ G)[T]; other rows are zero
    two_hops = spmm(transposed(hop.first), one_hop)  # (Aᵀ)² G
    out = _power_sum(graph.backward_product, two_hops, layers - 2)
    return out.index_add_(0, hop.nodes, one_hop).index_add_(0, part.rows, own)


def _power_sum(product: Any, start: Tensor, layers: int) -> Tensor:
    """Σ_{l=0..L} Aˡ X of a product X → A X; X itself if L is 0."""
    out = start
    for _ in range(layers):
        out = product(out).add_(start)
    return out
