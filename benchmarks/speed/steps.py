"""CPU time of a training step, model by model: for comparing two states of the code.

    python -m benchmarks.speed.steps [--data-path DIR] --dataset D --features F,… --model M,…
        [--steps 40] [--threads 1] [--cache FILE.json]

Each model runs in a process of its own with the defaults of properties/model; after five steps,
`steps` more are timed in four parts, and the median is shown. CPU time, not wall time: it hardly
depends on what else the machine does. To compare with another commit, run the same command in a
worktree of it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from tabulate import tabulate

from alignrec_recbole.runs import prepare, tasks
from alignrec_recbole.runs.spec import RunSpec
from alignrec_recbole.runtime import hardware
from benchmarks import command_line
from benchmarks.reference.interactions import add_data, in_mmrec_layout
from benchmarks.reference.options import add_cache
from benchmarks.speed import paired_timing

WARM_UP, PARTS = 5, 4


def milliseconds(spec: RunSpec, steps: int, threads: int) -> float:
    """Median CPU time of a step."""
    run = prepare.prepare_run(spec)
    hardware.set_threads(threads)
    trainer = tasks.build_trainer(run, None)
    batches = itertools.chain.from_iterable(itertools.repeat(tasks.train_data(run)))
    trainer._run_epoch(itertools.islice(batches, WARM_UP), 0)
    each = steps // PARTS
    found = []
    for _ in range(PARTS):
        given = list(itertools.islice(batches, each))
        started = time.process_time()
        trainer._run_epoch(given, 0)
        found.append((time.process_time() - started) / each)
    return 1000 * statistics.median(found)


def main(arguments: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="benchmarks.speed.steps")
    add_data(parser)
    names = {"type": lambda text: tuple(text.split(","))}
    parser.add_argument("--features", default=(), **names)  # type: ignore[arg-type]
    parser.add_argument("--model", required=True, **names)  # type: ignore[arg-type]
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--threads", type=int, default=1)
    add_cache(parser)
    options = parser.parse_args(arguments)
    if options.steps < PARTS:
        parser.error(f"--steps must be at least {PARTS}")
    made = {
        "dataset": options.dataset,
        "features": list(options.features),
        "steps": options.steps,
        "threads": options.threads,
    }
    models: dict[str, Any] = paired_timing.cached_models(options.cache, made)
    with in_mmrec_layout(parser, options) as data_path, tempfile.TemporaryDirectory() as scratch:
        for model in [name for name in options.model if name not in models]:
            spec = RunSpec(
                model, options.dataset, options.features, setting="mmrec", data_path=data_path,
                output=Path(scratch), progress=False, device="cpu",
            )  # fmt: skip
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                taken = pool.apply(milliseconds, (spec, options.steps, options.threads))
            models[model] = {"cpu_ms_per_step": taken, **paired_timing.where(), **made}
            paired_timing.cache_models(options.cache, models)
    rows = [[model, f"{found['cpu_ms_per_step']:.1f}"] for model, found in models.items()]
    print(tabulate(rows, ["model", "CPU ms per step"], disable_numparse=True))
    print(json.dumps({"benchmark": "steps", "dataset": options.dataset, "models": models}))
    return 0


if __name__ == "__main__":
    command_line.end(main)
