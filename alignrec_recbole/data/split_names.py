"""Splits of interactions into training, validation and test, named and drawn from a seed.

released              the labels that the source has
user-random[:A,B,C]   shares of each user's interactions, at random; default 0.8,0.1,0.1
user-time[:A,B,C]     the same shares, each user's earliest for training, latest for test
leave-last-out        each user's last interaction for test, the last but one for validation
global-time[:V,T]     two points in time for everyone: training < V ≤ validation < T ≤ test
none                  no labels: `run` draws RecBole's split (eval_args)

Sizes per user: validation and test get their share rounded down, but at least one interaction as
long as training keeps one, test first; training gets the rest. V and T are times in the unit of the
data; both between 0 and 1, they are shares of all interactions in the order of time, by default
0.8,0.9.

Interactions of one time: in `global-time` they are always in the same part, the one that begins at
this time, so that every training interaction is earlier than every validation interaction, and
those are earlier than every test interaction. Per user, their order is drawn from the seed. A split
depends on the interactions and the seed, not on the order of the rows.

The drawing is in `splits.py`; this file holds the names and imports nothing large.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from alignrec_recbole.errors import SettingError
from alignrec_recbole.io.suggest import suggest

Method = Literal["released", "user-random", "user-time", "leave-last-out", "global-time", "none"]
METHODS: tuple[Method, ...] = get_args(Method)
Numbering = Literal["random", "appearance"]
NUMBERINGS: tuple[Numbering, ...] = get_args(Numbering)
DEFAULT_SEED = 999  # of a data set's numbers and split; the default seed of training as well
DEFAULT_SPLIT = "user-random"
SHARES = (0.8, 0.1, 0.1)  # RecBole's and MMRec's
CUTS = (0.8, 0.9)
WITH_TIMES = ("user-time", "leave-last-out", "global-time")


@dataclass(frozen=True)
class Split:
    """A way to split, and the seed of what it draws.

    Attributes:
        numbers: the three shares, or the two cut points; empty for the other methods.
    """

    method: Method
    numbers: tuple[float, ...] = ()
    seed: int = DEFAULT_SEED

    @property
    def text(self) -> str:
        """As it is written on a command line; `parse_split` reads it back.

        >>> Split("user-time", (0.7, 0.1, 0.2)).text, Split("leave-last-out").text
        ('user-time:0.7,0.1,0.2', 'leave-last-out')
        """
        if not self.numbers:
            return self.method
        return f"{self.method}:{','.join(map(shown, self.numbers))}"


def parse_split(text: str, seed: int = DEFAULT_SEED) -> Split:
    """Read a split as it is written on a command line.

    Raises:
        SettingError: the name is unknown, or its numbers are not those it takes.

    >>> parse_split("global-time").numbers, parse_split("user-random:0.7,0.1,0.2").numbers
    ((0.8, 0.9), (0.7, 0.1, 0.2))
    """
    name, colon, rest = text.partition(":")
    method = next((method for method in METHODS if method == name), None)
    if method is None:
        raise SettingError(
            f"Split {name!r} is unknown." + suggest(name, METHODS),
            expected=", ".join(METHODS),
        )
    defaults = {"user-random": SHARES, "user-time": SHARES, "global-time": CUTS}.get(method, ())
    if not colon:
        return Split(method, defaults, seed)
    try:
        numbers = tuple(_number(part) for part in rest.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) != len(defaults) or not defaults or not _allowed(method, numbers):
        raise SettingError(
            f"Split {text!r} has other numbers than {method} takes.",
            found=rest or "nothing after the colon",
            expected={
                "global-time": "two cut points V,T: shares with 0 < V < T < 1, or times with V < T",
                "user-random": "three shares with the sum 1, such as 0.8,0.1,0.1",
                "user-time": "three shares with the sum 1, such as 0.8,0.1,0.1",
            }.get(method, f"{method} alone, without numbers"),
        )
    return Split(method, numbers, seed)


def _allowed(method: Method, numbers: tuple[float, ...]) -> bool:
    if method == "global-time":
        first, second = numbers
        return first < second and (0 < first < 1) == (0 < second < 1)
    return all(0 < number < 1 for number in numbers) and math.isclose(sum(numbers), 1)


def _number(text: str) -> float:
    """A number of at most 64 bits; whole ones stay exact.

    >>> _number("1628643414042"), _number("0.8")
    (1628643414042, 0.8)
    """
    try:
        number: float = int(text)
    except ValueError:
        number = float(text)
    if not abs(number) < 2**63:
        raise ValueError(text)
    return number


def shown(number: float) -> str:
    """A number as short as it can be read back.

    >>> shown(0.1), shown(5), shown(0.0)
    ('0.1', '5', '0')
    """
    return repr(int(number)) if float(number).is_integer() else repr(number)
