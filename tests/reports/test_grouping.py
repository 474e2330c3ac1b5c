"""Which records make one row, which rows make one table, and what a row says of its records."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from records import record, store

from alignrec_recbole.protocols.cold_start import simulate
from alignrec_recbole.reports.comparisons import targets
from alignrec_recbole.reports.grouping import (
    candidates_of,
    comparable_groups,
    default_variants,
    seed_groups,
)
from alignrec_recbole.runs.record import NUMBERS_EPOCH, read_runs


def test_records_of_an_earlier_results_version_are_in_no_table(tmp_path: Path) -> None:
    store(tmp_path, record("BPR"))
    store(tmp_path, record("Pop", numbers_epoch=NUMBERS_EPOCH - 1))
    ((group,),) = comparable_groups(read_runs(tmp_path / "runs")).values()
    assert group.label == "BPR"


def test_a_file_of_items_makes_no_other_data(tmp_path: Path) -> None:
    split, files = {"kind": "released"}, {"toy.inter": "a"}
    store(tmp_path, record("BPR", data={"split": split, "files": files}))
    store(tmp_path, record("Pop", data={"split": split, "files": {**files, "toy.item": "b"}}))
    ((key, members),) = comparable_groups(read_runs(tmp_path / "runs")).items()
    assert [group.label for group in members] == ["BPR", "Pop"]
    assert key.data == ""


def test_seeds_are_in_their_order_whatever_was_made_first(tmp_path: Path) -> None:
    for day, seed in enumerate((1001, 999, 1000), 1):
        store(tmp_path, record(seed=seed, started_utc=f"2026-01-0{day}"))
    (group,) = seed_groups(read_runs(tmp_path / "runs"))
    assert [made.seed for made in group.records] == [999, 1000, 1001]
    assert group.first.seed == 999


def test_seeds_with_other_numbers_of_threads_are_noted(tmp_path: Path) -> None:
    for model, counts in (("BPR", (2, 2)), ("Pop", (1, 2))):
        for seed, threads in enumerate(counts):
            store(tmp_path, record(model, seed, machine={"cpu": "c", "threads": threads}))
    alike, other = seed_groups(read_runs(tmp_path / "runs"))
    assert alike.notes == []
    assert other.notes == ["seeds with 1 and 2 threads, whose sums are rounded differently"]


def test_of_two_equally_unusual_variants_neither_is_the_model_as_it_is(tmp_path: Path) -> None:
    for changed in ({"cl": 0.5}, {"n": 3}):
        store(tmp_path, record(config={"reg_weight": 0.9, "cl": 0.1, "n": 2, **changed}))
    store(tmp_path, record(config={"reg_weight": 0.9, "cl": 0.5, "n": 3}))
    several = seed_groups(read_runs(tmp_path / "runs"))
    assert sorted(len(group.non_default_settings) for group in several) == [0, 1, 1]
    assert default_variants(several)["LightGCN", "none"].non_default_settings == ()
    unusual = [group for group in several if group.non_default_settings]
    assert default_variants(unusual) == {}


def test_without_a_name_the_target_is_the_best_on_validation_not_on_test(tmp_path: Path) -> None:
    for model, valid, test in (("BPR", 0.3, 0.1), ("LightGCN", 0.2, 0.4)):
        store(tmp_path, record(model, value=test, valid_metrics={"Recall@20": valid}))
    store(tmp_path, record("Pop", value=0.5, valid_metrics={}))
    ((_, members),) = comparable_groups(read_runs(tmp_path / "runs")).items()
    assert [group.label for group in targets(members, None)] == ["BPR"]


@pytest.mark.parametrize("items", [100, 41])
def test_the_candidates_of_a_cold_start_are_the_items_that_it_draws(items: int) -> None:
    """0.29 · 100 is 28.999999999999996 in floating point."""
    tokens = ["[PAD]", *map(str, range(items))]
    pairs = np.ones(items, dtype=int), np.arange(1, items + 1)
    drawn = simulate([pairs, pairs], tokens, 2, 0.29, 0)
    made = record(
        protocol="cold-start",
        config={"protocol": {"cold_share": 0.29}},
        data={"items": items, "split": {"kind": "released"}, "files": {}},
    )
    assert candidates_of(made) == len(drawn.cold) == 29 * items // 100
