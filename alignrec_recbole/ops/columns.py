"""Tables whose columns are divided among processes: what has to be exchanged, with its gradient.

Every process holds all rows and its own columns of the node tables. Propagation, gates and item
graphs work on each column alone, so they need nothing from other processes. What combines columns
does: inner products, norms, and dense layers on vectors.

Every process computes the same loss, so a gradient is either that of the whole loss with respect to
own columns, or, of values that every process has, the same everywhere. Each function states what it
returns and what its backward exchanges. In one process all of them return what they are given.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from alignrec_recbole.errors import SettingError
from alignrec_recbole.ops.rows import l2_normalize_rows


@dataclass
class Division:
    """Among how many processes columns are divided, and which of them this one is.

    Attributes:
        exchanged: bytes that this process has handed to collective operations.
    """

    rank: int
    size: int
    exchanged: int = 0


_division: Division | None = None


@contextmanager
def divided() -> Iterator[Division]:
    """Within it, columns are divided among the processes of torch's default group."""
    global _division
    before, _division = _division, Division(dist.get_rank(), dist.get_world_size())
    try:
        yield _division
    finally:
        _division = before


def division() -> Division | None:
    """The present division; None in one process."""
    return _division


def own_slice(width: int) -> slice:
    """Which of `width` columns are this process's; the first processes have one more if need be.

    >>> own_slice(64)
    slice(0, 64, None)
    """
    if _division is None:
        return slice(0, width)
    start, stop = _bounds(width, _division.rank, _division.size)
    return slice(start, stop)


def whole_width(x: Tensor) -> int:
    """Columns of all processes, of vectors whose columns are divided in equal parts."""
    return x.shape[-1] * (1 if _division is None else _division.size)


def _bounds(width: int, rank: int, size: int) -> tuple[int, int]:
    each, more = divmod(width, size)
    start = rank * each + min(rank, more)
    return start, start + each + (rank < more)


def check_model(model_class: Any, processes: int) -> None:
    """Refuse a model whose columns cannot be divided.

    Raises:
        SettingError: with the reason that the model's class gives in `columns_refused`.
    """
    reason = getattr(model_class, "columns_refused", "it is not a pairwise model of this package")
    if reason:
        raise SettingError(
            f"{model_class.__name__} cannot be trained by several processes: {reason}.",
            found=f"{processes} processes",
            expected="one process",
            hint="start it without --nproc and torchrun; several runs at a time: --jobs",
        )


def total(x: Tensor) -> Tensor:
    """Sum over processes, for what every process computes alike; backward exchanges nothing.

    >>> total(torch.tensor([1.0]))
    tensor([1.])
    """
    return x if _division is None else _Total.apply(x, _division)


def spread(x: Tensor) -> Tensor:
    """Values that every process has, for use on its own columns; backward sums the gradients."""
    return x if _division is None else _Spread.apply(x, _division)


def gather(x: Tensor, width: int | None = None) -> Tensor:
    """Whole rows [..., width] from own columns; backward takes the own columns of the gradient.

    Args:
        x: own columns [..., w].
        width: of all columns; None: every process has as many.
    """
    if _division is None:
        return x
    return _Gather.apply(x, width or whole_width(x), _division)


def own(x: Tensor, dim: int = -1) -> Tensor:
    """Own columns of values that every process has; backward gathers the whole gradient."""
    return x if _division is None else _Own.apply(x, dim, _division)


def scatter_total(x: Tensor) -> Tensor:
    """Own columns [n, d / N] of the sum over processes of x [n, d]; backward gathers [n, d]."""
    return x if _division is None else _ScatterTotal.apply(x, _division)


def norms(*vectors: Tensor) -> Tensor:
    """‖E‖_F of each table, as one vector.

    >>> norms(torch.tensor([[3.0, 4.0]]))
    tensor([5.])
    """
    if _division is None:
        return torch.stack([e.norm() for e in vectors])
    return _root(total(torch.stack([e.square().sum() for e in vectors])))


def mean(x: Tensor) -> Tensor:
    """Mean over all entries of vectors [..., d].

    >>> mean(torch.tensor([[1.0, 3.0]]))
    tensor(2.)
    """
    return x.mean() if _division is None else total(x.mean()) / _division.size


def normalize_rows(x: Tensor) -> Tensor:
    """Rows divided by their L2 norm over all columns; see `ops.rows.l2_normalize_rows`."""
    if _division is None:
        return l2_normalize_rows(x)
    return x / spread(_root(total(x.square().sum(-1, keepdim=True))))


def _root(squares: Tensor) -> Tensor:
    """Square roots; that of 0 is tiny, with gradient 0."""
    return squares.clamp(min=torch.finfo(squares.dtype).tiny).sqrt()


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, within: Division) -> Tensor:
        return summed(x, within)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


