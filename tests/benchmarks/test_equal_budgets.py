"""Searches of several models with one budget."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
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
    assert "| p, users" in capsys.readouterr().out
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
    assert "p_users_holm" not in by_model["VBPR"]["Recall@20"]
    assert 0 <= by_model["BM3"]["Recall@20"]["p_users_holm"] <= 1


def test_other_budgets_are_refused(root: Path) -> None:
    with pytest.raises(RecordError, match="no record of a search"):
        equal_budgets.equal_budgets(root, "two")
    search(root, "BPR", 3)
    with pytest.raises(RecordError, match="The budgets of") as refused:
        equal_budgets.equal_budgets(root / "out", "two")
    assert "limit" in str(refused.value)
