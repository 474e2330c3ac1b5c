"""Captions name what their table has, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from records import record, store

from alignrec_recbole.reports.contents import tables
from alignrec_recbole.reports.formats.text import as_text
from alignrec_recbole.reports.table import MISSING, Table
from alignrec_recbole.runs.record import read_runs

SHIPPED = Path(__file__).resolve().parents[2] / "results" / "shipped"
PHRASES = {  # what a caption says → the column that must then be there, with something in it
    "Over best baseline:": "over best baseline",
    "Budget:": "budget",
    "Area:": "area",
    "Change:": "change",
}


def check(table: Table) -> None:
    for phrase, column in PHRASES.items():
        there = column in table.header and any(
            row[list(table.header).index(column)].text != MISSING for row in table.rows
        )
        assert (phrase in table.note) <= there, (table.title, phrase)
    cells = [cell for row in table.rows for cell in row]
    spread = any(cell.spread is not None for cell in cells)
    assert ("± sd" in table.note) <= spread, table.title
    assert ("One seed per row" in table.note) <= (not spread), table.title
    assert ("†" in table.note) == any("†" in cell.text for cell in cells), table.title
    shown = as_text([table])
    assert ("Best marked" in shown) == any(cell.rank for cell in cells), table.title


def few(folder: Path) -> list[Table]:
    """One row; two rows, of which none is the target's; three with two seeds."""
    store(folder / "one", record("BPR"))
    for model in ("zero-shot", "item-cf"):
        made = record(model, protocol="cold-start", features="lsa", history=[], valid_metrics={})
        store(folder / "two", made)
    for model in ("AlignRec", "BPR", "LightGCN"):
        for seed in (1, 2):
            store(folder / "three", record(model, seed, 0.05 + 0.01 * len(model) + 0.001 * seed))
    return [
        table
        for name in ("one", "two", "three")
        for several in tables(read_runs(folder / name / "runs")).values()
        for table in several
    ]


def test_few_rows(tmp_path: Path) -> None:
    made = few(tmp_path)
    for table in made:
        check(table)
    one, two, three = (
        table for table in made if "tests" not in table.title and "paired" not in table.title
    )
    assert one.note.startswith("Test split. One seed per row. ")
    assert "baseline" not in one.note
    assert "target" not in two.note
    assert "Over best baseline: Recall@20 of AlignRec" in three.note


@pytest.mark.parametrize("dataset", ["ml-100k", "baby"])
def test_shipped(dataset: str) -> None:
    runs = read_runs(SHIPPED / "runs" / dataset)
    tuning = read_runs(SHIPPED / "tuning" / dataset)
    made = [table for several in tables(runs, tuning=tuning).values() for table in several]
    assert len(made) >= 2
    for table in made:
        check(table)


@pytest.mark.parametrize(
    ("items", "cold", "words"),
    [
        (1682, None, "Chance of Recall@20: about 0.0119. "),
        (24, None, "Recall@20 is over at most 24 candidates: a list of 20 has 83% of them."),
        (40, 0.2, "Recall@20 is over at most 8 candidates: a list of 20 has all of them."),
    ],
    ids=["many", "few", "eight"],
)
def test_a_recall_over_few_candidates_says_so(
    tmp_path: Path, items: int, cold: float | None, words: str
) -> None:
    data = {"split": {"kind": "released"}, "files": {}, "items": items, "users": 9}
    config = {"protocol": {"name": "cold-start", "cold_share": cold}} if cold else {}
    protocol = "cold-start" if cold else "full"
    store(tmp_path, record("item-cf", protocol=protocol, data=data, config=config))
    ((table,),) = tables(read_runs(tmp_path / "runs")).values()
    assert words in f"{table.note} "
    assert ("candidates" in table.note) == (items < 200)
    assert (re.search(r"Candidates: 8 cold items\.", table.note) is not None) == bool(cold)
