"""Large freed blocks go back to the kernel while loading, and stay while training."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from alignrec_recbole.runtime import allocator

# glibc's per-thread cache of small blocks would pin some of the large ones around them
NO_TCACHE = "glibc.malloc.tcache_count=0"
ROOT = Path(__file__).resolve().parents[2]

MEASURED = """
import torch
from alignrec_recbole.runtime import allocator

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 >> 20

def freed():
    before = resident()
    blocks = [torch.zeros(5 << 20) for _ in range(5)]  # 20 MiB each
    blocks += [torch.zeros(20 << 20) for _ in range(2)]
    pin = torch.zeros(300)  # behind them
    del blocks
    return resident() - before

for name in ("load", "train", "load"):
    print(allocator.phase(name), freed())
"""


def measured(**environment):
    if sys.platform != "linux" or platform.libc_ver()[0] != "glibc":
        pytest.skip("glibc's options")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", MEASURED],
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "GLIBC_TUNABLES": NO_TCACHE,
            **environment,
        },
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [line.split() for line in done.stdout.splitlines()]
    return [line[0] == "True" for line in lines], [int(line[1]) for line in lines]


def test_freed_blocks_go_back_while_loading_and_stay_while_training():
    was_set, (loading, training, again) = measured()
    assert all(was_set)
    assert max(loading, again) <= 110 < 250 <= training  # MiB of 260


def test_the_environment_switches_it_off():
    was_set, (_, training, _) = measured(ALIGNREC_ALLOCATOR="default")
    assert not any(was_set)
    assert training <= 110


@pytest.mark.parametrize("platform_name", ["darwin", "win32"])
def test_other_systems_are_left_alone(platform_name, monkeypatch):
    monkeypatch.setattr(sys, "platform", platform_name)
    monkeypatch.setattr(allocator.ctypes, "CDLL", None)  # would fail if it were called
    assert not allocator.phase("load")


@pytest.mark.parametrize(
    ("given", "expected"),
    [({}, "1"), ({"ALIGNREC_ALLOCATOR": "default"}, "None"), ({"THP_MEM_ALLOC_ENABLE": "0"}, "0")],
)
def test_the_program_asks_for_large_pages_unless_told_otherwise(given, expected):
    program = (
        "import os; from alignrec_recbole.cli.main import main; main(['--version']);"
        "print(os.environ.get('THP_MEM_ALLOC_ENABLE'))"
    )
    inherited = {k: v for k, v in os.environ.items() if k != "THP_MEM_ALLOC_ENABLE"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**inherited, "PYTHONPATH": str(ROOT), **given},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split()[-1] == expected
