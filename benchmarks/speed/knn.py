"""The item kNN graph at a catalogue's size: CPU seconds, recall and memory above the features.

    python -m benchmarks.speed.knn [--items 63001] [--width 768] [--k 10] [--memory-mb 256]
        [--features FILE.npy] [--method exact|approximate]

Without --features, seeded random rows stand in for them: the cost of the exact search does not
depend on values. An approximate search does: give --features. With more --items than its rows,
the others are kin of them: a row moved towards one of its 10 nearest by a random share, plus noise.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from alignrec_recbole.features.item_order import tie_ranks
from alignrec_recbole.graphs import searches
from alignrec_recbole.graphs.item_item import item_graph, nearest_neighbours
from alignrec_recbole.runtime import allocator, hardware, memory_usage
from benchmarks.speed import paired_timing

NOISE = 0.3  # of a kin row, as a share of the distance between neighbours


def random_rows(items: int, width: int) -> torch.Tensor:
    """Seeded standard normal rows."""
    return torch.randn(items, width, generator=torch.Generator().manual_seed(0))


def kin_of(rows: torch.Tensor, items: int) -> torch.Tensor:
    """The rows, and as many kin of them as make `items`."""
    rng = np.random.default_rng(0)
    out = torch.empty(max(items, len(rows)), rows.shape[1])
    out[: len(rows)] = rows
    added = items - len(rows)
    if added <= 0:
        return out[:items]
    nearest = nearest_neighbours(rows, 11)[1][:, 1:]
    start = torch.from_numpy(rng.integers(len(rows), size=added))
    end = nearest[start, torch.from_numpy(rng.integers(nearest.shape[1], size=added))]
    share = torch.from_numpy(rng.random((added, 1), dtype=np.float32))
    for first in range(0, added, 1 << 14):
        part = slice(first, min(first + (1 << 14), added))
        way = rows[end[part].clamp(min=0)] - rows[start[part]]
        noise = torch.from_numpy(rng.standard_normal(way.shape, dtype=np.float32))
        noise *= NOISE * way.norm(dim=1, keepdim=True) / way.shape[1] ** 0.5
        out[len(rows) + first : len(rows) + part.stop] = (
            rows[start[part]] + share[part] * way + noise
        )
    return out


def main(arguments: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="benchmarks.speed.knn")
    parser.add_argument("--items", type=int, help="default: 63,001, or the rows of --features")
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--memory-mb", type=int, default=256, help="the block of similarities")
    parser.add_argument("--features", type=Path, help="a NumPy file with rows of items")
    parser.add_argument("--method", choices=("exact", "approximate"), default="exact")
    options = parser.parse_args(arguments)
    hardware.set_threads(None)
    allocator.phase("train")
    paired_timing.warn_if_busy()
    if options.features is None:
        features = random_rows(options.items or 63_001, options.width)
    else:
        rows = torch.from_numpy(np.load(options.features, allow_pickle=False).astype(np.float32))
        features = kin_of(rows, options.items or len(rows))
    place = tie_ranks([str(item) for item in range(len(features))])  # as models search
    memory_usage.reset_peak_rss()
    before = memory_usage.peak_rss_bytes()
    cpu, started = time.process_time(), time.perf_counter()
    with searches.searching_on("cpu") as made:
        graph = item_graph(
            features,
            options.k,
            method=options.method,
            memory_bytes=options.memory_mb << 20,
            place=place,
        )
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    above = memory_usage.peak_rss_bytes() - before
    items, width = features.shape
    print(
        f"{items} items × {width}, {options.method}: {graph.nnz} edges in {seconds:.1f} s "
        f"({cpu:.1f} s of CPU), {above / 2**30:.2f} GiB above the features "
        f"({features.nbytes / 2**30:.2f} GiB)"
    )
    for search in made.approximate:
        print(f"recall@{search.k} on {search.sample} rows: {search.recall:.4f} ({search.method})")
    paired_timing.finish(
        {
            "benchmark": "knn",
            "items": items,
            "width": width,
            "method": options.method,
            "searches": [asdict(search) for search in made.approximate],
            "ours_seconds": seconds,
            "cpu_seconds": cpu,
            "bytes_above_features": above,
            "feature_bytes": features.nbytes,
        }
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
