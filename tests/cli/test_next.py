"""The command that verbs print when data or features are there: it can be typed, and it works."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from alignrec_recbole.cli.main import main
from alignrec_recbole.runs.record import read_runs


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Twenty users with eight of twelve items each."""
    path = tmp_path / "orders.csv"
    rows = [f"u{user},i{(user + step) % 12}" for user in range(20) for step in range(8)]
    path.write_text("\n".join(["user,item", *rows]) + "\n")
    return path


@pytest.fixture
def items(tmp_path: Path) -> Path:
    """Their titles."""
    path = tmp_path / "titles.csv"
    rows = [f"i{item},{word} tea {item}" for item, word in enumerate(["green", "black"] * 6)]
    path.write_text("\n".join(["item_id,title", *rows]) + "\n")
    return path


def shown(
    arguments: list[str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> list[str] | None:
    """The arguments of the command that a verb ends with; None if it shows none."""
    assert main([*arguments, "--data-path", str(folder)]) == 0
    out = capsys.readouterr().out
    if "Next, for example" not in out:
        return None
    program, *rest = shlex.split(out.strip().splitlines()[-1])
    return rest[1:] if program == "python" else rest


def imported(table: Path, *more: str) -> list[str]:
    return ["import", str(table), "--columns", "user=user,item=item", "--dataset", "shop", *more]


def test_data_with_texts_are_trained_on_by_the_command_shown(
    table: Path, items: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = shown(imported(table, "--items", str(items)), tmp_path / "data", capsys)
    assert found is not None
    assert found[:4] == ["--model", "AlignRec,LightGCN", "--dataset", "shop"]
    output = tmp_path / "results"
    assert main([*found, "--epochs", "1", "--output", str(output), "--no-progress"]) == 0
    assert {run.record.model for run in read_runs(output / "runs")} == {"AlignRec", "LightGCN"}


def test_data_without_content_get_models_that_need_none(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "data"
    expected = ["--model", "LightGCN,BPR", "--dataset", "shop", "--data-path", str(folder)]
    assert shown(imported(table), folder, capsys) == expected


def test_features_are_named_where_they_are_found(
    table: Path, items: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, elsewhere = tmp_path / "data", tmp_path / "elsewhere"
    shown(imported(table, "--items", str(items)), folder, capsys)
    prepare = ["prepare", "--dataset", "shop", "--encoder", "lsa", "--name", "words"]
    found = shown(prepare, folder, capsys)
    assert found is not None
    assert found[4:] == ["--features", "words", "--data-path", str(folder)]
    found = shown([*prepare, "--output", str(elsewhere)], folder, capsys)
    assert found is not None
    assert found[-2:] == ["--features-path", str(elsewhere)]
    protocol = ["--protocol", "zero-shot", *found[2:], "--output", str(tmp_path / "results")]
    assert main([*protocol, "--no-progress"]) == 0


def test_a_rekeyed_data_set_is_named_by_its_new_name(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "data"
    shown(imported(table), folder, capsys)
    found = shown(["prepare", "--dataset", "shop", "--rekey", "5"], folder, capsys)
    assert found is not None
    assert found[:4] == ["--model", "LightGCN,BPR", "--dataset", "shop-rekeyed-5"]


def test_nothing_is_shown_without_interactions(
    items: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "data"
    (folder / "shop").mkdir(parents=True)
    prepare = ["prepare", "--dataset", "shop", "--encoder", "lsa", "--items", str(items)]
    assert shown(prepare, folder, capsys) is None
