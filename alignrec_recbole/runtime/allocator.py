"""glibc's allocator: return freed memory while loading, keep it while training."""

from __future__ import annotations

import contextlib
import ctypes
import sys
from pathlib import Path

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4  # malloc.h
_MADV_COLLAPSE = 25  # linux/mman.h
_HUGE_FROM = 8 << 20
_MAPPED_FROM = 32 << 20


def return_freed_memory() -> bool:
    """Have large freed blocks go back to the kernel: while data are read and graphs are built.

    What comes after would otherwise be scattered over the holes that these leave, and touch all of
    them. Returns whether it could be set.
    """
    return _set_allocator({_M_MMAP_MAX: 1 << 16, _M_MMAP_THRESHOLD: _MAPPED_FROM})


def keep_freed_memory() -> bool:
    """Let glibc reuse large freed blocks instead of returning them to the kernel.

    A training step frees and asks for the same tens of megabytes again and again; fetching them
    from the kernel costs a page fault every 4 KiB. Returns whether it could be set.
    """
    return _set_allocator({_M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: 2**31 - 1})


def _set_allocator(options: dict[int, int]) -> bool:
    """Set glibc's options; what is free already goes back to the kernel."""
    if "pyarrow" in sys.modules:  # pandas reads texts with it, where it is installed
        sys.modules["pyarrow"].default_memory_pool().release_unused()
    if not sys.platform.startswith("linux"):
        return False
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.malloc_trim(0)
        return all(libc.mallopt(option, value) for option, value in options.items())
    return False


def use_huge_pages() -> int:
    """Move this process's large memory blocks to 2 MiB pages; returns the bytes that were moved.

    A training step walks over hundreds of megabytes; with 4 KiB pages the look-up of addresses
    costs some 5 % of its time. Call it once, when the memory has been allocated.
    Linux 6.1 or later; elsewhere it moves nothing.
    """
    if not sys.platform.startswith("linux"):
        return 0
    moved = 0
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        for line in Path("/proc/self/maps").read_text().splitlines():
            span, access, _, _, inode, *name = line.split()
            start, end = (int(part, 16) for part in span.split("-"))
            ours = inode == "0" and access.startswith("rw") and name in ([], ["[heap]"])
            if ours and end - start >= _HUGE_FROM:
                block = ctypes.c_void_p(start), ctypes.c_size_t(end - start)
                if libc.madvise(*block, _MADV_COLLAPSE) == 0:
                    moved += end - start
    return moved
