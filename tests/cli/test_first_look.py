"""A first look with --epochs: what its table says, the next command, how to go on after Ctrl-C."""

from __future__ import annotations

import io
import json
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
from two_blocks import write_two_blocks

from alignrec_recbole.cli._command import as_typed, without_option
from alignrec_recbole.cli.main import main
from alignrec_recbole.runs import run
from alignrec_recbole.training.trainer import MultimodalTrainer


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_two_blocks(folder)
    return folder


@pytest.fixture
def arguments(world: Path, tmp_path: Path) -> list[str]:
    return [
        "--model", "BPR,LightGCN", "--dataset", "two", "--data-path", str(world), "--output",
        str(tmp_path), "--set", "topk=[2,20]", "valid_metric=Recall@2", "stopping_step=3",
    ]  # fmt: skip


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_table_says_what_it_is_and_the_next_command_continues(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, "--epochs", "2"]) == 0
    out, err = capsys.readouterr()
    words = " ".join(out.split())
    assert "A first look: at most 2 epochs, which ended before early stopping." in words
    assert words.count("at most 2 epochs") == 3, "the caption and both rows"
    assert "BPR, LightGCN ended after 2 epochs, before early stopping" in out
    assert "BPR on two, seed 999: reading the data\n" in err
    assert "\r" not in err, "no bar in a pipe"
    typed = shlex.split(out.strip().splitlines()[-1])
    assert typed[typed.index("--model") :] == arguments
    assert main(arguments) == 0
    out, err = capsys.readouterr()
    assert err.count("continuing after epoch 2\n") == 2
    assert 'Rows noted "at most N epochs" ended there' in " ".join(out.split())
    assert re.search(r"BPR \(epochs=2\).*at most 2 epochs", out)
    assert not re.search(r"BPR  .*at most", out)
    assert "A first look" not in out
    found = [json.loads(path.read_text()) for path in (tmp_path / "runs").rglob("*.json")]
    stopped = sorted((record["model"], record["selection"]["stopped"]) for record in found)
    assert stopped == [(m, s) for m in ("BPR", "LightGCN") for s in ("epochs", "patience")]


@pytest.mark.parametrize("terminal", [True, False])
def test_a_terminal_shows_what_is_finished_while_more_is_to_come(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    stream = Terminal() if terminal else io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    assert main([*arguments, "--epochs", "2"]) == 0
    assert stream.getvalue().count("Finished so far:") == terminal


@pytest.mark.parametrize("how", ["once", "twice"])
def test_after_ctrl_c_the_table_so_far_and_the_way_on_are_shown(
    arguments: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    how: str,
) -> None:
    original = MultimodalTrainer._run_epoch

    def stopped(self: Any, batches: Any, epoch: int) -> Any:
        if self.config["model"] == "LightGCN" and epoch == 1:
            if how == "twice":
                raise KeyboardInterrupt
            self.stop_requested = True
        return original(self, batches, epoch)

    with monkeypatch.context() as patch:
        patch.setattr(run.MultimodalTrainer, "_run_epoch", stopped)
        assert main([*arguments, "--overwrite"]) == 130
    err = capsys.readouterr().err
    so_far = err.partition("Finished so far:")[2]
    assert "BPR " in so_far
    assert not any(line.startswith("LightGCN ") for line in so_far.splitlines())
    last = err.strip().splitlines()
    assert last[-1].strip() == as_typed(arguments), "with --overwrite it would start again"
    assert "run the same command to resume" in last[-2]
    assert main(arguments) == 0


def test_a_run_that_is_finished_is_shown_although_an_earlier_one_is_not(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of runs at once the first may be the last to finish."""
    assert main([*arguments, "--model", "LightGCN"]) == 0

    def stopped(self: Any, batches: Any, epoch: int) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(run.MultimodalTrainer, "_run_epoch", stopped)
    capsys.readouterr()
    assert main(arguments) == 130
    assert "LightGCN  none" in capsys.readouterr().err.partition("Finished so far:")[2]


@pytest.mark.parametrize("argument", [["--epochs", "2"], ["--epochs=2"]])
def test_the_option_is_left_out_of_the_next_command(argument: list[str]) -> None:
    assert without_option(["run", *argument, "--model", "A B"], "--epochs") == [
        "run", "--model", "A B",
    ]  # fmt: skip
