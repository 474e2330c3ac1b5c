"""One JSON record per run: typed, versioned, written once. Tables and plots are made of records.

A record is read as what it may be, a file from anyone: it is checked whole, and it must be the one
that its path names.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, PrivateAttr, ValidationError, model_validator

from alignrec_recbole.errors import RecordError, printable
from alignrec_recbole.features.derived_names import MASK_FILLS
from alignrec_recbole.features.knock_out import KnockOut
from alignrec_recbole.io.files import atomic_write
from alignrec_recbole.io.html import facts_table
from alignrec_recbole.io.names import is_safe_name
from alignrec_recbole.io.opening import read_bytes
from alignrec_recbole.runs.config_hash import config_hashes
from alignrec_recbole.runs.record_fields import (
    BudgetDict,
    CodeDict,
    Count,
    Curve,
    DataDict,
    EnergyDict,
    FeatureFiles,
    Groups,
    History,
    ItemSearches,
    Label,
    MachineDict,
    Mask,
    Metrics,
    Name,
    PerUserDict,
    ProtocolName,
    SecondsDict,
    Seed,
    SelectionDict,
    Sha256,
    Text,
    Values,
    WeightsDict,
    first_problem,
)

SCHEMA_VERSION = 1
NUMBERS_EPOCH = 1  # raised when a change moves results; a table shows one epoch only
MAX_RECORD_BYTES = 32 << 20  # 250 times the largest of this package; 100,000 epochs
TAIL_GROUPS = {"history", "popularity"}  # of protocol long-tail
RECORD_NAME = re.compile(r"-[0-9a-f]{8}-s-?\d+\.json$")


class RunRecord(BaseModel):
    """What was run, on what data, how it went and the results. Floats are unrounded.

    The field names are those of stored records and therefore fixed.
    """

    model_config = ConfigDict(extra="forbid")

    schema_version: Literal[1] = 1
    numbers_epoch: Count = NUMBERS_EPOCH
    status: Literal["finished", "failed"]
    error: Text | None = None
    model: Name
    dataset: Name
    features: Text  # names joined by "+", or "none"
    protocol: ProtocolName
    setting: Literal["mmrec", "recbole"]
    seed: Seed
    config: Values  # effective configuration
    config_sha256: Sha256  # of all that decides the result but the seed: config_hash.py
    tuned_on: Text | None  # how hyper-parameters were chosen, if they were
    budget: BudgetDict | None = None  # the trials that they were chosen by
    data: DataDict  # counts, split, file hashes
    feature_files: FeatureFiles  # name → manifest summary
    selection: SelectionDict  # metric, split, best epoch, why training stopped
    valid_metrics: Metrics
    metrics: Metrics  # test; empty where the test split was not scored
    groups: dict[Label, Groups] | None = None  # kind → group → metrics, sizes
    curve: Curve | None = None  # points: what was varied, "metrics"
    chance: Metrics | None = None  # expected metrics of a random order, same candidates
    per_user: PerUserDict | None  # file and sha256 of per-user values and top-K lists
    weights: WeightsDict | None = None  # file, sha256 and bytes of the trained model, if kept
    epochs: Count
    history: History
    parameters: Count
    item_searches: ItemSearches | None = None  # of item graphs, where they were approximate
    seconds: SecondsDict
    energy: EnergyDict | None = None  # where it was measured (--track)
    peak_rss_bytes: Count
    peak_gpu_bytes: Count
    code: CodeDict
    machine: MachineDict
    command: Text
    started_utc: Label
    notes: list[Text]  # what a reader must know next to the numbers
    _path: Path | None = PrivateAttr(None)

    @property
    def path(self) -> Path | None:
        """Where the record was read or written; None for one that was made in memory."""
        return self._path

    def __eq__(self, other: object) -> bool:
        """Whether the content is the same, wherever it was read."""
        return isinstance(other, RunRecord) and self.__dict__ == other.__dict__

    def _repr_html_(self) -> str:
        shown = ("Recall@20", "NDCG@20")
        metrics = {name: self.metrics[name] for name in shown if name in self.metrics}
        facts = {
            "data set": self.dataset,
            "features": self.features,
            "protocol": self.protocol,
            "convention": self.setting,
            "seed": self.seed,
            **{name: f"{value:.4f}" for name, value in (metrics or self.metrics).items()},
            "epochs": self.epochs,
            "seconds": f"{self.seconds['total']:.1f}",
            "record": self._path or "in memory",
        }
        return facts_table(self.model, facts)

    @model_validator(mode="after")
    def _fields_agree(self) -> RunRecord:
        """What tables read in one field and another says is there."""
        if self.features != ("+".join(self.feature_files) or "none"):
            raise ValueError("features and feature_files name other feature sets")
        if self.config.get("setting", self.setting) != self.setting:
            raise ValueError("setting is not that of config")
        for name in ("epochs", "stopping_step"):
            if type(self.config.get(name, 0)) is not int:
                raise ValueError(f"config.{name} is not a whole number")
        if self.protocol == "full" and self.config.get("seed") != self.seed:
            raise ValueError("config.seed is not the seed of the record")
        if self.protocol == "long-tail":
            self._check_tail()
        if self.protocol == "beyond-accuracy":
            self._check_lists()
        if self.protocol == "mask-modality":
            self._check_curve()
        if self.protocol == "knock-out":
            self._check_knock_out()
        return self

    def _check_tail(self) -> None:
        groups = self.groups or {}
        if set(groups) != TAIL_GROUPS or max(map(len, groups.values())) > 100:
            raise ValueError("groups of long-tail are not history and popularity")

    def _check_lists(self) -> None:
        about = self.config.get("protocol")
        content = about.get("content", {}) if isinstance(about, dict) else None
        named = isinstance(content, dict) and all(map(is_safe_name, content))
        if not named or not isinstance(about.get("of_sha256"), str):  # type: ignore[union-attr]
            raise ValueError("config.protocol of beyond-accuracy names no ranking and no content")
        if set(self.groups or {}) - {"history"}:
            raise ValueError("groups of beyond-accuracy are not history")

    def _check_knock_out(self) -> None:
        try:
            KnockOut.model_validate(self.config.get("knock_out"))
        except ValidationError as error:
            raise ValueError(f"config.knock_out.{first_problem(error)}") from None

    def _check_curve(self) -> None:
        if self.curve is None:
            try:
                Mask.model_validate(self.config.get("feature_mask"), strict=True)
            except ValidationError as error:
                raise ValueError(f"config.feature_mask.{first_problem(error)}") from None
            return
        protocol = self.config.get("protocol")
        fill = protocol.get("fill") if isinstance(protocol, dict) else None
        if fill not in MASK_FILLS:
            raise ValueError(f"config.protocol.fill is none of {', '.join(MASK_FILLS)}")
        if any(self.metrics.keys() - point["metrics"].keys() for point in self.curve):
            raise ValueError("a point of the curve lacks metrics of the record")


def record_stem(features: str, setting: str, config_sha256: str, seed: int) -> str:
    """Name of a record's file without its suffix.

    >>> record_stem("lsa+shuffled:lsa", "mmrec", "0123456789abcdef", 999)
    'lsa+shuffled_lsa-mmrec-01234567-s999'
    """
    plain = features.replace(":", "_").replace("/", "_")
    return f"{plain}-{setting}-{config_sha256[:8]}-s{seed}"


def record_folder(dataset: str, protocol: str, model: str) -> Path:
    """Folder of a record under `runs/` or `tuning/`.

    >>> record_folder("baby", "full", "BPR").as_posix()
    'baby/BPR'
    """
    return Path(dataset, *([] if protocol == "full" else [protocol]), model)


def write_record(path: Path, record: RunRecord) -> None:
    """Write a record whole or not at all."""
    with atomic_write(path, "w") as handle:
        handle.write(record.model_dump_json(indent=1) + "\n")
    record._path = Path(os.path.abspath(path))


def read_record(path: Path) -> RunRecord:
    """Read a record and check it: whole, of this schema, and the one that its path names.

    Raises:
        RecordError: the file is damaged, of another schema, or the record of another run.
    """
    path = Path(path)
    data = read_bytes(path, what="run record", error=RecordError, max_bytes=MAX_RECORD_BYTES)
    try:
        record = RunRecord.model_validate_json(data, strict=True)
    except ValidationError as error:
        raise RecordError(
            f"{path.name} is not a run record.",
            found=first_problem(error),
            expected=f"JSON of schema version {SCHEMA_VERSION}",
            hint="delete it and run again, or `run` with --overwrite, or restore it",
        ) from None
    _check_place(path, record)
    _check_hash(path, record)
    record._path = Path(os.path.abspath(path))
    return record


def _check_place(path: Path, record: RunRecord) -> None:
    """Refuse a record whose path is another run's."""
    stem = record_stem(record.features, record.setting, record.config_sha256, record.seed)
    expected = record_folder(record.dataset, record.protocol, record.model) / f"{stem}.json"
    parts = Path(os.path.abspath(path)).parts
    if parts[-len(expected.parts) :] != expected.parts:
        raise RecordError(
            f"{path.name} is the record of another run.",
            found=f"{expected} by its content",
            expected=f"the run that its path names: {path}",
            hint="delete it and run again, or `run` with --overwrite, or move it to its place",
        )
    if record.config.get("seed", record.seed) != record.seed:
        raise RecordError(
            f"{path.name} has two seeds.",
            found=f"seed {record.config['seed']!r} in its configuration",
            expected=f"{record.seed}, as in its path",
            hint="delete it and run again, or `run` with --overwrite, or restore it",
        )
    named = [
        (record.per_user, f"{stem}.users.npz", "per-user values"),
        (record.weights, f"{stem}.safetensors", "the model"),
    ]
    for described, name, what in named:
        if described and described["file"] != name:
            raise RecordError(
                f"{path.name} names {what} of another run.",
                found=described["file"],
                expected=name,
                hint="delete it and run again, or `run` with --overwrite, or restore it",
            )


