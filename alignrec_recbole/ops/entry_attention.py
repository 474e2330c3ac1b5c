"""Attention among the entries of each row, with scores that are products of two numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from alignrec_recbole.ops.rows import row_blocks

BLOCK_BYTES = 1 << 20  # of the scores of a block of rows, which then stay in the cache


def entry_attention(query: Tensor, key: Tensor, value: Tensor, dropout: float = 0.0) -> Tensor:
    """out_j = Σ_k D_jk v_k, D the softmax over k of q_j k_k, of which dropout zeroes a share.

    torch's MultiheadAttention of one head and width 1 between its two projections. The scores,
    d × d per row, are computed in blocks of rows, and again in the backward; what dropout kept is
    stored, one byte per score.

    Args:
        query, key, value: [n, d].
        dropout: share that is dropped, from 0 to 1; see `draw_kept`.

    >>> row = torch.tensor([[0.0, 1.0]])
    >>> entry_attention(row, row, row)  # row 0 has equal shares, row 1 e / (1 + e)
    tensor([[0.5000, 0.7311]])
    """
    return _EntryAttention.apply(query, key, value, dropout)


class _EntryAttention(torch.autograd.Function):
    """With the softmax A and the dropped D, for g = ∂out:

    ∂v = Dᵀ g,  ∂k = v ⊙ Dᵀ (g ⊙ q) − Aᵀ (g ⊙ out ⊙ q),  ∂q = g ⊙ (D (v ⊙ k) − out ⊙ A k)
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, dropout: float) -> Tensor:
        out, ctx.kept, ctx.scale = torch.empty_like(v), [], 1.0
        for block in _blocks(v):
            shares = _shares(q[block], k[block])
            if dropout:
                kept, ctx.scale = draw_kept(shares, dropout)
                shares.mul_(kept.to(shares.dtype))
                ctx.kept.append(kept)
            out[block] = _times(shares, v[block])
        ctx.save_for_backward(q, k, v, out.mul_(ctx.scale))
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        q, k, v, out = ctx.saved_tensors
        for_q, for_k, for_v = (torch.empty_like(v) for _ in range(3))
        g = gradient * ctx.scale  # D is what dropout kept of A, times the scale
        back = gradient * out
        for number, block in enumerate(_blocks(v)):
            own_q, own_k, own_v = q[block], k[block], v[block]
            shares = _shares(own_q, own_k)
            for_q[block] = -back[block] * _times(shares, own_k)
            for_k[block] = torch.bmm((-back[block] * own_q)[:, None], shares)[:, 0]
            if ctx.kept:
                shares.mul_(ctx.kept[number].to(shares.dtype))
            for_q[block] += g[block] * _times(shares, own_v * own_k)
            columns = torch.bmm(torch.stack([g[block], g[block] * own_q], 1), shares)
            for_v[block] = columns[:, 0]
            for_k[block] += own_v * columns[:, 1]
        return for_q, for_k, for_v, None


def _blocks(rows: Tensor) -> Iterator[slice]:
    budget = BLOCK_BYTES if rows.device.type == "cpu" else 256 * BLOCK_BYTES
    return row_blocks(len(rows), rows.shape[1] ** 2 * rows.element_size(), budget)


def _shares(q: Tensor, k: Tensor) -> Tensor:
    """A [h, d, d]."""
    return torch.softmax(q[:, :, None] * k[:, None, :], 2)


def _times(shares: Tensor, rows: Tensor) -> Tensor:
    """A x of [h, d, d] and [h, d]; as xᵀ Aᵀ it takes a seventh of the time."""
    return torch.bmm(rows[:, None], shares.transpose(1, 2))[:, 0]


def draw_kept(like: Tensor, dropout: float) -> tuple[Tensor, float]:
    """What dropout keeps, ones and zeros in uint8 of a tensor's shape, and what it then multiplies.

    An entry takes 16 random bits, so a share is a multiple of 2⁻¹⁶, and the factor its inverse;
    torch's own draw takes ten times as long. A share below 2⁻¹⁷ drops nothing.

    >>> draw_kept(torch.zeros(2), 1.0)
    (tensor([0, 0], dtype=torch.uint8), 0.0)
    """
    limit = round((1 - dropout) * 2**16)
    words = torch.empty(-(-like.numel() // 4), dtype=torch.int64, device=like.device)
    bits = words.random_(-(2**63), None).view(torch.int16)[: like.numel()].view(like.shape)
    kept = torch.empty_like(like, dtype=torch.uint8)
    if limit == 2**16:
        return kept.fill_(1), 1.0
    torch.lt(bits.bitwise_xor_(-(2**15)), limit - 2**15, out=kept)
    return kept, 2**16 / limit if limit else 0.0
