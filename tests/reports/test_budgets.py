"""Budgets: of records, derived from stored trials, marked where unequal, drawn."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from records import record, store

from alignrec_recbole.reports import budgets, contents, plots
from alignrec_recbole.reports.grouping import comparable_groups
from alignrec_recbole.reports.leaderboards import leaderboard
from alignrec_recbole.runs.record import RunRecord, read_runs

ROOT = Path(__file__).resolve().parents[2]


def searched(trials: int, pruned: int = 0, **changes: Any) -> dict[str, Any]:
    """The field `budget` of a search whose scores rise, with its last trials pruned."""
    curve = [
        {
            "trial": number,
            "state": "complete" if number < trials - pruned else "pruned",
            "score": 0.1 + number / 1000,
            "best": 0.1 + min(number, trials - pruned - 1) / 1000,
            "epochs": 10,
            "seconds": 2.0,
            "parameters": {"reg_weight": 0.1},
        }
        for number in range(trials)
    ]
    return {
        "study": "toy/BPR",
        "sampler": "tpe",
        "pruner": "median",
        "space_sha256": "0" * 64,
        "chosen_on": "Recall@20 on validation, seed 999",
        "limit": {"trials": float(trials)},
        "trials": trials,
        "pruned": pruned,
        "failed": 0,
        "epochs": 10 * trials,
        "seconds": 2.0 * trials,
        "patience": 20,
        "chosen": trials - pruned - 1,
        "curve": curve,
        **changes,
    }


def row_of(output: Path, label: str) -> dict[str, str]:
    """A row of the leaderboard by its label, as texts by column."""
    runs, tuning = read_runs(output / "runs"), read_runs(output / "tuning")
    ((key, members),) = comparable_groups(runs).items()
    table = leaderboard(key, members, tuning=tuning)
    (row,) = [row for row in table.rows if row[0].text == label]
    return {"note of table": table.note} | dict(
        zip(table.header, (cell.text for cell in row), strict=True)
    )


def test_rows_with_another_chance_are_marked(tmp_path: Path) -> None:
    store(tmp_path, record("AlignRec", budget=searched(30, pruned=10)))
    store(tmp_path, record("BPR", budget=searched(20)))
    store(tmp_path, record("LightGCN", budget=searched(19)))
    store(tmp_path, record("Pop"))
    assert row_of(tmp_path, "AlignRec")["budget"] == "30 trials"
    assert row_of(tmp_path, "BPR")["budget"] == "20 trials"
    assert row_of(tmp_path, "LightGCN")["budget"] == "19 trials †"
    assert row_of(tmp_path, "Pop")["budget"] == "unknown"
    assert (
        "†: differs from the target's by more than a factor of 1.5"
        in (row_of(tmp_path, "Pop")["note of table"])
    )


def test_without_any_budget_there_is_no_column(tmp_path: Path) -> None:
    store(tmp_path, record("AlignRec"))
    assert "budget" not in row_of(tmp_path, "AlignRec")


def test_an_unknown_budget_of_the_target_marks_nothing(tmp_path: Path) -> None:
    store(tmp_path, record("AlignRec"))
    store(tmp_path, record("BPR", budget=searched(3)))
    row = row_of(tmp_path, "BPR")
    assert row["budget"] == "3 trials"
    assert "The target's is unknown" in row["note of table"]


def trial_of(reg_weight: float, **changes: Any) -> RunRecord:
    """A stored trial."""
    return record(
        "BPR",
        metrics={},
        config={"reg_weight": reg_weight, "seed": 999, "n": 1, "stopping_step": 20},
        **changes,
    )


def test_budgets_of_older_records_are_found_among_the_trials(tmp_path: Path) -> None:
    values = [0.1, 0.01, 1.0]
    epoch = {"seconds": 0.1, "evaluate_seconds": 0.02, "loss": 0.5}
    for number, value in enumerate(values):
        made = trial_of(
            value,
            value=0.1 * (number + 1),
            started_utc=f"2026-01-0{number + 1}",
            history=[{"epoch": n, **epoch} for n in range(2)],
        )
        store(tmp_path, made, kind="tuning")
    other = trial_of(0.1).model_dump()["config"] | {"n": 2}
    store(tmp_path, record("BPR", metrics={}, config=other), kind="tuning")
    for elsewhere in (
        {"data": {"split": {"kind": "released"}, "files": {"toy.inter": "b"}}},
        {"setting": "recbole"},
        {"features": "lsa"},
        {"dataset": "shop"},
    ):
        store(tmp_path, trial_of(0.1, **elsewhere), kind="tuning")
    store(tmp_path, trial_of(0.5), kind="tuning")  # of another grid
    chosen = trial_of(0.01).config
    told = "tuned on validation, seed 999: reg_weight in [0.1, 0.01, 1.0]"
    store(tmp_path, record("BPR", config=chosen, tuned_on=told))
    ((_, members),) = comparable_groups(read_runs(tmp_path / "runs")).items()
    (found,) = budgets.budgets_of(members, read_runs(tmp_path / "tuning")).values()
    assert (found.trials, found.epochs, found.patience) == (3, 6, 20)
    assert found.seconds == pytest.approx(3 * 2 * (0.1 + 0.02))
    assert [point["best"] for point in found.curve] == pytest.approx([0.1, 0.2, 0.3])
    assert not budgets.budgets_of(members), "without the trials it is unknown"


def test_every_committed_grid_is_found_whole() -> None:
    runs = read_runs(ROOT / "results/shipped/runs")
    tuning = read_runs(ROOT / "results/shipped/tuning")
    tuned = 0
    for members in comparable_groups(runs).values():
        for group in members:
            told = next((r.tuned_on for r in group.records if r.tuned_on), "")
            if "validation, seed" not in told or group.first.protocol != "full":
                continue
            tuned += 1
            if " trials of " in told:  # a search, which the record describes
                assert group.first.budget is not None
                continue
            points = np.prod([len(part.split("[")[1].split(",")) for part in told.split("; ")])
            found = budgets.budget_of(group, tuning)
            assert found is not None, group.name
            assert found.trials == points, group.name
    assert tuned > 30


@pytest.mark.parametrize("count", [1, 2, 5, 7])
def test_the_expected_maximum_is_that_of_all_orders(count: int) -> None:
    scores = np.random.default_rng(count).random(count).round(1).tolist()
    orders = list(itertools.permutations(scores))
    by_hand = [float(np.mean([max(order[:n]) for order in orders])) for n in range(1, count + 1)]
    assert budgets.expected_maximum(scores) == pytest.approx(by_hand)


def test_the_expected_maximum_of_many_trials_is_finite_and_rises() -> None:
    values = budgets.expected_maximum(np.random.default_rng(0).random(3000).tolist())
    assert np.isfinite(values).all()
    assert (np.diff(values) >= -1e-12).all()


def test_curves_are_drawn_with_their_data_beside(tmp_path: Path) -> None:
    store(tmp_path, record("AlignRec", budget=searched(30, pruned=10)))
    store(tmp_path, record("BPR", budget=searched(4)))
    figures = contents.figures(read_runs(tmp_path / "runs"), [])
    (figure,) = [figure for figure in figures if figure.name == "toy-budget"]
    drawn = plots.search_curves(*figure.arguments)
    left, right = drawn.figure.axes
    assert left.get_xlabel() == "epochs of all trials until then"
    assert [len(line.get_xdata()) for line in right.lines] == [30, 4]
    lines = plots.as_csv(drawn).splitlines()
    assert lines[0] == "row,trials,epochs,seconds,state,score,best,expected maximum"
    assert len(lines) == 1 + 34
    assert lines[-1].startswith("BPR,4,40,8.0,complete,")


def test_a_report_has_a_table_of_budgets(tmp_path: Path) -> None:
    store(tmp_path, record("AlignRec", budget=searched(30, pruned=10)))
    store(tmp_path, record("BPR"))
    pages = contents.tables(read_runs(tmp_path / "runs"))
    (table,) = pages["toy-budget"]
    rows = [[cell.text for cell in row] for row in table.rows]
    named = dict(zip(table.header, rows[0], strict=True))
    assert named["trials"] == "30"
    assert named["pruned"] == "10"
    assert named["epochs"] == "300"
    assert named["chosen on"] == "Recall@20 on validation, seed 999"
    assert named["best on validation"] == "0.1190"
    assert rows[1][2] == "unknown"


@pytest.mark.parametrize(
    "change",
    [
        {"curve": []},
        {"epochs": -1},
        {"seconds": float("inf")},
        {"space_sha256": "x"},
        {"limit": {"hours": 1.0}},
        {"study": "a\x1b[31m"},
        {"more": 1},
        {"pruned": 2},
        {"chosen": 9},
    ],
    ids=[
        "no curve",
        "negative",
        "infinite",
        "no hash",
        "another limit",
        "an escape",
        "more",
        "another count",
        "no such trial",
    ],
)
def test_budgets_that_are_none_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="budget"):
        record("BPR", budget={**searched(3), **change})
