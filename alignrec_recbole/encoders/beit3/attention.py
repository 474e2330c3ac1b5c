"""Attention over the joined streams of tokens."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from alignrec_recbole.runtime import hardware


def joint_attention(
    streams: Sequence[Tensor], attention_mask: Tensor | None = None, cls_only: bool = False
) -> list[Tensor]:
    """softmax(q kᵀ / √d) v over the tokens of all streams.

    This is torch's own operation, except in bfloat16 on processors that multiply it but have no
    matrix units: there its products take twice as long as batched ones, so that without autograd
    the items are computed one after the other, each within the cache, with scores rounded to
    bfloat16.

    Args:
        streams: q, k and v of each stream's tokens [B, n, 3, h, d].
        attention_mask: bool [B, 1, 1, Σ n], True where a key may be attended to.
        cls_only: only the first token of each stream is a query.

    Returns:
        For each stream [B·n, h·d], or [B, h·d] of its first tokens.

    >>> image, text = torch.ones(1, 3, 3, 1, 2), torch.ones(1, 1, 3, 1, 2)
    >>> [tuple(rows.shape) for rows in joint_attention([image, text])]
    [(3, 2), (1, 2)]
    """
    query_index, query_counts = queries([x.shape[1] for x in streams], cls_only)
    learns = torch.is_grad_enabled() and any(x.requires_grad for x in streams)
    if learns or streams[0].dtype != torch.bfloat16 or not _batched_is_faster(streams[0].device):
        return _fused(streams, attention_mask, query_index, query_counts)
    return _item_by_item(streams, attention_mask, query_index, query_counts)


def queries(lengths: list[int], cls_only: bool) -> tuple[list[int] | None, list[int]]:
    """Which of the joined tokens are queries (None: all), and how many per stream.

    >>> queries([197, 40], cls_only=True)
    ([0, 197], [1, 1])
    """
    if not cls_only:
        return None, lengths
    return [sum(lengths[:i]) for i in range(len(lengths))], [1] * len(lengths)


@functools.cache
def _batched_is_faster(device: torch.device) -> bool:
    return device.type == "cpu" and hardware.has_bfloat16("cpu") and not hardware.has_amx_bf16()


def _fused(
    streams: Sequence[Tensor],
    attention_mask: Tensor | None,
    query_index: list[int] | None,
    query_counts: list[int],
) -> list[Tensor]:
    joined = torch.cat(list(streams), 1) if len(streams) > 1 else streams[0]
    q, k, v = joined.permute(2, 0, 3, 1, 4)
    if query_index is not None:
        q = q[:, :, query_index]
    rows = F.scaled_dot_product_attention(q, k, v, attn_mask=attention_mask)  # [B, h, N, d]
    return [part.flatten(2).flatten(0, 1) for part in rows.transpose(1, 2).split(query_counts, 1)]


def _item_by_item(
    streams: Sequence[Tensor],
    attention_mask: Tensor | None,
    query_index: list[int] | None,
    query_counts: list[int],
) -> list[Tensor]:
    items, _, _, heads, width = streams[0].shape
    lengths = [x.shape[1] for x in streams]
    n = sum(lengths)
    like = streams[0]
    qkv = like.new_empty(3, heads, n, width)
    scores = like.new_empty(heads, sum(query_counts), n)
    bias = like.new_zeros(items, 1, n)
    if attention_mask is not None:
        bias.masked_fill_(~attention_mask[:, 0], -torch.inf)
    out = [like.new_empty(items, count, heads, width) for count in query_counts]
    for item in range(items):
        for x, out_rows in zip(streams, qkv.split(lengths, 2), strict=True):
            out_rows.copy_(x[item].permute(1, 2, 0, 3))
        q, k, v = qkv
        if query_index is not None:
            q = q[:, query_index]
        torch.baddbmm(
            bias[item : item + 1], q, k.mT, beta=int(attention_mask is not None), alpha=width**-0.5,
            out=scores,
        )  # fmt: skip
        rows = torch.bmm(torch.softmax(scores, -1, out=scores), v)  # [h, N, d]
        for part, out_rows in zip(rows.split(query_counts, 1), out, strict=True):
            out_rows[item].copy_(part.transpose(0, 1))
    return [part.flatten(2).flatten(0, 1) for part in out]
