"""Squares of whole parameters, in tables whose gradients are collected and in others."""

from __future__ import annotations

import pytest
import torch

from alignrec_recbole.ops import squares
from alignrec_recbole.ops.linear import linear
from alignrec_recbole.ops.optimizers import FactoredAdam


@pytest.mark.parametrize("block", [4, 64, 1 << 20])
def test_value_and_gradient_are_those_of_the_formula(block, monkeypatch):
    monkeypatch.setattr(squares, "BLOCK_BYTES", block)
    generator = torch.Generator().manual_seed(0)
    given = [torch.randn(7, 5, generator=generator).requires_grad_() for _ in range(2)]
    given.append(torch.tensor(0.5, requires_grad=True))
    total = squares.sum_of_squares(*given)
    torch.testing.assert_close(total, torch.stack([one.square().sum() for one in given]).sum())
    for one, gradient in zip(given, torch.autograd.grad(3 * total, given), strict=True):
        torch.testing.assert_close(gradient, 6 * one)


def test_a_collected_table_moves_as_with_a_gradient_that_is_formed(monkeypatch):
    """Three steps with squares and a product, in tiles; and one with squares alone."""
    monkeypatch.setattr(FactoredAdam, "MIN_TABLE_BYTES", 0)
    monkeypatch.setattr(FactoredAdam, "TILE_BYTES", 64)
    generator = torch.Generator().manual_seed(1)
    start, weight = torch.randn(9, 6, generator=generator), torch.randn(2, 6, generator=generator)
    ours, plain = (torch.nn.Parameter(start.clone()) for _ in range(2))
    for table, optimizer in (
        (ours, FactoredAdam([ours], lr=0.1)),
        (plain, torch.optim.Adam([plain], lr=0.1)),
    ):
        for product in (1.0, 1.0, 1.0, 0.0):
            optimizer.zero_grad()
            loss = 0.3 * squares.sum_of_squares(table)
            if product:
                loss = loss + linear(table, weight).sin().sum()
            loss.backward()
            assert (table.grad is None) == (table is ours)
            optimizer.step()
    torch.testing.assert_close(ours, plain)
