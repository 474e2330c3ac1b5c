"""Figures of the protocols with several rankings: by mask ratio, by history and popularity."""

from __future__ import annotations

from pathlib import Path

import pytest
from records import METRICS, record, store

from alignrec_recbole.reports.contents import tables
from alignrec_recbole.reports.table import Table
from alignrec_recbole.runs.record import read_runs


def shown(table: Table, columns: int) -> list[list[str]]:
    """The texts of the first columns of a table's rows."""
    return [[cell.text for cell in row[:columns]] for row in table.rows]


def test_masked_figures_are_means_over_mask_seeds_and_the_area_is_of_what_remains(
    tmp_path: Path,
) -> None:
    """Kept of 0.2: 1, 0.75 and 0.25 at 0, 0.5 and 1; the area is (0.875 + 0.5) / 2."""
    figures = {0.0: (0.2, 0.2), 0.5: (0.1, 0.2), 1.0: (0.04, 0.06)}
    curve = [
        {
            "modality": "text",
            "ratio": ratio,
            "mask_seed": seed,
            "metrics": dict.fromkeys(METRICS, value),
        }
        for ratio, values in figures.items()
        for seed, value in enumerate(values)
    ]
    config = {"protocol": {"fill": "mean"}}
    made = record("zero-shot", protocol="mask-modality", features="lsa", curve=curve, config=config)
    store(tmp_path, made)
    (table,) = tables(read_runs(tmp_path / "runs"))["toy-mask-modality"]
    assert list(table.header) == ["ranker", "features", "masked", "fill", "0", "0.5", "1", "area"]
    spreads = ["0.2000 ± 0.0000", "0.1500 ± 0.0707", "0.0500 ± 0.0141"]
    assert shown(table, 8) == [["zero-shot", "lsa", "text", "mean", *spreads, "0.688"]]
    assert table.rows[0][-1].value == pytest.approx(0.6875)


def test_of_a_long_tail_recalls_are_ranked_and_shares_of_places_are_not(tmp_path: Path) -> None:
    for model, recall in (("BPR", 0.1), ("Pop", 0.3)):
        for seed in (1, 2):
            value = recall + seed / 100
            users = {"Recall@20": value, "users": 5.0}
            popular = {"Recall@20": value / 2, "exposure@20": 1 - recall}
            groups = {
                "history": {"<=3": users, ">=4": {"users": 0.0}},
                "popularity": {"0": {"items": 1.0, "exposure@20": recall}, ">=1": popular},
            }
            made = record(model, seed, protocol="long-tail", groups=groups, history=[])
            store(tmp_path, made)
    by_history, by_popularity, places = tables(read_runs(tmp_path / "runs"))["toy-long-tail"]
    assert list(by_history.header) == ["model", "features", "<=3", ">=4"]
    assert shown(by_history, 4) == [
        ["BPR", "none", "0.1150 ± 0.0071", "—"],
        ["Pop", "none", "0.3150 ± 0.0071", "—"],
    ]
    assert [row[3].text for row in by_popularity.rows] == ["0.0575 ± 0.0035", "0.1575 ± 0.0035"]
    assert [[row[2].text, row[3].text] for row in places.rows] == [
        ["0.1000 ± 0.0000", "0.9000 ± 0.0000"],
        ["0.3000 ± 0.0000", "0.7000 ± 0.0000"],
    ]
    ranks = [[cell.rank for row in each.rows for cell in row[2:]] for each in (by_history, places)]
    assert ranks == [[2, 0, 1, 0], [0, 0, 0, 0]]
