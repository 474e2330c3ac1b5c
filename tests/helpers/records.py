"""Made-up run records for tests of what is built from records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from alignrec_recbole.io.files import sha256_file
from alignrec_recbole.runs.record import RunRecord, read_runs, write_record

METRICS = ("Recall@10", "Recall@20", "NDCG@10", "NDCG@20")


def record(
    model: str = "LightGCN", seed: int = 999, value: float = 0.08, **changes: Any
) -> RunRecord:
    """A finished run; all metrics are `value`."""
    values: dict[str, Any] = {
        "status": "finished",
        "model": model,
        "dataset": "toy",
        "features": "none",
        "protocol": "full",
        "setting": "mmrec",
        "seed": seed,
        "config": {"reg_weight": 0.1, "seed": seed},
        "config_sha256": "0" * 64,
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
    return RunRecord(**{**values, **changes})


def store(
    output: Path, made: RunRecord, users: np.ndarray | None = None, kind: str = "runs"
) -> Path:
    """Write a record as a run does; `users`: a value of every metric for each user."""
    stem = f"{made.features}-{made.setting}-{made.config_sha256[:8]}-s{made.seed}".replace(":", "_")
    folder = output / kind / made.dataset / made.protocol / made.model
    folder.mkdir(parents=True, exist_ok=True)
    if users is not None:
        lists = folder / f"{stem}.users.npz"
        tokens = np.array([f"u{i}" for i in range(len(users))])
        np.savez_compressed(lists, users=tokens, **dict.fromkeys(METRICS, users))
        made = made.model_copy(
            update={"per_user": {"file": lists.name, "sha256": sha256_file(lists)}}
        )
    write_record(folder / f"{stem}.json", made)
    return folder / f"{stem}.json"


def read_records(folder: Path) -> list[RunRecord]:
    """All records under a folder."""
    return [run.record for run in read_runs(folder)]
