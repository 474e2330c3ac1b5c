"""How soon do commands answer that train nothing? Processor time from start to end, in turn.

    python -m benchmarks.speed.start [--rounds 7]

Prints the median, the least and the most seconds of each command line, and the medians as JSON.
`tests/cli/test_command_line.py` bounds them by half a second, which takes a quiet machine.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tabulate import tabulate

from benchmarks import command_line

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = (
    "--help",
    "run --help",
    "list models",
    "list datasets",
    "list encoders",
    "suite smoky",
    "--model AlignRek --dataset ml-100k",
    "--model AlignRec --dataset nowhere",
    "--model AlignRec --dataset ml-100k --protocol fool",
    "download --dataset nowhere",
)


def cpu_seconds(arguments: Sequence[str]) -> float:
    """Processor time of `run_benchmark.py` with these arguments in a process of its own."""
    import resource  # of Unix alone

    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    line = [sys.executable, "run_benchmark.py", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, timeout=120)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="benchmarks.speed.start")
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args(arguments).rounds
    found = [[cpu_seconds(command.split()) for command in COMMANDS] for _ in range(rounds)]
    rows = [
        [command, statistics.median(seconds), min(seconds), max(seconds)]
        for command, seconds in zip(COMMANDS, zip(*found, strict=True), strict=True)
    ]
    print(tabulate(rows, ["command", "median, s", "least", "most"], floatfmt=".2f"))
    print(json.dumps({"benchmark": "start", "median_seconds": {row[0]: row[1] for row in rows}}))
    return 0


if __name__ == "__main__":
    command_line.end(main)