def _check_hash(path: Path, record: RunRecord) -> None:
    """Refuse a record whose configuration, data or features are not those of its hash."""
    try:
        hashes = config_hashes(
            model=record.model,
            dataset=record.dataset,
            protocol=record.protocol,
            config=record.config,
            data=record.data,
            feature_files=record.feature_files,
        )
    except (TypeError, AttributeError):  # feature_mask is no mapping
        hashes = []
    if record.config_sha256 not in hashes:
        raise RecordError(
            f"{path.name} was changed: its hash is not that of its configuration and data.",
            found=f"config_sha256 {record.config_sha256[:12]}…",
            expected=f"{hashes[0][:12]}…" if hashes else "a usable feature_mask",
            hint="delete it and run again, or `run` with --overwrite, or restore it",
        )


class Run(NamedTuple):
    """A record and its path."""

    path: Path
    record: RunRecord


def read_runs(
    folder: Path, skipped: Callable[[Path, RecordError], None] | None = None
) -> list[Run]:
    """All records under a folder, in the order of their paths.

    Args:
        folder: searched with its subfolders; symbolic links to folders are not followed.
        skipped: called for every record that cannot be used; without it, the first one is raised.

    Raises:
        RecordError: a record cannot be used, and `skipped` is not given.
    """
    runs = []
    for path in record_paths(folder):
        try:
            runs.append(Run(path, read_record(path)))
        except RecordError as error:
            if skipped is None:
                raise
            skipped(path, error)
    return runs


def record_paths(folder: Path) -> list[Path]:
    """Paths of all JSON files under a folder, and of what is in the place of a record."""
    found = []
    for parent, folders, files in os.walk(folder):
        found += [Path(parent, name) for name in files if name.endswith(".json")]
        found += [Path(parent, name) for name in folders if RECORD_NAME.search(name)]
    return sorted(found)


def skip_note(path: Path, error: RecordError) -> str:
    """A line that says which record is skipped and why."""
    reason = error.problem + (f" {error.found}" if error.found else "")
    return printable(f"skipped: {path} ({reason})", 600).replace("\n", " ")
