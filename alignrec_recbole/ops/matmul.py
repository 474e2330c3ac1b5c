"""Dense products by the fastest library that torch carries, in bfloat16 where a caller says so."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alignrec_recbole.ops import onednn

_training: torch.dtype | None = None  # of large products; None: the type of their factors


@contextlib.contextmanager
def precision(dtype: torch.dtype | None) -> Iterator[None]:
    """Inside, large products of losses and layers are computed in this type; None: the factors'.

    Factors are rounded to it and results returned in the factors' type; sums, norms, graphs,
    parameters and the optimizer stay in theirs. Ranking is never inside.
    """
    global _training
    before, _training = _training, dtype
    try:
        yield
    finally:
        _training = before


def product_dtype(tensor: Tensor) -> torch.dtype:
    """The type in which a large product with `tensor` is to be computed now.

    >>> with precision(torch.bfloat16):
    ...     product_dtype(torch.ones(1)), product_dtype(torch.ones(1, dtype=torch.float64))
    (torch.bfloat16, torch.float64)
    """
    return _training if _training is not None and tensor.dtype == torch.float32 else tensor.dtype


def matmul_nt(
    left: Tensor, right: Tensor, bias: Tensor | None = None, out: Tensor | None = None
) -> Tensor:
    """L Rᵀ (+ b) of [n, d] and [m, d], outside autograd.

    On CPU in float32 oneDNN is called directly where torch has it: torch itself calls MKL, which on
    processors of other makers than Intel takes up to twice as long (benchmarks/speed).

    Args:
        out: [n, m], memory that the result may use; where a library cannot, it is ignored.

    >>> matmul_nt(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 4.0]]))
    tensor([[11.]])
    """
    single = left.device.type == "cpu" and left.dtype == right.dtype == torch.float32
    if single and onednn.available():
        if not _prefer_mkl(left, right):
            return onednn.product(left, right, bias)
        if bias is None and not left.is_contiguous() and len(left) < len(right):
            return (right @ left.T).T  # MKL wants the larger factor first
    if out is None or bias is not None:
        return F.linear(left, right, bias)
    return torch.mm(left, right.T, out=out)


_LARGE = 1 << 24  # multiplications from which the choice of library shows


def _prefer_mkl(left: Tensor, right: Tensor) -> bool:
    """Whether MKL is expected to beat oneDNN: large operands that are not row-major, no AVX-512.

    oneDNN takes up to half as long again for them (benchmarks/speed).
    """
    row_major = left.is_contiguous() and right.is_contiguous()
    return (
        left.numel() * len(right) >= _LARGE and not row_major and column_major_is_fast(left.dtype)
    )


def column_major_is_fast(dtype: torch.dtype) -> bool:
    """Whether products of this type are as fast on column-major operands as on row-major copies.

    So they are in bfloat16, and in float32 where MKL computes them (benchmarks/speed).
    """
    return dtype == torch.bfloat16 or torch.backends.cpu.get_cpu_capability() == "AVX2"


class PrepackedLinear(nn.Module):
    """A Linear whose weights are only read; see `prepack_linears`. `weight` is not a parameter."""

    PACKED_ROWS = 2048

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight = onednn.pack(linear.weight.detach(), self.PACKED_ROWS)
        self.bias = None if linear.bias is None else linear.bias.detach()

    def forward(self, x: Tensor) -> Tensor:
        """x Wᵀ + b of [..., f]."""
        flat = x.reshape(-1, x.shape[-1])
        return onednn.product(flat, self.weight, self.bias).view(*x.shape[:-1], -1)


def prepack_linears(model: nn.Module) -> None:
    """Convert the weights of all Linears in a model to oneDNN's layout, once and for inference.

    On CPU, where oneDNN has a layout for their type: a product then takes half to four fifths of
    the time (benchmarks/speed/beit3.py). The model can no longer be trained, saved or moved.

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
            if onednn.available(child.weight.dtype):
                setattr(parent, name, PrepackedLinear(child))
