"""oneDNN's products, also with a prepacked weight, which torch offers only privately.

All uses of `torch.ops.mkldnn` are here, behind one probe: a build of torch that lacks these
operators, or whose results differ, makes the callers use torch's own products.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor


@functools.cache
def available(dtype: torch.dtype = torch.float32) -> bool:
    """Whether the operators exist for a type and give exactly what torch's own product gives."""
    left, right = (torch.arange(3.0 * n, dtype=dtype).view(n, 3) for n in (2, 4))
    bias = torch.ones(4, dtype=dtype)
    expected = left @ right.T + bias
    try:
        found = product(left, right, bias), product(left, pack(right, 2), bias)
    except (AttributeError, RuntimeError, NotImplementedError):
        return False
    return all(torch.equal(value, expected) for value in found)


def product(left: Tensor, right: Tensor, bias: Tensor | None = None) -> Tensor:
    """L Rᵀ + b of L [n, d] and R [m, d], as it is or from `pack`."""
    right = right if right.is_mkldnn else dense(right)
    return torch.ops.mkldnn._linear_pointwise(dense(left), right, bias, "none", [], "")


def pack(right: Tensor, rows: int) -> Tensor:
    """R in the memory layout that oneDNN uses for products with `rows` rows."""
    return torch.ops.mkldnn._reorder_linear_weight(dense(right), rows)


def dense(matrix: Tensor) -> Tensor:
    """Row- or column-major without gaps: with other strides oneDNN is thousands of times slower."""
    if matrix.is_contiguous() or matrix.T.is_contiguous():
        return matrix
    return matrix.contiguous()
