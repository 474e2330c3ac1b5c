"""What a run is asked to do."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alignrec_recbole.features.knock_out import KnockOut
from alignrec_recbole.features.masking import FeatureMask
from alignrec_recbole.runtime.sizes import SAVE_LIMIT

PATH_KEYS = {"features_cache", "features_path", "data_path", "checkpoint_dir"}  # of this machine
CLI_ONLY_KEYS = {  # refused in --set: the option would silently win
    "seed": "--seeds",
    "features": "--features",
    "features_path": "--features-path",
    "features_cache": "--output",
    "checkpoint_dir": "--output",
    "data_path": "--data-path",
    "gpu_id": "--device",
    "show_progress": "--no-progress",
}


@dataclass(frozen=True)
class DataSpec:
    """A data set with its features, independent of any model."""

    dataset: str
    features: tuple[str, ...] = ()
    setting: str | None = None  # None: the data set's own
    data_path: Path | None = None
    features_path: Path | None = None
    output: Path = Path("results")
    overrides: dict[str, Any] = field(default_factory=dict)
    device: str = "auto"
    mask: FeatureMask | None = None  # a modality masked for a share of the items
    knock_out: KnockOut | None = None  # what the features stand for


@dataclass(frozen=True)
class RunSpec:
    """One model, or ranker of a protocol, on one data set with one seed."""

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
    validation_only: bool = False  # True: a grid point; the test split is not ranked
    tuned_on: str | None = None  # how hyper-parameters were chosen
    budget: dict[str, Any] | None = None  # what the choice cost, for the record
    mask: FeatureMask | None = None  # a modality masked for a share of the items
    knock_out: KnockOut | None = None  # what the features stand for
    progress: bool = True
    save: bool = True  # keep the trained model beside the record (protocol full)
    save_limit: int = SAVE_LIMIT  # bytes of a stored model's table; vectors have no limit
    track: tuple[str, ...] = ()  # trackers that watch it; no result depends on them

    @property
    def data(self) -> DataSpec:
        """The part that does not concern the model."""
        return DataSpec(
            dataset=self.dataset,
            features=self.features,
            setting=self.setting,
            data_path=self.data_path,
            features_path=self.features_path,
            output=self.output,
            overrides=self.overrides,
            device=self.device,
            mask=self.mask,
            knock_out=self.knock_out,
        )
