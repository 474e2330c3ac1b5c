"""Threads that wait for each other give up the processor while other processes need it.

A step has many parts that all threads compute together, and who is ready first waits. GNU OpenMP,
which torch's packages for Linux contain, waits some milliseconds in a loop before it sleeps. On an
idle machine that is fastest. Where other processes wait for the same cores, the loops take the time
that the last thread needs to finish: epochs take up to forty times their fair share.

GNU OpenMP loops 100 instead of 300,000 times while a process has more OpenMP threads than cores
(its manual, GOMP_SPINCOUNT). So while the machine is crowded, a helper thread holds an idle team of
one thread per core; results do not depend on it, since the work is divided as before.

OMP_WAIT_POLICY or GOMP_SPINCOUNT in the environment is the user's own choice and wins.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from alignrec_recbole.runtime.threads import cores_of_affinity

OWN_CHOICE = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")  # variables that OpenMP reads itself
LOOK_EVERY_SECONDS = 0.5
SPARE = 0.25  # cores' worth of other work that does not count as crowded


@contextmanager
def considerate(threads: int) -> Iterator[None]:
    """Look every half second whether others need the cores of `threads` threads, and yield then."""
    libraries = openmp_libraries() if threads > 1 and own_choice() is None else []
    if not libraries:
        yield
        return
    ended = threading.Event()
    watcher = threading.Thread(target=_watch, args=(threads, libraries, ended), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()


def own_choice() -> str | None:
    """The user's own setting of how threads wait, as NAME=VALUE; None without one."""
    return next((f"{name}={os.environ[name]}" for name in OWN_CHOICE if name in os.environ), None)


def openmp_libraries() -> list[Path]:
    """The files of GNU OpenMP that this process has loaded; none elsewhere than on Linux."""
    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
    except OSError:
        return []
    paths = {Path(line.split(maxsplit=5)[-1]) for line in lines if "libgomp" in line}
    return sorted(path for path in paths if path.is_file())


def is_crowded(threads: int, cores: int, others: float) -> bool:
    """Whether other work and this process's threads together are more than the cores.

    Args:
        others: cores' worth of time that other processes use.

    >>> is_crowded(2, 2, others=0.1), is_crowded(2, 2, others=0.8), is_crowded(4, 16, others=8)
    (False, True, False)
    """
    return threads + others > cores + SPARE


def _watch(threads: int, libraries: list[Path], ended: threading.Event) -> None:
    cores = cores_of_affinity()
    with contextlib.ExitStack() as held:
        holding = False
        before = _times(cores)
        while not ended.wait(LOOK_EVERY_SECONDS):
            now = _times(cores)
            wall, busy, own = (after - first for after, first in zip(now, before, strict=True))
            before = now
            crowded = is_crowded(threads, len(cores), max(0.0, busy - own) / wall)
            if crowded and not holding:
                held.enter_context(short_waits(libraries))
            elif holding and not crowded:
                held.close()
            holding = crowded


def _times(cores: list[int]) -> tuple[float, float, float]:
    """Wall time, time that the cores were in use, and this process's own CPU time."""
    per_core = psutil.cpu_times(percpu=True)
    busy = sum(_busy(per_core[core]) for core in cores if core < len(per_core))
    return time.monotonic(), busy, time.process_time()


def _busy(times: Any) -> float:
    # the time of guests is part of the users' time
    idle = times.idle + getattr(times, "iowait", 0.0)
    guests = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)
    return float(sum(times) - idle - guests)


@contextmanager
def short_waits(libraries: list[Path]) -> Iterator[None]:
    """Hold one idle OpenMP team of more threads than cores, which ends with the thread it is of."""
    started, ended = threading.Event(), threading.Event()

    def hold() -> None:
        do_nothing = ctypes.cast(ctypes.CDLL(None).free, ctypes.c_void_p)  # free(NULL)
        for path in libraries:
            parallel = ctypes.CDLL(str(path)).GOMP_parallel
            parallel.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint)
            parallel.restype = None
            parallel(do_nothing, None, len(cores_of_affinity()) + 1, 0)
        started.set()
        ended.wait()

    holder = threading.Thread(target=hold, daemon=True)
    holder.start()
    started.wait(1.0)
    try:
        yield
    finally:
        ended.set()
        holder.join()
