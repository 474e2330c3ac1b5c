"""Contrast of items with their nearest neighbours by several views of all items, as DA-MRS has it.

No rows × items matrix is formed: the similarities of a block of rows give its labels, its loss and
its gradient, and are then overwritten.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from alignrec_recbole.ops.matmul import matmul_nt
from alignrec_recbole.ops.rows import row_blocks
from alignrec_recbole.ops.topk import top_k

EPSILON = 1e-9  # inside the logarithms
SMALLEST = 1e-20  # of a divisor; a similarity is at least exp(−1/τ) ≥ exp(−50) = 2e-22
BLOCK_BYTES = 64 << 20  # of similarities of all views; more does not fit into the cache


def neighbour_contrast(tables: list[Tensor], rows: Tensor, labels: int, temperature: float) -> Any:
    """Mean over views v and rows r of −ln(A/T + 1e-9) − ln(B/(T − A) + 1e-9), a scalar.

        s_v(r, j) = exp(x_v,r · x_v,j / τ),   T = Σ_j s_v(r, j),   A = Σ_{j ∈ N} s_v(r, j),
        B = Σ_{j ∈ N_v} s_v(r, j)

    with p_w(r, ·) = softmax_j(x_w,r · x_w,j), N the `labels` items of the largest
    p_v + Σ_w p_w, and N_v those of the largest p_v among the other items. A row is among its own
    neighbours. With fewer than 2 · labels items, N_v has fewer.

    Args:
        tables: unit rows x_v [n, d] per view.
        rows: which of them are contrasted [b], each once.
        labels: size of N and of N_v.
        temperature: τ, at least 0.02 (cosines / τ are exponentiated as they are).

    Source: Xv et al., DA-MRS, KDD 2024, its alignment of items.
    """
    return _NeighbourContrast.apply(rows, labels, temperature, *tables)


class _NeighbourContrast(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, labels: int, temperature: float, *tables: Tensor) -> Tensor:
        n = len(tables[0])
        loss = tables[0].new_zeros(())
        own = [table.index_select(0, rows) for table in tables]
        grad_own = [torch.empty_like(part) for part in own]
        grad_table = [torch.zeros_like(table.T) for table in tables]
        scale = 1 / (len(rows) * len(tables))
        width = n * tables[0].element_size() * (2 * len(tables) + 1)
        budget = BLOCK_BYTES if rows.device.type == "cpu" else 16 * BLOCK_BYTES
        for block in row_blocks(len(rows), width, budget):
            parts = [part[block] for part in own]
            cosines = [matmul_nt(x, table) for x, table in zip(parts, tables, strict=True)]
            for v, (joint, single, is_label) in enumerate(_labels(cosines, labels)):
                share = cosines[v].div_(temperature).exp_()
                loss += _share_to_gradient(share, joint, single, is_label) * scale
                share.mul_(scale / temperature)
                grad_own[v][block] = matmul_nt(share, tables[v].T)
                grad_table[v] += matmul_nt(parts[v].T, share.T)
        gradients = [g.T.index_add(0, rows, o) for g, o in zip(grad_table, grad_own, strict=True)]
        ctx.save_for_backward(*gradients)
        return loss

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        return None, None, None, *(own * gradient for own in ctx.saved_tensors)


def _labels(cosines: list[Tensor], labels: int) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Of each view N [h, l], the nearest items [h, 2 l], and which of these are N_v."""
    n = cosines[0].shape[1]
    likely = [one.exp() for one in cosines]
    for one in likely:
        one.div_(one.sum(1, keepdim=True))
    total = sum(likely[1:], likely[0])
    out = []
    for one, cosine in zip(likely, cosines, strict=True):
        joint = top_k(one.add_(total), min(labels, n))[1]
        single = top_k(cosine, min(2 * labels, n))[1]
        other = ~(single[:, :, None] == joint[:, None, :]).any(2)
        out.append((joint, single, other & (other.cumsum(1) <= labels)))
    return out


def _share_to_gradient(share: Tensor, joint: Tensor, single: Tensor, is_label: Tensor) -> Tensor:
    """The summed loss of s = exp(cosine / τ) [h, n], which becomes s · ∂loss/∂s in place.

    T − A is the sum of what is not in A: at small τ nearly all of T is in A.
    """
    near, alone = share.gather(1, joint), share.gather(1, single) * is_label
    share.scatter_(1, joint, 0.0)
    a, b, left = near.sum(1), alone.sum(1), share.sum(1)
    total, rest = left + a, torch.maximum(left, b).clamp(min=SMALLEST)  # B is a part of T − A
    first, second = a / total + EPSILON, b / rest + EPSILON
    of_first = 1 / (total * first)
    of_rest = a / total * of_first + b / rest / (rest * second)  # of items that are in neither
    of_near = -(left / total) * of_first
    of_alone = -1 / (rest * second)  # beside of_rest
    share.mul_(of_rest[:, None])
    share.scatter_(1, joint, near * of_near[:, None])
    share.scatter_add_(1, single, alone * of_alone[:, None])
    return -(first.log() + second.log()).sum()
