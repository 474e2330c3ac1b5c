"""The k largest of each row of a wide table, row- or column-major."""

from __future__ import annotations

import math

import torch
from torch import Tensor

MIN_GROUP = 4  # columns; smaller groups save nothing


def top_k(table: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """torch.topk along rows, faster for wide tables: only the k best groups are searched.

    The columns are divided into strided groups of √(columns / k), so that there are about as many
    maxima as searched columns; an element of the top k is in one of the k groups with the largest
    maxima, so the values are those of torch.topk. The order of columns with equal values is
    unspecified, as there. NaN counts as largest.

    >>> top_k(torch.tensor([[0.0, 3.0, 1.0]]), 2)
    (tensor([[3., 1.]]), tensor([[1, 2]]))
    """
    n = table.shape[1]
    size = math.isqrt(n // max(k, 1))
    if size < MIN_GROUP:
        values, columns = table.topk(k, dim=1)
        return values, columns
    groups = n // size
    whole = size * groups
    chosen = _maxima(table[:, :whole], size, groups).topk(k, dim=1, sorted=False).indices  # [b, k]
    column = (
        torch.arange(size, device=table.device)[None, :, None] * groups + chosen[:, None, :]
    ).view(len(table), -1)
    if whole < n:
        tail = torch.arange(whole, n, device=table.device).expand(len(table), -1)
        column = torch.cat([column, tail], 1)
    best, place = table.gather(1, column).topk(k, dim=1)
    return best, column.gather(1, place)


def _maxima(table: Tensor, size: int, groups: int) -> Tensor:
    """The largest of each group [b, groups], read in the order of the table in memory."""
    if table.stride(1) == 1:
        return table.view(len(table), size, groups).amax(1)
    return table.T.view(size, groups, len(table)).amax(0).T.contiguous()
