"""Whether epochs take many times the CPU time that they need, and why."""

from __future__ import annotations

import logging

import psutil
import torch

from alignrec_recbole.errors import printable
from alignrec_recbole.runtime.threads import cpu_quota

MANY_TIMES = 3.0
ENOUGH_SECONDS = 5.0  # of epochs, before anything is said

logger = logging.getLogger(__name__)


class SlowEpochs:
    """Counts the epochs of one training, and warns once if they wait more than they compute."""

    def __init__(self) -> None:
        self.wall = self.cpu = 0.0
        self.warned = False

    def add(self, wall: float, cpu: float) -> None:
        """Count an epoch of so many seconds, in which this process used so much CPU time."""
        self.wall, self.cpu = self.wall + wall, self.cpu + cpu
        if self.warned or self.wall < ENOUGH_SECONDS:
            return
        threads, quota = torch.get_num_threads(), cpu_quota()
        load = psutil.getloadavg()[0]
        found = slowness(self.wall, self.cpu, threads, load, psutil.cpu_count() or 1, quota)
        if found:
            self.warned = True
            logger.warning(printable(found))


def slowness(
    wall: float, cpu: float, threads: int, load: float, cores: int, quota: float | None = None
) -> str | None:
    """Why epochs take MANY_TIMES their CPU time per thread or more; None if they do not.

    Args:
        wall: seconds.
        cpu: CPU seconds of all threads of this process in that time.
        threads: that compute together.
        load: of the machine, average of the last minute.
        cores: of the machine.
        quota: cores' worth of time that a container may use, None without a limit.

    >>> slowness(10.0, 18.0, 2, load=2.1, cores=2)
    >>> slowness(10.0, 2.0, 1, load=9.0, cores=2)
    'epochs take 5 times their CPU time: other processes use the cores (load 9.0 on 2 cores)'
    """
    times = wall / max(cpu / threads, 1e-9)
    if times < MANY_TIMES:
        return None
    many = f"epochs take {times:.0f} times their CPU time"
    advice = "; fewer threads would wait less (the setting threads)" if threads > 1 else ""
    if load > cores:
        why = f"other processes use the cores (load {load:.1f} on {cores} cores)"
    elif quota is not None and quota < threads:
        why = f"the container may use {quota:.2g} cores, the run has {threads} threads"
    else:
        why = "the process waits for the disk, for memory that is swapped out or for a device"
        advice = ""
    return f"{many}: {why}{advice}"
