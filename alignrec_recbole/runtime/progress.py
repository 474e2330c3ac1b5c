r"""What the program is doing, in one line per step, for a person who waits.

>>> import io
>>> stream = io.StringIO()
>>> with shown(stream=stream):
...     announce("reading the data")
>>> stream.getvalue()
'reading the data\n'
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TextIO

from alignrec_recbole.errors import printable

_log = logging.getLogger(__name__)
_log.propagate = False  # RecBole configures the root logger
_bars: ContextVar[bool] = ContextVar("bars", default=True)


def announce(step: str) -> None:
    """Say what begins now; nothing is printed outside `shown`."""
    _log.info(printable(step))


def bars_wanted() -> bool:
    """Whether bars are shown: not inside `shown(False)`.

    >>> with shown(False):
    ...     bars_wanted()
    False
    """
    return _bars.get()


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook, which shows bars and no lines."""
    kernel = sys.modules.get("ipykernel.kernelapp")
    return kernel is not None and kernel.IPKernelApp.initialized()


@contextmanager
def shown(wanted: bool = True, stream: TextIO | None = None) -> Iterator[None]:
    """Print what is announced inside, by default on standard error.

    Nothing is printed if it is not `wanted`, nor in a notebook, unless `stream` is given. Where it
    is not wanted there are no bars either.
    """
    bars = _bars.set(wanted)
    wanted = wanted and (stream is not None or not in_notebook())
    handler = logging.StreamHandler(stream or sys.stderr) if wanted else logging.NullHandler()
    level = _log.level
    _log.addHandler(handler)
    _log.setLevel(logging.INFO)
    try:
        yield
    finally:
        _bars.reset(bars)
        _log.removeHandler(handler)
        _log.setLevel(level)


def duration(seconds: float) -> str:
    """Seconds as a person says them.

    >>> duration(0.534), duration(33.2), duration(75), duration(4000)
    ('0.53 s', '33 s', '1 min 15 s', '1 h 6 min')
    """
    if seconds < 10:
        return f"{seconds:.2g} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
