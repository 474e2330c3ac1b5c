"""Lists in which items with equal scores are in one fixed order, see features/item_order.py.

Scores are equal if all their bits are.
"""

from __future__ import annotations

import torch
from torch import Tensor

from alignrec_recbole.ops.topk import top_k

CELLS = 1 << 20  # of scores that are searched for ties at a time
HEAD = 4  # times the length of a list: columns that are searched first


def best_in_order(table: Tensor, k: int, tie_rank: Tensor) -> tuple[Tensor, Tensor]:
    """The k largest of each row, equal ones by their tie rank: values and columns [b, k].

    One search finds k + 1 columns. Only rows whose last two values are equal are searched again,
    for the first of the columns with that value. Columns of −∞ are in any order.

    Args:
        table: scores [b, n].
        k: length of the lists, at most n.
        tie_rank: int64 [n], each of 0 … n−1 once, on the device of the table.

    >>> best_in_order(torch.tensor([[1.0, 2.0, 1.0, 1.0]]), 2, torch.tensor([3, 1, 2, 0]))
    (tensor([[2., 1.]]), tensor([[1, 3]]))
    """
    n = table.shape[1]
    values, columns = top_k(table, min(k + 1, n) if k else 0)
    if not k:
        return values, columns
    if k < n:
        cut = (values[:, k - 1] == values[:, k]) & (values[:, k] != -torch.inf)
        values, columns = values[:, :k], columns[:, :k]
        _put_first_of_equal(table, values, columns, torch.nonzero(cut).ravel(), tie_rank)
    tied = (values[:, 1:] == values[:, :-1]) & (values[:, 1:] != -torch.inf)
    rows = torch.nonzero(tied.any(1)).ravel()
    if len(rows):
        columns[rows] = _sorted(values[rows], columns[rows], tie_rank)
    return values, columns


def _put_first_of_equal(
    table: Tensor, values: Tensor, columns: Tensor, rows: Tensor, tie_rank: Tensor
) -> None:
    """Let the columns with a row's last value be the first ones of all columns with it.

    The first columns of the order are searched before all: enough where most scores are equal.
    """
    n, k = table.shape[1], values.shape[1]
    head = tie_rank.argsort()[: HEAD * k] if len(rows) else tie_rank
    for few in (True, False):
        width = len(head) if few else n
        missing = []
        for part in rows.split(max(1, CELLS // max(1, width))) if len(rows) else ():
            found = table[part[:, None], head] if few else table[part]
            row, column = torch.nonzero(found == values[part, -1:], as_tuple=True)
            if few:
                column = head[column]
            else:
                by_rank = (row * n + tie_rank[column]).argsort()
                row, column = row[by_rank], column[by_rank]
            missing.append(_put(values, columns, part, row, column))
        rows = torch.cat(missing) if missing else rows


def _put(values: Tensor, columns: Tensor, rows: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """Write equal columns behind the larger ones; returns the rows with too few of them.

    Args:
        values, columns: lists [b, k]; the columns are changed.
        rows: those that are searched.
        row, column: places in `rows`, ascending, and columns with the last value, in their order.
    """
    larger = (values[rows] > values[rows, -1:]).sum(1)
    wanted = values.shape[1] - larger
    count = torch.bincount(row, minlength=len(rows))
    before = torch.arange(len(row), device=row.device) - (count.cumsum(0) - count)[row]
    used = before < wanted[row]
    row, column, before = row[used], column[used], before[used]
    columns[rows[row], larger[row] + before] = column
    return rows[count < wanted]


def _sorted(values: Tensor, columns: Tensor, tie_rank: Tensor) -> Tensor:
    """The columns by value, then by tie rank."""
    by_rank = tie_rank[columns].argsort(dim=1)
    by_value = values.gather(1, by_rank).argsort(dim=1, descending=True, stable=True)
    return columns.gather(1, by_rank.gather(1, by_value))
