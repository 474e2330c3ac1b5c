"""This process: threads, allocator, memory. The one place that decides them."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from pathlib import Path

import torch

from alignrec_recbole.errors import SettingError

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4  # malloc.h
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_MADV_COLLAPSE = 25  # linux/mman.h
_HUGE_FROM = 8 << 20
_MAPPED_FROM = 32 << 20


def set_threads(threads: int | None, jobs: int = 1) -> int:
    """Set the number of CPU threads and return it; default: the process's share of the cores.

    Processes that spin on the same cores slow each other down many times over, so parallel jobs get
    cores / jobs each. OMP_NUM_THREADS, when set, is respected.
    """
    if threads is None:
        wanted = os.environ.get("OMP_NUM_THREADS", "")
        threads = int(wanted) if wanted.isdecimal() else max(1, available_cores() // jobs)
    torch.set_num_threads(threads)
    return threads


def available_cores() -> int:
    """Cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def choose_device(name: str) -> str:
    """cpu, cuda or cuda:N; auto is cuda where torch finds it.

    Raises:
        SettingError: another name, or a device that is not there.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    number = name.removeprefix("cuda").removeprefix(":") or "0"
    there = (
        name.startswith("cuda") and number.isdecimal() and int(number) < torch.cuda.device_count()
    )
    if name != "cpu" and not there:
        raise SettingError(
            f"There is no device {name!r} here.",
            came=f"{torch.cuda.device_count()} CUDA devices",
            expected="auto, cpu, cuda or cuda:N",
        )
    return name


def has_bfloat16(device: str) -> bool:
    """Whether the processor multiplies bfloat16 in hardware: elsewhere float32 is faster."""
    if device.startswith("cuda"):
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.backends.cpu.get_cpu_capability() if device == "cpu" else ""
    return capabilities.startswith("AVX512") and _flag("avx512_bf16", "amx_bf16")


def has_matrix_units() -> bool:
    """Whether the processor multiplies bfloat16 in tiles (AMX)."""
    return _flag("amx_bf16")


def _flag(*names: str) -> bool:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            flags = next((line for line in file if line.startswith("flags")), "")
    except OSError:
        return False
    return any(f" {name}" in flags for name in names)


def die_with_parent(_: int = 0) -> None:
    """Have Linux kill this process when its parent ends, however that ends.

    For workers: one that outlives its parent waits for it forever and keeps its locks. torch's own
    watch over the parent does not help a worker whose results nobody takes.
    """
    if sys.platform.startswith("linux"):
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL("libc.so.6").prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))


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


def reset_peaks() -> None:
    """Start a new measurement of the peak memory, resident and on the GPU."""
    reset_peak_rss()
    if torch.cuda.is_initialized():  # before that there is no peak, and asking would begin one
        torch.cuda.reset_peak_memory_stats()


def peak_gpu_bytes() -> int:
    """Peak of the tensors on the GPU since the start or the last reset_peaks(); 0 without one."""
    return int(torch.cuda.max_memory_allocated()) if torch.cuda.is_available() else 0


def reset_peak_rss() -> bool:
    """Start a new measurement of the peak resident memory; False where the system can't."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def peak_rss_bytes() -> int:
    """Peak resident memory since the start or the last reset_peak_rss()."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
