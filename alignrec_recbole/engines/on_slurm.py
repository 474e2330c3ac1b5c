"""The engine of SLURM: Dask workers in its jobs, submitted by dask-jobqueue."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import dask
from dask_jobqueue import SLURMCluster

from alignrec_recbole.engines.base import EngineError
from alignrec_recbole.engines.on_dask import DaskEngine

REQUIRED = ("cores", "memory")  # of dask-jobqueue's settings


def submit_workers(jobs: int) -> DaskEngine:
    """The engine of `jobs` jobs, whose sizes are in dask-jobqueue's own configuration.

    Raises:
        EngineError: that names no cores or no memory.
    """
    absent = [name for name in REQUIRED if not dask.config.get(f"jobqueue.slurm.{name}", None)]
    if absent:
        raise EngineError(
            "dask-jobqueue's configuration does not say how large a SLURM job is.",
            found=f"no jobqueue.slurm.{' and no jobqueue.slurm.'.join(absent)}",
            expected="both, in ~/.config/dask/jobqueue.yaml",
            hint="docs/cluster.md shows such a file",
        )
    cores = int(dask.config.get("jobqueue.slurm.cores"))  # cells at a time in a job
    return DaskEngine(partial(_cluster, jobs), jobs * cores)


@contextmanager
def _cluster(jobs: int, **settings: Any) -> Iterator[str]:
    """A scheduler in this process, and the jobs of its workers; both end with the command."""
    with SLURMCluster(**settings) as cluster:
        cluster.scale(jobs=jobs)
        yield cluster.scheduler_address
