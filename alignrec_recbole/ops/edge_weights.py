"""Learnt weights on the edges of the user-item graph: dot products, softmax, weighted sums."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from alignrec_recbole.ops.rows import row_blocks
from alignrec_recbole.ops.sparse import Csr, csr_tensor, spmm


class EdgeWeights(nn.Module):
    """Differentiable operations on weights of the user-item graph's edges, in both directions.

    Edge e goes from node `sender[e]` to node `receiver[e]`, nodes being users, then items. Edges
    are sorted by receiver, so the first half ends in users; `reverse[e]` is the same pair in the
    other direction. Constant weights are a SparseOperator.

    Args:
        pairs: users and items; a repeated pair is one edge.
        shape: (user_num, item_num).

    >>> edges = EdgeWeights((np.array([0, 1]), np.array([0, 0])), (2, 1))
    >>> edges.sender, edges.receiver, edges.reverse
    (tensor([2, 2, 0, 1]), tensor([0, 1, 2, 2]), tensor([2, 3, 0, 1]))
    """

    sender: Tensor
    receiver: Tensor
    reverse: Tensor
    offsets: Tensor

    def __init__(self, pairs: tuple[np.ndarray, np.ndarray], shape: tuple[int, int]) -> None:
        super().__init__()
        self.users = shape[0]
        user, item = np.unique(np.stack(pairs), axis=1).astype(np.int64)  # by user, then item
        back = np.lexsort((user, item))  # by item, then user
        receiver = np.concatenate([user, shape[0] + item[back]])
        counts = np.bincount(receiver, minlength=sum(shape))
        for name, values in {
            "sender": np.concatenate([shape[0] + item, user[back]]),
            "receiver": receiver,
            "reverse": np.concatenate([len(user) + np.argsort(back), back]),
            "offsets": np.concatenate([[0], np.cumsum(counts)]),
        }.items():
            self.register_buffer(name, torch.from_numpy(values), persistent=False)

    def dot(self, x: Tensor) -> Tensor:
        """⟨x_r, x_s⟩ of every edge's receiver and sender [2E]; x [n, d]."""
        return _Dot.apply(x, self)

    def softmax(self, scores: Tensor) -> Tensor:
        """exp(s_e) over its sum among the edges of the same receiver, [2E].

        Scores are exponentiated without a shift: they must be bounded, as cosines are.
        """
        return _Softmax.apply(scores, self)

    def aggregate(self, weights: Tensor, x: Tensor) -> Tensor:
        """Σ_e w_e x_s over the edges that end in each node [n, d]; weights [2E], x [n, d]."""
        return _Aggregate.apply(weights, x, self)

    def pairwise_dot(self, left: Tensor, right: Tensor, *, into_users: bool = False) -> Tensor:
        """⟨l_r, r_s⟩ of all edges, or of the first half, which end in users; outside autograd."""
        count, rows = len(self.sender), len(self.offsets) - 1
        if into_users:
            count, rows = count // 2, self.users
        ends = self.receiver[:count], self.sender[:count]
        return edge_dot(self.offsets[: rows + 1], *ends, left, right)

    def weighted_sum(self, weights: Tensor, x: Tensor) -> Tensor:
        """`aggregate` outside autograd."""
        return spmm(Csr(self.sender, self.offsets, weights), x)

    def sum_per_receiver(self, values: Tensor) -> Tensor:
        """For each edge the sum of the values [2E] of all edges with the same receiver, [2E]."""
        zeros = values.new_zeros(len(self.offsets) - 1)
        return zeros.index_add_(0, self.receiver, values)[self.receiver]


GATHER_BLOCK_EDGES = 1 << 20  # edges per block, on a GPU


def edge_dot(
    offsets: Tensor,
    rows: Tensor,
    columns: Tensor,
    left: Tensor,
    right: Tensor,
    edges: int = GATHER_BLOCK_EDGES,
) -> Tensor:
    """⟨l_r, r_c⟩ at the positions (r, c) of a CSR pattern, outside autograd.

    Args:
        offsets, rows, columns: the pattern, and the row of each of its positions.
        edges: so many rows are gathered at once, where that has to be.
    """
    if left.device.type == "cpu":  # fifteen times as fast as gathering
        return sampled_dot(offsets, columns, left, right)
    return gathered_dot(rows, columns, left, right, edges)


def sampled_dot(offsets: Tensor, columns: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """⟨l_r, r_c⟩ at the positions (r, c) of a CSR pattern (SDDMM), outside autograd.

    >>> one = torch.tensor([[2.0], [3.0]])
    >>> sampled_dot(torch.tensor([0, 0, 1]), torch.tensor([0]), one, one)
    tensor([6.])
    """
    left = left[: len(offsets) - 1].detach()
    pattern = csr_tensor(Csr(columns, offsets, left.new_zeros(len(columns))), len(right))
    return torch.sparse.sampled_addmm(pattern, left, right.detach().T, beta=0.0).values()


def gathered_dot(
    rows: Tensor, columns: Tensor, left: Tensor, right: Tensor, edges: int = GATHER_BLOCK_EDGES
) -> Tensor:
    """⟨l_r, r_c⟩ at the positions (r, c), in blocks of so many edges, outside autograd.

    >>> one = torch.tensor([[2.0], [3.0]])
    >>> gathered_dot(torch.tensor([1]), torch.tensor([0]), one, one)
    tensor([6.])
    """
    out = left.new_empty(len(rows))
    for block in row_blocks(len(rows), 1, edges):
        out[block] = left[rows[block]].mul_(right[columns[block]]).sum(1)
    return out


class _Dot(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, edges: EdgeWeights) -> Tensor:
        ctx.edges = edges
        ctx.save_for_backward(x)
        out = edges.pairwise_dot(x, x, into_users=True)  # the other half are the same pairs
        return torch.cat([out, out[edges.reverse[len(out) :]]])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (x,), edges = ctx.saved_tensors, ctx.edges
        return edges.weighted_sum(gradient + gradient[edges.reverse], x), None


class _Softmax(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scores: Tensor, edges: EdgeWeights) -> Tensor:
        share = scores.exp()
        share /= edges.sum_per_receiver(share)
        ctx.edges = edges
        ctx.save_for_backward(share)
        return share

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (share,) = ctx.saved_tensors
        own = gradient * share
        return own - share * ctx.edges.sum_per_receiver(own), None


class _Aggregate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weights: Tensor, x: Tensor, edges: EdgeWeights) -> Tensor:
        ctx.edges = edges
        ctx.save_for_backward(weights, x)
        return edges.weighted_sum(weights, x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        (weights, x), edges = ctx.saved_tensors, ctx.edges
        gradient = gradient.contiguous()
        for_weights = edges.pairwise_dot(gradient, x)
        return for_weights, edges.weighted_sum(weights[edges.reverse], gradient), None
