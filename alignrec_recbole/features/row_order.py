"""Whether rows of features belong to the items of interactions, as far as these can tell."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from alignrec_recbole.features.content_rows import divided_by_norm

PAIRS = 4000
SHIFTS = (-2, -1, 1, 2)
SURE = 6.0  # standard errors


@dataclass(frozen=True)
class RowOrder:
    """How much more alike the rows of items with a common user are than those of random items.

    Attributes:
        pairs: of items that were compared.
        errors: the difference of the mean cosines, in standard errors.
        shift: the shift of the rows with the largest difference; 0 in the right order.
        errors_at_shift: the difference there.
    """

    pairs: int
    errors: float
    shift: int
    errors_at_shift: float

    @property
    def is_confirmed(self) -> bool:
        """Whether the rows fit the items, and fit no neighbouring order better."""
        return self.errors >= SURE and self.shift == 0

    @property
    def is_contradicted(self) -> bool:
        """Whether the rows fit the items distinctly better after a shift."""
        return self.shift != 0 and self.errors_at_shift >= max(SURE, self.errors + SURE)

    def as_dict(self) -> dict[str, Any]:
        """For a manifest."""
        return {**{k: round(v, 2) for k, v in asdict(self).items()}, "confirmed": self.is_confirmed}


def row_order(values: np.ndarray, users: np.ndarray, items: np.ndarray) -> RowOrder:
    """Compare the rows of items that one user has with those of random items.

    Users choose items that are alike, so the cosine of two items of one user is larger on average
    if the rows belong to the items: of permuted rows it is not, of shifted rows it is less so.

    Args:
        values: float32 [n, f], row = item number.
        users: of the training interactions.
        items: item numbers of the training interactions.
    """
    order = np.argsort(users, kind="stable")
    same = users[order][1:] == users[order][:-1]
    left, right = items[order][:-1][same], items[order][1:][same]
    generator = np.random.Generator(np.random.PCG64(0))
    chosen = generator.permutation(len(left))[:PAIRS]
    left, right = left[chosen], right[chosen]
    sampled = (left, right, generator.permutation(right))
    centre = np.asarray(values).mean(0, dtype=np.float64).astype(np.float32)
    found = {
        shift: _difference(values, centre, [(rows + shift) % len(values) for rows in sampled])
        for shift in (0, *SHIFTS)
    }
    best = max(found, key=lambda shift: found[shift])
    return RowOrder(len(left), found[0], best, found[best])


def _difference(values: np.ndarray, centre: np.ndarray, rows: list[np.ndarray]) -> float:
    """Mean cosine of pairs minus that of random pairs, in standard errors; 0 without spread.

    Args:
        values: as above.
        centre: the mean row.
        rows: of the first item, of the second, of a random one.
    """
    if len(rows[0]) < 2:
        return 0.0
    a, b, c = (divided_by_norm(values[chosen] - centre) for chosen in rows)
    together, random = (a * b).sum(1), (a * c).sum(1)
    error = float(np.sqrt((together.var() + random.var()) / len(a)))
    return float(together.mean() - random.mean()) / error if error > 1e-12 else 0.0
