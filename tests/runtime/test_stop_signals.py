"""Signals: the first one asks the work to stop, the second one ends it, also for work in work."""

from __future__ import annotations

import signal

import pytest

from alignrec_recbole.runtime.stop_signals import stop_on_signal


def test_the_second_signal_ends_the_work_and_handlers_return(
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    asked: list[str] = []
    with stop_on_signal(lambda: asked.append("a"), "stopping"):
        signal.raise_signal(signal.SIGTERM)
        assert asked == ["a"]
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) is before
    assert capsys.readouterr().err == "\nstopping; press again to stop at once\n"


def test_work_that_begins_after_a_signal_is_asked_at_once() -> None:
    asked: list[str] = []
    with stop_on_signal(lambda: asked.append("outer"), "a"):
        with stop_on_signal(lambda: asked.append("early"), "b"):
            pass
        signal.raise_signal(signal.SIGTERM)
        with stop_on_signal(lambda: asked.append("inner"), "c"):
            assert asked == ["outer", "inner"]
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGTERM)


def test_a_signal_reaches_the_inner_work_alone() -> None:
    asked: list[str] = []
    with (
        stop_on_signal(lambda: asked.append("outer"), "a"),
        stop_on_signal(lambda: asked.append("inner"), "b"),
    ):
        signal.raise_signal(signal.SIGTERM)
    assert asked == ["inner"]
