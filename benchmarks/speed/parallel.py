"""What a training step costs where its columns are divided among processes.

    python -m benchmarks.speed.parallel [--data-path DIR] --dataset D --features F
        [--models LightGCN,AlignRec] [--processes 1,2] [--steps 20] [--set KEY=VALUE …]

Each number of processes is started by torch's launcher on this machine, with one thread each; one
process runs what a run without --nproc does. Costs are CPU seconds, so other work on the machine
does not count: the median over the steps, in the process that is busiest. Bytes are those that a
process hands to collective operations in a step. Peak memory is that of the largest process.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tabulate import tabulate

WARM_STEPS = 3


def worker(options: argparse.Namespace) -> None:
    """Steps of one model in this process, alone or as one of several; writes rank.json."""
    import torch

    from alignrec_recbole.cli._overrides import assignment
    from alignrec_recbole.ops import columns
    from alignrec_recbole.runs import prepare, tasks
    from alignrec_recbole.runs.spec import RunSpec
    from alignrec_recbole.runtime import memory_usage, processes
    from alignrec_recbole.settings import nested

    several = processes.count() > 1
    with contextlib.ExitStack() as stack:
        within = None
        if several:
            stack.enter_context(processes.joined("cpu"))
            within = stack.enter_context(columns.divided())
        with processes.first_alone():
            prepared = prepare.prepare_run(
                RunSpec(
                    options.worker,
                    options.dataset,
                    tuple(options.features.split("+")) if options.features else (),
                    data_path=options.data_path,
                    output=options.output,
                    overrides=nested(map(assignment, options.set)),
                    progress=False,
                    device="cpu",
                )
            )
        trainer = tasks.build_trainer(prepared, None)
        memory_usage.reset_peaks()
        model = trainer.model.train()
        if hasattr(model, "begin_epoch"):
            model.begin_epoch(torch.Generator().manual_seed(0))
        seconds, exchanged = [], 0
        for number, batch in enumerate(tasks.train_data(prepared)):
            if number == WARM_STEPS + options.steps:
                break
            if number == WARM_STEPS and within is not None:
                exchanged = within.exchanged
            begun = time.process_time()
            trainer._step(batch)
            seconds.append(time.process_time() - begun)
        timed = seconds[WARM_STEPS:]
        found = {
            "cpu_seconds": statistics.median(timed),
            "cpu_seconds_least": min(timed),
            "exchanged_bytes": (within.exchanged - exchanged) / len(timed) if within else 0.0,
            "peak_rss_bytes": memory_usage.peak_rss_bytes(),
            "steps": len(timed),
        }
        rank = within.rank if within else 0
        (options.output / f"{rank}.json").write_text(json.dumps(found))


def measure(options: argparse.Namespace, model: str, processes: int) -> dict[str, Any]:
    """The worst process of each figure."""
    with tempfile.TemporaryDirectory() as folder:
        start = ["torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "-m"]
        command = [sys.executable, "-m", *(start if processes > 1 else [])]
        command += ["benchmarks.speed.parallel", "--worker", model, "--output", folder]
        for name in ("data_path", "dataset", "features", "steps"):
            if (value := getattr(options, name)) is not None:
                command += [f"--{name.replace('_', '-')}", str(value)]
        command += ["--set", *options.set] if options.set else []
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run(command, env=environment, check=True)
        found = [json.loads(path.read_text()) for path in sorted(Path(folder).glob("*.json"))]
    worst = {name: max(each[name] for each in found) for name in found[0]}
    return {"model": model, "processes": processes, **worst}


def main(arguments: list[str] | None = None) -> int:
    """Measure and print a table, then one JSON object."""
    parser = argparse.ArgumentParser(prog="benchmarks.speed.parallel")
    parser.add_argument("--data-path", type=Path, default=Path("data"))
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--features", default="")
    parser.add_argument("--models", default="LightGCN,AlignRec")
    parser.add_argument("--processes", default="1,2")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--set", nargs="*", default=[])
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.worker:
        worker(options)
        return 0
    rows = [
        measure(options, model, int(processes))
        for model in options.models.split(",")
        for processes in options.processes.split(",")
    ]
    alone = {row["model"]: row["cpu_seconds"] for row in rows if row["processes"] == 1}
    table = [
        (
            row["model"],
            row["processes"],
            f"{1000 * row['cpu_seconds']:.1f} ({1000 * row['cpu_seconds_least']:.1f})",
            f"{alone[row['model']] / row['cpu_seconds']:.2f}×" if row["model"] in alone else "",
            f"{row['exchanged_bytes'] / 1e6:.3f}",
            f"{row['peak_rss_bytes'] / 2**20:.0f}",
        )
        for row in rows
    ]
    heads = ("model", "processes", "CPU ms per step, median (least)", "less work", "MB per step",
             "peak MiB")  # fmt: skip
    print(tabulate(table, heads, tablefmt="github"))
    print(json.dumps({"benchmark": "parallel", "dataset": options.dataset, "rows": rows}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
