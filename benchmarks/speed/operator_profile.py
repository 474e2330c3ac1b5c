"""Where the baselines' training steps spend their time: the share of each kind of operator.

    python -m benchmarks.speed.operator_profile [--data-path DIR] --dataset D [--model M,…]
        [--cache FILE.json]

The same data, features and settings as `baselines`, one model after the other, each in a process of
its own. Shares are of torch's profiler: the time of operators themselves, by KINDS; `other` is the
rest of the wall time, Python and scipy. Results in FILE are not measured again. The last line
printed is one JSON object.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import tempfile
import time
from collections import Counter
from pathlib import Path

from tabulate import tabulate
from torch.profiler import ProfilerActivity, profile

from alignrec_recbole.runs import prepare, tasks
from alignrec_recbole.runtime import hardware
from benchmarks import command_line
from benchmarks.reference.interactions import add_data, in_mmrec_layout
from benchmarks.reference.options import add_cache
from benchmarks.reference.simulated_features import write_features
from benchmarks.speed import baselines, paired_timing

KINDS = {  # kind → parts of operators' names, the first match counts
    "optimizer": ("_fused_adam", "Optimizer."),
    "sparse products": ("embedding_bag",),
    "dense products": ("mkldnn::_linear", "::mm", "::addmm", "::bmm", "::baddbmm", "::mv", "::dot"),
    "rows": ("index", "scatter", "gather", "embedding", "::sort", "::unique", "::searchsorted"),
    "elementwise": ("aten::",),
}
WARM_UP = 3


def kind_of(operator: str) -> str:
    """The kind of an operator of the profiler's.

    >>> kind_of("aten::_fused_adam_"), kind_of("aten::addmm"), kind_of("_FullPropagation")
    ('optimizer', 'dense products', 'other')
    """
    matching = (kind for kind, parts in KINDS.items() if any(part in operator for part in parts))
    return next(matching, "other")


def shares(seconds: Counter[str], wall: float) -> dict[str, float]:
    """Each kind's share of the wall time, largest first; `other` is the time outside operators.

    >>> shares(Counter({"aten::mm": 3.0, "aten::add": 1.0}), 5.0)
    {'dense products': 0.6, 'elementwise': 0.2, 'other': 0.2}
    """
    found: Counter[str] = Counter()
    for operator, taken in seconds.items():
        found[kind_of(operator)] += taken / wall  # type: ignore[assignment]
    del found["other"]
    found["other"] = max(0.0, 1 - sum(found.values()))  # type: ignore[assignment]
    return {kind: round(share, 3) for kind, share in found.most_common()}


def measure(
    model: str, dataset: str, data_path: Path, features: Path, steps: int
) -> dict[str, float]:
    """Shares of `steps` training steps, after WARM_UP."""
    hardware.set_threads(None)
    prepared = prepare.prepare_run(baselines.spec(model, dataset, data_path, features))
    trainer = tasks.build_trainer(prepared, None)
    batches = iter(tasks.train_data(prepared))
    trainer._run_epoch(itertools.islice(batches, WARM_UP), 0)
    given = list(itertools.islice(batches, steps))
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        started = time.perf_counter()
        trainer._run_epoch(given, 0)
        wall = time.perf_counter() - started
    seconds = Counter({e.key: e.self_cpu_time_total / 1e6 for e in seen.key_averages()})
    return shares(seconds, wall)


def main(arguments: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="benchmarks.speed.operator_profile")
    add_data(parser)
    parser.add_argument(
        "--model", type=lambda text: text.split(","), default=baselines.LEARNING,
        help="default: all",
    )  # fmt: skip
    parser.add_argument("--steps", type=int, default=5)
    add_cache(parser)
    options = parser.parse_args(arguments)
    if unknown := sorted(set(options.model) - set(baselines.LEARNING)):
        known = ", ".join(baselines.LEARNING)
        parser.error(f"no profile of {', '.join(unknown)}; there are {known}")
    made = {"dataset": options.dataset, "steps": options.steps}
    models = paired_timing.cached_models(options.cache, made)
    with in_mmrec_layout(parser, options) as data_path, tempfile.TemporaryDirectory() as scratch:
        features = Path(scratch)
        interactions = data_path / options.dataset / f"{options.dataset}.inter"
        write_features(features, interactions, baselines.FEATURES)
        for model in [name for name in options.model if name not in models]:
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                given = model, options.dataset, data_path, features, options.steps
                found = pool.apply(measure, given)
            models[model] = {"shares": found, **paired_timing.where(), **made}
            paired_timing.cache_models(options.cache, models)
    kinds = [*KINDS, "other"]
    rows = [
        [model, *(f"{entry['shares'].get(kind, 0):.0%}" for kind in kinds)]
        for model, entry in models.items()
    ]
    print(tabulate(rows, ["model", *kinds], disable_numparse=True))
    print(json.dumps({"benchmark": "shares", "dataset": options.dataset, "models": models}))
    return 0


if __name__ == "__main__":
    command_line.end(main)
