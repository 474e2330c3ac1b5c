"""The share of a model's lead that a variant loses, with intervals over users and seeds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

RESAMPLES = 2000
DRAWS_AT_ONCE = 100  # of users
SEED = 20240319
LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """A figure with the ends of its interval."""

    value: float
    low: float
    high: float

    @property
    def is_positive(self) -> bool:
        """Whether the whole interval lies above 0."""
        return self.low > 0


@dataclass(frozen=True)
class Leads:
    """What a model with its features leads by, and what its variants lose of that.

    Attributes:
        lead: of the real features over the ID-only twin.
        over_twin: variant → its mean less the twin's.
        shares: variant → share of the lead that it loses; none if the lead is not above 0.
    """

    lead: Interval
    over_twin: dict[str, Interval]
    shares: dict[str, Interval]


def leads(values: Mapping[str, np.ndarray], real: str, twin: str) -> Leads:
    """Leads and shares of the variants of one model.

    lead = mean(real) − mean(twin), share of v = (mean(real) − mean(v)) / lead. Intervals: 95 %
    percentiles over resamples of seeds and users, each with replacement, the same for all variants.

    Args:
        values: variant → metric [seeds, users]; one column where there are no values per user.
        real, twin: their keys.

    >>> made = {"real": [[0.1, 0.3]], "shuffled": [[0.05, 0.15]], "twin": [[0.0, 0.1]]}
    >>> found = leads({name: np.array(rows) for name, rows in made.items()}, "real", "twin")
    >>> round(found.lead.value, 3), round(found.shares["shuffled"].value, 3)
    (0.15, 0.667)
    """
    names = list(values)
    table = np.stack([np.asarray(values[name], dtype=np.float64) for name in names])
    means = dict(zip(names, table.mean((1, 2)), strict=True))
    drawn = dict(zip(names, np.concatenate(list(_resampled(table))).T, strict=True))
    own, draws = means[real] - means[twin], drawn[real] - drawn[twin]
    lead = _interval(own, draws)
    shares = {}
    if lead.is_positive:
        lost = {n: (means[real] - means[n], drawn[real] - drawn[n]) for n in names}
        with np.errstate(divide="ignore", invalid="ignore"):
            shares = {
                name: _interval(value / own, of_draws / draws)
                for name, (value, of_draws) in lost.items()
                if name not in (real, twin)
            }
    over_twin = {
        name: _interval(means[name] - means[twin], drawn[name] - drawn[twin])
        for name in names
        if name != twin
    }
    return Leads(lead, over_twin, shares)


def _interval(value: float, drawn: np.ndarray) -> Interval:
    ends = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(value), float(ends[0]), float(ends[1]))


def _resampled(table: np.ndarray) -> Iterator[np.ndarray]:
    """Means [b, variants] of resamples of [variants, seeds, users], in blocks."""
    _, seeds, users = table.shape
    generator = np.random.default_rng(SEED)
    for start in range(0, RESAMPLES, DRAWS_AT_ONCE):
        count = min(DRAWS_AT_ONCE, RESAMPLES - start)
        of_seeds = generator.multinomial(seeds, np.full(seeds, 1 / seeds), size=count) / seeds
        of_users = generator.multinomial(users, np.full(users, 1 / users), size=count) / users
        yield np.einsum("vsb,bs->bv", table @ of_users.T, of_seeds)
