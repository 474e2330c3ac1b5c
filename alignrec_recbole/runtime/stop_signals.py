"""Ctrl-C and SIGTERM that let work finish a step and save its state."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any


class _Handler:
    """The first signal calls `stop`, the second raises KeyboardInterrupt."""

    def __init__(self, stop: Callable[[], None], message: str) -> None:
        self._stop, self._message = stop, message
        self.asked = False

    def __call__(self, number: int, frame: Any) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.ask()

    def ask(self) -> None:
        self.asked = True
        self._stop()
        sys.stderr.write(f"\n{self._message}; press again to stop at once\n")


@contextlib.contextmanager
def stop_on_signal(stop: Callable[[], None], message: str) -> Iterator[None]:
    """Inside, the first Ctrl-C or SIGTERM calls `stop`, the second raises KeyboardInterrupt.

    Work inside other work, such as a training in a search: a signal reaches the inner one. If the
    outer one was asked to stop before, the inner one is asked as it begins.

    Args:
        stop: asks the work to stop soon.
        message: what is finished first, for the terminal: "stopping after this epoch".
    """
    handler = _Handler(stop, message)
    try:
        old = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not in the main thread: the caller handles signals
        yield
        return
    try:
        if any(isinstance(outer, _Handler) and outer.asked for outer in old.values()):
            handler.ask()
        yield
    finally:
        for number, previous in old.items():
            signal.signal(number, previous)
