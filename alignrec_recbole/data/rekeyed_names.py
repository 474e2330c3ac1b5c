"""Names of re-keyed data sets: `NAME-rekeyed-SEED`, from which everything reads the origin."""

from __future__ import annotations

import re

MAX_SEED = 2**63 - 1
_NAME = re.compile(r"(.+)-rekeyed-(0|[1-9][0-9]{0,18})", re.DOTALL)


def rekeyed_name(origin: str, seed: int) -> str:
    """The name of a data set under random numbers of a seed.

    >>> rekeyed_name("sports", 1)
    'sports-rekeyed-1'
    """
    return f"{origin}-rekeyed-{seed}"


def origin_of(name: str) -> tuple[str, int] | None:
    """The data set and the seed that a re-keyed one is made of; None if the name is another's.

    >>> origin_of("sports-rekeyed-1"), origin_of("sports"), origin_of("sports-rekeyed-01")
    (('sports', 1), None, None)
    """
    match = _NAME.fullmatch(name)
    return (match[1], int(match[2])) if match and int(match[2]) <= MAX_SEED else None


def shown_name(name: str) -> str:
    """The name as tables show it.

    >>> shown_name("sports-rekeyed-1"), shown_name("sports")
    ('sports re-keyed (seed 1)', 'sports')
    """
    found = origin_of(name)
    return f"{found[0]} re-keyed (seed {found[1]})" if found else name
