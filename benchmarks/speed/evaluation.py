"""Full ranking of a validation split: ours against RecBole's, at its default and its best batch.

    python -m benchmarks.speed.evaluation [--data-path DIR] --dataset D [--cells 4e6,4e7]
        [--rounds 5]

RecBole's `eval_batch_size` counts user × item cells; its default of 4096 ranks one user a call.
Both sides score by inner products of LightGCN vectors and compute Recall, NDCG, Precision and MAP
at 5, 10, 20 and 50.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.reference import recbole_stock
from benchmarks.reference.interactions import add_data, in_mmrec_layout
from benchmarks.speed import lightgcn, paired_timing

DEFAULT_CELLS = 4096


def ours(dataset: str, data_path: Path) -> Any:
    """Our ranking alone."""
    return {"evaluation": lightgcn.ours(dataset, data_path, 2)["evaluation"]}


def main(arguments: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="benchmarks.speed.evaluation")
    add_data(parser)
    parser.add_argument(
        "--cells", default="4.096e6,1.6384e7,4.096e7,1.6384e8", help="batches tried for RecBole"
    )
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(arguments)
    cells = [DEFAULT_CELLS, *(int(float(text)) for text in options.cells.split(","))]
    with in_mmrec_layout(parser, options) as data_path, tempfile.TemporaryDirectory() as folder:
        source = data_path / options.dataset / f"{options.dataset}.inter"
        timings = paired_timing.measure(
            {
                "ours": (ours, (options.dataset, data_path)),
                **{
                    f"RecBole, {count} cells": (
                        recbole_stock.ranking_only,
                        (source, Path(folder) / str(count), count),
                    )
                    for count in cells
                },
            },
            rounds=options.rounds,
        )
    print(paired_timing.table(timings))
    mine = timings.pop("ours")
    default = timings[f"RecBole, {DEFAULT_CELLS} cells"]
    best = min(timings.values(), key=lambda t: t.median("evaluation"))
    ratio = best.median("evaluation") / mine.median("evaluation")
    paired_timing.finish(
        {
            "benchmark": "evaluation",
            "dataset": options.dataset,
            "ratio": ratio,
            "ratio_float32": ratio,
            "ratio_default": default.median("evaluation") / mine.median("evaluation"),
            "best_cells": next(name for name, t in timings.items() if t is best),
            **paired_timing.seconds_and_bytes(mine, best, "evaluation"),
            "default_seconds": default.seconds["evaluation"],
        }
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
