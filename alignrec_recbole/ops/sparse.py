"""Constant sparse operators with an exact backward that costs one product."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from torch import Tensor

from alignrec_recbole.ops.rows import scatter_add_rows


class Csr(NamedTuple):
    """A sparse matrix in compressed sparse row form, as tensors.

    Attributes:
        columns: column of every entry [nnz], row after row.
        offsets: where each row begins, and the end [n + 1].
        values: the entries [nnz].
    """

    columns: Tensor
    offsets: Tensor
    values: Tensor

    @classmethod
    def from_scipy(cls, matrix: sp.csr_matrix) -> Csr:
        """Shares the memory of a scipy CSR matrix."""
        return cls(*map(torch.from_numpy, (matrix.indices, matrix.indptr, matrix.data)))

    def to_scipy(self, width: int) -> sp.csr_matrix:
        """A scipy CSR matrix [n, width] on the same memory."""
        columns, offsets, values = (part.numpy() for part in self)
        return sp.csr_matrix((values, columns, offsets), (len(offsets) - 1, width), copy=False)


def transposed(matrix: sp.csr_matrix) -> Csr:
    """Aᵀ of a scipy CSR matrix A."""
    return Csr.from_scipy(matrix.T.tocsr())


def spmm(matrix: Csr, dense: Tensor) -> Tensor:
    """A X, outside autograd.

    On CPU a weighted embedding bag is several times faster than torch's CSR or COO kernels
    (benchmarks/speed); on a GPU cuSPARSE's CSR kernel takes 40 % of its time.

    >>> spmm(Csr(torch.tensor([0, 1]), torch.tensor([0, 2]), torch.ones(2)), torch.ones(2, 1))
    tensor([[2.]])
    """
    if dense.is_cuda:
        return csr_tensor(matrix, len(dense)) @ dense.detach()
    return F.embedding_bag(
        matrix.columns,
        dense.detach(),
        matrix.offsets,
        mode="sum",
        per_sample_weights=matrix.values.detach(),
        include_last_offset=True,
    )


def csr_tensor(matrix: Csr, width: int) -> Tensor:
    """A [n, width] as torch's sparse tensor, unchecked and without a copy."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
        return torch.sparse_csr_tensor(
            matrix.offsets,
            matrix.columns,
            matrix.values,
            (len(matrix.offsets) - 1, width),
            check_invariants=False,
        )


class SparseOperator:
    """A constant sparse matrix A that multiplies dense matrices: `A @ X`, differentiable in X.

    Stores A, and from the first backward on Aᵀ, so that the backward (Aᵀ G) is one product; see
    `spmm` for the kernel. Deep copies share the matrix, which never changes.

    Args:
        matrix: scipy sparse matrix [n, m].
        symmetric: A equals Aᵀ; only one copy is stored.
    """

    def __init__(self, matrix: sp.spmatrix, *, symmetric: bool = False) -> None:
        csr = sp.csr_matrix(matrix)
        csr.sort_indices()
        self.shape = csr.shape
        self.csr = csr
        self._symmetric = symmetric
        self._on_device: dict[tuple[torch.device, torch.dtype, bool], Csr] = {}
        self._in_dtype: dict[torch.dtype, sp.csr_matrix] = {}

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
        return spmm(self._as(dense, transpose=False), dense)

    def backward_product(self, gradient: Tensor) -> Tensor:
        """Aᵀ G, outside autograd."""
        return spmm(self._as(gradient, transpose=True), gradient)

    def edges_of(self, rows: Tensor, dense: Tensor) -> Csr | None:
        """A[rows] in the type of X; None on a GPU."""
        if dense.device.type != "cpu":
            return None
        return Csr.from_scipy(self._scipy(dense.dtype)[rows.numpy()])

    def two_hop_subgraph(self, edges: Csr, dense: Tensor) -> TwoHop | None:
        """What (A A X)[rows] needs of A, or None if that is too much of A to save time.

        Args:
            edges: A[rows], from `edges_of`.
            dense: X, for its type.
        """
        matrix = self._scipy(dense.dtype)
        is_neighbour = np.zeros(self.shape[1], dtype=bool)
        is_neighbour[edges.columns.numpy()] = True
        if np.diff(matrix.indptr)[is_neighbour].sum() > MAX_TWO_HOP_FRACTION * matrix.nnz:
            return None
        nodes = np.flatnonzero(is_neighbour)
        position = np.empty(len(is_neighbour), dtype=matrix.indices.dtype)
        position[nodes] = np.arange(len(nodes))
        last = edges._replace(columns=torch.from_numpy(position[edges.columns.numpy()]))
        return TwoHop(torch.from_numpy(nodes), last.to_scipy(len(nodes)), matrix[nodes])

    def _as(self, dense: Tensor, *, transpose: bool) -> Csr:
        """A or Aᵀ with the device and type of X."""
        transpose = transpose and not self._symmetric
        key = (dense.device, dense.dtype, transpose)
        if key not in self._on_device:
            stored = transposed(self.csr) if transpose else Csr.from_scipy(self.csr)
            self._on_device[key] = Csr(
                stored.columns.to(dense.device),
                stored.offsets.to(dense.device),
                stored.values.to(dense.device, dense.dtype),
            )
        return self._on_device[key]

    def _scipy(self, dtype: torch.dtype) -> sp.csr_matrix:
        """A on CPU with values of a torch type; shares the memory of the operator's own copy."""
        if dtype not in self._in_dtype:
            stored = self._as(torch.empty(0, dtype=dtype), transpose=False)
            self._in_dtype[dtype] = stored.to_scipy(self.shape[1])
        return self._in_dtype[dtype]


MAX_TWO_HOP_FRACTION = 0.6  # of all edges; with more of them whole products are faster


class TwoHop(NamedTuple):
    """(A A X)[rows] = last (first X).

    Attributes:
        nodes: the neighbours T of the rows, ascending.
        last: A[rows, T], scipy CSR.
        first: A[T], scipy CSR.
    """

    nodes: Tensor
    last: sp.csr_matrix
    first: sp.csr_matrix


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, dense: Tensor, operator: SparseOperator, rows: Tensor | None) -> Tensor:
        ctx.operator, ctx.rows = operator, rows
        ctx.edges = operator.edges_of(rows, dense) if rows is not None else None
        if ctx.edges is not None:
            return spmm(ctx.edges, dense)
        out = operator.forward_product(dense)
        return out if rows is None else out.index_select(0, rows)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        gradient, (height, width) = gradient.contiguous(), ctx.operator.shape
        if ctx.edges is not None:
            return spmm(transposed(ctx.edges.to_scipy(width)), gradient), None, None
        if ctx.rows is not None:
            gradient = scatter_add_rows(gradient, ctx.rows, height)
        return ctx.operator.backward_product(gradient), None, None
