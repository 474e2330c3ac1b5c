"""LightGCN's training epoch: ours against RecBole's.

    python -m benchmarks.speed.lightgcn [--data-path DIR] --dataset D [--layers 2] [--rounds 5]

Both train on the same pairs with d = 64, batch 2048 and RecBole's regulariser.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from alignrec_recbole.runs.spec import RunSpec
from benchmarks.reference import our_timing as our_side
from benchmarks.reference import recbole_stock
from benchmarks.reference.interactions import add_data, in_mmrec_layout
from benchmarks.speed import paired_timing

REG_WEIGHT = 1e-3


def ours(dataset: str, data_path: Path, layers: int) -> Any:
    """Actions of our harness."""
    return our_side.actions(
        RunSpec(
            "LightGCN", dataset, setting="mmrec", data_path=data_path, progress=False, device="cpu",
            overrides={"n_layers": layers, "reg_weight": REG_WEIGHT, "embedding_size": 64},
        )
    )  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="benchmarks.speed.lightgcn")
    add_data(parser)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(arguments)
    with in_mmrec_layout(parser, options) as data_path, tempfile.TemporaryDirectory() as folder:
        source = data_path / options.dataset / f"{options.dataset}.inter"
        timings = paired_timing.measure(
            {
                "ours": (ours, (options.dataset, data_path, options.layers)),
                "RecBole": (
                    recbole_stock.actions,
                    (source, Path(folder), options.layers, REG_WEIGHT, recbole_stock.TUNED_CELLS),
                ),
            },
            rounds=options.rounds,
        )
    print(paired_timing.table(timings))
    ours_, peer = timings["ours"], timings["RecBole"]
    ratio = peer.median("epoch") / ours_.median("epoch")
    paired_timing.finish(
        {
            "benchmark": "lightgcn",
            "dataset": options.dataset,
            "layers": options.layers,
            "ratio": ratio,
            "ratio_float32": ratio,
            "ratio_evaluation_tuned": peer.median("evaluation") / ours_.median("evaluation"),
            **paired_timing.seconds_and_bytes(ours_, peer, "epoch"),
        }
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
