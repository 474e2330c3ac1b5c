"""Gradients of large learnt tables as low-rank factors, multiplied one tile of rows at a time.

A table X [n, f] that a step reads through X Wᵀ [n, d] has the gradient G W, of rank d « f. Formed,
it takes as much memory as the table; a tile of it fits into the cache, where an optimizer can use
it at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from alignrec_recbole.ops.matmul import matmul_nt
from alignrec_recbole.ops.rows import row_blocks, scatter_add_rows

ROW_MULTIPLE = 32  # products of gathered rows are padded to it: oneDNN prepares for each new shape


@dataclass(frozen=True)
class FactoredGradient:
    """G W, or G W at some rows of a table and zero at the others; computed in W's type.

    Attributes:
        gradient: G [n, d], or [m, d].
        weight: W [d, f].
        rows: indices [m]; repeated ones add up.
    """

    gradient: Tensor
    weight: Tensor
    rows: Tensor | None = None

    def tile(self, block: slice, out: Tensor | None = None) -> Tensor:
        """A block of rows of G W."""
        return _times(self.gradient[block], self.weight, out)

    def tiles_of_rows(self, blocks: Sequence[slice]) -> Iterator[tuple[Tensor, Tensor]]:
        """For each block the rows [k] in it that have a gradient, and G W there [k, f]."""
        assert self.rows is not None
        rows, position = self.rows.unique(return_inverse=True)
        gradient = scatter_add_rows(self.gradient, position, len(rows) + ROW_MULTIPLE)
        bounds = torch.tensor([0, *(block.stop for block in blocks)])
        firsts = torch.searchsorted(rows, bounds).tolist()
        for block, first, last in zip(blocks, firsts[:-1], firsts[1:], strict=True):
            count = last - first
            height = count + -count % ROW_MULTIPLE
            product = _times(gradient[first : first + height], self.weight)
            yield rows[first:last] - block.start, product[:count]


@dataclass(frozen=True)
class ScaledTable:
    """A multiple of the table itself, the gradient of its squares."""

    table: Tensor
    scale: Tensor
    rows: None = None

    def tile(self, block: slice, out: Tensor | None = None) -> Tensor:
        """A block of its rows."""
        return torch.mul(self.table[block], self.scale, out=out)


def tiles(
    table: Tensor, factors: Sequence[FactoredGradient | ScaledTable], tile_bytes: int
) -> Iterator[tuple[slice, Tensor]]:
    """The sum of factored gradients of a table, tile by tile.

    Yields:
        a block of rows and the gradient there; its memory is used again for the next tile.
    """
    row_bytes = table.shape[1] * table.element_size()
    blocks = list(row_blocks(len(table), row_bytes, tile_bytes))
    dense = [factor for factor in factors if factor.rows is None]
    sparse = [
        factor.tiles_of_rows(blocks)
        for factor in factors
        if isinstance(factor, FactoredGradient) and factor.rows is not None
    ]
    allocate = torch.empty if dense else torch.zeros
    memory = allocate(blocks[0].stop, table.shape[1], dtype=table.dtype)
    for block, *pieces in zip(blocks, *sparse, strict=True):
        tile = memory[: block.stop - block.start]
        if dense:
            tile = dense[0].tile(block, tile)
        for factor in dense[1:]:
            tile += factor.tile(block)
        for rows, values in pieces:
            tile.index_add_(0, rows, values)
        yield block, tile
        for rows, _ in pieces if not dense else ():
            tile.index_fill_(0, rows, 0.0)


def _times(gradient: Tensor, weight: Tensor, out: Tensor | None = None) -> Tensor:
    """G W in W's type, returned in G's."""
    if weight.dtype != gradient.dtype:
        return matmul_nt(gradient.to(weight.dtype), weight.T).to(gradient.dtype)
    return matmul_nt(gradient, weight.T, out=out)
