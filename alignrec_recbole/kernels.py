"""Dense products by the fastest library that torch carries, in bfloat16 where a caller says so."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from alignrec_recbole.table_gradients import TableGradients

_training: torch.dtype | None = None  # of large products; None: as their factors are
_collector: TableGradients | None = None


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


@contextlib.contextmanager
def collecting(gradients: TableGradients | None) -> Iterator[None]:
    """`linear` called inside gives it the gradients of the tables that it knows.

    Its backward then leaves `.grad` of these tables alone.
    """
    global _collector
    before, _collector = _collector, gradients
    if gradients is not None:
        gradients.forget()
    try:
        yield
    finally:
        _collector = before


def product_dtype(tensor: Tensor) -> torch.dtype:
    """The type that a large product with `tensor` is to be computed in now.

    >>> with precision(torch.bfloat16):
    ...     product_dtype(torch.ones(1)), product_dtype(torch.ones(1, dtype=torch.float64))
    (torch.bfloat16, torch.float64)
    """
    return _training if _training is not None and tensor.dtype == torch.float32 else tensor.dtype


def inner_products(
    left: Tensor, right: Tensor, bias: Tensor | None = None, room: Tensor | None = None
) -> Tensor:
    """L Rᵀ (+ b) of [n, d] and [m, d], outside autograd.

    On CPU in float32 oneDNN is asked directly where torch has it: torch itself asks MKL, which on
    processors that are not Intel's takes up to twice as long for rows by rows (benchmarks/speed).

    Args:
        room: [n, m], which may take the result; large blocks that are asked for and freed in turn
            leave holes in glibc's heap.

    >>> inner_products(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 4.0]]))
    tensor([[11.]])
    """
    if left.device.type == "cpu" and left.dtype == right.dtype == torch.float32 and _onednn():
        if not _lies_across(left, right):
            return _pointwise(left, _dense(right), bias)
        if bias is None and not left.is_contiguous() and len(left) < len(right):
            return (right @ left.T).T  # the larger factor first
    if room is None or bias is not None:
        return F.linear(left, right, bias)
    return torch.mm(left, right.T, out=room)


_LARGE = 1 << 24  # multiplications from which the choice of library shows


def _lies_across(left: Tensor, right: Tensor) -> bool:
    """Whether MKL is faster than oneDNN: large factors not in rows, on processors without AVX-512.

    oneDNN takes up to half as long again there (benchmarks/speed).
    """
    in_rows = left.is_contiguous() and right.is_contiguous()
    return left.numel() * len(right) >= _LARGE and not in_rows and across_is_fast(left.dtype)


def across_is_fast(dtype: torch.dtype) -> bool:
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


def linear(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, rows: Tensor | None = None
) -> Tensor:
    """x Wᵀ + b, or x[rows] Wᵀ + b, in W's type, differentiable; see `precision`, `collecting`.

    Args:
        x: large [n, f]; it may be in a lower type already, as ConstantFactor gives it.
        weight: W [d, f].
        bias: b [d].
        rows: indices [m]; repeated ones add up in the gradient.

    >>> linear(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 4.0]]), torch.tensor([1.0]))
    tensor([[12.]])
    """
    return _Linear.apply(x, weight, bias, rows, None)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        rows: Tensor | None,
        turned: Callable[[], Tensor] | None,
    ) -> Tensor:
        kind = product_dtype(x)
        weight_low = weight.to(kind)
        bias_low = None if bias is None else bias.to(kind)
        ctx.table, ctx.rows, ctx.turned = x, rows, turned
        ctx.collector = _collector if _collector is not None and x in _collector else None
        if rows is None:
            x = x.to(kind)
            ctx.save_for_backward(x, weight_low)
            return inner_products(x, weight_low, bias_low).to(weight.dtype)
        ctx.save_for_backward(x, weight_low)  # rows are gathered again in the backward
        out = weight.new_empty(len(rows), len(weight))
        for cut, taken in _gathered(x, rows, kind):
            out[cut] = inner_products(taken, weight_low, bias_low)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        g = gradient.to(weight.dtype)
        if ctx.rows is not None:
            for_weight = torch.zeros_like(weight, dtype=gradient.dtype)
            for cut, taken in _gathered(x, ctx.rows, weight.dtype):
                for_weight += inner_products(g[cut].T, taken.T)
        elif ctx.turned is not None:
            for_weight = inner_products(ctx.turned(), g.T).T
        else:
            for_weight = inner_products(g.T, x.T)
        for_x = None
        if ctx.collector is not None:
            ctx.collector.add(ctx.table, gradient, weight, ctx.rows)
        elif ctx.needs_input_grad[0]:
            for_x = gradient.new_empty(len(g), x.shape[1])
            rows = _ROWS if x.device.type == "cpu" else len(g)
            for start in range(0, len(g), rows):
                cut = slice(start, start + rows)
                for_x[cut] = inner_products(g[cut], weight.T)
            if ctx.rows is not None:
                for_x = scatter_rows(for_x, ctx.rows, len(ctx.table))
        for_bias = gradient.sum(0) if ctx.needs_input_grad[2] else None
        return for_x, for_weight.to(gradient.dtype), for_bias, None, None


_ROWS = 2048  # small enough to be converted in the cache
_GATHERED_BYTES = 8 << 20


def _gathered(table: Tensor, rows: Tensor, kind: torch.dtype) -> Iterator[tuple[slice, Tensor]]:
    """x[rows] in blocks, on a GPU in one: the items of a batch are tens of megabytes."""
    height = max(1, _GATHERED_BYTES // (table.shape[1] * table.element_size()))
    height = height if table.device.type == "cpu" else max(1, len(rows))
    for start in range(0, len(rows), height):
        cut = slice(start, start + height)
        yield cut, table.index_select(0, rows[cut]).to(kind)


class ConstantFactor:
    """A table [n, f] that never changes, for `linear`; rounded once, not in each step.

    On CPU its transpose is kept beside it, from the first backward on: the gradient of the map,
    XᵀG, then takes half as long. That is one more table of the products' type, while it is no
    larger than TURNED_BYTES.

    >>> table = ConstantFactor()
    >>> with precision(torch.bfloat16):
    ...     table.of(torch.ones(2, 3)).dtype
    torch.bfloat16
    """

    TURNED_BYTES = 512 << 20

    def __init__(self) -> None:
        self._rounded: tuple[Tensor, Tensor] | None = None
        self._turned: tuple[Tensor, Tensor] | None = None

    def __deepcopy__(self, memo: dict) -> ConstantFactor:
        return ConstantFactor()  # what is kept is made again from the copied table

    def of(self, table: Tensor) -> Tensor:
        """`table` in the type that a large product with it is to be computed in now."""
        kind = product_dtype(table)
        if table.requires_grad or kind == table.dtype:
            return table
        if self._rounded is None or self._rounded[0] is not table:
            self._rounded = table, table.to(kind)
        return self._rounded[1]

    def linear(
        self,
        table: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        rows: Tensor | None = None,
    ) -> Tensor:
        """`linear` of the table; one that is learnt is taken as it is."""
        low = self.of(table)
        constant = not table.requires_grad and table.device.type == "cpu"
        if constant and rows is None and low.nbytes <= self.TURNED_BYTES:
            return _Linear.apply(low, weight, bias, None, lambda: self._transpose(low))
        return linear(low, weight, bias, rows)

    def _transpose(self, low: Tensor) -> Tensor:
        if self._turned is None or self._turned[0] is not low:
            self._turned = low, low.T.contiguous()
        return self._turned[1]


class PackedFactor:
    """R [m, d] that many products L Rᵀ have in common; oneDNN lays it out once, not in each.

    Full ranking asks for a hundred of them; each takes a quarter less. Outside autograd.

    >>> items = torch.tensor([[3.0, 4.0]])
    >>> PackedFactor().products(torch.tensor([[1.0, 2.0]]), items)
    tensor([[11.]])
    """

    def __init__(self) -> None:
        self._kept: tuple[Tensor, Tensor] | None = None

    def __deepcopy__(self, memo: dict) -> PackedFactor:
        return PackedFactor()

    def products(self, left: Tensor, right: Tensor) -> Tensor:
        """`inner_products` of [n, d] with R, the same tensor from call to call."""
        plain = left.device.type != "cpu" or not left.dtype == right.dtype == torch.float32
        if plain or not _packs():
            return inner_products(left, right)
        if self._kept is None or self._kept[0] is not right:
            self._kept = right, _packed(right, len(left))
        return _pointwise(left, self._kept[1])


class PackedLinear(nn.Module):
    """A Linear that is only read; see `pack_linears`. Its `weight` is oneDNN's, not a parameter."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight = _packed(linear.weight.detach(), _ROWS)
        self.bias = None if linear.bias is None else linear.bias.detach()

    def forward(self, x: Tensor) -> Tensor:
        """x Wᵀ + b of [..., f]."""
        flat = x.reshape(-1, x.shape[-1])
        return _pointwise(flat, self.weight, self.bias).view(*x.shape[:-1], -1)


