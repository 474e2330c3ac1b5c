"""Sparse operators, propagation and top-k against dense twins, on random shapes and values."""

import hypothesis.strategies as st
import numpy as np
import scipy.sparse as sp
import torch
from hypothesis import assume, given, settings
from hypothesis.extra import numpy as hnp

from alignrec_recbole.ops.propagation import layer_mean
from alignrec_recbole.ops.rows import row_blocks
from alignrec_recbole.ops.sparse import SparseOperator
from alignrec_recbole.ops.topk import top_k

FEW = settings(max_examples=25, deadline=None)
SIZES = st.integers(1, 9)
ENTRIES = st.sampled_from([0.0, 0.0, 0.0, 0.5, 1.0, -2.0])


@st.composite
def products(draw, square=False):
    """A matrix [n, m], a dense X [m, d] and rows of the matrix."""
    n, m, d = draw(SIZES), draw(SIZES), draw(st.integers(1, 3))
    matrix = draw(hnp.arrays(np.float64, (n, n if square else m), elements=ENTRIES))
    x = draw(hnp.arrays(np.float64, (matrix.shape[1], d), elements=st.floats(-3, 3)))
    rows = draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=5))
    return matrix, torch.from_numpy(x).requires_grad_(), torch.tensor(rows)


def assert_same(ours, twin, x):
    torch.testing.assert_close(ours, twin)
    weight = torch.linspace(-1, 2, ours.numel(), dtype=ours.dtype).view_as(ours)
    mine, other = (
        torch.autograd.grad((value * weight).sum(), x, retain_graph=True)[0]
        for value in (ours, twin)
    )
    torch.testing.assert_close(mine, other)


@FEW
@given(products())
def test_a_sparse_operator_is_the_dense_product(case):
    matrix, x, rows = case
    operator, dense = SparseOperator(sp.csr_matrix(matrix)), torch.from_numpy(matrix)
    assert_same(operator @ x, dense @ x, x)
    assert_same(operator.rows(rows, x), (dense @ x)[rows], x)


@FEW
@given(products(square=True), st.integers(0, 4), st.booleans())
def test_propagation_at_rows_is_a_part_of_the_dense_one(case, layers, whole):
    matrix, x, rows = case
    dense, total, layer = torch.from_numpy(matrix), x, x
    for _ in range(layers):
        layer = dense @ layer
        total = total + layer
    mean = total / (layers + 1)
    graph = SparseOperator(sp.csr_matrix(matrix))
    ours = layer_mean(graph, x, layers, None if whole else rows)
    assert_same(ours, mean if whole else mean[rows], x)


@FEW
@given(
    hnp.arrays(
        np.float32,
        st.tuples(st.integers(1, 4), st.integers(1, 60)),
        elements=st.sampled_from([0.0, 1.0, 1.0, 2.5, -3.0, np.inf, -np.inf, np.nan]),
    ),
    st.integers(1, 12),
    st.booleans(),
)
def test_top_k_has_the_values_of_torchs_with_ties_and_nan(table, k, across):
    assume(k <= table.shape[1])
    rows = torch.from_numpy(table)
    values, columns = top_k(rows.T.contiguous().T if across else rows, k)
    torch.testing.assert_close(values, rows.topk(k, dim=1).values, equal_nan=True)
    torch.testing.assert_close(rows.gather(1, columns), values, equal_nan=True)
    assert all(len(set(row)) == k for row in columns.tolist())  # no column twice


@given(st.integers(0, 50), st.integers(0, 20), st.integers(0, 100))
def test_row_blocks_cover_every_row_once_within_the_budget(rows, row_bytes, budget):
    blocks = list(row_blocks(rows, row_bytes, budget))
    assert [row for block in blocks for row in range(rows)[block]] == list(range(rows))
    for block in blocks:
        height = block.stop - block.start
        assert height == 1 or height * row_bytes <= budget
