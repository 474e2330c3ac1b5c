"""Where a run's item graphs are searched, and what is noted of approximate searches."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Literal

import torch

Method = Literal["exact", "auto", "approximate"]


@dataclass(frozen=True)
class ApproximateSearch:
    """An approximate search, as the record has it.

    Attributes:
        method: the index, its parameters and the library's version.
        rows: non-zero rows, all of which were searched.
        k: neighbours per row.
        recall: mean share of the k nearest that were found, over `sample` rows.
        sample: rows that were also searched exactly.
    """

    method: str
    rows: int
    k: int
    recall: float
    sample: int


@dataclass(frozen=True)
class Searches:
    """The searches of one run: where they are made, and the approximate ones so far."""

    device: torch.device | None = None
    approximate: list[ApproximateSearch] = field(default_factory=list)


_searches: ContextVar[Searches | None] = ContextVar("searches of item graphs", default=None)


@contextlib.contextmanager
def searching_on(device: torch.device | str) -> Iterator[Searches]:
    """Inside, neighbours are searched on this device, wherever the features are."""
    searches = Searches(torch.device(device))
    token = _searches.set(searches)
    try:
        yield searches
    finally:
        _searches.reset(token)


def device_for(features: torch.Tensor) -> torch.device:
    """Where the neighbours of these features are searched."""
    searches = _searches.get()
    return searches.device if searches and searches.device else features.device


def note(search: ApproximateSearch) -> None:
    """Let the run's record have an approximate search, once."""
    searches = _searches.get()
    if searches is not None and search not in searches.approximate:
        searches.approximate.append(search)
