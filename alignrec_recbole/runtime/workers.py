"""Life of worker processes."""

from __future__ import annotations

import contextlib
import ctypes
import signal
import sys

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def exit_with_parent(_: int = 0) -> None:
    """Have Linux kill this process when its parent ends, however that ends.

    For workers: one that outlives its parent waits for it forever and keeps its locks. torch's own
    watch over the parent does not help a worker whose results nobody takes.
    """
    if sys.platform.startswith("linux"):
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL("libc.so.6").prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
