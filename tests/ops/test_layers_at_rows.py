"""Rows of every layer of a propagation against whole layers."""

from __future__ import annotations

import pytest
import torch

from alignrec_recbole.ops import sparse
from alignrec_recbole.ops.propagation import layers_at_rows


@pytest.mark.parametrize("few", [True, False])
@pytest.mark.parametrize("layers", [0, 1, 3])
def test_layers_at_rows_and_their_gradient_are_those_of_whole_layers(layers, few, monkeypatch):
    monkeypatch.setattr(sparse.SparseOperator, "_are_most_edges", lambda self, rows: not few)
    generator = torch.Generator().manual_seed(layers)
    dense = torch.rand(12, 12, generator=generator, dtype=torch.float64)
    dense[dense < 0.6] = 0
    graph = sparse.SparseOperator(dense.numpy())  # not symmetric
    start = torch.randn(12, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    rows = torch.tensor([3, 0, 3, 11])
    whole = [start]
    for _ in range(layers):
        whole.append(dense @ whole[-1])
    expected = torch.stack([layer[rows] for layer in whole])
    ours = layers_at_rows(graph, start, layers, rows)
    torch.testing.assert_close(ours, expected)
    upstream = torch.randn(ours.shape, generator=generator, dtype=torch.float64)
    for value in (ours, expected):
        start.grad = None
        value.backward(upstream)
        if value is ours:
            found = start.grad
    torch.testing.assert_close(found, start.grad)
