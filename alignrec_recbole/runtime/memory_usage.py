"""Peak memory of this process and of its tensors on the GPU."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import psutil
import torch

try:
    import resource
except ImportError:  # Windows has none
    resource = None  # type: ignore[assignment]


def reset_peaks() -> None:
    """Start a new measurement of the peak memory, resident and on the GPU."""
    reset_peak_rss()
    if torch.cuda.is_initialized():  # before that there is no peak, and asking would begin one
        torch.cuda.reset_peak_memory_stats()


def peak_gpu_bytes() -> int:
    """Peak of the tensors on the GPU since the start or the last reset_peaks(); 0 without one."""
    return int(torch.cuda.max_memory_allocated()) if torch.cuda.is_available() else 0


def reset_peak_rss() -> bool:
    """Start a new measurement of the peak resident memory; False where the system has no way to."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def peak_rss_bytes() -> int:
    """Peak resident memory since the last reset_peak_rss(); where that is False, since the start.

    Of Linux's /proc, else getrusage (macOS), else psutil: the peak on Windows, and the present
    memory on a system that reports no peak.
    """
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    if resource is not None:
        peak = int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
        return peak if sys.platform == "darwin" else peak * 1024
    memory = psutil.Process().memory_info()
    return int(getattr(memory, "peak_wset", memory.rss))
