"""Runs without a part of AlignRec against runs that have it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from trials import run_verb
from two_blocks import write_two_blocks

from alignrec_recbole.errors import RecordError
from alignrec_recbole.runs.record import read_runs
from benchmarks import ablations


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seeds of AlignRec, whole, without CCA and without REG, and one of other settings."""
    root = tmp_path_factory.mktemp("parts")
    (root / "data").mkdir()
    write_two_blocks(root / "data")
    where = ("--data-path", root / "data", "--output", root / "out", "--quiet", "--no-save")
    for more in ("cca_weight=0.01", "cca_weight=0", "reg_sim_weight=0", "embedding_size=8"):
        answer = run_verb(
            "--model", "AlignRec", "--dataset", "two", "--features", "random",
            "--eval-convention", "mmrec", "--seeds", "1,2", "--epochs", "2", *where, "--set", more,
        )  # fmt: skip
        assert answer.status == 0, answer.errors
    return root / "out"


def test_parts_are_paired_by_seed_and_by_user(
    output: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--output", str(output), "--dataset", "two", "--folder", str(tmp_path)]
    assert ablations.main(given) == 0
    assert "95 % interval" in capsys.readouterr().out
    rows = ablations.read(tmp_path)["two"]
    assert {row["part"] for row in rows} == {"CCA", "REG"}  # UIA has no runs without it
    records = [run.record for run in read_runs(output / "runs" / "two")]
    for row in rows:
        key = {"CCA": "cca_weight", "REG": "reg_sim_weight"}[row["part"]]
        wanted = {r.seed: r.metrics[row["metric"]] for r in records if r.config[key] == 0}
        assert row["without"] == {str(seed): value for seed, value in wanted.items()}
        change = np.array([*row["without"].values()]) - np.array([*row["whole"].values()])
        assert row["difference"] == pytest.approx(change.mean())
        if change.any():
            assert row["p_seeds"] == pytest.approx(stats.ttest_1samp(change, 0).pvalue)
        assert row["users"] == 40
        family = [r for r in rows if r["metric"] == row["metric"]]
        least = min(r["p_users"] for r in family)
        assert min(r["p_users_holm"] for r in family) == pytest.approx(min(1, 2 * least))


def test_features_with_and_without_pretraining_are_paired(output: Path) -> None:
    with pytest.raises(RecordError, match="No part of AlignRec"):
        ablations.ablations(output, "two", ("beit3", "beit3-untrained"))
    found = ablations.ablations(output, "two", ("random", "random"))
    assert {one.part for one in found} == {"ICA"}
    assert all(one.difference == 0 and one.p_users == 1 for one in found)
