"""Threads, devices and processor features: the one place that decides or detects them."""

from __future__ import annotations

import re

import torch

from alignrec_recbole.errors import SettingError, printable
from alignrec_recbole.runtime import threads as counts


def set_threads(threads: int | None, jobs: int = 1) -> int:
    """Set the number of CPU threads for reading and encoding, and return it.

    Default: OMP_NUM_THREADS where it is set, else cores / jobs: processes that share cores slow
    each other down many times over. What else runs does not count, since an encoder's vectors may
    differ by rounding with another number of threads, and with them the hash of every run on them.
    """
    if threads is None:
        threads = counts.threads_of_environment() or max(1, counts.available_cores() // jobs)
    torch.set_num_threads(threads)
    return threads


def set_run_threads(given: int | None, numbers: int) -> counts.ThreadCount:
    """Set the number of CPU threads of a run by `threads.choose`, and return it."""
    chosen = counts.choose(given, numbers)
    torch.set_num_threads(chosen.threads)
    return chosen


def choose_device(name: str) -> str:
    """cpu, cuda or cuda:N; auto is cuda where torch finds it.

    Raises:
        SettingError: another name, or a device that is not available.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    gpu = re.fullmatch(r"cuda(?::(0|[1-9][0-9]{0,3}))?", name)
    if name != "cpu" and not (gpu and int(gpu[1] or 0) < torch.cuda.device_count()):
        raise SettingError(
            f"Device {printable(repr(name), 80)} is not available.",
            found=f"{torch.cuda.device_count()} CUDA devices",
            expected="auto, cpu, cuda or cuda:N",
        )
    return name


def has_bfloat16(device: str) -> bool:
    """Whether the device has bfloat16 products in hardware; without, float32 is faster."""
    if device.startswith("cuda"):
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.backends.cpu.get_cpu_capability() if device == "cpu" else ""
    return capabilities.startswith("AVX512") and _flag("avx512_bf16", "amx_bf16")


def has_amx_bf16() -> bool:
    """Whether the processor has bfloat16 matrix tiles (AMX)."""
    return _flag("amx_bf16")


def _flag(*names: str) -> bool:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            flags = next((line for line in file if line.startswith("flags")), "")
    except OSError:
        return False
    return any(f" {name}" in flags for name in names)
