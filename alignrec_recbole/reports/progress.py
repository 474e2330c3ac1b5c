"""A bar over the parts of a report, on a terminal only."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")


def bar(parts: Sequence[T], what: str) -> Iterable[T]:
    """The parts one by one, counted on standard error if it is a terminal."""
    hidden = not sys.stderr.isatty()
    return tqdm(parts, desc=what, disable=hidden, leave=False)
