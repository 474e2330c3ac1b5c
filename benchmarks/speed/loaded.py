"""A training epoch beside other work: AlignRec's and LightGCN's, over the fair share.

    python -m benchmarks.speed.loaded [--data-path DIR] --dataset D [--features F[,F]]
        [--models AlignRec,LightGCN] [--loads 0,1,2,4] [--rounds N] [--steps N] [--late]

Beside 0, 1, 2 and 4 busy processes per core. Each model and load runs in a process of its own,
started as a user would: the number of threads follows the size of the data and what is free at that
moment. With --late the other work begins after the run, which then has the threads of an idle
machine. In turn with such epochs, `--rounds` times, it runs epochs as they would be without that
care: threads by the size alone, which wait for each other in loops. Seconds are medians.

A fair share is the quiet epoch times the runnable processes per core, one of them ours: at 2 busy
processes per core three times the quiet epoch. The last line printed is one JSON object; its
figures are those of the model that is further above its fair share.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import multiprocessing
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate

from alignrec_recbole.data.dataset_paths import find_dataset
from alignrec_recbole.registry.models import resolve
from alignrec_recbole.runs import prepare, tasks
from alignrec_recbole.runs.spec import RunSpec
from alignrec_recbole.runtime import waiting
from alignrec_recbole.runtime.threads import (
    cores_of_affinity,
    threads_by_size,
    threads_of_environment,
)
from benchmarks.speed import paired_timing

LOADS = (0, 1, 2, 4)  # busy processes per core
COUNTED = 2  # the load of the result
WARM_UP = 3
SETTLE_SECONDS = 5.0  # of load before a run begins: the load average follows slowly
TIMED_BEFORE = {"lfm2k": ("all-MiniLM-L6-v2", "vggish")}  # those of earlier figures
KINDS = ("before", "now")  # epochs without and with care for others


def main(arguments: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="benchmarks.speed.loaded")
    parser.add_argument("--data-path", type=Path, help="default: the shipped data sets")
    parser.add_argument("--dataset", default="ml-100k")
    parser.add_argument(
        "--features", help="of AlignRec; default: the .npy files of the data set's folder, else lsa"
    )
    parser.add_argument("--models", default="AlignRec,LightGCN")
    parser.add_argument("--loads", default=",".join(map(str, LOADS)))
    parser.add_argument("--rounds", type=int, default=3, help="epochs of each kind; default: 3")
    parser.add_argument("--steps", type=int, help="of an epoch that are timed; default: all")
    parser.add_argument("--late", action="store_true", help="load begins after the run")
    options = parser.parse_args(arguments)
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")
    data_path = options.data_path.resolve() if options.data_path else None
    loads = sorted({0, COUNTED, *map(int, options.loads.split(","))})
    paired_timing.warn_if_busy()
    rows, models = [], {}
    for model in options.models.split(","):
        own = features_of(options.dataset, data_path, options.features, model)
        spec = RunSpec(
            model, options.dataset, own, data_path=data_path, progress=False, device="cpu"
        )
        points: list[dict[str, Any]] = []
        for load in loads:
            point = measure(spec, load, options.rounds, options.steps, options.late)
            points.append(point)
            for kind in KINDS:
                point[kind]["over_fair_share"] = over_fair_share(
                    points[0][kind]["seconds"], point[kind]["seconds"], load
                )
            rows.append([model, load, *(value for kind in KINDS for value in _cells(point[kind]))])
            print(*rows[-1], flush=True)
        models[model] = points
    head = ["threads", "epoch, s", "÷ fair share"]
    print(tabulate(rows, ["model", "busy per core", *[f"{h} {k}" for k in KINDS for h in head]]))
    counted = {name: points[loads.index(COUNTED)] for name, points in models.items()}
    worst = max(counted, key=lambda name: counted[name]["now"]["over_fair_share"])
    quiet, loaded = models[worst][0], counted[worst]
    paired_timing.finish(
        {
            "benchmark": "loaded",
            "dataset": options.dataset,
            "model": worst,
            "load": "after the run" if options.late else "before the run",
            "quiet_seconds": quiet["now"]["seconds"],
            "loaded_seconds": loaded["now"]["seconds"],
            "over_fair_share": loaded["now"]["over_fair_share"],
            "before": {
                "quiet_seconds": quiet["before"]["seconds"],
                "loaded_seconds": loaded["before"]["seconds"],
                "over_fair_share": loaded["before"]["over_fair_share"],
            },
            "quiet_over_before": {
                name: points[0]["now"]["seconds"] / points[0]["before"]["seconds"]
                for name, points in models.items()
            },
            "models": models,
        }
    )
    return 0


def features_of(
    dataset: str, data_path: Path | None, given: str | None, model: str
) -> tuple[str, ...]:
    """The feature sets of a model: those given, else of the data set's folder, else lsa."""
    if not resolve(model).needs_features:
        return ()
    if given:
        return tuple(given.split(","))
    if dataset in TIMED_BEFORE:
        return TIMED_BEFORE[dataset]
    folder = find_dataset(dataset, data_path)
    return tuple(sorted(path.stem for path in folder.glob("*.npy"))) or ("lsa",)


