"""The one operation in which the streams of tokens meet."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from alignrec_recbole.runtime import hardware


def joint_attention(
    streams: Sequence[Tensor], attend: Tensor | None = None, first: bool = False
) -> list[Tensor]:
    """softmax(q kᵀ / √d) v over the tokens of all streams.

    torch's own operation, except in bfloat16 on processors that multiply it but have no matrix
    units: there its products take twice as long as batched ones, so outside autograd the items go
    through those in turn, each within the cache. They round scores to bfloat16.

    Args:
        streams: q, k and v of each stream's tokens [B, n, 3, h, d].
        attend: bool [B, 1, 1, Σ n], True where a key may be attended to.
        first: only the first token of each stream asks.

    Returns:
        For each stream [B·n, h·d], or [B, h·d] of its first tokens.

    >>> image, text = torch.ones(1, 3, 3, 1, 2), torch.ones(1, 1, 3, 1, 2)
    >>> [tuple(rows.shape) for rows in joint_attention([image, text])]
    [(3, 2), (1, 2)]
    """
    asking, shares = queries([x.shape[1] for x in streams], first)
    learns = torch.is_grad_enabled() and any(x.requires_grad for x in streams)
    if learns or streams[0].dtype != torch.bfloat16 or not _batched_is_faster(streams[0].device):
        return _fused(streams, attend, asking, shares)
    return _item_by_item(streams, attend, asking, shares)


def queries(lengths: list[int], first: bool) -> tuple[list[int] | None, list[int]]:
    """Which of the joined tokens ask (None: all), and how many of each stream do.

    >>> queries([197, 40], first=True)
    ([0, 197], [1, 1])
    """
    if not first:
        return None, lengths
    return [sum(lengths[:i]) for i in range(len(lengths))], [1] * len(lengths)


@functools.cache
def _batched_is_faster(device: torch.device) -> bool:
    return device.type == "cpu" and hardware.has_bfloat16("cpu") and not hardware.has_amx_bf16()


def _fused(
    streams: Sequence[Tensor], attend: Tensor | None, asking: list[int] | None, shares: list[int]
) -> list[Tensor]:
    joined = torch.cat(list(streams), 1) if len(streams) > 1 else streams[0]
    q, k, v = joined.permute(2, 0, 3, 1, 4)
    if asking is not None:
        q = q[:, :, asking]
    rows = F.scaled_dot_product_attention(q, k, v, attn_mask=attend)  # [B, h, N, d]
    return [part.flatten(2).flatten(0, 1) for part in rows.transpose(1, 2).split(shares, 1)]


def _item_by_item(
    streams: Sequence[Tensor], attend: Tensor | None, asking: list[int] | None, shares: list[int]
) -> list[Tensor]:
    items, _, _, heads, width = streams[0].shape
    lengths = [x.shape[1] for x in streams]
    n = sum(lengths)
    like = streams[0]
    qkv = like.new_empty(3, heads, n, width)
    scores = like.new_empty(heads, sum(shares), n)
    bias = like.new_zeros(items, 1, n)
    if attend is not None:
        bias.masked_fill_(~attend[:, 0], -torch.inf)
    out = [like.new_empty(items, share, heads, width) for share in shares]
    for item in range(items):
        for x, room in zip(streams, qkv.split(lengths, 2), strict=True):
            room.copy_(x[item].permute(1, 2, 0, 3))
        q, k, v = qkv
        if asking is not None:
            q = q[:, asking]
        torch.baddbmm(
            bias[item : item + 1], q, k.mT, beta=int(attend is not None), alpha=width**-0.5,
            out=scores,
        )  # fmt: skip
        rows = torch.bmm(torch.softmax(scores, -1, out=scores), v)  # [h, N, d]
        for part, room in zip(rows.split(shares, 1), out, strict=True):
            room[item].copy_(part.transpose(0, 1))
    return [part.flatten(2).flatten(0, 1) for part in out]
