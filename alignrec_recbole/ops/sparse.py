"""Constant sparse operators with an exact, cheap backward."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from torch import Tensor

from alignrec_recbole.ops.rows import scatter_add_rows


class SparseOperator:
    """A constant sparse matrix A that multiplies dense matrices: `A @ X`, differentiable in X.

    Keeps A, and from the first backward Aᵀ, in CSR form, so the backward (Aᵀ G) is one product and
    rebuilds nothing; see `bag` for the kernel. Deep copies share the matrix: it never changes.

    Args:
        matrix: scipy sparse matrix [n, m].
        symmetric: A equals Aᵀ; only one copy is kept.
    """

    def __init__(self, matrix: sp.spmatrix, *, symmetric: bool = False) -> None:
        csr = sp.csr_matrix(matrix)
        csr.sort_indices()
        self.shape = csr.shape
        self.csr = csr
        self._symmetric = symmetric
        self._cache: dict[tuple, tuple] = {}
        self._typed: dict[torch.dtype, Any] = {}

    def __deepcopy__(self, memo: dict) -> SparseOperator:
        return self

    def __matmul__(self, dense: Tensor) -> Tensor:
        return _Product.apply(dense, self, None)

    def rows(self, rows: Tensor, dense: Tensor) -> Tensor:
        """(A X)[rows], on CPU touching only these rows' edges, in the backward too.

        On a GPU, where their number is unknown without waiting, the whole product is formed.
        """
        return _Product.apply(dense, self, rows)

    def forward_product(self, dense: Tensor) -> Tensor:
        """A X, outside autograd."""
        return bag(*self._on(dense, transposed=False), dense.detach())

    def backward_product(self, gradient: Tensor) -> Tensor:
        """Aᵀ G."""
        return bag(*self._on(gradient, transposed=True), gradient.detach())

    def _on(self, dense: Tensor, *, transposed: bool) -> tuple[Tensor, Tensor, Tensor]:
        transposed = transposed and not self._symmetric
        key = (dense.device, dense.dtype, transposed)
        if key not in self._cache:
            index, offsets, weights = _arrays(self.csr.T.tocsr() if transposed else self.csr)
            self._cache[key] = (
                index.to(dense.device),
                offsets.to(dense.device),
                weights.to(dense.device, dense.dtype),
            )
        return self._cache[key]

    def _edges_of(self, rows: Tensor, dense: Tensor) -> tuple[Tensor, Tensor, Tensor] | None:
        """Index, offsets and weights of A[rows], on CPU."""
        if dense.device.type != "cpu":
            return None
        return _arrays(self._scipy(dense.dtype)[rows.numpy()])

    def _scipy(self, dtype: torch.dtype) -> sp.csr_matrix:
        """A with weights of a type of torch's, on CPU; shares their memory."""
        if dtype not in self._typed:
            weights = self._on(torch.empty(0, dtype=dtype), transposed=False)[2]
            parts = weights.numpy(), self.csr.indices, self.csr.indptr
            self._typed[dtype] = sp.csr_matrix(parts, shape=self.shape, copy=False)
        return self._typed[dtype]

    def near(self, edges: tuple[Tensor, Tensor, Tensor], dense: Tensor) -> _TwoHop | None:
        """The part of A² that rows of A A X need, if it is small enough to pay.

        Args:
            edges: of the rows, as `_edges_of` gives them.
            dense: X.
        """
        matrix, (index, offsets, weights) = self._scipy(dense.dtype), edges
        reached = np.zeros(self.shape[1], dtype=bool)
        reached[index.numpy()] = True
        if np.diff(matrix.indptr)[reached].sum() > MAX_TWO_HOP_FRACTION * matrix.nnz:
            return None
        nodes = np.flatnonzero(reached)
        place = np.empty(len(reached), dtype=matrix.indices.dtype)
        place[nodes] = np.arange(len(nodes))
        arrays = weights.numpy(), place[index.numpy()], offsets.numpy()
        last = sp.csr_matrix(arrays, shape=(len(offsets) - 1, len(nodes)), copy=False)
        return _TwoHop(torch.from_numpy(nodes), last, matrix[nodes])


MAX_TWO_HOP_FRACTION = 0.6  # of all edges; with more of them whole products are faster


class _TwoHop(NamedTuple):
    """(A A X)[rows] = last (before X).

    Attributes:
        nodes: the nodes T that the rows' edges lead to, ascending.
        last: A[rows] with columns T.
        before: A[T].
    """

    nodes: Tensor
    last: sp.csr_matrix
    before: sp.csr_matrix


def _arrays(csr: sp.csr_matrix) -> tuple[Tensor, Tensor, Tensor]:
    index, offsets, weights = map(torch.from_numpy, (csr.indices, csr.indptr, csr.data))
    return index, offsets, weights


def _as_csr(edges: tuple[Tensor, Tensor, Tensor], columns: int) -> sp.csr_matrix:
    """The rows that these arrays make, without a copy."""
    index, offsets, weights = (part.numpy() for part in edges)
    return sp.csr_matrix((weights, index, offsets), (len(offsets) - 1, columns), copy=False)


def _turned(csr: sp.csr_matrix) -> tuple[Tensor, Tensor, Tensor]:
    return _arrays(csr.T.tocsr())


def bag(index: Tensor, offsets: Tensor, weights: Tensor, dense: Tensor) -> Tensor:
    """A X of a matrix in CSR arrays, outside autograd.

    On CPU a weighted embedding bag is several times faster than torch's CSR or COO kernels
    (benchmarks/speed); on a GPU cuSPARSE's CSR kernel takes 40 % of its time.

    >>> bag(torch.tensor([0, 1]), torch.tensor([0, 2]), torch.ones(2), torch.ones(2, 1))
    tensor([[2.]])
    """
    if dense.is_cuda:
        return csr_tensor(index, offsets, weights, len(dense)) @ dense
    return F.embedding_bag(
        index,
        dense,
        offsets,
        mode="sum",
        per_sample_weights=weights,
        include_last_offset=True,
    )


def csr_tensor(index: Tensor, offsets: Tensor, weights: Tensor, columns: int) -> Tensor:
    """A matrix in CSR arrays as torch's sparse tensor, unchecked and without a copy."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
        size = len(offsets) - 1, columns
        return torch.sparse_csr_tensor(offsets, index, weights, size, check_invariants=False)


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, dense: Tensor, operator: SparseOperator, rows: Tensor | None) -> Tensor:
        ctx.operator, ctx.rows, low = operator, rows, dense.detach()
        ctx.edges = edges = operator._edges_of(rows, low) if rows is not None else None
        if edges is not None:
            return bag(*edges, low)
        out = operator.forward_product(low)
        return out if rows is None else out.index_select(0, rows)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        gradient, shape = gradient.contiguous(), ctx.operator.shape
        if ctx.edges is not None:
            return bag(*_turned(_as_csr(ctx.edges, shape[1])), gradient), None, None
        if ctx.rows is not None:
            gradient = scatter_add_rows(gradient, ctx.rows, shape[0])
        return ctx.operator.backward_product(gradient), None, None
