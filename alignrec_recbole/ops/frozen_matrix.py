"""Products with a matrix that does not change: what is derived from it is computed once."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from alignrec_recbole.ops import onednn
from alignrec_recbole.ops.linear import linear
from alignrec_recbole.ops.matmul import matmul_nt, product_dtype
from alignrec_recbole.ops.rows import gather_rows


class FrozenMatrix:
    """Caches the forms of a constant matrix that products use: rounded, transposed, packed.

    The matrix is passed to each call; a form is computed again when another matrix is passed.

    >>> from alignrec_recbole.ops.matmul import precision
    >>> table = FrozenMatrix()
    >>> with precision(torch.bfloat16):
    ...     table.rounded(torch.ones(2, 3)).dtype
    torch.bfloat16
    """

    MAX_TRANSPOSED_BYTES = 512 << 20

    def __init__(self) -> None:
        self._forms: dict[str, tuple[Tensor, Tensor]] = {}

    def __deepcopy__(self, memo: dict) -> FrozenMatrix:
        return FrozenMatrix()  # the copied model holds another matrix

    def _form(self, name: str, matrix: Tensor, compute: Callable[[], Tensor]) -> Tensor:
        source, form = self._forms.get(name, (None, None))
        if form is None or source is not matrix:
            form = compute()
            self._forms[name] = matrix, form
        return form

    def rounded(self, table: Tensor) -> Tensor:
        """`table` in the type that a large product with it is computed in now; a learnt one as is.

        `linear` rounds it in every call otherwise.
        """
        dtype = product_dtype(table)
        if table.requires_grad or dtype == table.dtype:
            return table
        return self._form("rounded", table, lambda: table.to(dtype))

    def linear(
        self,
        table: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        rows: Tensor | None = None,
    ) -> Tensor:
        """`ops.linear` of a table [n, f], which may also be one that is learnt.

        Of no fewer rows than the table has, all products are computed once and gathered: a batch of
        a small data set has many items several times.

        On CPU the transpose of a constant table is stored from the first backward on, if it has at
        most MAX_TRANSPOSED_BYTES: the gradient of the weight, Xᵀ G, then takes half as long.
        """
        if rows is not None and len(rows) >= len(table):
            return gather_rows(self.linear(table, weight, bias), rows)
        x = self.rounded(table)
        constant = not table.requires_grad and table.device.type == "cpu"
        if constant and rows is None and x.nbytes <= self.MAX_TRANSPOSED_BYTES:

            def transpose() -> Tensor:
                return self._form("transposed", x, lambda: x.T.contiguous())

            return linear(x, weight, bias, transposed=transpose)
        return linear(x, weight, bias, rows)

    def matmul_nt(self, left: Tensor, table: Tensor) -> Tensor:
        """L Tᵀ of [n, d] and the table [m, d], outside autograd; on CPU the table is packed once.

        Full ranking computes a hundred such products; each takes a quarter less time.
        """
        single = left.dtype == table.dtype == torch.float32
        if left.device.type != "cpu" or not single or not onednn.available():
            return matmul_nt(left, table)
        packed = self._form("packed", table, lambda: onednn.pack(table, len(left)))
        return onednn.product(left, packed)
