"""How a training step grows with the graph: simulated data of 1, 4, 16 times the interactions.

    python -m benchmarks.speed.scaling [--data-path DIR] --dataset D [--models LightGCN,AlignRec]
        [--scales 1,4,16] [--seed 0]

A scale of s has s times the users, items and interactions of D; users and items draw their degrees
from D's own (bootstrap), pairs are matched at random. The batch stays at 2048, so an epoch has s
times the steps, and each step propagates over a graph s times as large: what can grow linearly is
the step. Each model and scale runs in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tabulate import tabulate

from alignrec_recbole.runs.spec import RunSpec
from benchmarks.reference.interactions import add_data, in_mmrec_layout
from benchmarks.speed import paired_timing

STEPS, WIDTH = 40, 128


def simulate(source: Path, folder: Path, scale: int, seed: int) -> Path:
    """Write `simulated.inter` and `simulated.npy` [I, 128] into folder/simulated; returns folder.

    All drawn pairs are training; user 0 has one validation and one test item besides.
    """
    rng = np.random.default_rng(seed)
    of_user, of_item = training_degrees(source)
    n_users, n_items = scale * len(of_user), scale * len(of_item)
    user, item = draw_pairs(of_user, of_item, n_users, n_items, rng)
    target = folder / "simulated"
    target.mkdir()
    free = np.setdiff1d(np.arange(n_items), item[user == 0])[:2]
    held = pd.DataFrame({"userID": 0, "itemID": free, "x_label": [1, 2]})
    whole = pd.DataFrame({"userID": user, "itemID": item, "x_label": 0})
    pd.concat([whole, held]).to_csv(target / "simulated.inter", sep="\t", index=False)
    features = rng.standard_normal((n_items, WIDTH), dtype=np.float32)
    np.save(target / "simulated.npy", features)
    return folder


def training_degrees(source: Path) -> tuple[np.ndarray, np.ndarray]:
    """Training interactions of each user and of each item of an .inter file."""
    train = pd.read_csv(source, sep="\t", usecols=["userID", "itemID", "x_label"])
    train = train[train.x_label == 0]
    return np.bincount(train.userID), np.bincount(train.itemID)


def draw_pairs(
    of_user: np.ndarray,
    of_item: np.ndarray,
    n_users: int,
    n_items: int,
    rng: np.random.Generator,
    total: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Different (user, item) pairs, ascending, matched at random.

    Degrees are drawn with replacement from the given ones; repeated pairs are drawn anew until each
    user has as many different items as their degree. `total` pairs, where given: users drawn at
    random get more, or those of a degree above 1 fewer.
    """
    degree = rng.choice(of_user[of_user > 0], n_users)
    while total is not None and (lacking := total - int(degree.sum())):
        among = np.arange(n_users) if lacking > 0 else np.flatnonzero(degree > 1)
        drawn = rng.choice(among, min(abs(lacking), len(among)), replace=False)
        degree[drawn] += int(np.sign(lacking))
    weight = np.cumsum(rng.choice(of_item[of_item > 0], n_items).astype(np.float64))
    pairs = np.empty(0, dtype=np.int64)
    missing = np.repeat(np.arange(n_users), degree)
    while len(missing):
        items = np.searchsorted(weight, rng.random(len(missing)) * weight[-1], side="right")
        pairs = np.unique(np.concatenate([pairs, missing * n_items + items]))
        have = np.bincount(pairs // n_items, minlength=n_users)
        missing = np.repeat(np.arange(n_users), degree - have)
    return pairs // n_items, pairs % n_items


def steps(model: str, folder: Path) -> dict[str, Callable[[], Any]]:
    """STEPS training steps of a model on the simulated data."""
    from alignrec_recbole.runs import prepare, tasks

    spec = RunSpec(
        model,
        "simulated",
        ("simulated",) if model == "AlignRec" else (),
        setting="mmrec",
        data_path=folder,
        output=folder,
        progress=False,
        device="cpu",
    )
    prepared = prepare.prepare_run(spec)
    trainer = tasks.build_trainer(prepared, None)
    batches = tasks.train_data(prepared)
    drawn: list[Any] = []
    for batch in batches:
        drawn.append(batch)
        if len(drawn) == STEPS:
            break
    return {"steps": lambda: trainer._run_epoch(drawn, 0)}


def main(arguments: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="benchmarks.speed.scaling")
    add_data(parser, "; its degrees are drawn from")
    parser.add_argument("--models", default="LightGCN,AlignRec")
    parser.add_argument("--scales", default="1,4,16")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(arguments)
    rows, points = [], []
    with in_mmrec_layout(parser, options) as data_path:
        source = data_path / options.dataset / f"{options.dataset}.inter"
        for scale in map(int, options.scales.split(",")):
            with tempfile.TemporaryDirectory() as scratch:
                started = time.perf_counter()
                folder = simulate(source, Path(scratch), scale, options.seed)
                print(
                    f"scale {scale}: simulated in {time.perf_counter() - started:.0f} s", flush=True
                )
                for model in options.models.split(","):
                    timing = paired_timing.measure({model: (steps, (model, folder))},
                                                  rounds=options.rounds)[model]  # fmt: skip
                    step = statistics.median(timing.seconds["steps"]) / STEPS
                    points.append(
                        {
                            "model": model,
                            "scale": scale,
                            "step_seconds": step,
                            "peak_bytes": timing.peak_bytes,
                            "startup_seconds": timing.startup,
                        }
                    )
                    first = next(p for p in points if p["model"] == model)
                    grown = scale / first["scale"]
                    points[-1]["step_over_linear"] = step / first["step_seconds"] / grown
                    points[-1]["peak_over_linear"] = timing.peak_bytes / first["peak_bytes"] / grown
                    rows.append(
                        [model, scale, f"{step * 1e3:.1f}", f"{points[-1]['step_over_linear']:.2f}",
                         f"{timing.peak_bytes / 2**30:.2f}", f"{timing.startup:.0f}"]
                    )  # fmt: skip
                    print(json.dumps(points[-1]), flush=True)
    head = ["model", "scale", "step, ms", "÷ linear", "peak, GiB", "start-up, s"]
    print(tabulate(rows, head))
    paired_timing.finish(
        {
            "benchmark": "growth",
            "dataset": options.dataset,
            "seed": options.seed,
            "worst_over_linear": max(p["step_over_linear"] for p in points),
            "points": points,
        }
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
