"""Run records made for tests, and the specifications that stored records come from."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from alignrec_recbole.io.files import sha256_file
from alignrec_recbole.runs.config_hash import config_hashes
from alignrec_recbole.runs.record import (
    RunRecord,
    read_runs,
    record_folder,
    record_stem,
    write_record,
)
from alignrec_recbole.runs.spec import RunSpec

METRICS = ("Recall@10", "Recall@20", "NDCG@10", "NDCG@20")


def record(
    model: str = "LightGCN", seed: int = 999, value: float = 0.08, age: int = 0, **changes: Any
) -> RunRecord:
    """A finished run; all metrics are `value`.

    Args:
        age: 0 for the hash that a run has today, -1 for the oldest that it may have.
    """
    values: dict[str, Any] = {
        "status": "finished",
        "model": model,
        "dataset": "toy",
        "features": "none",
        "protocol": "full",
        "setting": "mmrec",
        "seed": seed,
        "config": {"reg_weight": 0.1},
        "tuned_on": None,
        "data": {"split": {"kind": "released"}, "files": {}},
        "feature_files": {},
        "selection": {
            "metric": "Recall@20",
            "split": "valid",
            "best_epoch": 1,
            "best_score": value,
        },
        "valid_metrics": dict.fromkeys(METRICS, value),
        "metrics": dict.fromkeys(METRICS, value),
        "per_user": None,
        "epochs": 2,
        "history": [
            {
                "epoch": epoch,
                "seconds": 0.1,
                "loss": 0.7 - 0.1 * epoch,
                "valid": value * (1 + epoch) / 2,
            }
            for epoch in range(2)
        ],
        "parameters": 10,
        "seconds": {"train_epoch": 0.1, "total": 2.0},
        "peak_rss_bytes": 2**30,
        "peak_gpu_bytes": 0,
        "code": {"version": "0", "commit": "c0ffee", "dirty": False},
        "machine": {"cpu": "a <fast> one", "threads": 1},
        "command": "run_benchmark.py --model <script>alert(1)</script>",
        "started_utc": "2026-01-01T00:00:00+00:00",
        "notes": [],
    }
    values |= changes
    if values["protocol"] == "full":
        values["config"] = {"seed": seed, **values["config"]}
    if values["features"] != "none" and not values["feature_files"]:
        names = values["features"].split("+")
        values["feature_files"] = {n: {"sha256": "0" * 64, "modality": "text"} for n in names}
    identity = ("model", "dataset", "protocol", "config", "data", "feature_files")
    digests = config_hashes(**{key: values[key] for key in identity})
    return RunRecord(**{"config_sha256": digests[age], **values})


def store(
    output: Path,
    made: RunRecord,
    users: np.ndarray | None = None,
    kind: str = "runs",
    metrics: tuple[str, ...] = METRICS,
) -> Path:
    """Write a record as a run does; `users`: a value of every metric for each user."""
    stem = record_stem(made.features, made.setting, made.config_sha256, made.seed)
    folder = output / kind / record_folder(made.dataset, made.protocol, made.model)
    folder.mkdir(parents=True, exist_ok=True)
    if users is not None:
        lists = folder / f"{stem}.users.npz"
        tokens = np.array([f"u{i}" for i in range(len(users))])
        np.savez_compressed(lists, users=tokens, **dict.fromkeys(metrics, users))
        made = made.model_copy(
            update={"per_user": {"file": lists.name, "sha256": sha256_file(lists)}}
        )
    write_record(folder / f"{stem}.json", made)
    return folder / f"{stem}.json"


def read_records(folder: Path) -> list[RunRecord]:
    """All records under a folder."""
    return [run.record for run in read_runs(folder)]


def spec_of(record: RunRecord) -> RunSpec:
    """The specification of the run that a record is of, from its command.

    A value that the command chose from a grid, or by a search, is read in the record.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("verb", nargs="?", choices=("run", "tune"), default="run")
    for option in ("--trials", "--sampler", "--pruner"):
        parser.add_argument(option)
    for option in ("--model", "--dataset", "--features", "--protocol", "--seeds", "--data-path",
                   "--features-path", "--output", "--device", "--setting"):  # fmt: skip
        parser.add_argument(option)
    parser.add_argument("--epochs", type=int)
    for option in ("--quiet", "--overwrite", "--resume", "--no-save", "--no-progress"):
        parser.add_argument(option, action="store_true")
    for option in ("--set", "--grid"):
        parser.add_argument(option, action="extend", nargs="+", default=[])
    options = parser.parse_args(shlex.split(record.command)[1:])
    pairs = [(key, _number(text)) for key, _, text in (each.partition("=") for each in options.set)]
    for each in options.grid:
        key = each.partition("=")[0]
        value: Any = record.config.get("protocol", record.config)
        for part in key.split("."):
            value = value[part]
        pairs.append((key, value))
    if options.verb == "tune" and record.budget is not None:
        (trial,) = [t for t in record.budget["curve"] if t["trial"] == record.budget["chosen"]]
        pairs += trial["parameters"].items()
    overrides: dict[str, Any] = {}
    for key, value in pairs:
        *parents, last = key.split(".")
        inner = overrides
        for parent in parents:
            inner = inner.setdefault(parent, {})
        inner[last] = value
    return RunSpec(
        model=record.model,
        dataset=record.dataset,
        features=() if record.features == "none" else tuple(record.features.split("+")),
        protocol=record.protocol,
        setting=options.setting,
        seed=record.seed,
        epochs=options.epochs,
        overrides=overrides,
        device="cpu",
    )


def _number(text: str) -> Any:
    value = yaml.safe_load(text)
    try:
        return float(value) if isinstance(value, str) else value  # YAML 1.1 reads 1e-3 as text
    except ValueError:
        return value
