"""The squares of whole parameters, whose gradient is a multiple of them and need not be formed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from alignrec_recbole.ops.factored_gradients import ScaledTable
from alignrec_recbole.ops.rows import row_blocks

BLOCK_BYTES = 8 << 20


def sum_of_squares(*parameters: Tensor) -> Tensor:
    """Σ ‖P‖², a scalar.

    The gradient 2 P of a table that `FactoredAdam` collects is appended to `P.factored_gradient`;
    every other P gets it in `.grad`.

    >>> sum_of_squares(torch.tensor([[3.0, 4.0]]), torch.tensor(1.0))
    tensor(26.)
    """
    return _SumOfSquares.apply(*parameters)


class _SumOfSquares(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *parameters: Tensor) -> Tensor:
        ctx.parameters = parameters
        total = torch.zeros((), dtype=torch.float64, device=parameters[0].device)
        for one in parameters:
            flat = one.detach().reshape(-1)
            for block in row_blocks(len(flat), one.element_size(), BLOCK_BYTES):
                total += flat[block] @ flat[block]
        return total.to(parameters[0].dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        out: list[Tensor | None] = []
        for one, needed in zip(ctx.parameters, ctx.needs_input_grad, strict=True):
            factors = getattr(one, "factored_gradient", None)
            if needed and factors is not None:
                factors.append(ScaledTable(one.detach(), 2 * gradient))
            out.append(2 * gradient * one.detach() if needed and factors is None else None)
        return tuple(out)
