"""Products and sums over k nearest neighbours."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from alignrec_recbole.ops.sparse import bag


def neighbour_products(x: Tensor, indices: Tensor) -> Tensor:
    """⟨x_i, x_j⟩ for the neighbours j of every row i, differentiable in both places of x.

    Never holds more than a block of the [n, k, d] products' factors.

    Args:
        x: [n, d].
        indices: [n, k]; −1 gives 0.

    >>> neighbour_products(torch.tensor([[1.0], [2.0]]), torch.tensor([[1, 0], [1, -1]]))
    tensor([[2., 1.],
            [4., 0.]])
    """
    return _NeighbourProducts.apply(x, indices)


_NEIGHBOUR_ROWS = 512  # their factors stay in the cache
_NEIGHBOUR_ROWS_GPU = 1 << 15  # few launches


def _blocks(x: Tensor) -> Iterator[slice]:
    rows = _NEIGHBOUR_ROWS if x.device.type == "cpu" else _NEIGHBOUR_ROWS_GPU
    return (slice(start, start + rows) for start in range(0, len(x), rows))


class _NeighbourProducts(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, indices: Tensor) -> Tensor:
        ctx.save_for_backward(x, indices)
        out = x.new_empty(indices.shape)
        for cut in _blocks(x):
            out[cut] = torch.einsum("nd,nkd->nk", x[cut], x[indices[cut].clamp(min=0)])
        return out.masked_fill_(indices < 0, 0.0)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        x, indices = ctx.saved_tensors
        gradient = gradient.masked_fill(indices < 0, 0.0)
        out = torch.zeros_like(x)
        for cut in _blocks(x):
            place, weight = indices[cut].clamp(min=0), gradient[cut]
            out[cut] += torch.einsum("nk,nkd->nd", weight, x[place])
            spread = weight[:, :, None] * x[cut, None]
            out.index_add_(0, place.ravel(), spread.view(-1, x.shape[1]))
        return out, None


def neighbour_sums(weights: Tensor, indices: Tensor, x: Tensor) -> Tensor:
    """Σ_k w_ik x_j over the neighbours j = indices[i, k], differentiable in w and x.

    For a graph that is learnt; a constant one is a SparseOperator.

    Args:
        weights: [n, k]; those of index −1 count nothing.
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
        offsets = torch.arange(0, indices.numel() + 1, indices.shape[1], device=x.device)
        place = indices.clamp(min=0).ravel()
        return bag(place, offsets, weights.detach().ravel(), x.detach())

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, Tensor]:
        weights, indices, x = ctx.saved_tensors
        for_weights, for_x = torch.empty_like(weights), torch.zeros_like(x)
        for cut in _blocks(weights):
            place, back = indices[cut].clamp(min=0), gradient[cut]
            for_weights[cut] = torch.einsum("nd,nkd->nk", back, x[place])
            spread = weights[cut, :, None] * back[:, None]
            for_x.index_add_(0, place.ravel(), spread.view(-1, x.shape[1]))
        return for_weights, None, for_x
