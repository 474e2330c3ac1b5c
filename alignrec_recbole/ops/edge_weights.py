"""The user-item graph's edges with learnt weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from alignrec_recbole.ops.sparse import bag, csr_tensor


class Edges(nn.Module):
    """The user-item graph in both directions, for weights that are learnt.

    Edge e goes from node `sender[e]` to node `receiver[e]`, nodes being users, then items. Edges
    are sorted by receiver, so the first half ends in users; `reverse[e]` is the same pair the other
    way round. Constant weights are a SparseOperator.

    Args:
        pairs: users and items; a repeated pair is one edge.
        shape: (user_num, item_num).

    >>> edges = Edges((np.array([0, 1]), np.array([0, 0])), (2, 1))
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

    def products(self, x: Tensor) -> Tensor:
        """⟨x_r, x_s⟩ of every edge's ends [2E], x [n, d]."""
        return _EdgeProducts.apply(x, self)

    def softmax(self, scores: Tensor) -> Tensor:
        """exp(s_e) over its sum among the edges of the same receiver, [2E].

        Scores are exponentiated as they are: cosines, say.
        """
        return _EdgeSoftmax.apply(scores, self)

    def sums(self, weights: Tensor, x: Tensor) -> Tensor:
        """Σ_e w_e x_s over the edges that end in each node [n, d]; weights [2E], x [n, d]."""
        return _EdgeSums.apply(weights, x, self)

    def products_of(self, left: Tensor, right: Tensor, *, into_users: bool = False) -> Tensor:
        """⟨l_r, r_s⟩ of all edges, or of the first half, which end in users; outside autograd."""
        count, rows = len(self.sender), len(self.offsets) - 1
        if into_users:
            count, rows = count // 2, self.users
        if left.device.type == "cpu":  # fifteen times as fast as gathering
            return sampled_products(self.offsets[: rows + 1], self.sender[:count], left, right)
        return gathered_products(self.receiver[:count], self.sender[:count], left, right)

    def bag(self, weights: Tensor, x: Tensor) -> Tensor:
        """`sums` outside autograd."""
        return bag(self.sender, self.offsets, weights.detach(), x.detach())

    def totals(self, values: Tensor) -> Tensor:
        """Each edge gets the sum of the values [2E] of all edges to its receiver."""
        zeros = values.new_zeros(len(self.offsets) - 1)
        return zeros.index_add_(0, self.receiver, values)[self.receiver]


def sampled_products(offsets: Tensor, columns: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """⟨l_r, r_c⟩ at the places (r, c) that CSR arrays name, outside autograd.

    >>> one = torch.tensor([[2.0], [3.0]])
    >>> sampled_products(torch.tensor([0, 0, 1]), torch.tensor([0]), one, one)
    tensor([6.])
    """
    left, empty = left[: len(offsets) - 1].detach(), left.new_zeros(len(columns))
    places = csr_tensor(columns, offsets, empty, len(right))
    return torch.sparse.sampled_addmm(places, left, right.detach().T, beta=0.0).values()


GATHERED_EDGES = 1 << 20  # rows taken at once, on a GPU


def gathered_products(rows: Tensor, columns: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """⟨l_r, r_c⟩ at the places (r, c), in blocks, outside autograd.

    >>> one = torch.tensor([[2.0], [3.0]])
    >>> gathered_products(torch.tensor([1]), torch.tensor([0]), one, one)
    tensor([6.])
    """
    out = left.new_empty(len(rows))
    for start in range(0, len(rows), GATHERED_EDGES):
        cut = slice(start, start + GATHERED_EDGES)
        out[cut] = left[rows[cut]].mul_(right[columns[cut]]).sum(1)
    return out


class _EdgeProducts(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, edges: Edges) -> Tensor:
        ctx.edges = edges
        ctx.save_for_backward(x)
        out = edges.products_of(x, x, into_users=True)  # the other half are the same pairs
        return torch.cat([out, out[edges.reverse[len(out) :]]])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (x,), edges = ctx.saved_tensors, ctx.edges
        return edges.bag(gradient + gradient[edges.reverse], x), None


class _EdgeSoftmax(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scores: Tensor, edges: Edges) -> Tensor:
        share = scores.exp()
        share /= edges.totals(share)
        ctx.edges = edges
        ctx.save_for_backward(share)
        return share

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (share,) = ctx.saved_tensors
        own = gradient * share
        return own - share * ctx.edges.totals(own), None


class _EdgeSums(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weights: Tensor, x: Tensor, edges: Edges) -> Tensor:
        ctx.edges = edges
        ctx.save_for_backward(weights, x)
        return edges.bag(weights, x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        (weights, x), edges = ctx.saved_tensors, ctx.edges
        gradient = gradient.contiguous()
        for_weights = edges.products_of(gradient, x)
        return for_weights, edges.bag(weights[edges.reverse], gradient), None
