"""Layer-wise propagation over a graph, at all rows or at some of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from alignrec_recbole.ops.rows import scatter_add_rows
from alignrec_recbole.ops.sparse import (
    MAX_TWO_HOP_FRACTION,
    SparseOperator,
    _arrays,
    _as_csr,
    _turned,
    bag,
)


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

    if edges is not None and len(edges[0]) < MAX_TWO_HOP_FRACTION * graph.csr.nnz:
        out = plus_own(bag(*_turned(_as_csr(edges, graph.shape[1])), own))
        layers -= 1
    else:
        out = own if rows is None else scatter_add_rows(own, rows, graph.shape[0])
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
