"""The item kNN graph at a catalogue's size: seconds and memory above the features.

    python -m benchmarks.speed.knn [--items 63001] [--width 768] [--k 10] [--memory-mb 256]

Seeded random unit rows stand in for the features; the search is exact, so its cost does not depend
on their values. The default size is that of Amazon Electronics.
"""

from __future__ import annotations

import argparse
import time

import torch

from alignrec_recbole.graphs.item_item import item_graph
from alignrec_recbole.runtime import allocator, hardware, memory_usage
from benchmarks.speed import paired_timing


def main(arguments: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="benchmarks.speed.knn")
    parser.add_argument("--items", type=int, default=63_001)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--memory-mb", type=int, default=256, help="the block of similarities")
    options = parser.parse_args(arguments)
    hardware.set_threads(None)
    allocator.phase("train")
    paired_timing.warn_if_busy()
    features = torch.randn(options.items, options.width, generator=torch.Generator().manual_seed(0))
    memory_usage.reset_peak_rss()
    before = memory_usage.peak_rss_bytes()
    started = time.perf_counter()
    graph = item_graph(features, options.k, memory_bytes=options.memory_mb << 20)
    seconds = time.perf_counter() - started
    above = memory_usage.peak_rss_bytes() - before
    print(
        f"{options.items} items × {options.width}: {graph.nnz} edges in {seconds:.1f} s, "
        f"{above / 2**30:.2f} GiB above the features ({features.nbytes / 2**30:.2f} GiB)"
    )
    paired_timing.finish(
        {
            "benchmark": "knn",
            "items": options.items,
            "width": options.width,
            "ours_seconds": seconds,
            "bytes_above_features": above,
            "feature_bytes": features.nbytes,
        }
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
