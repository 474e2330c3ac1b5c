"""This process: threads, allocator, memory. The one place that decides them."""

from __future__ import annotations

import os

import torch

from alignrec_recbole.errors import SettingError


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
            found=f"{torch.cuda.device_count()} CUDA devices",
            expected="auto, cpu, cuda or cuda:N",
        )
    return name


def has_bfloat16(device: str) -> bool:
    """Whether the processor multiplies bfloat16 in hardware: elsewhere float32 is faster."""
    if device.startswith("cuda"):
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.backends.cpu.get_cpu_capability() if device == "cpu" else ""
    return capabilities.startswith("AVX512") and _flag("avx512_bf16", "amx_bf16")


def has_amx_bf16() -> bool:
    """Whether the processor multiplies bfloat16 in tiles (AMX)."""
    return _flag("amx_bf16")


def _flag(*names: str) -> bool:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            flags = next((line for line in file if line.startswith("flags")), "")
    except OSError:
        return False
    return any(f" {name}" in flags for name in names)
