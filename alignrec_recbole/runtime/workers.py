"""Worker processes that end with the process that started them, and at its request alone."""

from __future__ import annotations

import contextlib
import ctypes
import signal
import sys

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def exit_with_parent(_: int = 0) -> None:
    """Have Linux kill this process when its parent ends, however that ends.

    A worker that outlives its parent waits for it forever and holds its locks. torch's own check of
    the parent does not help a worker that waits for its results to be fetched.

    A terminal sends Ctrl-C to the workers too: they ignore it, as their parent ends them.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a handler of the parent is not theirs
    if sys.platform.startswith("linux"):
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL("libc.so.6").prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