class _Spread(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, within: Division) -> Tensor:
        ctx.within = within
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return summed(gradient, ctx.within), None


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, width: int, within: Division) -> Tensor:
        ctx.own = own_slice(width)
        return joined(x, -1, width, within)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return gradient[..., ctx.own].contiguous(), None, None


class _Own(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, dim: int, within: Division) -> Tensor:
        ctx.dim, ctx.width, ctx.within = dim, x.shape[dim], within
        part = own_slice(x.shape[dim])
        return x.narrow(dim, part.start, part.stop - part.start).contiguous()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return joined(gradient, ctx.dim, ctx.width, ctx.within), None, None


class _ScatterTotal(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, within: Division) -> Tensor:
        ctx.width, ctx.within = x.shape[-1], within
        return own_columns_of_sum(x, within)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return joined(gradient, -1, ctx.width, ctx.within), None


def summed(x: Tensor, within: Division) -> Tensor:
    """The sum over processes, as a new tensor, without a gradient."""
    out = x.detach().clone(memory_format=torch.contiguous_format)
    within.exchanged += out.nbytes
    dist.all_reduce(out)
    return out


def shares(count: int, within: Division) -> list[tuple[int, int]]:
    """Start and stop of each process's share of `count` columns or other things."""
    return [_bounds(count, rank, within.size) for rank in range(within.size)]


def joined(
    x: Tensor,
    dim: int,
    width: int,
    within: Division,
    parts: list[tuple[int, int]] | None = None,
) -> Tensor:
    """The parts of all processes side by side along a dimension, without a gradient.

    `parts`: of the processes; None: `shares(width)`.
    """
    parts = parts or shares(width, within)
    longest = max(stop - start for start, stop in parts)
    mine = x.detach().movedim(dim, 0)
    if len(mine) < longest:
        mine = torch.cat([mine, mine.new_zeros(longest - len(mine), *mine.shape[1:])])
    mine = mine.contiguous()
    every = mine.new_empty(within.size * longest, *mine.shape[1:])
    within.exchanged += mine.nbytes
    dist.all_gather(list(every.split(longest)), mine)
    if width != len(every):
        blocks = zip(every.split(longest), parts, strict=True)
        every = torch.cat([block[: stop - start] for block, (start, stop) in blocks])
    return every.movedim(0, dim).contiguous()


def own_columns_of_sum(x: Tensor, within: Division) -> Tensor:
    """Own columns of the sum over processes of x [n, d], d a multiple of their number."""
    blocks = x.detach().view(len(x), within.size, -1).transpose(0, 1).contiguous()
    out = torch.empty_like(blocks[0])
    within.exchanged += blocks.nbytes
    dist.reduce_scatter(out, list(blocks))
    return out


# Parameters -------------------------------------------------------------------------------------


def mark(table: torch.nn.Parameter, parts: int = 1) -> torch.nn.Parameter:
    """Declare that the columns of a table may be divided.

    Args:
        table: [n, parts · d].
        parts: vectors side by side in a row, each of which is divided.
    """
    table.column_parts = parts  # type: ignore[attr-defined]
    return table


def is_divided(table: Any) -> bool:
    """Whether a parameter holds the own columns of a table."""
    return getattr(table, "whole_width", None) is not None


@torch.no_grad()
def divide(model: torch.nn.Module) -> None:
    """Keep this process's columns of each marked table of a model that was built whole."""
    if _division is None:
        return
    for table in model.parameters():
        parts = getattr(table, "column_parts", None)
        if parts is not None and not is_divided(table):
            table.whole_width = table.shape[1]  # type: ignore[attr-defined]
            table.data = part_of(table.data, table)


def own_part(part: slice, table: Any) -> slice:
    """Where some columns of a whole table are in this process's part of it."""
    if not is_divided(table):
        return part
    mine = own_slice(table.whole_width)
    start = min(max(part.start, mine.start), mine.stop)
    return slice(start - mine.start, max(min(part.stop, mine.stop), start) - mine.start)


def numel(table: Any) -> int:
    """Numbers in a parameter, those of other processes' columns included."""
    return len(table) * table.whole_width if is_divided(table) else table.numel()


def part_of(whole: Tensor, table: Any) -> Tensor:
    """Own columns of a tensor that is laid out as a divided table; others are returned as given."""
    if not is_divided(table) or whole.dim() < 2:
        return whole
    blocks = whole.view(len(whole), table.column_parts, -1)
    return blocks[:, :, own_slice(blocks.shape[2])].flatten(1).contiguous()


def whole_of(part: Tensor, table: Any) -> Tensor:
    """A tensor laid out as a divided table, with the columns of all processes; a collective."""
    if not is_divided(table) or part.dim() < 2 or _division is None:
        return part
    width = table.whole_width // table.column_parts
    blocks = part.view(len(part), table.column_parts, -1)
    return joined(blocks, -1, width, _division).flatten(1)
