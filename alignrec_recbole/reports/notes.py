"""Titles of tables and the sentences above their figures."""

from __future__ import annotations

import re
from collections.abc import Sequence

from alignrec_recbole.data.rekeyed_names import shown_name
from alignrec_recbole.reports.grouping import ComparisonKey, SeedGroup, candidates_of
from alignrec_recbole.reports.table import PLACES, Cell

FEW = 10  # a recall over fewer candidates than so many times its list says so
RECALL = re.compile(r"Recall@(\d+)")


def table_title(key: ComparisonKey) -> str:
    """Data set, protocol, setting, in words."""
    excluded = {
        "mmrec": "training items excluded",
        "recbole": "training and validation items excluded",
    }
    data = f", data {key.data}" if key.data else ""
    return (
        f"{shown_name(key.dataset)}, {key.protocol}, {key.setting} ({excluded[key.setting]}){data}"
    )


def seeds_note(rows: Sequence[Sequence[Cell]]) -> str:
    """What the figures are of, as a sentence."""
    several = any(cell.spread is not None for row in rows for cell in row)
    return "Mean ± sd over seeds. " if several else "One seed per row. "


def candidates_note(members: Sequence[SeedGroup], metric: str, shown: bool = False) -> str:
    """What a recall is out of, as sentences: its chance, and that a list has most candidates.

    Args:
        shown: the table has the chance of each row.
    """
    match = RECALL.fullmatch(metric)
    if not match or not members:
        return ""
    length = int(match[1])
    counts = {group.first.protocol: candidates_of(group.first) for group in members}
    out = ""
    for protocol, count in counts.items():
        if not count:
            continue
        if protocol == "cold-start":
            out += f"Candidates: {count:,} cold items. "
        elif not shown:
            out += f"Chance of {metric}: about {min(1.0, length / count):.{PLACES}f}. "
        if length * FEW > count:
            part = "all" if length >= count else f"{length / count:.0%}"
            out += (
                f"{metric} is over at most {count} candidates: a list of {length} has {part} of "
                "them. "
            )
    return out
