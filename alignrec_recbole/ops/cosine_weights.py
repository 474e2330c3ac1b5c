"""Rows weighted by their cosine with given unit rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from alignrec_recbole.ops.rows import row_blocks

EPSILON = 1e-8  # at least, of a divisor
BLOCK_BYTES = 256 << 10  # of a table's rows, so that the tables of a block stay in the cache


def weighted_by_cosine(rows: Tensor, unit: Tensor) -> Tensor:
    """out = c n with c = ⟨n, x⟩ / ‖n‖ for each row n and its unit row x; zero where either is zero.

    The gradient for x is that of the inner product alone: the part along x, which a division by ‖x‖
    would add, is removed again by the normalisation that x comes from.

    Args:
        rows: n [m, d].
        unit: x [m, d], rows of length 1 or 0.

    >>> weighted_by_cosine(torch.tensor([[3.0, 4.0]]), torch.tensor([[1.0, 0.0]]))
    tensor([[1.8000, 2.4000]])
    """
    return _WeightedByCosine.apply(rows, unit)


class _WeightedByCosine(torch.autograd.Function):
    """For g = ∂out and a = ⟨g, n⟩ / ‖n‖:  ∂n = c g + a (x − c n / ‖n‖),  ∂x = a n."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, unit: Tensor) -> Tensor:
        out, norm = torch.empty_like(rows), rows.new_empty(len(rows), 1)
        cosine = torch.empty_like(norm)
        for block in _blocks(rows):
            n = rows[block]
            norm[block] = torch.linalg.vector_norm(n, dim=1, keepdim=True).clamp_(min=EPSILON)
            cosine[block] = (n * unit[block]).sum(1, keepdim=True).div_(norm[block])
            torch.mul(n, cosine[block], out=out[block])
        ctx.save_for_backward(rows, unit, norm, cosine)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor | None]:
        rows, unit, norm, cosine = ctx.saved_tensors
        of_rows = torch.empty_like(rows)
        of_unit = torch.empty_like(rows) if ctx.needs_input_grad[1] else None
        for block in _blocks(rows):
            g, n, c = gradient[block], rows[block], cosine[block]
            along = (g * n).sum(1, keepdim=True).div_(norm[block])
            torch.mul(g, c, out=of_rows[block])
            of_rows[block].addcmul_(along, unit[block])
            of_rows[block].addcmul_(along * c / norm[block], n, value=-1)
            if of_unit is not None:
                torch.mul(n, along, out=of_unit[block])
        return of_rows, of_unit


def _blocks(rows: Tensor) -> Iterator[slice]:
    budget = BLOCK_BYTES if rows.device.type == "cpu" else 1 << 40
    return row_blocks(len(rows), rows.shape[1] * rows.element_size(), budget)
