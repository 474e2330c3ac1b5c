"""Row operations: blocks of rows, normalise, gather, scatter."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor


def row_blocks(rows: int, row_bytes: int, budget: int) -> Iterator[slice]:
    """Consecutive slices of `rows` rows, each of at most `budget` bytes but at least one row.

    >>> list(row_blocks(5, row_bytes=4, budget=8))
    [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    height = max(1, budget // max(1, row_bytes))
    return (slice(start, min(start + height, rows)) for start in range(0, rows, height))


def distinct(ids: Tensor) -> tuple[Tensor, Tensor]:
    """The different ids of [b] in ascending order [n], and where each of the b is among them.

    >>> distinct(torch.tensor([7, 3, 7]))
    (tensor([3, 7]), tensor([1, 0, 1]))
    """
    found, place = torch.unique(ids, return_inverse=True)
    return found, place


def distinct_places(ids: Tensor) -> tuple[Tensor, int]:
    """Where each of [b] ids is among the different ones, and a bound on the number of these.

    On a CPU it is their number; on a GPU, where that is unknown without waiting, b.

    >>> distinct_places(torch.tensor([7, 3, 7]))
    (tensor([1, 0, 1]), 2)
    """
    if ids.device.type != "cpu":
        return places_by_sorting(ids), len(ids)
    found, place = distinct(ids)
    return place, len(found)


def places_by_sorting(ids: Tensor) -> Tensor:
    """The places of `distinct`, computed without their number.

    >>> places_by_sorting(torch.tensor([7, 3, 7]))
    tensor([1, 0, 1])
    """
    ascending, order = ids.sort()
    is_new = ascending != ascending.roll(1)
    is_new[:1] = False
    return torch.empty_like(order).scatter_(0, order, is_new.cumsum(0))


MAX_EXPONENT = 50  # of a row's largest value: sums of 2^20 squares stay within float32


def extreme_exponents(x: Tensor) -> Tensor | None:
    """By which power of two each row [n, f] is to be divided, so that its squares neither overflow
    nor vanish: integers [n], 0 for a row that is in range; None if all are.

    >>> extreme_exponents(torch.tensor([[3.0, 4.0], [2.0**60, 0.0]]))
    tensor([ 0, 61], dtype=torch.int32)
    """
    largest = torch.linalg.vector_norm(x, torch.inf, dim=1)
    extreme = (largest > 2.0**MAX_EXPONENT) | ((largest > 0) & (largest < 2.0**-MAX_EXPONENT))
    extreme &= largest.isfinite()
    if not extreme.any():
        return None
    least = math.frexp(torch.finfo(x.dtype).tiny)[1] - 1  # 2^-least is a number, too
    return torch.frexp(largest).exponent.clamp(least, -least).masked_fill(~extreme, 0)


def scaled_into_range(x: Tensor) -> Tensor:
    """Rows [n, f], the extreme ones divided by a power of two; cosines stay the same.

    >>> scaled_into_range(torch.tensor([[3.0, 4.0], [2.0**60, 0.0]]))
    tensor([[3.0000, 4.0000],
            [0.5000, 0.0000]])
    """
    exponents = extreme_exponents(x)
    return x if exponents is None else torch.ldexp(x, -exponents[:, None])


def l2_normalize_rows(x: Tensor) -> Tensor:
    """Rows [..., d] divided by their L2 norm; zero rows stay zero instead of turning into NaN.

    With y = x/‖x‖, ∂x = (g − y (y·g))/‖x‖, in one matrix; torch's own way takes six.

    >>> l2_normalize_rows(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
    tensor([[0.6000, 0.8000],
            [0.0000, 0.0000]])
    """
    return _NormalizeRows.apply(x)


class _NormalizeRows(torch.autograd.Function):
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
    """table[rows], differentiable; its gradient is one zero matrix to which the rows are added.

    >>> gather_rows(torch.tensor([[1.0], [2.0]]), torch.tensor([1, 1]))
    tensor([[2.],
            [2.]])
    """
    return _GatherRows.apply(table, rows)


class _GatherRows(torch.autograd.Function):
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
    """Add `values` [b, d] to the rows of a zero matrix [size, d]; repeated rows add up."""
    full = torch.zeros(size, values.shape[1], dtype=values.dtype, device=values.device)
    return full.index_add_(0, rows, values)
