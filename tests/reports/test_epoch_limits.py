"""Rows that ended at a smaller maximum of epochs than the default are marked as such."""

from __future__ import annotations

from pathlib import Path

import pytest
from records import record

from alignrec_recbole.reports.formats.text import as_text
from alignrec_recbole.reports.leaderboards import comparison
from alignrec_recbole.runs.record import Run


def runs(*limits: tuple[int, str]) -> list[Run]:
    """One run per maximum of epochs and reason of the end, of several models."""
    found = []
    for number, (epochs, stopped) in enumerate(limits):
        config = {"epochs": epochs}
        selection = {"metric": "Recall@20", "split": "valid", "stopped": stopped}
        made = record(model="BPR", seed=999, value=0.1 + number / 100, config=config)
        hashed = f"{epochs:064x}"
        found.append(
            Run(
                Path(f"{epochs}.json"),
                made.model_copy(update={"selection": selection, "config_sha256": hashed}),
            )
        )
    return found


@pytest.mark.parametrize(
    ("limits", "caption", "labels"),
    [
        ([(1000, "patience")], "", ["BPR "]),
        ([(1000, "epochs")], "", ["BPR "]),
        ([(20, "patience")], "", ["BPR "]),
        ([(20, "epochs")], "A first look: at most 20 epochs, which ended before early", ["BPR "]),
        (
            [(20, "epochs"), (40, "epochs")],
            'Rows noted "at most N epochs" ended there',
            ["BPR (epochs=20)", "BPR (epochs=40)"],
        ),
        (
            [(20, "epochs"), (1000, "patience")],
            'Rows noted "at most N epochs" ended there',
            ["BPR (epochs=20)", "BPR  "],
        ),
    ],
)
def test_rows_with_a_smaller_maximum_are_marked(
    limits: list[tuple[int, str]], caption: str, labels: list[str]
) -> None:
    made = runs(*limits)
    text = as_text(comparison(made, made[0].record.dataset))
    assert caption in " ".join(text.split())
    rows = text.splitlines()[-len(limits) :]
    for label in labels:
        assert any(row.startswith(label) for row in rows), text
    marked = sum("at most" in row for row in rows)
    assert marked == sum(epochs < 1000 and stopped == "epochs" for epochs, stopped in limits)
    if not caption:
        assert "at most" not in text
