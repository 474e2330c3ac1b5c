"""How glibc's allocator treats large freed blocks: one setting per phase of a run.

`phase("load")`, while data are read, encoded and turned into graphs: blocks of 32 MiB or more are
mapped on their own and go back to the kernel when freed. Otherwise what comes after them is
scattered over the holes that they leave, and the peak grows by these.

`phase("train")`, while a model is trained and ranks: freed memory stays with the process. A step
frees and asks for the same tens of megabytes again and again; from the kernel each costs a page
fault per 4 KiB, a fifth of LightGCN's step.

The setting holds for the whole process until the next phase.

`use_large_pages()`, before torch is imported, has torch ask Linux for 2 MiB pages for its large
blocks: 7 % of a step of AlignRec and of LightGCN on Sports (docs/performance.md).

ALIGNREC_ALLOCATOR=default leaves the allocator as the system has it. Other platforms than Linux
with glibc are left alone.
"""

from __future__ import annotations

import ctypes
import os
import sys
from typing import Literal

ENVIRONMENT = "ALIGNREC_ALLOCATOR"
MAPPED_BYTES = 32 << 20  # blocks from this size are mapped on their own while loading

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4  # malloc.h
_OPTIONS = {
    "load": {_M_MMAP_MAX: 1 << 16, _M_MMAP_THRESHOLD: MAPPED_BYTES},
    "train": {_M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: 2**31 - 1},
}


def use_large_pages() -> None:
    """Set torch's THP_MEM_ALLOC_ENABLE for this process and its children, unless it is set.

    torch reads it at its first allocation; later it has no effect.
    """
    if os.environ.get(ENVIRONMENT) != "default":
        os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


def phase(name: Literal["load", "train"]) -> bool:
    """Set the allocator for a phase, after returning what is free now; whether that was done."""
    if os.environ.get(ENVIRONMENT) == "default":
        return False
    if "pyarrow" in sys.modules:  # pandas reads texts with it, where it is installed
        sys.modules["pyarrow"].default_memory_pool().release_unused()
    if not sys.platform.startswith("linux"):
        return False
    try:
        libc = ctypes.CDLL("libc.so.6")
        libc.malloc_trim(0)
        return all(libc.mallopt(option, value) for option, value in _OPTIONS[name].items())
    except (OSError, AttributeError):  # another libc than glibc
        return False
