"""What a run is asked to do."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alignrec_recbole.features.masking import FeatureMask

PLACES = {"features_cache", "features_path", "data_path", "checkpoint_dir"}  # of this machine
CLI_ONLY_KEYS = {  # --set can't change these: the option would win without a word
    "seed": "--seeds",
    "features": "--features",
    "features_path": "--features-path",
    "features_cache": "--output",
    "checkpoint_dir": "--output",
    "data_path": "--data-path",
    "gpu_id": "--device",
    "show_progress": "--no-progress",
}
NON_RESULT_KEYS = {"gpu_id", "show_progress", "threads", "seed"}  # can't change a result


@dataclass(frozen=True)
class RunSpec:
    """What the command line asks for, one model and one seed of it."""

    model: str
    dataset: str
    features: tuple[str, ...] = ()
    protocol: str = "full"
    setting: str | None = None  # None: the data set's own
    seed: int = 999
    data_path: Path | None = None
    features_path: Path | None = None
    output: Path = Path("results")
    epochs: int | None = None
    overrides: dict[str, Any] = field(default_factory=dict)
    device: str = "auto"
    score_test: bool = True  # False: a grid point, judged on validation alone
    tuned_on: str | None = None
    mask: FeatureMask | None = None  # a modality hidden from the model
    progress: bool = True
