"""Are our baselines MMRec's? Same parameters, graph and batch: loss, gradients, scores.

    python -m benchmarks.parity.baselines --reference CHECKOUT [--model M,…]
        [--data-path DIR --dataset D --text STEM --other STEM --seeds 999,1000,1001 --epochs 1000
        --learning-rate X --cache FILE.json --output DIR]

CHECKOUT is one of enoche/MMRec, with its pull request 63 for MSCA, or of another code of
benchmarks/README.md. Its models run in float32, ours in float64 and float32; two batches of one
epoch, so that what is computed once per epoch is compared when it is new and when it is reused.
With a data set (MMRec's layout, feature files with row = itemID) both sides are also trained with
the defaults of properties/model, once per seed; a larger learning rate X on both sides needs fewer
epochs. A seed in FILE is not trained again. The last line printed is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate

from alignrec_recbole.errors import RecordError
from alignrec_recbole.registry.components import components
from alignrec_recbole.runs import provenance
from benchmarks import command_line
from benchmarks.parity.one_epoch import compare
from benchmarks.parity.pairs import PAIRS, model_of, of_checkout, reference_of
from benchmarks.reference import checkout, rearm
from benchmarks.reference.options import add_cache
from benchmarks.reference.our_training import train_ours
from benchmarks.reference.result_cache import changed_results, read_results

METRICS = ("Recall@20", "NDCG@20")
EPOCHS = 1000  # at most; also where a cache does not say


def train_both(options: argparse.Namespace, name: str, seed: int) -> dict[str, Any]:
    """Test metrics of both sides at the best validation epoch, same hyper-parameters."""
    folder = options.data_path / options.dataset
    files = {"text": options.text, "image": options.other}
    stems = [files[kind] for kind in PAIRS[name].features[0] if files[kind]]
    parts = components(name)
    settings = parts.defaults_for(options.dataset)
    chosen = {} if options.learning_rate is None else {"learning_rate": options.learning_rate}
    settings.update(chosen)
    given = {
        **PAIRS[name].theirs(settings),
        "learning_rate": settings["learning_rate"],
        "learning_rate_scheduler": settings["lr_decay"],
        "stopping_step": settings["stopping_step"],
        "weight_decay": settings.get("weight_decay", 0.0),
        "epochs": options.epochs,
    }
    paths = {kind: folder / f"{stem}.npy" for kind, stem in files.items() if stem}
    if PAIRS[name].code == rearm.MARK:
        theirs = rearm.train(options.reference, folder, paths, given, seed)
    else:
        code, kind = PAIRS[name].code, reference_of(name)
        (theirs,) = checkout.train(options.reference, code, kind, folder, paths, given, [seed])
    mine = train_ours(name, options, stems, seed, chosen, options.output)
    print(f"ours: {name} seed {seed} {mine.metrics}", file=sys.stderr)
    return {
        "dataset": options.dataset,
        "features": stems,
        "settings": {key: settings[key] for key in parts.defaults} | chosen,
        "most_epochs": options.epochs,
        "epochs": {"our": mine.epochs, "reference": theirs["epochs"]},
        "metrics": {
            metric: {
                "ours": mine.metrics[metric],
                "reference": float(theirs["test"][metric.lower()]),
            }
            for metric in METRICS
        },
    }


def with_seed(entry: dict[str, Any], seed: int, found: dict[str, Any]) -> dict[str, Any]:
    """The results of a model, with one seed more.

    Raises:
        RecordError: the seeds before were trained with other settings, features, data or epochs.
    """
    same = {key: found[key] for key in ("dataset", "features", "settings", "most_epochs")}
    _check(entry, same)
    out: dict[str, Any] = {**same, "seeds": [*entry.get("seeds", []), seed]}
    for side, epochs in found["epochs"].items():
        out[f"{side}_epochs"] = [*entry.get(f"{side}_epochs", []), epochs]
    out["relative_difference"] = {}
    for metric, sides in found["metrics"].items():
        for side, value in sides.items():
            out[f"{side} {metric}"] = [*entry.get(f"{side} {metric}", []), value]
        ours, theirs = (np.mean(out[f"{side} {metric}"]) for side in ("ours", "reference"))
        out["relative_difference"][metric] = float(ours / theirs - 1)
    return {**out, "code": provenance.code()}


def _check(entry: dict[str, Any], now: dict[str, Any]) -> None:
    """Compare what a cached entry was made with, where it says; see `with_seed`."""
    before = {key: entry.get(key, value) for key, value in now.items()}
    if entry:
        before["most_epochs"] = entry.get("most_epochs", EPOCHS)
    if before != now:
        raise RecordError(
            "The cached trainings are of another comparison.",
            found=f"cached {before}, now {now}",
            expected="the same data, features, settings and epochs for all seeds",
            hint="write the new trainings to another --cache",
        )


def train_each(options: argparse.Namespace) -> dict[str, Any]:
    """Train each chosen model, seed by seed; results in the cache are not repeated."""
    cache: Path | None = options.cache
    trained = read_results(cache)
    for name in [name for name in options.model if model_of(name) == name]:
        now = {"dataset": options.dataset, "most_epochs": options.epochs}
        _check(trained.get(name, {}), now)
        for seed in options.seeds:
            if seed in trained.get(name, {}).get("seeds", []):
                continue
            found = train_both(options, name, seed)
            with changed_results(cache, trained) as trained:
                if seed not in trained.get(name, {}).get("seeds", []):
                    trained[name] = with_seed(trained.get(name, {}), seed, found)
    return trained


def trained_table(trained: dict[str, Any]) -> str:
    """Mean Recall@20 and NDCG@20 of both sides over the seeds, and how far ours is off."""
    rows = []
    for name, entry in trained.items():
        row = [name, str(len(entry["seeds"]))]
        for metric, off in entry["relative_difference"].items():
            ours, theirs = (np.mean(entry[f"{side} {metric}"]) for side in ("ours", "reference"))
            row += [f"{ours:.4f}", f"{theirs:.4f}", f"{off:+.1%}"]
        epochs = ("/".join(map(str, entry[f"{side}_epochs"])) for side in ("our", "reference"))
        rows.append([*row, *epochs])
    head = ["model", "seeds", "Recall@20", "reference", "off", "NDCG@20", "reference", "off",
            "epochs", "reference"]  # fmt: skip
    return tabulate(rows, head, tablefmt="github", disable_numparse=True)


def main(arguments: list[str] | None = None) -> int:
    """Run the comparison."""
    parser = argparse.ArgumentParser(prog="benchmarks.parity.baselines")
    parser.add_argument(
        "--reference", type=Path, required=True, help="checkout of enoche/MMRec or GUME"
    )
    parser.add_argument(
        "--model", type=lambda text: text.split(","), help="default: all of the checkout"
    )
    parser.add_argument("--data-path", type=Path)
    parser.add_argument("--dataset", help="also train both sides on it")
    parser.add_argument("--text", help="stem of the text features, row = itemID")
    parser.add_argument("--other", help="stem of the set that MMRec takes for the image")
    parser.add_argument(
        "--seeds", type=lambda text: [int(s) for s in text.split(",")], default=[999, 1000, 1001]
    )
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--learning-rate", type=float, help="of both sides, not the default")
    add_cache(parser)
    parser.add_argument("--output", type=Path, help="results folder for the records of our runs")
    options = parser.parse_args(arguments)
    if options.dataset and not options.data_path:
        parser.error("--dataset needs --data-path, the folder that it is in")
    options.model = options.model or of_checkout(options.reference)
    unknown = sorted(set(options.model) - set(PAIRS))
    if unknown:
        parser.error(f"no comparison for {', '.join(unknown)}; there are {', '.join(PAIRS)}")
    models: dict[str, Any] = {name: compare(options.reference, name) for name in options.model}
    worst = max(entry["max_rel_error"] for entry in models.values())
    if options.dataset:
        trained = train_each(options)
        print(trained_table(trained))
        for name in models:
            models[name].update(trained.get(name, {}))
    print(json.dumps({"max_rel_error": worst, "models": models}))
    return 0


if __name__ == "__main__":
    command_line.end(main)
