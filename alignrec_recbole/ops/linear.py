"""Dense products by the fastest library that torch carries, in bfloat16 where a caller says so."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from alignrec_recbole.ops.factored_gradients import TableGradients

from alignrec_recbole.ops.matmul import _ROWS, matmul_nt, product_dtype
from alignrec_recbole.ops.rows import scatter_add_rows

_collector: TableGradients | None = None


@contextlib.contextmanager
def collecting(gradients: TableGradients | None) -> Iterator[None]:
    """`linear` called inside gives it the gradients of the tables that it knows.

    Its backward then leaves `.grad` of these tables alone.
    """
    global _collector
    before, _collector = _collector, gradients
    if gradients is not None:
        gradients.forget()
    try:
        yield
    finally:
        _collector = before


def linear(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, rows: Tensor | None = None
) -> Tensor:
    """x Wᵀ + b, or x[rows] Wᵀ + b, in W's type, differentiable; see `precision`, `collecting`.

    Args:
        x: large [n, f]; it may be in a lower type already, as FrozenMatrix gives it.
        weight: W [d, f].
        bias: b [d].
        rows: indices [m]; repeated ones add up in the gradient.

    >>> linear(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 4.0]]), torch.tensor([1.0]))
    tensor([[12.]])
    """
    return _Linear.apply(x, weight, bias, rows, None)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        rows: Tensor | None,
        turned: Callable[[], Tensor] | None,
    ) -> Tensor:
        kind = product_dtype(x)
        weight_low = weight.to(kind)
        bias_low = None if bias is None else bias.to(kind)
        ctx.table, ctx.rows, ctx.turned = x, rows, turned
        ctx.collector = _collector if _collector is not None and x in _collector else None
        if rows is None:
            x = x.to(kind)
            ctx.save_for_backward(x, weight_low)
            return matmul_nt(x, weight_low, bias_low).to(weight.dtype)
        ctx.save_for_backward(x, weight_low)  # rows are gathered again in the backward
        out = weight.new_empty(len(rows), len(weight))
        for cut, taken in _gathered(x, rows, kind):
            out[cut] = matmul_nt(taken, weight_low, bias_low)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        g = gradient.to(weight.dtype)
        if ctx.rows is not None:
            for_weight = torch.zeros_like(weight, dtype=gradient.dtype)
            for cut, taken in _gathered(x, ctx.rows, weight.dtype):
                for_weight += matmul_nt(g[cut].T, taken.T)
        elif ctx.turned is not None:
            for_weight = matmul_nt(ctx.turned(), g.T).T
        else:
            for_weight = matmul_nt(g.T, x.T)
        for_x = None
        if ctx.collector is not None:
            ctx.collector.add(ctx.table, gradient, weight, ctx.rows)
        elif ctx.needs_input_grad[0]:
            for_x = gradient.new_empty(len(g), x.shape[1])
            rows = _ROWS if x.device.type == "cpu" else len(g)
            for start in range(0, len(g), rows):
                cut = slice(start, start + rows)
                for_x[cut] = matmul_nt(g[cut], weight.T)
            if ctx.rows is not None:
                for_x = scatter_add_rows(for_x, ctx.rows, len(ctx.table))
        for_bias = gradient.sum(0) if ctx.needs_input_grad[2] else None
        return for_x, for_weight.to(gradient.dtype), for_bias, None, None


_GATHERED_BYTES = 8 << 20


def _gathered(table: Tensor, rows: Tensor, kind: torch.dtype) -> Iterator[tuple[slice, Tensor]]:
    """x[rows] in blocks, on a GPU in one: the items of a batch are tens of megabytes."""
    height = max(1, _GATHERED_BYTES // (table.shape[1] * table.element_size()))
    height = height if table.device.type == "cpu" else max(1, len(rows))
    for start in range(0, len(rows), height):
        cut = slice(start, start + height)
        yield cut, table.index_select(0, rows[cut]).to(kind)


class FrozenMatrix:
    """A table [n, f] that never changes, for `linear`; rounded once, not in each step.

    On CPU its transpose is kept beside it, from the first backward on: the gradient of the map,
    XᵀG, then takes half as long. That is one more table of the products' type, while it is no
    larger than TURNED_BYTES.

    >>> table = FrozenMatrix()
    >>> from alignrec_recbole.ops.matmul import precision
    >>> with precision(torch.bfloat16):
    ...     table.of(torch.ones(2, 3)).dtype
    torch.bfloat16
    """

    TURNED_BYTES = 512 << 20

    def __init__(self) -> None:
        self._rounded: tuple[Tensor, Tensor] | None = None
        self._turned: tuple[Tensor, Tensor] | None = None

    def __deepcopy__(self, memo: dict) -> FrozenMatrix:
        return FrozenMatrix()  # what is kept is made again from the copied table

    def of(self, table: Tensor) -> Tensor:
        """`table` in the type that a large product with it is to be computed in now."""
        kind = product_dtype(table)
        if table.requires_grad or kind == table.dtype:
            return table
        if self._rounded is None or self._rounded[0] is not table:
            self._rounded = table, table.to(kind)
        return self._rounded[1]

    def linear(
        self,
        table: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        rows: Tensor | None = None,
    ) -> Tensor:
        """`linear` of the table; one that is learnt is taken as it is."""
        low = self.of(table)
        constant = not table.requires_grad and table.device.type == "cpu"
        if constant and rows is None and low.nbytes <= self.TURNED_BYTES:
            return _Linear.apply(low, weight, bias, None, lambda: self._transpose(low))
        return linear(low, weight, bias, rows)

    def _transpose(self, low: Tensor) -> Tensor:
        if self._turned is None or self._turned[0] is not low:
            self._turned = low, low.T.contiguous()
        return self._turned[1]
