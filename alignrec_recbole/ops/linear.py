"""Affine maps of large tables, differentiable, with gradients that stay small where they can."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from alignrec_recbole.ops.factored_gradients import FactoredGradient
from alignrec_recbole.ops.matmul import matmul_nt, product_dtype
from alignrec_recbole.ops.rows import row_blocks, scatter_add_rows


def linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    rows: Tensor | None = None,
    *,
    transposed: Callable[[], Tensor] | None = None,
) -> Tensor:
    """x Wᵀ + b, or x[rows] Wᵀ + b, in W's type, differentiable; see `matmul.precision`.

    The gradient of a table that `FactoredAdam` collects is appended to `x.factored_gradient` as its
    factors G and W; every other x gets G W in `.grad`.

    Args:
        x: large [n, f]; it may be in a lower type already, as FrozenMatrix gives it.
        weight: W [d, f].
        bias: b [d].
        rows: indices [m]; repeated ones add up in the gradient.
        transposed: gives xᵀ [f, n], contiguous, for the gradient of W; without `rows`.

    >>> linear(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 4.0]]), torch.tensor([1.0]))
    tensor([[12.]])
    """
    return _Linear.apply(x, weight, bias, rows, transposed)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        rows: Tensor | None,
        transposed: Callable[[], Tensor] | None,
    ) -> Tensor:
        dtype = product_dtype(x)
        weight_low = weight.to(dtype)
        bias_low = None if bias is None else bias.to(dtype)
        ctx.table, ctx.rows, ctx.transposed = x, rows, transposed
        if rows is None:
            x_low = x.to(dtype)
            ctx.save_for_backward(x_low, weight_low)
            return matmul_nt(x_low, weight_low, bias_low).to(weight.dtype)
        ctx.save_for_backward(x, weight_low)  # rows are gathered again in the backward
        out = weight.new_empty(len(rows), len(weight))
        for block, gathered in _gathered(x, rows, dtype):
            out[block] = matmul_nt(gathered, weight_low, bias_low)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        g = gradient.to(weight.dtype)
        for_x = None
        if ctx.needs_input_grad[0]:
            factors = getattr(ctx.table, "factored_gradient", None)
            if factors is not None:
                factors.append(FactoredGradient(gradient.contiguous(), weight, ctx.rows))
            else:
                for_x = matmul_nt(g, weight.T).to(gradient.dtype)
                if ctx.rows is not None:
                    for_x = scatter_add_rows(for_x, ctx.rows, len(ctx.table))
        for_weight = _of_weight(g, x, ctx.rows, ctx.transposed, gradient.dtype)
        for_bias = gradient.sum(0) if ctx.needs_input_grad[2] else None
        return for_x, for_weight, for_bias, None, None


def _of_weight(
    g: Tensor,
    x: Tensor,
    rows: Tensor | None,
    transposed: Callable[[], Tensor] | None,
    dtype: torch.dtype,
) -> Tensor:
    """Gᵀ X, or Gᵀ X[rows] in blocks [d, f]."""
    if rows is None:
        if transposed is not None:
            return matmul_nt(transposed(), g.T).T.to(dtype)
        return matmul_nt(g.T, x.T).to(dtype)
    out = torch.zeros(g.shape[1], x.shape[1], dtype=dtype, device=x.device)
    for block, gathered in _gathered(x, rows, g.dtype):
        out += matmul_nt(g[block].T, gathered.T)
    return out


GATHER_BLOCK_BYTES = 8 << 20


def _gathered(table: Tensor, rows: Tensor, dtype: torch.dtype) -> Iterator[tuple[slice, Tensor]]:
    """table[rows] in blocks, on a GPU in one: a batch's rows are tens of megabytes."""
    row_bytes = table.shape[1] * table.element_size()
    budget = GATHER_BLOCK_BYTES if table.device.type == "cpu" else row_bytes * len(rows)
    for block in row_blocks(len(rows), row_bytes, budget):
        yield block, table.index_select(0, rows[block]).to(dtype)
