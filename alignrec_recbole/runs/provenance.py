"""Where a result comes from: code, packages, machine."""

from __future__ import annotations

import functools
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
from alignrec_recbole.runtime.hardware import has_bfloat16
from alignrec_recbole.runtime.threads import available_cores

PACKAGES = ("torch", "recbole", "numpy", "pandas", "scipy", "scikit-learn", "transformers")


@functools.cache
def code() -> dict[str, Any]:
    """Version, commit and whether the checkout differs from it (None outside a checkout)."""
    root = Path(__file__).resolve().parents[2]
    commit = _git(root, "rev-parse", "HEAD") if (root / ".git").exists() else None
    changed = _git(root, "status", "--porcelain", "--", ":!results") if commit else None
    return {
        "version": __version__,
        "commit": commit,
        "dirty": None if commit is None else bool(changed),
    }


def _git(root: Path, *arguments: str) -> str | None:
    done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else None


def command(arguments: Sequence[str] | None = None) -> str:
    """The command line, default this process's; folders outside the working one stand as DIR.

    >>> command(["/home/me/run_benchmark.py", "--data-path", "/data", "--features", "lsa"])
    'run_benchmark.py --data-path DIR --features lsa'
    """
    program, *rest = sys.argv if arguments is None else arguments
    return shlex.join([Path(program).name, *(_OUTSIDE.sub("DIR", part) for part in rest)])


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
    except metadata.PackageNotFoundError:
        return None


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or "unknown"
