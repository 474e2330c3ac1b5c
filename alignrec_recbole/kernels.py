"""Dense products by the fastest library that torch carries, with equal results."""

from __future__ import annotations

import functools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def inner_products(left: Tensor, right: Tensor) -> Tensor:
    """L Rᵀ of [n, d] and [m, d], outside autograd.

    On CPU in float32 oneDNN is asked directly where torch has it: torch itself asks MKL, which on
    processors that are not Intel's takes about twice as long (benchmarks/speed).

    >>> inner_products(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 4.0]]))
    tensor([[11.]])
    """
    if left.device.type == "cpu" and left.dtype == right.dtype == torch.float32 and _onednn():
        return torch.ops.mkldnn._linear_pointwise(left, right, None, "none", [], "")
    return F.linear(left, right)


@functools.cache
def _onednn() -> bool:
    """Whether oneDNN's product is there and gives what torch gives."""
    try:
        left, right = torch.arange(6.0).view(2, 3), torch.arange(12.0).view(4, 3)
        product = torch.ops.mkldnn._linear_pointwise(left, right, None, "none", [], "")
    except (AttributeError, RuntimeError, NotImplementedError):
        return False
    return bool(torch.equal(product, left @ right.T))


def take_rows(table: Tensor, rows: Tensor) -> Tensor:
    """table[rows] with a backward that adds each row once into a zero matrix.

    >>> take_rows(torch.tensor([[1.0], [2.0]]), torch.tensor([1, 1]))
    tensor([[2.],
            [2.]])
    """
    return _TakeRows.apply(table, rows)


class _TakeRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, table: Tensor, rows: Tensor) -> Tensor:
        ctx.size = len(table)
        ctx.save_for_backward(rows)
        return table.index_select(0, rows)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (rows,) = ctx.saved_tensors
        return scatter_rows(gradient, rows, ctx.size), None


def scatter_rows(values: Tensor, rows: Tensor, size: int) -> Tensor:
    """Sum `values` [b, d] into the rows of a zero matrix [size, d]; repeated rows add up."""
    full = torch.zeros(size, values.shape[1], dtype=values.dtype, device=values.device)
    return full.index_add_(0, rows, values)
