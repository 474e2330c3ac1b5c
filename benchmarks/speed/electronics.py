"""Seconds and memory of one training epoch of every model at the size of Amazon Electronics.

    python -m benchmarks.speed.electronics [--data-path DIR] [--dataset sports] [--model M,…]
        [--steps N] [--cache FILE.json] [--seed 0]

192,403 users, 63,001 items and 1,689,188 interactions, drawn with the degree distributions of
DIR/dataset; three quarters of them are training, as in the released split. Seeded random tables
stand in for the features: text 384, image 4096 and, for a model that takes one set, 768 columns.
Each model runs with its defaults in a process of its own. A model that would not fit shows its
estimate. Results in FILE are not measured again. With --steps only the first N steps of the epoch
are run; its seconds are extrapolated from them (`epoch_seconds`), and the peak is theirs.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tabulate import tabulate

from alignrec_recbole.registry.models import MODELS
from alignrec_recbole.runs.spec import RunSpec
from benchmarks import command_line
from benchmarks.reference.epoch_timer import epoch_seconds
from benchmarks.reference.interactions import add_data, in_mmrec_layout
from benchmarks.reference.options import add_cache, add_steps
from benchmarks.speed import paired_timing, scaling

USERS, ITEMS, INTERACTIONS = 192_403, 63_001, 1_689_188
TRAINING = 1_254_441 / INTERACTIONS  # of MMRec's split
WIDTHS = {"text": 384, "image": 4096, "fused": 768}
ONE_SET = {"AlignRec"}


def simulate(source: Path, folder: Path, seed: int) -> None:
    """Write folder/electronics: the interactions and one .npy per feature set."""
    rng = np.random.default_rng(seed)
    user, item = scaling.draw_pairs(
        *scaling.training_degrees(source), USERS, ITEMS, rng, total=INTERACTIONS
    )
    label = rng.choice(3, len(user), p=[TRAINING, (1 - TRAINING) / 2, (1 - TRAINING) / 2])
    frame = pd.DataFrame({"userID": user, "itemID": item, "x_label": label})
    target = folder / "electronics"
    target.mkdir()
    frame.to_csv(target / "electronics.inter", sep="\t", index=False)
    for name, width in WIDTHS.items():
        np.save(target / f"{name}.npy", rng.standard_normal((ITEMS, width), dtype=np.float32))


def epoch(model: str, folder: Path, steps: int | None) -> dict[str, Callable[[], Any]]:
    """A training epoch with the model's defaults."""
    from alignrec_recbole.runs import prepare, tasks

    sets = ("fused",) if model in ONE_SET else ("text", "image")
    spec = RunSpec(
        model, "electronics", sets if MODELS[model].needs_features else (), setting="mmrec",
        data_path=folder, output=folder,  # neighbour lists are searched once
        progress=False, device="cpu",
    )  # fmt: skip
    prepared = prepare.prepare_run(spec)
    trainer = tasks.build_trainer(prepared, None)
    batches = tasks.train_data(prepared)
    return {
        "epoch": lambda: epoch_seconds(lambda part: trainer._run_epoch(part, 0), batches, steps)
    }


def measure(model: str, folder: Path, steps: int | None = None) -> dict[str, Any]:
    """Seconds and peak bytes of an epoch, or the refusal."""
    try:
        timing = paired_timing.measure(
            {model: (epoch, (model, folder, steps))}, rounds=1, warm_up=0
        )[model]
    except RuntimeError as error:
        if "NotEnoughMemoryError" not in str(error):
            raise
        return {"refused": str(error).partition("\nTraceback")[0]}
    return {
        "seconds": timing.median("epoch"),
        "peak_bytes": timing.peak_bytes,
        "startup_seconds": timing.startup,
        **paired_timing.where(),
    }


SOLVED = (  # there is no training to time
    "Pop", "ItemKNNCBF", "ItemKNNHybrid", "ContentRidge", "CEASE", "AddEASE", "MMGF",
)  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """Measure and print."""
    learning = [
        name for name, entry in MODELS.items() if entry.family == "native" and name not in SOLVED
    ]
    parser = argparse.ArgumentParser(prog="benchmarks.speed.electronics")
    add_data(parser, "; its degrees are drawn from")
    parser.add_argument("--model", type=lambda text: text.split(","), default=learning)
    add_cache(parser)
    parser.add_argument("--seed", type=int, default=0)
    add_steps(parser)
    options = parser.parse_args(arguments)
    unknown = sorted(set(options.model) - set(learning))
    if unknown:
        parser.error(f"no training for {', '.join(unknown)}; there are {', '.join(learning)}")
    made = {"dataset": options.dataset, "steps": options.steps, "seed": options.seed}
    models = paired_timing.cached_models(options.cache, made)
    with in_mmrec_layout(parser, options) as data_path, tempfile.TemporaryDirectory() as scratch:
        source = data_path / options.dataset / f"{options.dataset}.inter"
        folder = Path(scratch)
        simulate(source, folder, options.seed)
        for model in options.model:
            if model not in models:
                models[model] = {**measure(model, folder, options.steps), **made}
                print(f"{model}: {models[model]}", file=sys.stderr)
                paired_timing.cache_models(options.cache, models)
    rows = [
        [model, entry["refused"], ""]
        if "refused" in entry
        else [model, f"{entry['seconds']:.0f}", f"{entry['peak_bytes'] / 2**30:.1f}"]
        for model, entry in models.items()
    ]
    print(tabulate(rows, ["model", "epoch, s", "peak, GiB"], disable_numparse=True))
    paired_timing.finish(
        {
            "benchmark": "electronics",
            "users": USERS,
            "items": ITEMS,
            "interactions": INTERACTIONS,
            "worst_peak_bytes": max((e.get("peak_bytes", 0) for e in models.values()), default=0),
            "models": models,
        }
    )
    return 0


if __name__ == "__main__":
    command_line.end(main)
