"""Names of features that are made of others: controls and filled ones.

A control is KIND:NAME, or random, and either with another seed; a filled one is filled-FILL:NAME.
"""

from __future__ import annotations

from typing import Literal, get_args

from alignrec_recbole.errors import UnknownNameError

DRAWN = ("random", "shuffled", "popularity-shuffled")  # @SEED chooses the draw
CONSTANT = ("constant", "zero")
KINDS = (*DRAWN, *CONSTANT)
Fill = Literal["mean", "neighbours", "propagation"]
FILLS: tuple[Fill, ...] = get_args(Fill)
FILLED = "filled-"
MaskFill = Literal["zero", Fill]  # zero: a masked row becomes missing
MASK_FILLS: tuple[MaskFill, ...] = get_args(MaskFill)
SEED_DIGITS = 18
MOST_LAYERS = 4  # one of another: shuffled:filled-mean:NAME


def is_control(name: str) -> bool:
    """Whether a feature name is that of a control.

    >>> [is_control(n) for n in ("random", "random@2", "shuffled:lsa", "zero:lsa", "lsa")]
    [True, True, True, True, False]
    """
    kind, colon, _ = name.partition(":")
    return (bool(colon) and kind in KINDS) or name.partition("@")[0] == "random"


def parse_control(name: str) -> tuple[str, str, int]:
    """Kind, name of the features that are replaced or "" (of random alone), and seed.

    Raises:
        UnknownNameError: the seed is no whole number of at most 18 digits, nothing is drawn that a
            seed could choose, NAME is empty, or features are made of others over and over.

    >>> parse_control("random"), parse_control("shuffled:lsa@3"), parse_control("zero:lsa")
    (('random', '', 0), ('shuffled', 'lsa', 3), ('zero', 'lsa', 0))
    """
    text, at, seed = name.rpartition("@")
    text, seed = (text, seed) if at else (name, "0")
    kind, colon, source = text.partition(":")
    valid = (
        kind in KINDS
        and (bool(source) if colon else kind == "random")
        and (not at or kind in DRAWN)
        and seed.isdecimal()
        and len(seed) <= SEED_DIGITS
    )
    if not valid or _layers(name) > MOST_LAYERS:
        raise UnknownNameError(
            f"Unknown control features {name!r}.",
            found=name,
            expected="random, random:NAME, shuffled:NAME or popularity-shuffled:NAME, each also "
            f"with @SEED (0, 1, 2 … with at most {SEED_DIGITS} digits); constant:NAME or zero:NAME",
        )
    return kind, source, int(seed)


def control_name(kind: str, name: str, seed: int) -> str:
    """The name of a control; the seed is named where something is drawn.

    >>> control_name("shuffled", "lsa", 3), control_name("zero", "lsa", 3)
    ('shuffled:lsa@3', 'zero:lsa')
    """
    return f"{kind}:{name}@{seed}" if kind in DRAWN else f"{kind}:{name}"


def _layers(name: str) -> int:
    """How many times a name's features are made of others; popularity-shuffled ones count twice."""
    return sum(name.count(f"{kind}:") for kind in KINDS) + name.count(FILLED)


def is_filled(name: str) -> bool:
    """Whether a feature name is that of filled features.

    >>> [is_filled(n) for n in ("filled-mean:lsa", "filled-mean", "lsa", "shuffled:lsa")]
    [True, False, False, False]
    """
    return name.startswith(FILLED) and ":" in name


def parse_filled(name: str) -> tuple[Fill, str]:
    """How missing rows are filled, and the name of the features.

    Raises:
        UnknownNameError: there is no such way, nothing is filled, or features are made of others
            over and over.

    >>> parse_filled("filled-propagation:lsa")
    ('propagation', 'lsa')
    """
    if _layers(name) > MOST_LAYERS:
        raise UnknownNameError(
            f"Features {name[:80]!r} are made of others too many times.",
            expected=f"at most {MOST_LAYERS} times",
        )
    wanted, _, source = name.removeprefix(FILLED).partition(":")
    for fill in FILLS:
        if fill == wanted and source:
            return fill, source
    raise UnknownNameError(
        f"Unknown filled features {name!r}.",
        found=name,
        expected=", ".join(f"{FILLED}{fill}:NAME" for fill in FILLS),
    )


def made_of(name: str) -> str:
    """The features that a name's are made of in the end: itself, or "" of random alone.

    Raises:
        UnknownNameError: as `parse_control` and `parse_filled`.

    >>> made_of("shuffled:filled-mean:lsa@2"), made_of("lsa"), made_of("random@3")
    ('lsa', 'lsa', '')
    """
    while is_control(name) or is_filled(name):
        name = parse_control(name)[1] if is_control(name) else parse_filled(name)[1]
    return name
