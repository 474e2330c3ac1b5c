"""What is known of a run before anything is trained or ranked."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from alignrec_recbole.dataset import MultimodalDataset
from alignrec_recbole.errors import RecordError
from alignrec_recbole.registry.components import ModelComponents
from alignrec_recbole.runs.config_hash import config_hashes, same_data
from alignrec_recbole.runs.record import read_record, record_folder, record_stem
from alignrec_recbole.runs.spec import RunSpec
from alignrec_recbole.runtime.threads import ThreadCount


@dataclass(frozen=True)
class PreparedData:
    """A data set as it is split and ranked, with its features.

    Attributes:
        config: RecBole's Config.
        splits: training, validation and test split.
        data: counts, split and file hashes, for the record.
        feature_files: name → manifest summary.
        effective_config: every setting that this package gave, with its value.
        notes: what a reader must know next to the numbers.
        numbers: in the tables that a step goes through, which the number of threads follows.
        threads: the number of threads, and what decided it.
        coverage: feature set → share of the items that have the modality.
    """

    config: Any
    splits: list[MultimodalDataset]
    data: dict[str, Any]
    feature_files: dict[str, Any]
    effective_config: dict[str, Any]
    notes: list[str]
    numbers: int
    threads: ThreadCount
    coverage: dict[str, float] = field(default_factory=dict)

    @property
    def read(self) -> str:
        """What was read, in one line: counts, and the share of items with features."""
        counts = zip(self.data["interactions"], ("training", "validation", "test"), strict=False)
        parts = [
            f"{self.data['users']:,} users",
            f"{self.data['items']:,} items",
            f"{', '.join(f'{count:,} {name}' for count, name in counts)} interactions",
            *(f"{name} for {share:.1%} of the items" for name, share in self.coverage.items()),
        ]
        return "; ".join(parts)


@dataclass(frozen=True)
class PreparedRun:
    """Everything that is known of a run before anything is trained or ranked.

    Attributes:
        config_hash: SHA-256 of what decides the result except the seed; see config_hash.py.
        components: ModelComponents of the model; None where nothing is trained.
    """

    spec: RunSpec
    data: PreparedData
    effective_config: dict[str, Any]
    feature_files: dict[str, Any]
    notes: list[str]
    config_hash: str
    components: Any = None

    @property
    def config(self) -> Any:
        """RecBole's Config."""
        return self.data.config

    @property
    def splits(self) -> list[MultimodalDataset]:
        """Training, validation and test split."""
        return self.data.splits

    @property
    def run_id(self) -> Path:
        """Path of the run's files under the output folder, without a suffix."""
        spec = self.spec
        folder = record_folder(spec.dataset, spec.protocol, spec.model)
        return folder / self.file_stem(self.config_hash)

    def file_stem(self, config_hash: str) -> str:
        """Name of files of this run's features, convention and seed with a configuration's hash."""
        return record_stem(self.feature_name, self.config["setting"], config_hash, self.spec.seed)

    @property
    def feature_name(self) -> str:
        """Feature sets joined by "+", or none."""
        return "+".join(self.feature_files) or "none"

    def path(self, kind: str, suffix: str) -> Path:
        """`<output>/<kind>/<run id><suffix>`."""
        run_id = self.run_id
        return self.spec.output / kind / run_id.parent / f"{run_id.name}{suffix}"

    def with_seed(self, seed: int) -> PreparedRun:
        """The run of the same configuration, data and features with another seed."""
        return prepared_run(
            replace(self.spec, seed=seed),
            self.data,
            {**self.effective_config, "seed": seed},
            self.feature_files,
            self.notes,
            self.components,
        )

    @property
    def record_path(self) -> Path:
        """Path of the record: under `runs`, or under `tuning` for a grid point."""
        return self.path("tuning" if self.spec.validation_only else "runs", ".json")

    @property
    def state_path(self) -> Path:
        """Path of the saved training state, which an interrupted run resumes from."""
        return self.path("checkpoints", ".state.pt")


def prepared_run(
    spec: RunSpec,
    data: PreparedData,
    effective_config: dict[str, Any],
    feature_files: dict[str, Any],
    notes: list[str],
    parts: ModelComponents | None = None,
) -> PreparedRun:
    """A run with its hash: that of an existing record or saved state, else the present one.

    A record that cannot be read counts as this run's, by its name: `identity.finished_record`
    refuses it.
    """
    hashes = config_hashes(
        model=spec.model,
        dataset=spec.dataset,
        protocol=spec.protocol,
        config=effective_config,
        data=data.data,
        feature_files=feature_files,
    )
    run = PreparedRun(spec, data, effective_config, feature_files, notes, hashes[0], parts)
    candidates = [replace(run, config_hash=digest) for digest in hashes]
    for candidate in candidates:
        if os.path.lexists(candidate.record_path) and _may_be_of(candidate):
            return candidate
    return next((each for each in candidates if each.state_path.is_file()), run)


def _may_be_of(run: PreparedRun) -> bool:
    """Whether the record in a run's place is on the run's data, as far as it can be read."""
    try:
        return same_data(read_record(run.record_path).data, run.data.data)
    except RecordError:
        return True
