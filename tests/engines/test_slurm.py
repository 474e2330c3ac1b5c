"""The engine of SLURM, without one: the job's script, and an `sbatch` that runs it here."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("dask_jobqueue", reason="the extra slurm is not installed")

import dask

from alignrec_recbole.engines import on_slurm, open_engine
from alignrec_recbole.engines.base import EngineError
from alignrec_recbole.runs.at_once import AtOnce
from alignrec_recbole.runs.record import read_runs
from alignrec_recbole.runs.spec import RunSpec

SETTINGS = {
    "cores": 1,
    "memory": "2 GB",
    "queue": "short",
    "walltime": "01:00:00",
    "job-extra-directives": ["--gres=gpu:1"],
    "interface": "lo",
}
SBATCH = """#!/bin/sh
cp "$1" "$JOBS/$$.sh"
sh "$1" > "$JOBS/$$.txt" 2>&1 &
echo $! >> "$JOBS/pids"
echo "Submitted batch job $!"
"""


@pytest.fixture
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of submitted scripts; `sbatch` starts them on this machine, `scancel` ends them."""
    programs, folder = tmp_path / "bin", tmp_path / "jobs"
    programs.mkdir()
    folder.mkdir()
    for name, text in (("sbatch", SBATCH), ("scancel", '#!/bin/sh\nkill "$@"\n')):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("JOBS", str(folder))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    monkeypatch.chdir(tmp_path)
    yield folder
    if (folder / "pids").exists():
        for pid in (folder / "pids").read_text().split():
            os.system(f"kill {int(pid)} 2> {os.devnull}")


def test_a_size_of_the_jobs_is_needed() -> None:
    with (
        dask.config.set({"jobqueue.slurm.cores": None, "jobqueue.slurm.memory": None}),
        pytest.raises(EngineError, match=r"how large a SLURM job is[^/]*no jobqueue.slurm.memory"),
    ):
        on_slurm.submit_workers(2)


@pytest.mark.slow
def test_workers_in_jobs_make_runs(jobs: Path, tmp_path: Path) -> None:
    settings = {f"jobqueue.slurm.{name}": value for name, value in SETTINGS.items()}
    with dask.config.set(settings), open_engine("slurm", 2) as engine:
        assert engine.places == 2  # jobs of one core
        runs = AtOnce(engine, overwrite=False)
        record = runs.record(RunSpec("Pop", "ml-100k", output=tmp_path / "out", progress=False))
    assert [run.record for run in read_runs(tmp_path / "out" / "runs")] == [record]
    scripts = [path.read_text() for path in jobs.glob("*.sh")]
    assert len(scripts) == 2
    for script in scripts:
        for line in ("#SBATCH -p short", "#SBATCH -t 01:00:00", "#SBATCH --gres=gpu:1"):
            assert line in script
        assert "dask_worker" in script
        assert sys.executable in script
