"""Dense products by the fastest library that torch carries."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    pass


_training: torch.dtype | None = None  # of large products; None: as their factors are


@contextlib.contextmanager
def precision(dtype: torch.dtype | None) -> Iterator[None]:
    """Large products of the losses and layers built inside use this type; None: their factors'.

    Factors are rounded to it, results come back in the factors' type; sums, norms, graphs,
    parameters and the optimizer keep theirs. Ranking is never inside.
    """
    global _training
    before, _training = _training, dtype
    try:
        yield
    finally:
        _training = before


def product_dtype(tensor: Tensor) -> torch.dtype:
    """The type that a large product with `tensor` is to be computed in now.

    >>> with precision(torch.bfloat16):
    ...     product_dtype(torch.ones(1)), product_dtype(torch.ones(1, dtype=torch.float64))
    (torch.bfloat16, torch.float64)
    """
    return _training if _training is not None and tensor.dtype == torch.float32 else tensor.dtype


def matmul_nt(
    left: Tensor, right: Tensor, bias: Tensor | None = None, room: Tensor | None = None
) -> Tensor:
    """L Rᵀ (+ b) of [n, d] and [m, d], outside autograd.

    On CPU in float32 oneDNN is asked directly where torch has it: torch itself asks MKL, which on
    processors that are not Intel's takes up to twice as long for rows by rows (benchmarks/speed).

    Args:
        room: [n, m], which may take the result; large blocks that are asked for and freed in turn
            leave holes in glibc's heap.

    >>> matmul_nt(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 4.0]]))
    tensor([[11.]])
    """
    if left.device.type == "cpu" and left.dtype == right.dtype == torch.float32 and _onednn():
        if not _prefer_mkl(left, right):
            return _pointwise(left, _dense(right), bias)
        if bias is None and not left.is_contiguous() and len(left) < len(right):
            return (right @ left.T).T  # the larger factor first
    if room is None or bias is not None:
        return F.linear(left, right, bias)
    return torch.mm(left, right.T, out=room)


_LARGE = 1 << 24  # multiplications from which the choice of library shows


def _prefer_mkl(left: Tensor, right: Tensor) -> bool:
    """Whether MKL is faster than oneDNN: large factors not in rows, on processors without AVX-512.

    oneDNN takes up to half as long again there (benchmarks/speed).
    """
    in_rows = left.is_contiguous() and right.is_contiguous()
    return left.numel() * len(right) >= _LARGE and not in_rows and column_major_is_fast(left.dtype)


def column_major_is_fast(dtype: torch.dtype) -> bool:
    """Whether large products of this type take factors that lie across as fast as copies in rows.

    So do products in bfloat16, and MKL's where it is taken (benchmarks/speed).
    """
    return dtype == torch.bfloat16 or torch.backends.cpu.get_cpu_capability() == "AVX2"


def _dense(matrix: Tensor) -> Tensor:
    """Row- or column-major without gaps: with other strides oneDNN is thousands of times slower."""
    if matrix.is_contiguous() or matrix.T.is_contiguous():
        return matrix
    return matrix.contiguous()


def _pointwise(left: Tensor, right: Tensor, bias: Tensor | None = None) -> Tensor:
    """oneDNN's L Rᵀ + b; R is dense, or `_packed`."""
    return torch.ops.mkldnn._linear_pointwise(_dense(left), right, bias, "none", [], "")


def _packed(right: Tensor, rows: int) -> Tensor:
    """R as oneDNN lays it out for products with `rows` rows."""
    return torch.ops.mkldnn._reorder_linear_weight(_dense(right), rows)


def _gives_torchs(
    product: Callable[[Tensor, Tensor, Tensor], Tensor], dtype: torch.dtype = torch.float32
) -> bool:
    """Whether a way to L Rᵀ + b is there and gives what torch gives."""
    left, right = (torch.arange(3.0 * n, dtype=dtype).view(n, 3) for n in (2, 4))
    bias = torch.ones(4, dtype=dtype)
    try:
        return bool(torch.equal(product(left, right, bias), left @ right.T + bias))
    except (AttributeError, RuntimeError, NotImplementedError):
        return False


@functools.cache
def _onednn() -> bool:
    return _gives_torchs(_pointwise)


@functools.cache
def _packs(dtype: torch.dtype = torch.float32) -> bool:
    return _gives_torchs(lambda left, right, bias: _pointwise(left, _packed(right, 2), bias), dtype)


_ROWS = 2048  # small enough to be converted in the cache


class PrepackedMatrix:
    """R [m, d] that many products L Rᵀ have in common; oneDNN lays it out once, not in each.

    Full ranking asks for a hundred of them; each takes a quarter less. Outside autograd.

    >>> items = torch.tensor([[3.0, 4.0]])
    >>> PrepackedMatrix().products(torch.tensor([[1.0, 2.0]]), items)
    tensor([[11.]])
    """

    def __init__(self) -> None:
        self._kept: tuple[Tensor, Tensor] | None = None

    def __deepcopy__(self, memo: dict) -> PrepackedMatrix:
        return PrepackedMatrix()

    def products(self, left: Tensor, right: Tensor) -> Tensor:
        """`matmul_nt` of [n, d] with R, the same tensor from call to call."""
        plain = left.device.type != "cpu" or not left.dtype == right.dtype == torch.float32
        if plain or not _packs():
            return matmul_nt(left, right)
        if self._kept is None or self._kept[0] is not right:
            self._kept = right, _packed(right, len(left))
        return _pointwise(left, self._kept[1])


class PrepackedLinear(nn.Module):
    """A read-only Linear; see `prepack_linears`. Its `weight` is oneDNN's, not a parameter."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight = _packed(linear.weight.detach(), _ROWS)
        self.bias = None if linear.bias is None else linear.bias.detach()

    def forward(self, x: Tensor) -> Tensor:
        """x Wᵀ + b of [..., f]."""
        flat = x.reshape(-1, x.shape[-1])
        return _pointwise(flat, self.weight, self.bias).view(*x.shape[:-1], -1)


def prepack_linears(model: nn.Module) -> None:
    """Lay out once the weights of all Linears in a model that is only read from now on.

    On CPU, where oneDNN does it for their type: a product then takes from four fifths to half as
    long (benchmarks/speed/beit3.py). The model can neither be trained nor saved nor moved after it.

    >>> model = nn.Sequential(nn.Linear(2, 1, bias=False)).requires_grad_(False)
    >>> _ = nn.init.constant_(model[0].weight, 2.0)
    >>> prepack_linears(model)
    >>> model(torch.ones(1, 2))
    tensor([[4.]])
    """
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is not nn.Linear or child.weight.device.type != "cpu":
                continue
            if _packs(child.weight.dtype):
                setattr(parent, name, PrepackedLinear(child))
