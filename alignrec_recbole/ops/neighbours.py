"""Dot products with, and weighted sums over, each row's k nearest neighbours."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from alignrec_recbole.ops.rows import row_blocks
from alignrec_recbole.ops.sparse import Csr, spmm


def neighbour_products(x: Tensor, indices: Tensor) -> Tensor:
    """⟨x_i, x_j⟩ for the neighbours j of every row i, differentiable in x.

    The factors [n, k, d] are built one block of rows at a time.

    Args:
        x: [n, d].
        indices: [n, k]; −1 gives 0.

    >>> neighbour_products(torch.tensor([[1.0], [2.0]]), torch.tensor([[1, 0], [1, -1]]))
    tensor([[2., 1.],
            [4., 0.]])
    """
    return _NeighbourProducts.apply(x, indices)


BLOCK_ROWS = 512  # their factors stay in the cache
BLOCK_ROWS_GPU = 1 << 15  # few launches


def _blocks(x: Tensor) -> Iterator[slice]:
    return row_blocks(len(x), 1, BLOCK_ROWS if x.device.type == "cpu" else BLOCK_ROWS_GPU)


class _NeighbourProducts(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, indices: Tensor) -> Tensor:
        ctx.save_for_backward(x, indices)
        out = x.new_empty(indices.shape)
        for rows in _blocks(x):
            out[rows] = torch.einsum("nd,nkd->nk", x[rows], x[indices[rows].clamp(min=0)])
        return out.masked_fill_(indices < 0, 0.0)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        x, indices = ctx.saved_tensors
        gradient = gradient.masked_fill(indices < 0, 0.0)
        out = torch.zeros_like(x)
        for rows in _blocks(x):
            columns, weight = indices[rows].clamp(min=0), gradient[rows]
            out[rows] += torch.einsum("nk,nkd->nd", weight, x[columns])
            spread = weight[:, :, None] * x[rows, None]
            out.index_add_(0, columns.ravel(), spread.view(-1, x.shape[1]))
        return out, None


def neighbour_sums(weights: Tensor, indices: Tensor, x: Tensor) -> Tensor:
    """Σ_k w_ik x_j over the neighbours j = indices[i, k], differentiable in w and x.

    For a graph that is learnt; a constant one is a SparseOperator.

    Args:
        weights: [n, k]; weights at index −1 are ignored.
        indices: [n, k].
        x: [m, d].

    >>> one = torch.tensor([[2.0, 3.0]])
    >>> neighbour_sums(one, torch.tensor([[1, -1]]), torch.tensor([[5.0], [7.0]]))
    tensor([[14.]])
    """
    return _NeighbourSums.apply(weights.masked_fill(indices < 0, 0.0), indices, x)


class _NeighbourSums(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weights: Tensor, indices: Tensor, x: Tensor) -> Tensor:
        ctx.save_for_backward(weights, indices, x)
        offsets = torch.arange(len(indices) + 1, device=x.device) * indices.shape[1]
        columns = indices.clamp(min=0).ravel()
        return spmm(Csr(columns, offsets, weights.ravel()), x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, Tensor]:
        weights, indices, x = ctx.saved_tensors
        for_weights, for_x = torch.empty_like(weights), torch.zeros_like(x)
        for rows in _blocks(weights):
            columns, back = indices[rows].clamp(min=0), gradient[rows]
            for_weights[rows] = torch.einsum("nd,nkd->nk", back, x[columns])
            spread = weights[rows, :, None] * back[:, None]
            for_x.index_add_(0, columns.ravel(), spread.view(-1, x.shape[1]))
        return for_weights, None, for_x
