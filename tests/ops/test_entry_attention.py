"""Attention among entries against torch's own of width 1, by value and gradient."""

from __future__ import annotations

from unittest import mock

import pytest
import torch

from alignrec_recbole.ops import entry_attention as module
from alignrec_recbole.ops.entry_attention import draw_kept, entry_attention


def rows():
    generator = torch.Generator().manual_seed(2)
    return [
        torch.randn(9, 6, generator=generator, dtype=torch.float64).requires_grad_()
        for _ in range(3)
    ]


def plain(q, k, v, kept):
    shares = torch.softmax(q[:, :, None] * k[:, None, :], 2) * kept
    return (shares * v[:, None, :]).sum(2)


@pytest.mark.parametrize("share", [0.0, 0.25])
@pytest.mark.parametrize("block_bytes", [1, 1000, 1 << 20])
def test_value_and_gradients_are_those_of_the_definition(share, block_bytes, monkeypatch):
    monkeypatch.setattr(module, "BLOCK_BYTES", block_bytes)
    keep = (torch.arange(6) % 4 > 0) if share else torch.ones(6, dtype=torch.bool)
    kept = keep / (1 - share)
    given = rows()
    drawn = lambda like, p: (keep.to(torch.uint8).expand(like.shape), 1 / (1 - p))  # noqa: E731
    with mock.patch.object(module, "draw_kept", drawn):
        out = entry_attention(*given, share)
    weight = torch.arange(54, dtype=torch.float64).view(9, 6).sin()
    want = plain(*given, kept)
    torch.testing.assert_close(out, want)
    torch.testing.assert_close(
        torch.autograd.grad((out * weight).sum(), given),
        torch.autograd.grad((want * weight).sum(), given),
    )


def test_it_is_torchs_attention_of_one_head_and_width_one():
    layer = torch.nn.MultiheadAttention(1, 1, batch_first=True).double()
    with torch.no_grad():
        layer.in_proj_weight.fill_(1.0)
        layer.out_proj.weight.fill_(1.0)
    q, k, v = rows()
    theirs = layer(q[:, :, None], k[:, :, None], v[:, :, None], need_weights=False)[0][:, :, 0]
    torch.testing.assert_close(entry_attention(q, k, v), theirs)


@pytest.mark.parametrize("share", [0.1, 0.4, 0.99])
def test_what_is_kept_is_drawn_apart_for_each_entry(share):
    torch.manual_seed(1)
    kept, scale = draw_kept(torch.empty(50, 101, 43), share)
    assert kept.double().mean() == pytest.approx(1 - share, abs=0.005)
    assert scale == pytest.approx(1 / (1 - share), rel=1e-3)
    flat = kept.ravel().double() - kept.double().mean()
    for distance in (1, 2, 3, 4, 5, 43):  # four entries are of one word
        product = (flat[distance:] * flat[:-distance]).mean() / flat.var()
        assert abs(product) < 0.01
    assert not torch.equal(kept, draw_kept(torch.empty(50, 101, 43), share)[0])


def test_dropout_keeps_the_mean_and_drops_its_share():
    q = k = torch.zeros(4000, 5)  # equal shares of 1 / 5
    torch.manual_seed(0)
    out = entry_attention(q, k, torch.ones(4000, 5), 0.6)
    assert out.mean() == pytest.approx(1.0, abs=0.02)
    found = (out * 5 * 0.4).round().to(torch.int64)  # how many of 5 were kept
    share = torch.bincount(found.ravel(), minlength=6) / found.numel()
    assert share[0] == pytest.approx(0.6**5, abs=0.01)
    assert share[5] == pytest.approx(0.4**5, abs=0.005)


def test_with_everything_dropped_nothing_is_left_and_nothing_is_learnt():
    given = rows()
    out = entry_attention(*given, 1.0)
    assert not out.any()
    for gradient in torch.autograd.grad(out.sum(), given):
        assert not gradient.any()


@pytest.mark.parametrize("share", [2.0**-18, 1e-12])
def test_a_share_that_is_too_small_for_the_bits_drops_nothing(share):
    kept, scale = draw_kept(torch.empty(50, 101), share)
    assert kept.all()
    assert scale == 1.0