def _cells(timed: dict[str, Any]) -> list[Any]:
    return [timed["threads"], f"{timed['seconds']:.3g}", f"{timed['over_fair_share']:.2f}"]


def over_fair_share(quiet: float, loaded: float, busy_per_core: int) -> float:
    """Loaded seconds over the quiet ones times the runnable processes per core, ours included.

    >>> over_fair_share(2.0, 9.0, 2)
    1.5
    """
    return loaded / (quiet * (busy_per_core + 1))


def measure(spec: RunSpec, load: int, rounds: int, steps: int | None, late: bool) -> dict[str, Any]:
    """The epochs of a run in a new process beside `load` busy processes per core."""
    context = multiprocessing.get_context("spawn")
    ours, end = context.Pipe()
    process = context.Process(target=_serve, args=(end, spec, rounds, steps), daemon=True)
    if late:
        process.start()
        end.close()
        ours.recv()
    with busy_processes(load * len(cores_of_affinity())):
        if load:
            time.sleep(SETTLE_SECONDS)
        if not late:
            process.start()
            end.close()
            ours.recv()  # EOFError if the process ended: its error is on the terminal
        ours.send("epochs")
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


def _serve(pipe: Any, spec: RunSpec, rounds: int, steps: int | None) -> None:
    prepared = prepare.prepare_run(spec)
    trainer = tasks.build_trainer(prepared, None)
    batches = list(tasks.train_data(prepared))
    given = batches[:steps]
    trainer._run_epoch(given[:WARM_UP], 0)
    pipe.send("ready")
    pipe.recv()
    now = torch.get_num_threads()
    numbers = {"before": threads_without_care(prepared.data.numbers), "now": now}
    seconds: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for number in range(rounds):
        for kind in KINDS if number % 2 else reversed(KINDS):
            torch.set_num_threads(numbers[kind])
            care = waiting.considerate(now) if kind == "now" else contextlib.nullcontext()
            with care:
                time.sleep(2 * waiting.LOOK_EVERY_SECONDS)  # as in the middle of a training
                trainer._run_epoch(given[:WARM_UP], 0)
                began = time.perf_counter()
                trainer._run_epoch(given, 0)
                taken = time.perf_counter() - began
            seconds[kind].append(taken * len(batches) / len(given))
    pipe.send(
        {
            "steps": len(given),
            **{
                kind: {
                    "threads": numbers[kind],
                    "seconds": statistics.median(taken),
                    "all_seconds": taken,
                }
                for kind, taken in seconds.items()
            },
        }
    )


def threads_without_care(numbers: int) -> int:
    """Threads by the size of the data, on however many cores others use."""
    wanted = threads_of_environment() or threads_by_size(numbers)
    return min(wanted, len(cores_of_affinity()))


if __name__ == "__main__":
    raise SystemExit(main())
