"""Curves of masked rows that are filled."""

from __future__ import annotations

from pathlib import Path

import pytest
from records import METRICS, record, store
from trials import run_verb
from two_blocks import write_two_blocks

from alignrec_recbole.errors import RecordError
from alignrec_recbole.runs.record import read_runs
from benchmarks import filled


def test_curves_are_means_over_the_masks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data").mkdir()
    write_two_blocks(tmp_path / "data")
    for fill in ("zero", "propagation"):
        answer = run_verb(
            "--protocol", "mask-modality", "--dataset", "two", "--features", "random", "--quiet",
            "--data-path", tmp_path / "data", "--output", tmp_path / "out",
            "--set", f"fill={fill}", "mask_seeds=[0,1]",
        )  # fmt: skip
        assert answer.status == 0, answer.errors
    given = ["--output", str(tmp_path / "out"), "--dataset", "two"]
    assert filled.main([*given, "--folder", str(tmp_path / "stored")]) == 0
    assert "propagation" in capsys.readouterr().out
    (stored,) = filled.read(tmp_path / "stored")
    assert [(c["ranker"], c["fill"]) for c in stored["curves"]] == [
        ("item-cf", "zero"), ("item-cf", "propagation"),
        ("zero-shot", "zero"), ("zero-shot", "propagation"),
    ]  # fmt: skip
    records = [run.record for run in read_runs(tmp_path / "out" / "runs")]
    for curve in stored["curves"]:
        record = next(r for r in records if (r.model, r.config["protocol"]["fill"])
                      == (curve["ranker"], curve["fill"]))  # fmt: skip
        own = [p["metrics"]["Recall@20"] for p in record.curve if p["ratio"] == 0.5]
        assert len(own) == curve["masks"] == 2
        assert curve["values"]["0.5"] == pytest.approx(sum(own) / 2)


def test_without_records_there_is_no_curve(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="no record of protocol mask-modality"):
        filled.curves(tmp_path, "two")


def test_masks_of_several_modalities_are_not_averaged(tmp_path: Path) -> None:
    point = {"ratio": 0.5, "mask_seed": 0, "metrics": dict.fromkeys(METRICS, 0.1)}
    curve = [{**point, "modality": name} for name in ("text", "image")]
    config = {"protocol": {"fill": "zero"}}
    made = record(
        "zero-shot", protocol="mask-modality", features="text", config=config, curve=curve
    )
    store(tmp_path, made)
    with pytest.raises(RecordError, match="masks several modalities"):
        filled.curves(tmp_path, "toy")
