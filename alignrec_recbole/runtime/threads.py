"""How many threads a run computes with: what its size needs, and what is free when it starts.

A second thread pays only where a step has enough to compute: on small data it waits most of its
time. So a run gets one thread per `NUMBERS_PER_THREAD` numbers in the tables that a step goes
through, at least one, and never more than there are free cores. The size is that of the data, never
a time that was measured, so equal commands get equal numbers on an idle machine.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from alignrec_recbole.errors import SettingError, printable
from alignrec_recbole.runtime import control_groups

MAX_THREADS = 1024  # OpenMP ends the process where the system has no room for more
NUMBERS_PER_THREAD = 1 << 19  # 2 MiB in float32
SHARE = "ALIGNREC_CORES"  # free cores of this process, where something else has divided them
_LOOK_SECONDS = 0.2
_IDLE = 0.1  # share in use
_OWN_GROUP = control_groups.LISTING
_QUOTA = control_groups.ROOT / "cpu.max"
_QUOTA_V1 = (
    Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"),
    Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us"),
)


@dataclass(frozen=True)
class ThreadCount:
    """A number of threads and what decided it, in words."""

    threads: int
    reason: str


def choose(given: int | None, numbers: int) -> ThreadCount:
    """The threads of a run: the setting, else OMP_NUM_THREADS, else the smaller of size and free.

    Args:
        given: the setting `threads`, None for the rule.
        numbers: in the tables that a step goes through, see `table_numbers`.

    >>> choose(3, 10**9)
    ThreadCount(threads=3, reason='the setting threads')
    """
    if given is not None:
        return ThreadCount(given, "the setting threads")
    if wanted := threads_of_environment():
        return ThreadCount(wanted, f"OMP_NUM_THREADS={wanted}")
    by_size = threads_by_size(numbers)
    size = f"{by_size} by size ({numbers:,} numbers, one per {NUMBERS_PER_THREAD:,})"
    if by_size == 1:
        return ThreadCount(1, size)
    free = free_cores()
    return ThreadCount(min(by_size, free), f"{size}, {free} of {available_cores()} cores free")


def threads_by_size(numbers: int) -> int:
    """One thread per NUMBERS_PER_THREAD numbers, rounded, at least one.

    >>> threads_by_size(600_000), threads_by_size(940_000), threads_by_size(10_500_000)
    (1, 2, 20)
    """
    return max(1, (numbers + NUMBERS_PER_THREAD // 2) // NUMBERS_PER_THREAD)


def table_numbers(users: int, items: int, dimensions: int, feature_columns: int) -> int:
    """Numbers in the tables of a step: a vector per user and item, and the items' features.

    >>> table_numbers(943, 1682, 64, 256)
    598592
    """
    return (users + items) * dimensions + items * feature_columns


def threads_of_environment() -> int | None:
    """OMP_NUM_THREADS, of a list its first number; None where it is not set to a number.

    Raises:
        SettingError: it is more than MAX_THREADS.
    """
    first = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip().lstrip("0")
    if not first.isdecimal():
        return None
    if len(first) > len(str(MAX_THREADS)) or int(first) > MAX_THREADS:
        raise SettingError(
            "The environment variable OMP_NUM_THREADS is too large.",
            found=f"OMP_NUM_THREADS={printable(first, 40)}",
            expected=f"1 to {MAX_THREADS}",
        )
    return int(first)


def available_cores() -> int:
    """Cores that this process may use: by its affinity and its container's limit."""
    cores = len(cores_of_affinity())
    quota = cpu_quota()
    return cores if quota is None else max(1, min(cores, math.floor(quota)))


def cores_of_affinity() -> list[int]:
    """Numbers of the cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def cpu_quota() -> float | None:
    """Cores' worth of time that this process may use; None without a limit.

    The smallest limit of its control group and of those around it: of a container, of a job or of a
    service.
    """
    found = []
    for group in control_groups.own_and_around(root=_QUOTA.parent, listing=_OWN_GROUP):
        with suppress(OSError, ValueError):  # "max" is no number
            quota, period = (group / _QUOTA.name).read_text().split()
            found.append(int(quota) / int(period))
    with suppress(OSError, ValueError):
        quota_us, period_us = (int(path.read_text()) for path in _QUOTA_V1)
        if quota_us > 0:
            found.append(quota_us / period_us)
    return min(found, default=None)


def free_cores() -> int:
    """Available cores that nothing else uses now, at least one; ALIGNREC_CORES where it is set.

    A container's limit leaves out which cores it means: they are free while as many are idle.
    """
    share = os.environ.get(SHARE, "")
    if share.isdecimal() and int(share):
        return min(int(share), available_cores())
    cores = cores_of_affinity()
    idle = round(len(cores) * (1 - busy_share(cores)))
    return max(1, min(available_cores(), idle))


def busy_share(cores: Sequence[int]) -> float:
    """The share of these cores that is in use, from 0 to 1: the smaller of two looks at them.

    Not the load average: it still counts a run that has just ended, and not yet what has just
    begun. The second look is left out where the cores are idle.
    """
    first = _look(cores)
    if first < _IDLE:
        return first
    time.sleep(_LOOK_SECONDS)  # some programs work for a moment only
    return min(first, _look(cores))


def _look(cores: Sequence[int]) -> float:
    import psutil  # here alone: errors and lists do without it

    percent = psutil.cpu_percent(_LOOK_SECONDS, percpu=True)
    found = [percent[core] for core in cores if core < len(percent)] or percent
    return sum(found) / len(found) / 100
