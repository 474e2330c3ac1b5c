"""Searches of several models with one budget."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from records import record, store
from scipy import stats
from trials import run_verb
from two_blocks import write_two_blocks

from alignrec_recbole.errors import RecordError
from alignrec_recbole.runs.record import read_runs
from benchmarks import equal_budgets

pytest.importorskip("optuna", reason="the extra 'search' is not installed")


def search(root: Path, model: str, trials: int) -> None:
    answer = run_verb(
        "tune", "--model", model, "--dataset", "two", "--features", "random", "--trials",
        str(trials), "--defaults-first", "--epochs", "2", "--seeds", "1,2", "--no-save",
        "--data-path", root / "data", "--output", root / "out", "--set", "stopping_step=3",
        "--study", f"toy{trials}",
    )  # fmt: skip
    assert answer.status == 0, answer.errors


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the searches of two models."""
    folder = tmp_path_factory.mktemp("equal")
    (folder / "data").mkdir()
    write_two_blocks(folder / "data")
    search(folder, "VBPR", 2)
    search(folder, "BM3", 2)
    return folder


def test_rows_have_one_budget_and_are_tested_against_the_target(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--output", str(root / "out"), "--dataset", "two", "--target", "VBPR"]
    assert equal_budgets.main([*given, "--folder", str(tmp_path)]) == 0
    assert "| p " in capsys.readouterr().out
    (stored,) = equal_budgets.read(tmp_path)
    assert stored["budget"]["limit"] == {"trials": 2.0}
    assert stored["budget"]["patience"] == 3
    assert stored["budget"]["seeds"] == [1, 2]
    records = [run.record for run in read_runs(root / "out" / "runs" / "two")]
    means = []
    for row in stored["rows"]:
        own = {str(r.seed): r.metrics["Recall@20"] for r in records if r.model == row["model"]}
        assert row["Recall@20"]["values"] == own
        assert row["trials"] == len(row["scores"]) == 2
        assert row["scores"][row["chosen"]] == row["best_on_validation"] == max(row["scores"])
        means.append(np.mean([*own.values()]))
    assert means == sorted(means, reverse=True)
    by_model = {row["model"]: row for row in stored["rows"]}
    assert "p_seeds" not in by_model["VBPR"]["NDCG@20"]
    ours, other = (by_model[model]["NDCG@20"] for model in ("VBPR", "BM3"))
    values = [[entry["values"][seed] for seed in ("1", "2")] for entry in (ours, other)]
    assert other["target_minus_this"] == pytest.approx(np.mean(values[0]) - np.mean(values[1]))
    assert other["p_seeds"] == pytest.approx(stats.ttest_rel(*values).pvalue)
    assert other["p_seeds_holm"] == other["p_seeds"]  # one test


def test_stored_models_stay_and_are_corrected_with_the_others(root: Path, tmp_path: Path) -> None:
    given = ["--output", str(root / "out"), "--dataset", "two", "--target", "VBPR"]
    given += ["--folder", str(tmp_path)]
    assert equal_budgets.main(given) == 0
    path = tmp_path / "two.json"
    first = json.loads(path.read_text())
    stored = [{**row, "model": f"Other{row['model']}"} for row in first["rows"]]
    path.write_text(json.dumps({**first, "rows": stored}))
    assert equal_budgets.main(given) == 0
    both = {row["model"]: row for row in json.loads(path.read_text())["rows"]}
    assert set(both) == {"VBPR", "BM3", "OtherVBPR", "OtherBM3"}
    p = {name: row["NDCG@20"]["p_seeds"] for name, row in both.items() if name != "VBPR"}
    least = min(p, key=lambda name: p[name])
    assert both[least]["NDCG@20"]["p_seeds_holm"] == pytest.approx(min(1, 3 * p[least]))
    assert equal_budgets.main(given) == 0
    assert len(json.loads(path.read_text())["rows"]) == 4
    first["budget"]["data"] = {"two.inter": "0" * 64}
    path.write_text(json.dumps(first))
    with pytest.raises(RecordError, match="differ") as refused:
        equal_budgets.main(given)
    assert "two.inter" in str(refused.value)


def test_a_target_without_a_search_is_named(root: Path, tmp_path: Path) -> None:
    given = ["--output", str(root / "out"), "--dataset", "two", "--folder", str(tmp_path)]
    with pytest.raises(RecordError, match="There is no search of AlignRec"):
        equal_budgets.main(given)


BUDGET: dict[str, Any] = {
    "study": "s",
    "sampler": "tpe",
    "pruner": "none",
    "space_sha256": "0" * 64,
    "chosen_on": "Recall@20 on validation, seed 1",
    "limit": {"trials": 1.0},
    "trials": 1,
    "pruned": 0,
    "failed": 0,
    "epochs": 2,
    "seconds": 1.0,
    "patience": 20,
    "chosen": 0,
    "curve": [
        {"trial": 0, "state": "complete", "score": 0.1, "best": 0.1, "epochs": 2, "seconds": 1.0,
         "parameters": {"reg_weight": 0.1}},
    ],
}  # fmt: skip
DATA: dict[str, Any] = {"split": {"kind": "released"}, "files": {"toy.inter": "a"}}


@pytest.mark.parametrize(
    ("key", "changes"),
    [
        ("", {"data": {**DATA, "files": {**DATA["files"], "toy.item": "c"}}}),
        ("limit", {"budget": {**BUDGET, "limit": {"seconds": 9.0}}}),
        ("pruner", {"budget": {**BUDGET, "pruner": "median"}}),
        ("sampler", {"budget": {**BUDGET, "sampler": "random"}}),
        ("patience", {"budget": {**BUDGET, "patience": 10}}),
        ("chosen on", {"budget": {**BUDGET, "chosen_on": "NDCG@20 on validation, seed 1"}}),
        ("seeds", {"seed": 2}),
        ("setting", {"setting": "recbole"}),
        ("data", {"data": {**DATA, "files": {"toy.inter": "b"}}}),
        ("split", {"data": {**DATA, "split": {"kind": "ratio"}}}),
    ],
)
def test_rows_share_all_that_gives_a_model_a_chance(
    tmp_path: Path, key: str, changes: dict[str, Any]
) -> None:
    usual = {"seed": 1, "budget": BUDGET, "data": DATA}
    store(tmp_path, record("BPR", **usual))
    store(tmp_path, record("VBPR", **{**usual, **changes}))
    store(tmp_path, record("EASE", protocol="long-tail", groups={"history": {}, "popularity": {}},
                           **{**usual, **changes}))  # fmt: skip
    store(tmp_path, record("Pop", data=DATA))  # without a search
    if not key:
        rows = equal_budgets.equal_budgets(tmp_path, "toy")["rows"]
        assert [row["model"] for row in rows] == ["BPR", "VBPR"]
        return
    with pytest.raises(RecordError, match="The budgets of BPR and VBPR differ") as refused:
        equal_budgets.equal_budgets(tmp_path, "toy")
    assert refused.value.found.startswith(f"{key} ")


def test_other_budgets_are_refused(root: Path) -> None:
    with pytest.raises(RecordError, match="no record of a search"):
        equal_budgets.equal_budgets(root, "two")
    search(root, "BPR", 3)
    with pytest.raises(RecordError, match="The budgets of") as refused:
        equal_budgets.equal_budgets(root / "out", "two")
    assert "limit" in str(refused.value)


def test_means_that_print_alike_share_the_best_place() -> None:
    rows = [{"Recall@20": {"values": {"1": value}}} for value in (0.43604, 0.43598, 0.4, 0.3)]
    means = [0.43604, 0.43598, 0.4, 0.3]
    shown = [equal_budgets._shown(row, "Recall@20", n, means) for n, row in enumerate(rows)]
    assert shown == ["**0.4360**", "**0.4360**", "<u>0.4000</u>", "0.3000"]
