"""What grows with the data, stage by stage: reading, item graph, training step, ranking.

    python -m benchmarks.speed.growth [--data-path DIR] --dataset D [--scales 1,4,16,100]
        [--features FILE.npy] [--knn auto] [--limit 600] [--seed 0]

A scale of s has s times the users, items and interactions of D, as in `benchmarks.speed.scaling`;
features are the rows of FILE and kin of them (`benchmarks.speed.knn`), else random ones. Each scale
runs in a process of its own. A stage that does not end within --limit seconds, is refused for lack
of memory, or ends its process is the wall of that scale; larger scales are not tried any more.
A step is the mean of ten; a ranking of all users is extrapolated from two smaller numbers of them.
"""

from __future__ import annotations

import argparse
import functools
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tabulate import tabulate

from benchmarks.reference.interactions import add_data, in_mmrec_layout
from benchmarks.speed import paired_timing, scaling
from benchmarks.speed.knn import kin_of, random_rows

MODELS = ("LightGCN", "AlignRec")
STAGES = (
    "read", "sampler", "LightGCN step", "LightGCN ranking",
    "graph", "AlignRec step", "AlignRec ranking",
)  # fmt: skip
STEPS, RANKED = 10, 2048  # measured


class _Stages:
    """Runs stages and prints what each took, as one line of JSON."""

    def __init__(self) -> None:
        from alignrec_recbole.runtime import memory_usage

        self._memory = memory_usage
        self._base = memory_usage.peak_rss_bytes()

    def run(
        self, stage: str, work: Callable[..., Any], *given: Any, units: int = 1, **more: Any
    ) -> Any:
        """The result of the work on what is given; its time is divided by `units`."""
        self._memory.reset_peak_rss()
        out, taken = _timed(work, *given, **more)
        self._report(stage, np.array(taken) / units)
        return out

    def run_part(
        self, stage: str, work: Callable[[int], Any], parts: tuple[int, int], whole: int
    ) -> None:
        """The time of `whole` units of work, by that of two smaller numbers of them.

        What the work takes once is counted once.
        """
        self._memory.reset_peak_rss()
        few, many = (np.array(_timed(work, units)[1]) for units in parts)
        each = np.maximum(many - few, 0) / max(parts[1] - parts[0], 1)
        self._report(stage, few + (whole - parts[0]) * each)

    def _report(self, stage: str, taken: Any) -> None:
        found = {
            "stage": stage,
            "cpu_seconds": float(taken[0]),
            "seconds": float(taken[1]),
            "bytes": self._memory.peak_rss_bytes() - self._base,
        }
        print(json.dumps(found), flush=True)


def _timed(work: Callable[..., Any], *given: Any, **more: Any) -> tuple[Any, tuple[float, float]]:
    """What the work returns, and its seconds of CPU and of time."""
    cpu, wall = time.process_time(), time.perf_counter()
    out = work(*given, **more)
    return out, (time.process_time() - cpu, time.perf_counter() - wall)


