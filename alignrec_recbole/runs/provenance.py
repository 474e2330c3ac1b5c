"""Where a result comes from: code, packages, machine."""

from __future__ import annotations

import functools
import logging
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from alignrec_recbole._version import __version__
from alignrec_recbole.errors import printable
from alignrec_recbole.runtime.hardware import has_bfloat16
from alignrec_recbole.runtime.threads import available_cores

GIT_SECONDS = 30
PACKAGES = ("torch", "recbole", "numpy", "pandas", "scipy", "scikit-learn", "transformers")

logger = logging.getLogger(__name__)


@functools.cache
def code() -> dict[str, Any]:
    """Version, commit and whether the checkout differs from it.

    Each of the two is None outside a checkout, and where git gave no answer, with a warning: a
    result is recorded in any case.
    """
    root = Path(__file__).resolve().parents[2]
    commit = _git(root, "rev-parse", "HEAD") if (root / ".git").exists() else None
    changed = _git(root, "status", "--porcelain", "--", ":!results") if commit else None
    return {
        "version": __version__,
        "commit": commit,
        "dirty": None if changed is None else bool(changed),
    }


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=GIT_SECONDS,
        )
        problem = done.stderr.strip() if done.returncode else ""
    except (OSError, subprocess.SubprocessError) as error:
        problem = str(error)
    if not problem and not done.returncode:
        return done.stdout.strip()
    told = printable(problem, 200)
    logger.warning("git %s failed, so records lack its answer: %s", arguments[0], told)
    return None


def command(arguments: Sequence[str] | None = None) -> str:
    """The command line, default this process's; folders outside the working one stand as DIR.

    So does what follows the scheme of an address: names and passwords can be anywhere in it.

    >>> command(["/home/me/run_benchmark.py", "--data-path", "/data", "--features", "lsa"])
    'run_benchmark.py --data-path DIR --features lsa'
    >>> command(["alignrec-bench", "--storage=mysql://me:secret@host/studies"])
    'alignrec-bench --storage=mysql:DIR'
    """
    program, *rest = sys.argv if arguments is None else arguments
    return shlex.join(
        [Path(program).name, *(_OUTSIDE.sub("DIR", _ADDRESS.sub("DIR", part)) for part in rest)]
    )


_ADDRESS = re.compile(r"(?<=:)//.*", re.DOTALL)
_OUTSIDE = re.compile(r"(?:^|(?<=[=:,]))(?:\.\.)?/[^,=:]*")


def machine(device: str) -> dict[str, Any]:
    """Processor and its vector instructions, cores, threads, device and package versions."""
    return {
        "cpu": _cpu_name(),
        "instructions": torch.backends.cpu.get_cpu_capability()
        + (" with bfloat16" if has_bfloat16("cpu") else ""),
        "cores": available_cores(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if device.startswith("cuda") else "cpu",
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
    }


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except (metadata.PackageNotFoundError, OSError, KeyError):  # not installed, or half removed
        return None


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text("utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or "unknown"
