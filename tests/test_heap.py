"""Programs start with glibc's heap as they need it (benchmarks/heap.py)."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import heap

ROOT = Path(__file__).parents[1]
OPTION = "glibc.malloc.tcache_count=0"
PROGRAM = f"""
import json, os, sys
sys.path.insert(0, {str(ROOT)!r})
from benchmarks import heap
if "traced" in sys.argv:
    sys.settrace(lambda *_: None)
print("starts", flush=True)
heap.restart()
seen = [os.getpid(), os.environ.get("GLIBC_TUNABLES"), sys.argv[1:], sys.flags.optimize]
print(json.dumps(seen))
"""

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc is Linux's")


def run(
    path: Path, *arguments: str, tunables: str | None = None
) -> tuple[int, str | None, list[str]]:
    """How often it started, its tunables, its arguments."""
    path.write_text(PROGRAM)
    given = {k: v for k, v in os.environ.items() if k != "GLIBC_TUNABLES"}
    given |= {"GLIBC_TUNABLES": tunables} if tunables else {}
    child = subprocess.Popen(
        [sys.executable, "-O", str(path), *arguments], env=given, stdout=subprocess.PIPE, text=True
    )
    printed = child.communicate()[0].splitlines()
    pid, said, rest, optimize = json.loads(printed[-1])
    assert (child.returncode, pid, optimize) == (0, child.pid, 1)
    return len(printed) - 1, said, rest


@linux
def test_a_program_starts_once_more_as_the_same_process_with_its_arguments(tmp_path):
    starts, said, rest = run(tmp_path / "p.py", "--set", "a b=1", "*")
    assert (starts, said, rest) == (2, OPTION, ["--set", "a b=1", "*"])


@linux
@pytest.mark.parametrize(
    ("given", "starts", "seen"),
    [
        ("glibc.malloc.arena_max=1", 2, f"glibc.malloc.arena_max=1:{OPTION}"),
        ("glibc.malloc.tcache_count=3", 1, "glibc.malloc.tcache_count=3"),
    ],
    ids=["another option is kept", "the user's word counts"],
)
def test_what_the_environment_says_is_kept(tmp_path, given, starts, seen):
    assert run(tmp_path / "p.py", tunables=given) == (starts, seen, [])


@linux
def test_a_debugger_keeps_its_process(tmp_path):
    assert run(tmp_path / "p.py", "traced") == (1, None, ["traced"])


def test_without_a_word_of_the_user_the_cache_is_off():
    assert heap.environment({"HOME": "x"}) == {"HOME": "x", "GLIBC_TUNABLES": OPTION}


MEASURED = """
import torch
from alignrec_recbole import process

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

assert process.return_freed_memory()
returning = freed()
assert process.keep_freed_memory()
keeping = freed()
assert process.return_freed_memory()
print(returning, keeping, freed())
"""


@linux
def test_freed_blocks_go_back_until_training_keeps_them():
    if platform.libc_ver()[0] != "glibc":
        pytest.skip("another libc than glibc")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", MEASURED],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    returning, keeping, again = map(int, done.stdout.split())
    assert max(returning, again) <= 110 < 250 <= keeping  # MiB of 260
