"""glibc's heap as runs need it, said where glibc reads it: before a process starts.

torch asks for aligned memory. glibc cuts it out of a larger piece and puts the cuttings, of some 50
bytes, into a cache that each thread has; while they lie there, or hold something small, what is
freed on both sides of them can't be joined, and a block of the same size doesn't fit into either.
In a training step that is a tenth of the peak and more (benchmarks/speed/baselines.py).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

_VARIABLE = "GLIBC_TUNABLES"
_OPTION = "glibc.malloc.tcache_count"


def environment(given: Mapping[str, str]) -> dict[str, str]:
    """`given` with that cache off, unless it says something of it; no other libc reads it.

    >>> environment({"GLIBC_TUNABLES": "glibc.malloc.arena_max=1"})
    {'GLIBC_TUNABLES': 'glibc.malloc.arena_max=1:glibc.malloc.tcache_count=0'}
    """
    said = given.get(_VARIABLE, "")
    if _OPTION in said:
        return dict(given)
    return {**given, _VARIABLE: ":".join(filter(None, [said, f"{_OPTION}=0"]))}


def restart() -> None:
    """Start this program again with `environment`, as the same process; on Linux, and only once.

    For the first line of a program: what it did is lost. Under a debugger nothing happens.
    """
    wanted = environment(os.environ)
    if sys.platform.startswith("linux") and wanted != dict(os.environ) and not sys.gettrace():
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], wanted)
