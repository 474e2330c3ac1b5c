"""What a person sees while a model is trained."""

from __future__ import annotations

import io
import sys

import pytest

from alignrec_recbole.runtime import progress as steps
from alignrec_recbole.training import progress
from alignrec_recbole.training.early_stopping import EarlyStopping
from alignrec_recbole.training.progress import TrainingProgress, earliest_end


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def stopping(patience: int) -> EarlyStopping:
    return EarlyStopping("Recall@20", larger_is_better=True, patience=patience)


@pytest.mark.parametrize("patience", [0, 1, 4])
@pytest.mark.parametrize("eval_step", [1, 3])
@pytest.mark.parametrize("best", [1, 2, 5])
def test_the_earliest_end_is_where_early_stopping_ends_without_improvement(
    patience: int, eval_step: int, best: int
) -> None:
    """Improvements up to evaluation `best`, none after it; the end is found by the rule itself."""
    rule, foretold, done = stopping(patience), [], 0
    while not rule.exhausted:
        done += 1
        if done % eval_step == 0:
            number = done // eval_step
            rule.update(done - 1, {"Recall@20": float(min(number, best))})
        foretold.append(earliest_end(done, 1000, eval_step, rule))
    after_best = foretold[best * eval_step - 1 :]
    assert {end.epoch for end in after_best} <= {done}
    assert all(end.epoch <= done for end in foretold), "it is the earliest"
    assert all(end.by_early_stopping for end in foretold)


def shown(epochs: int, stream: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(sys, "stderr", stream)
    rule = stopping(20)
    with TrainingProgress("A\x1bB", 0, 1000, 1, rule, True) as bar:
        for epoch in bar.steps():
            if epoch == epochs:
                break
            rule.update(epoch, {"Recall@20": 0.1 + epoch / 100})
            bar.update({"seconds": 1.5, "evaluate_seconds": 0.5})
    return stream.getvalue()


def test_a_pipe_gets_one_line_and_no_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(9, io.StringIO(), monkeypatch) == (
        "A\\x1bB: epoch 2 of at most 1000, 2 s per epoch; early stopping after epoch 23 at the "
        "earliest, in 42 s; best validation Recall@20 0.1100 after epoch 2\n"
    )


def test_a_pipe_gets_another_line_after_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "LINE_EVERY_SECONDS", 0.0)
    assert shown(4, io.StringIO(), monkeypatch).count("\n") == 3


def test_a_terminal_gets_a_bar_with_the_same_facts(monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown(9, Terminal(), monkeypatch)
    assert "epoch 9 of at most 1000" in text
    assert "2 s each, earliest end 30 in 42 s, best 0.1800 at 9" in text


def test_nothing_is_shown_where_it_is_not_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    with TrainingProgress("A", 0, 3, 1, stopping(1), False) as bar:
        for _ in bar.steps():
            bar.update({"seconds": 1.0})
    assert stream.getvalue() == ""


def test_steps_are_announced_inside_shown_only_and_safely() -> None:
    stream = io.StringIO()
    steps.announce("before")
    with steps.shown(stream=stream):
        steps.announce("a\x1b[31m")
    with steps.shown(False, stream):
        steps.announce("not wanted")
    assert stream.getvalue() == "a\\x1b[31m\n"
