"""Gradients of large learnt tables, kept as factors and applied tile by tile, never formed whole.

A table X [n, f] that a step reads through X Wᵀ [n, d] has the gradient G W, of rank d « f. Forming
it takes as much memory as the table, and writing and reading all of it; here each tile is made in
the cache, just before Adam takes it. What Adam computes stays the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.optim.adam import adam

from alignrec_recbole.ops.matmul import matmul_nt
from alignrec_recbole.ops.rows import scatter_add_rows


class TableGradients:
    """What a backward says of an optimizer's large tables, until the optimizer's next step.

    Inside `kernels.collecting`, products with these tables hand their gradients here. Tables on a
    GPU are left to autograd: each tile would be a launch of its own there.

    Args:
        optimizer: fused Adam or AdamW; its `step` applies what was collected, then the rest.
    """

    FROM_BYTES = 16 << 20  # smaller tables fit into the cache as they are
    TILE_BYTES = 8 << 20

    def __init__(self, optimizer: torch.optim.Adam) -> None:
        self._optimizer = optimizer
        self._parts: dict[Tensor, list[_Product]] = {
            p: []
            for group in optimizer.param_groups
            for p in group["params"]
            if p.dim() == 2 and p.device.type == "cpu" and p.nbytes >= self.FROM_BYTES
        }
        optimizer.register_step_pre_hook(lambda *_: self._step())

    def __contains__(self, table: object) -> bool:
        return isinstance(table, Tensor) and table in self._parts

    def add(
        self, table: Tensor, gradient: Tensor, weight: Tensor, rows: Tensor | None = None
    ) -> None:
        """Add G W to the table's gradient, or to its `rows` [m] only; computed in W's type.

        Args:
            table: X [n, f].
            gradient: G [n, d], or [m, d].
            weight: W [d, f].
            rows: indices [m]; repeated ones add up.
        """
        self._parts[table].append(_Product(gradient.contiguous(), weight, rows))

    def forget(self) -> None:
        """Drop what a step that never came was to apply."""
        for parts in self._parts.values():
            parts.clear()

    @torch.no_grad()
    def _step(self) -> None:
        for group in self._optimizer.param_groups:
            for table in group["params"]:
                if self._parts.get(table):
                    self._update(table, group)
        self.forget()

    def _update(self, table: Tensor, group: dict) -> None:
        state = self._optimizer.state[table]
        if not state:  # as Adam begins
            state["step"] = torch.zeros((), dtype=torch.float32)
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(table), torch.zeros_like(table)
        before = state["step"].clone()
        beta1, beta2 = group["betas"]
        for cut, gradient in self._tiles(table):
            if table.grad is not None:  # of other uses than products
                gradient = gradient + table.grad[cut]
            adam(
                [table[cut]],
                [gradient],
                [state["exp_avg"][cut]],
                [state["exp_avg_sq"][cut]],
                [],
                [state["step"].copy_(before)],
                fused=True,
                amsgrad=False,
                beta1=beta1,
                beta2=beta2,
                lr=group["lr"],
                weight_decay=group["weight_decay"],
                eps=group["eps"],
                maximize=False,
                decoupled_weight_decay=isinstance(self._optimizer, torch.optim.AdamW),
            )
        table.grad = None

    def _tiles(self, table: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """The gradient tile by tile; one is valid until the next is asked for."""
        height = max(1, self.TILE_BYTES // (table.shape[1] * table.element_size()))
        starts = range(0, len(table), height)
        parts = self._parts[table]
        whole = [part for part in parts if part.rows is None]
        some = [
            part.of_rows(part.rows, starts, len(table)) for part in parts if part.rows is not None
        ]
        make = torch.empty if whole else torch.zeros
        room = make(height, table.shape[1], dtype=table.dtype)
        for start, *pieces in zip(starts, *some, strict=True):
            cut = slice(start, min(start + height, len(table)))
            tile = room[: cut.stop - start]
            if whole:
                tile = whole[0].product(cut, tile)
            for part in whole[1:]:
                tile += part.product(cut)
            for rows, values in pieces:
                tile.index_add_(0, rows, values)
            yield cut, tile
            for rows, _ in pieces if not whole else ():
                tile.index_fill_(0, rows, 0.0)


@dataclass(frozen=True)
class _Product:
    gradient: Tensor
    weight: Tensor
    rows: Tensor | None

    def product(self, cut: slice, room: Tensor | None = None) -> Tensor:
        """Rows of G W."""
        return _times(self.gradient[cut], self.weight, room)

    def of_rows(self, rows: Tensor, starts: range, stop: int) -> Iterator[tuple[Tensor, Tensor]]:
        """For each tile the rows [k] in it that have a gradient, and G W there [k, f]."""
        rows, place = rows.unique(return_inverse=True)
        gradient = scatter_add_rows(self.gradient, place, len(rows) + _HEIGHTS)
        cuts = torch.searchsorted(rows, torch.tensor([*starts, stop])).tolist()
        for start, first, last in zip(starts, cuts[:-1], cuts[1:], strict=True):
            count = last - first
            height = count + -count % _HEIGHTS  # oneDNN prepares, and keeps, each new shape
            product = _times(gradient[first : first + height], self.weight)
            yield rows[first:last] - start, product[:count]


_HEIGHTS = 32  # the products' rows are a multiple


def _times(gradient: Tensor, weight: Tensor, room: Tensor | None = None) -> Tensor:
    """G W in W's type, of G's."""
    if weight.dtype != gradient.dtype:
        return matmul_nt(gradient.to(weight.dtype), weight.T).to(gradient.dtype)
    return matmul_nt(gradient, weight.T, room=room)
