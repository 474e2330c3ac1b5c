"""The k largest of a row whose last ones are equal: by a given order, never by a number."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from alignrec_recbole.ops.topk import top_k

SLACK = 2.0**-21  # of a row's largest value: rounding must not decide among equals


def is_tied(best: Tensor, k: int, above: float = -math.inf) -> Tensor:
    """bool [n]: which rows' k-th and next values are equal, and above a number.

    Args:
        best: the k + 1 largest values of each row, descending [n, k + 1].

    >>> is_tied(torch.tensor([[0.9, 0.5, 0.5], [0.9, 0.5, 0.4]]), 2).tolist()
    [True, False]
    """
    last, following = best[:, k - 1], best[:, k]
    return (last - following <= SLACK * best[:, 0].abs()) & (last > above)


def first_k(rows: Tensor, k: int, place: np.ndarray) -> tuple[Tensor, Tensor]:
    """The k largest of each row and their columns, descending; of equal last ones, by their place.

    Args:
        rows: [n, m].
        k: at most m.
        place: of each column among equals [m], the smallest first.

    >>> first_k(torch.tensor([[0.9, 0.5, 0.1, 0.5, 0.5]]), 2, np.array([0, 4, 3, 1, 2]))
    (tensor([[0.9000, 0.5000]]), tensor([[0, 3]]))
    """
    best = top_k(rows, k)[0]
    slack = SLACK * best[:, :1].abs()
    above = rows > best[:, -1:] + slack
    equal = (rows >= best[:, -1:] - slack) & ~above
    order = -torch.from_numpy(np.argsort(np.argsort(place))).to(rows)
    keys = order.expand_as(rows).masked_fill(~equal, -torch.inf).masked_fill_(above, 1.0)
    columns = top_k(keys, k)[1]
    values, at = rows.gather(1, columns).sort(dim=1, descending=True, stable=True)
    return values, columns.gather(1, at)


def top_k_by_place(
    table: Tensor, k: int, place: np.ndarray | None, *, above: float = -math.inf
) -> tuple[Tensor, Tensor]:
    """`top_k`, with `first_k` where the last ones are equal.

    Args:
        place: of each column among equals; None: they are in no order.
        above: equals that are not above it are in no order.
    """
    k = min(k, table.shape[1])
    if place is None or k == table.shape[1]:
        return top_k(table, k)
    best, columns = top_k(table, k + 1)
    tied = is_tied(best, k, above)
    best, columns = best[:, :k].contiguous(), columns[:, :k].contiguous()
    if tied.any():
        best[tied], columns[tied] = first_k(table[tied], k, place)
    return best, columns
