"""What Dask loads into workers of this machine that the command starts itself (`preload`)."""

from __future__ import annotations

import signal
from typing import Any


def dask_setup(worker: Any) -> None:
    """Ignore Ctrl-C, which a terminal sends to workers too: the command stops their cells."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
