"""Row operations: normalise, gather, scatter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    pass


def l2_normalize_rows(x: Tensor) -> Tensor:
    """Rows [..., d] divided by their L2 norm; zero rows stay zero instead of turning into NaN.

    With y = x/‖x‖, ∂x = (g − y (y·g))/‖x‖, in one matrix; torch's own way takes six.

    >>> l2_normalize_rows(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
    tensor([[0.6000, 0.8000],
            [0.0000, 0.0000]])
    """
    return _UnitRows.apply(x)


class _UnitRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        norm.masked_fill_(norm == 0, 1)
        unit = x / norm
        ctx.save_for_backward(unit, norm)
        return unit

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        unit, norm = ctx.saved_tensors
        out = gradient * unit
        along = out.sum(-1, keepdim=True)
        return torch.addcmul(gradient, unit, along, value=-1, out=out).div_(norm)


def gather_rows(table: Tensor, rows: Tensor) -> Tensor:
    """table[rows] with a backward that adds each row once into a zero matrix.

    >>> gather_rows(torch.tensor([[1.0], [2.0]]), torch.tensor([1, 1]))
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
        return scatter_add_rows(gradient, rows, ctx.size), None


def scatter_add_rows(values: Tensor, rows: Tensor, size: int) -> Tensor:
    """Sum `values` [b, d] into the rows of a zero matrix [size, d]; repeated rows add up."""
    full = torch.zeros(size, values.shape[1], dtype=values.dtype, device=values.device)
    return full.index_add_(0, rows, values)
