"""Ctrl-C and SIGTERM that let work finish a step and save its state."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any


@contextlib.contextmanager
def stop_on_signal(stop: Callable[[], None], message: str) -> Iterator[None]:
    """Inside, the first Ctrl-C or SIGTERM calls `stop`, the second raises KeyboardInterrupt.

    Args:
        stop: asks the work to stop soon.
        message: what is finished first, for the terminal: "stopping after this epoch".
    """
    asked = False

    def handler(number: int, frame: Any) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        stop()
        sys.stderr.write(f"\n{message}; press again to stop at once\n")

    try:
        old = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not in the main thread: the caller handles signals
        yield
        return
    try:
        yield
    finally:
        for number, previous in old.items():
            signal.signal(number, previous)
