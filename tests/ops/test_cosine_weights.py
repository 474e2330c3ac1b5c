"""Rows weighted by a cosine against torch's own cosine, by value and gradient."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from alignrec_recbole.ops import cosine_weights as module
from alignrec_recbole.ops.cosine_weights import weighted_by_cosine


def given() -> tuple[torch.Tensor, torch.Tensor]:
    """Rows and what unit rows are made of; a row of each is zero."""
    generator = torch.Generator().manual_seed(3)
    rows, other = (torch.randn(7, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    rows[2], other[4] = 0, 0
    return rows.requires_grad_(), other.requires_grad_()


@pytest.mark.parametrize("block_bytes", [1, 90, 1 << 20])
def test_value_and_gradients_are_those_of_the_cosine(
    block_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BLOCK_BYTES", block_bytes)
    rows, other = given()
    unit = F.normalize(other, dim=1)
    out = weighted_by_cosine(rows, unit)
    want = F.cosine_similarity(rows, unit, dim=1)[:, None] * rows
    torch.testing.assert_close(out, want)
    assert not out[[2, 4]].any()
    weight = torch.arange(35, dtype=torch.float64).view(7, 5).sin()
    kept = [0, 1, 3, 5, 6]  # torch's gradient of a cosine with a zero row is another convention
    for ours, theirs in zip(
        torch.autograd.grad((out * weight).sum(), (rows, other), retain_graph=True),
        torch.autograd.grad((want * weight).sum(), (rows, other)),
        strict=True,
    ):
        torch.testing.assert_close(ours[kept], theirs[kept])
        assert ours.isfinite().all()


def test_unit_rows_may_be_constants() -> None:
    rows, other = given()
    unit = F.normalize(other.detach()[3:], dim=1)
    some = rows.detach()[3:].requires_grad_()
    assert torch.autograd.gradcheck(lambda n: weighted_by_cosine(n, unit), (some,))
