"""The steps of an epoch, one batch after another, and the sums of their loss terms."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple, TypeAlias

from recbole.data.interaction import Interaction
from torch import Tensor


class Terms(NamedTuple):
    """Loss terms of a batch, or their sums over batches, outside autograd.

    Attributes:
        names: of the terms.
        values: [terms], on the device.
    """

    names: tuple[str, ...]
    values: Tensor


Step: TypeAlias = Callable[[Interaction], Terms]


class Steps:
    """Runs each operator of each step by itself."""

    def epoch(self, step: Step, batches: Iterable[Interaction]) -> tuple[Terms, int]:
        """Make a step per batch; the sums of their loss terms, and the number of batches."""
        total: Terms | None = None
        count = 0
        for batch in batches:
            terms = step(batch)
            if total is not None:  # no wait for the device here
                terms = Terms(terms.names, total.values + terms.values)
            total = terms
            count += 1
        assert total is not None
        return total, count

    def release(self) -> None:
        """Free what is kept between epochs."""
