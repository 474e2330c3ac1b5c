"""Types of values on the command line: paths, counts, lists of names and of numbers."""

from __future__ import annotations

import errno
import math
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from alignrec_recbole.errors import printable


class UsablePath(click.Path):
    """A path that the file system can have; whether anything is there is not looked at."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path; a zero byte, a link to itself and a part that is too long are usage errors."""
        try:
            os.stat(value)
        except (ValueError, OSError) as error:
            if isinstance(error, ValueError) or error.errno in (errno.ELOOP, errno.ENAMETOOLONG):
                reason = getattr(error, "strerror", None) or str(error)
                self.fail(f"The path {printable(repr(value), 80)} cannot be used: {reason}.", param)
        return super().convert(value, param, ctx)


FOLDER = UsablePath(path_type=Path)
FILE = UsablePath(path_type=Path)
COUNT = click.IntRange(1, 10**9)
THREADS = click.IntRange(1, 1024)
WORKERS = click.IntRange(0, 256)


class FiniteRange(click.FloatRange):
    """A number in a range; nan, which is neither below nor above a bound, is in none."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The number; one that is not finite is a usage error."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{printable(str(value), 80)} is no finite number.", param, ctx)
        return number


SHARE = FiniteRange(0, 1)
MASK_SEED = click.IntRange(-1000, 2**63 - 1)  # those of features/masking.py


class Text(click.ParamType):
    """A value parsed from text by a function that raises ValueError with a sentence."""

    def __init__(
        self,
        name: str,
        parse: Callable[[str], Any],
        complete: Callable[[], Iterable[str]] = tuple,
    ) -> None:
        self.name, self.parse, self.complete = name, parse, complete

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """The parsed value; defaults are passed through."""
        if not isinstance(value, str):
            return value
        try:
            return self.parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)

    def shell_complete(self, ctx: Any, param: Any, incomplete: str) -> list[CompletionItem]:
        """Names for the last element of a comma-separated list."""
        before, comma, last = incomplete.rpartition(",")
        return [
            CompletionItem(before + comma + name)
            for name in self.complete()
            if name.startswith(last)
        ]


def names(text: str) -> tuple[str, ...]:
    """Parse a comma-separated list of names.

    >>> names("Pop, EASE,")
    ('Pop', 'EASE')
    """
    found = tuple(name.strip() for name in text.split(",") if name.strip())
    if not found:
        raise ValueError(f"{text!r} contains no name")
    return found


def seeds(text: str) -> tuple[int, ...]:
    """Parse a comma-separated list of whole numbers."""
    try:
        return tuple(int(seed) for seed in text.split(","))
    except ValueError:
        raise ValueError(f"{text!r} is not a list of whole numbers such as 999,1000") from None


def cores(text: str) -> tuple[int, int]:
    """Parse K or U,I: interactions that users and items have at least.

    >>> cores("5"), cores("3,1")
    ((5, 5), (3, 1))
    """
    found = re.fullmatch(r"([0-9]{1,6})(?:,([0-9]{1,6}))?", text.replace(" ", ""))
    if not found or not int(found[1]) or (found[2] and not int(found[2])):
        raise ValueError(f"{text!r} is not K or U,I with numbers from 1, such as 5 or 5,10")
    return int(found[1]), int(found[2] or found[1])


def shard(text: str) -> tuple[int, int]:
    """Parse i/n.

    >>> shard("2/4")
    (2, 4)
    """
    found = re.fullmatch(r"([0-9]+)/([0-9]+)", text)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise ValueError(f"{text!r} is not i/n with 1 ≤ i ≤ n, such as 2/4")
    return int(found[1]), int(found[2])


def number_of_jobs(text: str) -> int | None:
    """Parse N or auto, which is None.

    >>> number_of_jobs("2"), number_of_jobs("auto")
    (2, None)
    """
    if text == "auto":
        return None
    if not text.isdecimal() or not int(text):
        raise ValueError(f"--jobs must be at least 1, or auto, not {text!r}")
    return int(text)


SEEDS = Text("seeds", seeds)
SHARD = Text("shard", shard)
CORES = Text("cores", cores)
