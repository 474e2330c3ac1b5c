"""Figures of a leaderboard's rows beside the metrics: gains, marks, seconds."""

from __future__ import annotations

from pathlib import Path

import pytest
from records import record, store

from alignrec_recbole.reports.grouping import ComparisonKey, SeedGroup, comparable_groups
from alignrec_recbole.reports.leaderboards import leaderboard
from alignrec_recbole.reports.significance import Comparison
from alignrec_recbole.runs.record import read_runs


def table_of(output: Path) -> tuple[ComparisonKey, list[SeedGroup]]:
    ((key, members),) = comparable_groups(read_runs(output / "runs")).items()
    return key, members


@pytest.fixture
def three(tmp_path: Path) -> tuple[ComparisonKey, list[SeedGroup]]:
    """A target and two rows below it."""
    for model, value in (("Pop", 0.05), ("BPR", 0.10), ("AlignRec", 0.11)):
        store(tmp_path, record(model, value=value))
    return table_of(tmp_path)


def compared(*entries: tuple[str, str, float, float]) -> list[Comparison]:
    """Comparisons of AlignRec: against whom, over what, p before and after Holm."""
    return [
        Comparison("AlignRec", baseline, "Recall@20", over, 40, 0.01, p, p_holm)
        for baseline, over, p, p_holm in entries
    ]


def test_stars_and_the_p_of_the_gain_are_those_after_holm_over_users(
    three: tuple[ComparisonKey, list[SeedGroup]],
) -> None:
    made = compared(
        ("BPR", "seeds", 0.0001, 0.0002),
        ("BPR", "users", 0.04, 0.06),
        ("Pop", "seeds", 0.3, 0.4),
        ("Pop", "users", 0.01, 0.049),
    )
    table = leaderboard(*three, made)
    recall, gain = (table.header.index(name) for name in ("Recall@20", "over best baseline"))
    shown = {row[0].text: (row[recall].mark, row[gain].text) for row in table.rows}
    assert shown == {
        "AlignRec": ("", "+10.0 % (p = 0.0600)"),
        "BPR": ("", "—"),
        "Pop": ("*", "—"),
    }
    assert table.marks == "*: differs from AlignRec with p < 0.05 over users after Holm"


def test_without_values_per_user_the_stars_are_over_seeds_and_the_gain_has_no_p(
    three: tuple[ComparisonKey, list[SeedGroup]],
) -> None:
    made = compared(("BPR", "seeds", 0.01, 0.02), ("Pop", "seeds", 0.03, 0.06))
    table = leaderboard(*three, made)
    recall, gain = (table.header.index(name) for name in ("Recall@20", "over best baseline"))
    marks = {row[0].text: row[recall].mark for row in table.rows}
    assert marks == {"AlignRec": "", "BPR": "*", "Pop": ""}
    assert table.rows[0][gain].text == "+10.0 %"
    assert "over seeds after Holm" in table.marks


def test_seconds_are_the_median_over_seeds(tmp_path: Path) -> None:
    for seed, seconds in enumerate((0.9, 0.1, 0.2)):
        store(tmp_path, record(seed=seed, seconds={"train_epoch": seconds, "total": 9.0}))
    table = leaderboard(*table_of(tmp_path))
    assert table.rows[0][table.header.index("s/epoch")].text == "0.20"


@pytest.fixture
def two_targets(tmp_path: Path) -> tuple[ComparisonKey, list[SeedGroup]]:
    """A model on two feature sets, and two rows below it."""
    for name, value in (("lsa", 0.12), ("minilm", 0.11)):
        store(tmp_path, record("AlignRec", value=value, features=name))
    for model, value in (("BPR", 0.10), ("Pop", 0.05)):
        store(tmp_path, record(model, value=value))
    return table_of(tmp_path)


def test_a_marked_row_differs_from_every_target_that_the_legend_names(
    two_targets: tuple[ComparisonKey, list[SeedGroup]],
) -> None:
    p_holm = {("lsa", "BPR"): 0.002, ("minilm", "BPR"): 0.8, ("lsa", "Pop"): 0.002,
              ("minilm", "Pop"): 0.004}  # fmt: skip
    made = [
        Comparison(f"AlignRec, {name}", other, "Recall@20", "users", 40, 0.01, p, p)
        for (name, other), p in p_holm.items()
    ]
    table = leaderboard(*two_targets, made)
    recall = table.header.index("Recall@20")
    marks = {row[0].text: row[recall].mark for row in table.rows if row[0].text != "AlignRec"}
    assert marks == {"BPR": "", "Pop": "*"}
    assert table.marks.startswith("*: differs from AlignRec, lsa and AlignRec, minilm with p")


def test_one_sided_tests_are_said_to_be_so(three: tuple[ComparisonKey, list[SeedGroup]]) -> None:
    made = compared(("BPR", "users", 0.01, 0.02))
    table = leaderboard(*three, made, side="right-sided")
    assert table.marks.endswith("after Holm, one-sided (target larger)")
    assert "p over users after Holm, one-sided (target larger)." in table.note
    assert "one-sided" not in leaderboard(*three, made).note


def test_why_there_is_no_p_is_said_of_the_best_other_row_alone(
    three: tuple[ComparisonKey, list[SeedGroup]],
) -> None:
    tested = compared(("BPR", "users", 0.01, 0.02))
    untested = [Comparison("AlignRec", "Pop", "Recall@20", "users", 0, None, None, why="no values")]
    assert "No p" not in leaderboard(*three, tested + untested).note
    best = [Comparison("AlignRec", "BPR", "Recall@20", "users", 0, None, None, why="no values")]
    assert "No p: no values." in leaderboard(*three, best).note
