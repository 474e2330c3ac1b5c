"""What searches found, in a form that can be compared."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from alignrec_recbole.runs.record import RunRecord
    from alignrec_recbole.search.tuning import Order


def quiet(line: str) -> None:
    """Print nothing."""


def curve(record: RunRecord) -> list[tuple]:
    """What a search tried and found, without what depends on the machine."""
    assert record.budget
    return [
        (p["trial"], p["state"], p["score"], p["best"], p["epochs"], p["parameters"])
        for p in record.budget["curve"]
    ]


def records(order: Order, kind: str = "runs") -> list[RunRecord]:
    """Records that a search left."""
    from alignrec_recbole.runs.record import read_runs

    folder = order.spec.output / kind
    return [run.record for run in read_runs(folder)] if folder.is_dir() else []
