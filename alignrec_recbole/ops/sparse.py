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
        self._row_sizes = np.diff(csr.indptr)
        self._on_device: dict[tuple[torch.device, torch.dtype, bool], Csr] = {}
        self._in_dtype: dict[torch.dtype, sp.csr_matrix] = {}

    def __deepcopy__(self, memo: dict) -> SparseOperator:
        return self

    def __matmul__(self, dense: Tensor) -> Tensor:
        return _Product.apply(dense, self, None)

    def rows(self, rows: Tensor, dense: Tensor) -> Tensor:
        """(A X)[rows], by the rows' edges alone where these are few; see `row_edges`."""
        return _Product.apply(dense, self, rows)

    def forward_product(self, dense: Tensor) -> Tensor:
        """A X, outside autograd."""
        return spmm(self._as(dense, transpose=False), dense)

    def backward_product(self, gradient: Tensor) -> Tensor:
        """Aᵀ G, outside autograd."""
        return spmm(self._as(gradient, transpose=True), gradient)

    def row_edges(self, rows: Tensor, dense: Tensor) -> RowEdges | None:
        """The rows without repetition and their edges, or None if the whole product is faster.

        It is where their edges are most of A's, as in a small, dense graph, and on a GPU, where the
        number of distinct rows is unknown without waiting.

        Args:
            rows: indices [b]; repeated rows are computed once.
            dense: X, for its device and type.
        """
        if dense.device.type != "cpu":
            return None
        batch = rows.numpy()
        is_used = np.zeros(self.shape[0], dtype=bool)
        is_used[batch] = True
        distinct = np.flatnonzero(is_used)
        if self._are_most_edges(distinct):
            return None
        position = np.empty(self.shape[0], dtype=np.int64)
        position[distinct] = np.arange(len(distinct))
        return RowEdges(
            torch.from_numpy(distinct),
            torch.from_numpy(position[batch]),
            Csr.from_scipy(self._scipy(dense.dtype)[distinct]),
        )

    def two_hop_subgraph(self, edges: Csr, dense: Tensor) -> TwoHop | None:
        """What (A A X)[rows] needs of A, or None if that is too much of A to save time.

        Args:
            edges: A[rows], from `row_edges`.
            dense: X, for its type.
        """
        matrix = self._scipy(dense.dtype)
        is_neighbour = np.zeros(self.shape[1], dtype=bool)
        is_neighbour[edges.columns.numpy()] = True
        nodes = np.flatnonzero(is_neighbour)
        if self._are_most_edges(nodes):
            return None
        position = np.empty(len(is_neighbour), dtype=matrix.indices.dtype)
        position[nodes] = np.arange(len(nodes))
        last = edges._replace(columns=torch.from_numpy(position[edges.columns.numpy()]))
        return TwoHop(torch.from_numpy(nodes), last.to_scipy(len(nodes)), matrix[nodes])

    def _are_most_edges(self, rows: np.ndarray) -> bool:
        """Whether distinct rows have too many of A's edges for a product over them to pay."""
        return self._row_sizes[rows].sum(dtype=np.int64) > MAX_EDGE_FRACTION * self.csr.nnz

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


MAX_EDGE_FRACTION = 0.6  # of all edges; with more of them whole products are faster


class RowEdges(NamedTuple):
    """The rows of a batch, each once, and their part of A.

    Attributes:
        rows: the distinct rows [m], ascending.
        position: where each row of the batch is among them [b].
        edges: A[rows].
    """

    rows: Tensor
    position: Tensor
    edges: Csr


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
        ctx.part = operator.row_edges(rows, dense) if rows is not None else None
        if ctx.part is not None:
            return spmm(ctx.part.edges, dense).index_select(0, ctx.part.position)
        out = operator.forward_product(dense)
        return out if rows is None else out.index_select(0, rows)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        gradient, (height, width) = gradient.contiguous(), ctx.operator.shape
        if ctx.part is not None:
            own = scatter_add_rows(gradient, ctx.part.position, len(ctx.part.rows))
            return spmm(transposed(ctx.part.edges.to_scipy(width)), own), None, None
        if ctx.rows is not None:
            gradient = scatter_add_rows(gradient, ctx.rows, height)
        return ctx.operator.backward_product(gradient), None, None
