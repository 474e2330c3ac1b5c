"""A training epoch beside other work: AlignRec's and LightGCN's, over the fair share.

    python -m benchmarks.speed.loaded [--data-path DIR] --dataset D [--features F[,F]]
        [--models AlignRec,LightGCN] [--steps N] [--late]

Beside 0, 1, 2 and 4 busy processes per core. Each model and load runs in a process of its own,
started as a user would: the number of threads follows the size of the data and what is free at that
moment. With --late the other work begins after the run, which then has the threads of an idle
machine. A fair share is the quiet epoch times the runnable processes per core, one of them ours: at
2 busy processes per core three times the quiet epoch. The last line printed is one JSON object; its
figures are those of the model that is further above its fair share.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate

from alignrec_recbole.runs import prepare, tasks
from alignrec_recbole.runs.spec import RunSpec
from alignrec_recbole.runtime import waiting
from alignrec_recbole.runtime.threads import cores_of_affinity
from benchmarks.speed import paired_timing

LOADS = (0, 1, 2, 4)  # busy processes per core
COUNTED = 2  # the load of the result
WARM_UP = 3
SETTLE_SECONDS = 5.0  # of load before a run begins: the load average follows slowly
DEFAULT_FEATURES = {"ml-100k": "lsa", "lfm2k": "all-MiniLM-L6-v2,vggish"}


def main(arguments: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="benchmarks.speed.loaded")
    parser.add_argument("--data-path", type=Path, help="default: the shipped data sets")
    parser.add_argument("--dataset", default="ml-100k")
    parser.add_argument("--features", help="of AlignRec; default: lsa, on lfm2k its two sets")
    parser.add_argument("--models", default="AlignRec,LightGCN")
    parser.add_argument("--loads", default=",".join(map(str, LOADS)))
    parser.add_argument("--steps", type=int, help="of an epoch that are timed; default: all")
    parser.add_argument("--late", action="store_true", help="load begins after the run")
    options = parser.parse_args(arguments)
    data_path = options.data_path.resolve() if options.data_path else None
    features = options.features or DEFAULT_FEATURES.get(options.dataset, "lsa")
    loads = sorted({0, COUNTED, *map(int, options.loads.split(","))})
    paired_timing.warn_if_busy()
    rows, models = [], {}
    for model in options.models.split(","):
        own = tuple(features.split(",")) if model == "AlignRec" else ()
        spec = RunSpec(
            model, options.dataset, own, data_path=data_path, progress=False, device="cpu"
        )
        points = []
        for load in loads:
            points.append(measure(spec, load, options.steps, options.late))
            point = points[-1]
            point["over_fair_share"] = over_fair_share(points[0]["seconds"], point["seconds"], load)
            rows.append(
                [model, load, point["threads"], f"{point['seconds']:.3g}",
                 f"{point['over_fair_share']:.2f}"]
            )  # fmt: skip
            print(*rows[-1], flush=True)
        models[model] = points
    head = ["model", "busy per core", "threads", "epoch, s", "÷ fair share"]
    print(tabulate(rows, head))
    counted = {name: points[loads.index(COUNTED)] for name, points in models.items()}
    worst = max(counted, key=lambda name: counted[name]["over_fair_share"])
    paired_timing.finish(
        {
            "benchmark": "loaded",
            "dataset": options.dataset,
            "model": worst,
            "load": "after the run" if options.late else "before the run",
            "quiet_seconds": models[worst][0]["seconds"],
            "loaded_seconds": counted[worst]["seconds"],
            "over_fair_share": counted[worst]["over_fair_share"],
            "models": models,
        }
    )
    return 0


def over_fair_share(quiet: float, loaded: float, busy_per_core: int) -> float:
    """Loaded seconds over the quiet ones times the runnable processes per core, ours included.

    >>> over_fair_share(2.0, 9.0, 2)
    1.5
    """
    return loaded / (quiet * (busy_per_core + 1))


def measure(spec: RunSpec, load: int, steps: int | None, late: bool) -> dict[str, Any]:
    """The epoch of a run in a new process beside `load` busy processes per core."""
    context = multiprocessing.get_context("spawn")
    ours, end = context.Pipe()
    process = context.Process(target=_serve, args=(end, spec, steps), daemon=True)
    if late:
        process.start()
        ours.recv()
    with busy_processes(load * len(cores_of_affinity())):
        if load:
            time.sleep(SETTLE_SECONDS)
        if not late:
            process.start()
            ours.recv()
        ours.send("epoch")
        point = {"busy_per_core": load, **ours.recv()}
    process.terminate()
    process.join()
    return point


@contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """So many processes that compute without end."""
    context = multiprocessing.get_context("spawn")
    several = [context.Process(target=_count_forever, daemon=True) for _ in range(count)]
    for process in several:
        process.start()
    try:
        yield
    finally:
        for process in several:
            process.terminate()
        for process in several:
            process.join()


def _count_forever() -> None:
    for _ in itertools.count():
        pass


def _serve(pipe: Any, spec: RunSpec, steps: int | None) -> None:
    prepared = prepare.prepare_run(spec)
    trainer = tasks.build_trainer(prepared, None)
    batches = list(tasks.train_data(prepared))
    given = batches[:steps]
    trainer._run_epoch(given[:WARM_UP], 0)
    pipe.send("ready")
    pipe.recv()
    threads = torch.get_num_threads()
    with waiting.considerate(threads):
        time.sleep(2 * waiting.LOOK_EVERY_SECONDS)  # as in the middle of a training
        began = time.perf_counter()
        trainer._run_epoch(given, 0)
        seconds = (time.perf_counter() - began) * len(batches) / len(given)
    pipe.send({"seconds": seconds, "threads": threads, "steps": len(given)})


if __name__ == "__main__":
    raise SystemExit(main())
