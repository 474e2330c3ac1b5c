"""The baselines' training epoch and evaluation: ours against MMRec's, or its forks'.

    python -m benchmarks.speed.baselines --reference CHECKOUT [--data-path DIR] --dataset D
        [--model M,…] [--rounds 5] [--steps N] [--cache FILE.json]

CHECKOUT is one of enoche/MMRec or of another code of benchmarks/README.md, which need
`pip install lmdb`. Both sides read the same files, take the same batch size and the defaults of
properties/model. Seeded random tables stand in for the
features, image 4096 and text 384 columns as in the published ones: a step costs the same whatever
their values. One model after the other, each side in a process of its own; `ratio` of the whole is
the median over the models. Results in FILE are not measured again; ratios of a model are always of
one run. With --steps an epoch is extrapolated from its first N steps (`epoch_seconds`):
the references' take minutes each.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from tabulate import tabulate

from alignrec_recbole.registry.components import components
from alignrec_recbole.runs.spec import RunSpec
from benchmarks import command_line
from benchmarks.parity.pairs import PAIRS, of_checkout, reference_of
from benchmarks.reference import checkout, rearm
from benchmarks.reference import our_timing as our_side
from benchmarks.reference.interactions import add_data, in_mmrec_layout
from benchmarks.reference.options import add_cache, add_steps
from benchmarks.reference.simulated_features import write_features
from benchmarks.speed import paired_timing

FEATURES = {"text_feat": 384, "image_feat": 4096}  # names of MMRec's files → columns
LEARNING = [
    name
    for name, pair in PAIRS.items()
    if pair.trainable and pair.code not in checkout.AT_ROOT and pair.model in ("", name)
]


def spec(model: str, dataset: str, data_path: Path, features: Path) -> RunSpec:
    """Our run with the defaults on simulated FEATURES."""
    names = tuple(checkout.FILES[kind].removesuffix(".npy") for kind in PAIRS[model].features[0])
    return RunSpec(
        model, dataset, names, setting="mmrec", data_path=data_path, features_path=features,
        output=features / model, progress=False, device="cpu",
    )  # fmt: skip


def ours(
    model: str, dataset: str, data_path: Path, features: Path, steps: int | None = None
) -> Any:
    """Actions of our harness with the defaults."""
    return our_side.actions(spec(model, dataset, data_path, features), steps)


def theirs(
    model: str,
    reference: Path,
    dataset_dir: Path,
    features: Path,
    folder: Path,
    steps: int | None = None,
) -> Any:
    """Actions of the reference's harness with the same settings."""
    settings = components(model).defaults_for(dataset_dir.name)
    given = {
        **PAIRS[model].theirs(settings),
        "learning_rate": settings["learning_rate"],
        "learning_rate_scheduler": settings["lr_decay"],
        "weight_decay": settings.get("weight_decay", 0.0),
    }
    files = {kind: features / name for kind, name in checkout.FILES.items()}
    code, own, kind = PAIRS[model].code, folder / model, reference_of(model)
    if code == rearm.MARK:
        return rearm.actions(reference, dataset_dir, files, given, own, steps)
    return checkout.actions(reference, code, kind, dataset_dir, files, given, own, steps)


def entry(mine: paired_timing.Timing, peer: paired_timing.Timing) -> dict[str, Any]:
    """The result of a model."""
    return {
        "ratio": peer.median("epoch") / mine.median("epoch"),
        "ratio_evaluation": peer.median("evaluation") / mine.median("evaluation"),
        "ratio_peak": peer.peak_bytes / mine.peak_bytes,
        **paired_timing.seconds_and_bytes(mine, peer, "epoch"),
        **paired_timing.where(),
    }


def main(arguments: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="benchmarks.speed.baselines")
    parser.add_argument("--reference", type=Path, required=True, help="checkout of its code")
    add_data(parser)
    parser.add_argument(
        "--model", type=lambda text: text.split(","), help="default: all of the checkout"
    )
    parser.add_argument("--rounds", type=int, default=5)
    add_steps(parser)
    add_cache(parser)
    options = parser.parse_args(arguments)
    every = [name for name in of_checkout(options.reference) if name in LEARNING]
    options.model = options.model or every
    unknown = sorted(set(options.model) - set(LEARNING))
    if unknown:
        parser.error(f"no comparison for {', '.join(unknown)}; there are {', '.join(LEARNING)}")
    made = {"dataset": options.dataset, "steps": options.steps}
    models = paired_timing.cached_models(options.cache, made)
    with in_mmrec_layout(parser, options) as data_path, tempfile.TemporaryDirectory() as scratch:
        dataset_dir = data_path / options.dataset
        features = Path(scratch)
        write_features(features, dataset_dir / f"{options.dataset}.inter", FEATURES)
        for model in [name for name in options.model if name not in models]:
            reference = options.reference.resolve()
            other = model, reference, dataset_dir, features, features, options.steps
            timings = paired_timing.measure(
                {
                    "ours": (ours, (model, options.dataset, data_path, features, options.steps)),
                    "reference": (theirs, other),
                },
                rounds=options.rounds,
            )
            print(f"{model}\n{paired_timing.table(timings)}", file=sys.stderr)
            models[model] = {
                **entry(timings["ours"], timings["reference"]),
                "peer": checkout.SOURCES[PAIRS[model].code],
                **made,
            }
            paired_timing.cache_models(options.cache, models)
    rows = [
        [
            model,
            *(paired_timing.spread(found["rounds"][side]) for side in ("ours", "peer")),
            f"{found['ratio']:.1f}",
            f"{found['ratio_evaluation']:.1f}",
            *(f"{found[f'{side}_peak_bytes'] / 2**30:.2f}" for side in ("ours", "peer")),
        ]
        for model, found in models.items()
    ]
    head = ["model", "ours, s", "reference, s", "ratio", "evaluation", "ours, GiB",
            "reference, GiB"]  # fmt: skip
    print(tabulate(rows, head, disable_numparse=True))
    middle = {
        key: statistics.median(found[key] for found in models.values())
        for key in ("ratio", "ours_seconds", "peer_seconds", "ours_peak_bytes", "peer_peak_bytes")
    }
    paired_timing.finish(
        {
            "benchmark": "baselines",
            "dataset": options.dataset,
            "features": "simulated, text 384 and image 4096",
            **middle,
            "ratio_float32": middle["ratio"],
            "worst_ratio": min(found["ratio"] for found in models.values()),
            "models": models,
        }
    )
    return 0


if __name__ == "__main__":
    command_line.end(main)