def stages(folder: Path, knn: str) -> None:
    """All stages on the simulated data of a folder."""
    from alignrec_recbole.features.item_order import tie_ranks
    from alignrec_recbole.graphs import knn_cache
    from alignrec_recbole.graphs.item_item import item_graph
    from alignrec_recbole.runs import prepare, tasks
    from alignrec_recbole.runs.spec import RunSpec

    measured = _Stages()

    def spec(model: str) -> RunSpec:
        content = model == "AlignRec"
        return RunSpec(
            model,
            "simulated",
            ("simulated",) if content else (),
            setting="mmrec",
            data_path=folder,
            output=folder,
            progress=False,
            device="cpu",
            overrides={"knn": knn} if content else {},
        )

    prepared = measured.run("read", prepare.prepare_run, spec("LightGCN"))
    batches = measured.run("sampler", _first, prepared)
    for model in MODELS:
        if model == "AlignRec":
            prepared = prepare.prepare_run(spec(model))
            train = prepared.splits[0]
            table = torch.from_numpy(train.features["simulated"].values)
            place = tie_ranks(train.field2id_token[train.iid_field])
            k, cache = prepared.config["knn_k"], Path(prepared.config["features_cache"])
            with knn_cache.use_cache_folder(cache):  # so that the model finds the lists
                measured.run("graph", item_graph, table, k, method=knn, place=place)
            del table
        trainer = tasks.build_trainer(prepared, None)
        trainer._run_epoch(batches[:1], 0)
        measured.run(f"{model} step", trainer._run_epoch, batches, 1, units=len(batches))
        train = prepared.splits[0]
        ranking = functools.partial(_rank, trainer, train)
        users = train.user_num - 1
        part = min(RANKED, users // 2)
        measured.run_part(f"{model} ranking", ranking, (part, 2 * part), users)


def _rank(trainer: Any, train: Any, number: int) -> None:
    """Rank all items for some of the users."""
    from alignrec_recbole.evaluation.ranking import EvalTask

    users, items = train.pairs()
    first = np.unique(users, return_index=True)[1][:number]
    shape = (train.user_num, train.item_num)
    trainer.rank(EvalTask.from_pairs((users[first], items[first]), [], shape), 50)


def _first(prepared: Any) -> list[Any]:
    """The first batches of an epoch, whose negatives are all drawn."""
    from alignrec_recbole.runs import tasks

    drawn = []
    for batch in tasks.train_data(prepared):
        drawn.append(batch)
        if len(drawn) == STEPS:
            break
    return drawn


def measure(folder: Path, knn: str, limit: float) -> tuple[list[dict[str, Any]], str | None]:
    """What each stage took in a process of its own, and why the first that did not end did not."""
    command = [sys.executable, "-m", "benchmarks.speed.growth", "--stages-of", str(folder)]
    found: list[dict[str, Any]] = []
    late = threading.Event()
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            [*command, "--knn", knn], stdout=subprocess.PIPE, stderr=errors, text=True
        )

        def end() -> None:
            late.set()
            process.kill()

        assert process.stdout is not None
        timer = threading.Timer(limit, end)
        timer.start()
        for line in process.stdout:
            if line.startswith('{"stage"'):
                found.append(json.loads(line))
                timer.cancel()
                timer = threading.Timer(limit, end)
                timer.start()
        code = process.wait()
        timer.cancel()
        errors.seek(0)
        said = [line for line in errors.read().splitlines() if "Error" in line]
    if code == 0:
        return found, None
    why = f"longer than {limit:g} s" if late.is_set() else (said or [f"exit code {code}"])[-1]
    return found, why


def main(arguments: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="benchmarks.speed.growth")
    add_data(parser, "; its degrees are drawn from")
    parser.add_argument("--scales", default="1,4,16,100")
    parser.add_argument("--features", type=Path, help="a NumPy file with rows of items")
    parser.add_argument("--knn", choices=("exact", "auto", "approximate"), default="auto")
    parser.add_argument("--limit", type=float, default=600, help="seconds per stage")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--stages-of", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.stages_of is not None:
        stages(options.stages_of, options.knn)
        return 0
    paired_timing.warn_if_busy()
    points: list[dict[str, Any]] = []
    wall: str | None = None
    with in_mmrec_layout(parser, options) as data_path:
        source = data_path / options.dataset / f"{options.dataset}.inter"
        for scale in map(int, options.scales.split(",")):
            with tempfile.TemporaryDirectory() as scratch:
                folder = scaling.simulate(source, Path(scratch), scale, options.seed)
                table = folder / "simulated" / "simulated.npy"
                items = len(np.load(table, mmap_mode="r"))
                rows = random_rows(items, scaling.WIDTH)
                if options.features is not None:
                    given = np.load(options.features, allow_pickle=False).astype(np.float32)
                    rows = kin_of(torch.from_numpy(given), items)
                np.save(table, rows.numpy())
                size = (folder / "simulated" / "simulated.inter").stat().st_size
                del rows
                found, why = measure(folder, options.knn, options.limit)
            points.append({"scale": scale, "items": items, "file_bytes": size, "stages": found})
            print(json.dumps(points[-1]), flush=True)
            if why is not None:
                wall = f"scale {scale}, {STAGES[len(found)]}: {why}"
                break
    print(tabulate(_rows(points), ["stage", *(f"×{p['scale']}: CPU s, GiB" for p in points)]))
    print(f"first wall: {wall or 'none up to this scale'}")
    paired_timing.finish(
        {
            "benchmark": "growth-stages",
            "dataset": options.dataset,
            "seed": options.seed,
            "knn": options.knn,
            "points": points,
            "first_wall": wall,
        }
    )
    return 0


def _rows(points: list[dict[str, Any]]) -> list[list[str]]:
    """Stages × scales: CPU seconds and GiB above the process before."""
    by_scale = [{found["stage"]: found for found in point["stages"]} for point in points]
    return [
        [stage]
        + [
            f"{of[stage]['cpu_seconds']:.3g}, {of[stage]['bytes'] / 2**30:.2f}"
            if stage in of
            else "–"
            for of in by_scale
        ]
        for stage in STAGES
    ]


if __name__ == "__main__":
    raise SystemExit(main())
