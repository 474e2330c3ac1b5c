"""Data apart from models, and metrics of any name and length from training to the table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from records import read_records

from alignrec_recbole.cli.main import main
from alignrec_recbole.errors import SettingError
from alignrec_recbole.runs import prepare
from alignrec_recbole.runs.spec import DataSpec


def test_data_are_prepared_without_any_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(name: str) -> Any:
        raise AssertionError(f"looked for model {name}")

    monkeypatch.setattr(prepare, "components", refuse)
    arguments = ["--dataset", "ml-100k", "--features", "random", "--protocol", "zero-shot"]
    assert main([*arguments, "--output", str(tmp_path), "--no-progress"]) == 0
    (made,) = read_records(tmp_path / "runs")
    assert made.model == "zero-shot"
    assert not {"epochs", "learning_rate", "precision", "seed"} & set(made.config)
    assert {"split_seed", "topk", "metrics", "setting", "eval_args"} <= set(made.config)


def test_settings_of_training_are_none_of_the_data(tmp_path: Path) -> None:
    spec = DataSpec("ml-100k", output=tmp_path, overrides={"learning_rate": 0.1})
    with pytest.raises(SettingError, match="learning_rate"):
        prepare.prepare_data(spec)


def test_neither_recall_nor_twenty_is_needed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--model", "Pop", "--dataset", "ml-100k", "--output", str(tmp_path)]
    settings = ["topk=[3]", "metrics=[NDCG]", "valid_metric=NDCG@3"]
    assert main([*arguments, "--set", *settings]) == 0
    (made,) = read_records(tmp_path / "runs")
    assert list(made.metrics) == list(made.valid_metrics) == ["NDCG@3"]
    shown = capsys.readouterr().out
    assert "NDCG@3" in shown
    assert "No record has Recall@20: ordered by NDCG@3." in shown
    assert main(["report", "--output", str(tmp_path)]) == 0