def pack_linears(model: nn.Module) -> None:
    """Lay out once the weights of all Linears in a model that is only read from now on.

    On CPU, where oneDNN does it for their type: a product then takes from four fifths to half as
    long (benchmarks/speed/beit3.py). The model can neither be trained nor saved nor moved after it.

    >>> model = nn.Sequential(nn.Linear(2, 1, bias=False)).requires_grad_(False)
    >>> _ = nn.init.constant_(model[0].weight, 2.0)
    >>> pack_linears(model)
    >>> model(torch.ones(1, 2))
    tensor([[4.]])
    """
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is not nn.Linear or child.weight.device.type != "cpu":
                continue
            if _packs(child.weight.dtype):
                setattr(parent, name, PackedLinear(child))


def unit_rows(x: Tensor) -> Tensor:
    """Rows [..., d] divided by their L2 norm; zero rows stay zero instead of turning into NaN.

    With y = x/‖x‖, ∂x = (g − y (y·g))/‖x‖, in one matrix; torch's own way takes six.

    >>> unit_rows(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
    tensor([[0.6000, 0.8000],
            [0.0000, 0.0000]])
    """
    return _UnitRows.apply(x)


class _UnitRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        norm.masked_fill_(norm == 0, 1)
        unit = x / norm
        ctx.save_for_backward(unit, norm)
        return unit

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        unit, norm = ctx.saved_tensors
        out = gradient * unit
        along = out.sum(-1, keepdim=True)
        return torch.addcmul(gradient, unit, along, value=-1, out=out).div_(norm)


def take_rows(table: Tensor, rows: Tensor) -> Tensor:
    """table[rows] with a backward that adds each row once into a zero matrix.

    >>> take_rows(torch.tensor([[1.0], [2.0]]), torch.tensor([1, 1]))
    tensor([[2.],
            [2.]])
    """
    return _TakeRows.apply(table, rows)


class _TakeRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, table: Tensor, rows: Tensor) -> Tensor:
        ctx.size = len(table)
        ctx.save_for_backward(rows)
        return table.index_select(0, rows)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (rows,) = ctx.saved_tensors
        return scatter_rows(gradient, rows, ctx.size), None


def scatter_rows(values: Tensor, rows: Tensor, size: int) -> Tensor:
    """Sum `values` [b, d] into the rows of a zero matrix [size, d]; repeated rows add up."""
    full = torch.zeros(size, values.shape[1], dtype=values.dtype, device=values.device)
    return full.index_add_(0, rows, values)
