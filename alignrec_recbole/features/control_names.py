"""Names of control features: random, shuffled:NAME, and either with another seed."""

from __future__ import annotations

from alignrec_recbole.errors import UnknownNameError

SEED_DIGITS = 18
MOST_SHUFFLES = 4  # of one name: shuffled:shuffled:NAME


def is_control(name: str) -> bool:
    """Whether a feature name is that of a control.

    >>> [is_control(n) for n in ("random", "random@2", "shuffled:lsa", "lsa")]
    [True, True, True, False]
    """
    return name.partition("@")[0] == "random" or name.startswith("shuffled:")


def parse_control(name: str) -> tuple[str, str, int]:
    """Kind (random or shuffled), name of the features that are shuffled or "", and seed.

    Raises:
        UnknownNameError: the seed is no whole number of at most 18 digits, NAME is empty, or names
            are shuffled over and over.

    >>> parse_control("random"), parse_control("shuffled:lsa@3")
    (('random', '', 0), ('shuffled', 'lsa', 3))
    """
    text, at, seed = name.rpartition("@")
    text, seed = (text, seed) if at else (name, "0")
    kind, _, source = text.partition(":")
    valid = seed.isdecimal() and len(seed) <= SEED_DIGITS
    if not valid or (kind == "shuffled" and not source) or name.count("shuffled:") > MOST_SHUFFLES:
        raise UnknownNameError(
            f"Unknown control features {name!r}.",
            found=name,
            expected="random, random@SEED, shuffled:NAME or shuffled:NAME@SEED, SEED 0, 1, 2 … "
            f"with at most {SEED_DIGITS} digits",
        )
    return kind, source, int(seed)
