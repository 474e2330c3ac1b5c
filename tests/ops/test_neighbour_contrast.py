"""DA-MRS's contrast against its textbook form on whole matrices."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from alignrec_recbole.ops import neighbour_contrast as ops

LABELS, TEMPERATURE, N, ROWS = 3, 0.2, 40, torch.tensor([4, 0, 17, 39, 8])


def tables(views: int, n: int = N) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(views)
    drawn = torch.randn(views, n, 6, generator=generator, dtype=torch.float64)
    return [F.normalize(one, dim=1).requires_grad_() for one in drawn]


def textbook(views: list[torch.Tensor], rows: torch.Tensor) -> torch.Tensor:
    cosines = [view[rows] @ view.T for view in views]
    likely = torch.stack([torch.softmax(cosine, 1) for cosine in cosines])
    total = []
    for one, cosine in zip(likely, cosines, strict=True):
        joint = torch.zeros_like(one, dtype=torch.bool)
        joint.scatter_(1, (likely.sum(0) + one).topk(LABELS, 1).indices, True)
        own = torch.zeros_like(joint)
        own.scatter_(1, one.masked_fill(joint, -1.0).topk(LABELS, 1).indices, True)
        share = torch.exp(cosine / TEMPERATURE)
        a, b, t = (share * joint).sum(1), (share * own).sum(1), share.sum(1)
        total.append(-torch.log(a / t + 1e-9) - torch.log(b / (t - a) + 1e-9))
    return torch.stack(total).mean()


@pytest.mark.parametrize("views", [2, 3, 5])
@pytest.mark.parametrize("budget", [1, 1 << 20])
def test_loss_and_gradients_equal_the_textbook(views, budget, monkeypatch):
    monkeypatch.setattr(ops, "BLOCK_BYTES", budget)
    given = tables(views)
    ours = ops.neighbour_contrast(given, ROWS, LABELS, TEMPERATURE)
    expected = textbook(given, ROWS)
    torch.testing.assert_close(ours, expected)
    for mine, theirs in zip(
        torch.autograd.grad(2 * ours, given), torch.autograd.grad(2 * expected, given), strict=True
    ):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("n", [1, 2, LABELS, LABELS + 1])
def test_fewer_items_than_labels_give_a_finite_loss(n):
    given = tables(2, n)
    loss = ops.neighbour_contrast(given, torch.arange(n), LABELS, TEMPERATURE)
    gradients = torch.autograd.grad(loss, given)
    assert torch.isfinite(loss)
    assert all(torch.isfinite(one).all() for one in gradients)


@pytest.mark.parametrize("temperature", [0.02, 0.03, 0.1])
def test_float32_is_right_down_to_the_lowest_temperature(temperature):
    """At 0.02 sums of exp(1 / 0.02) are near 1e22, and nearly all of them is the row itself."""
    whole = tables(2, 200)
    half = [one.detach().float().requires_grad_() for one in whole]
    loss = {}
    for name, given in (("float64", whole), ("float32", half)):
        made = ops.neighbour_contrast(given, torch.arange(50), LABELS, temperature)
        loss[name] = made.double().detach(), torch.autograd.grad(made, given)
    torch.testing.assert_close(loss["float32"][0], loss["float64"][0], rtol=1e-4, atol=0)
    for mine, theirs in zip(loss["float32"][1], loss["float64"][1], strict=True):
        assert (mine - theirs).norm() <= 1e-3 * theirs.norm()
