"""Seconds and peak memory of reading generated Amazon-2023 reviews.

    python -m benchmarks.speed.import_formats [--lines 2000000] [--users 400000] [--items 80000]
        [--gzip] [--seed 0]

The lines have the fields and about the length of real ones (500 bytes on average). Two processes of
their own read them: the reader alone, then the reader with the first row of each pair and the
5-core. On a busy machine the seconds of CPU tell more than those of the clock. The peak is the
largest resident size of the process above its size after the imports.
"""

from __future__ import annotations

import argparse
import gzip
import json
import multiprocessing
import resource
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from tabulate import tabulate

WORDS = "soft clean works great for my dry skin and smells like fresh roses in the morning"


def write(path: Path, lines: int, users: int, items: int, seed: int) -> None:
    """Write generated reviews, gzip if the name ends so; popularity falls as 1 / rank."""
    rng = np.random.default_rng(seed)
    popularity = 1 / np.arange(1, items + 1)
    opened = gzip.open if path.suffix == ".gz" else open
    words = WORDS.split()
    with opened(path, "wb") as handle:
        for start in range(0, lines, 100_000):
            count = min(100_000, lines - start)
            item = rng.choice(items, count, p=popularity / popularity.sum())
            user = rng.integers(0, users, count)
            when = rng.integers(1_100_000_000_000, 1_690_000_000_000, count)
            stars = rng.integers(1, 6, count)
            length = rng.geometric(1 / 60, count)
            order = rng.integers(0, len(words), 64)
            for u, i, t, s, n in zip(user, item, when, stars, length, strict=True):
                entry = {
                    "rating": float(s), "title": "Five Stars",
                    "text": " ".join(words[order[(u + k) % 64]] for k in range(n)),
                    "images": [], "asin": f"B{i:09d}", "parent_asin": f"B{i:09d}",
                    "user_id": f"AE{u:026d}", "timestamp": int(t), "helpful_vote": 0,
                    "verified_purchase": True,
                }  # fmt: skip
                handle.write(json.dumps(entry).encode() + b"\n")


def measure(folder: Path, filtered: bool, answer: Connection) -> None:
    """Read a folder and send seconds, seconds of CPU, peak bytes above the imports, and rows."""
    from alignrec_recbole.data.formats.registry import FORMATS
    from alignrec_recbole.data.source import core, first_of_each_pair

    unit = 1 if sys.platform == "darwin" else 1024
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    start, busy = time.perf_counter(), time.process_time()
    source = FORMATS["amazon2023"].read(folder)
    if filtered:
        source = core(first_of_each_pair(source), 5, 5)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit - before
    busy = time.process_time() - busy
    answer.send((seconds, busy, peak, len(source.interactions)))


def main(arguments: list[str] | None = None) -> int:
    """Generate, read and print."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.speed.import_formats", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--lines", type=int, default=2_000_000)
    parser.add_argument("--users", type=int, default=400_000)
    parser.add_argument("--items", type=int, default=80_000)
    parser.add_argument("--gzip", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as name:
        path = Path(name, "Category.jsonl" + (".gz" if given.gzip else ""))
        write(path, given.lines, given.users, given.items, given.seed)
        rows: list[list[str]] = []
        result: dict[str, object] = {"lines": given.lines, "bytes": path.stat().st_size}
        for what, filtered in (("read", False), ("read, first of each pair, 5-core", True)):
            receive, send = context.Pipe(duplex=False)
            process = context.Process(target=measure, args=(path.parent, filtered, send))
            process.start()
            send.close()  # the other end is the child's alone: if it dies, recv ends
            try:
                seconds, busy, peak, count = receive.recv()
            except EOFError:
                process.join()
                parser.error(f"{what}: the process ended with status {process.exitcode}")
            process.join()
            cells = f"{seconds:.1f}", f"{busy:.1f}", f"{peak / 2**20:.0f}", f"{count:,}"
            rows.append([what, *cells])
            result[what] = {"seconds": seconds, "cpu": busy, "peak_bytes": peak, "rows": count}
        print(f"{given.lines:,} lines, {path.stat().st_size / 2**20:,.0f} MiB")
        print(tabulate(rows, headers=["", "seconds", "CPU seconds", "peak MiB", "interactions"]))
        print(json.dumps(result))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
