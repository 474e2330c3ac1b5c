"""One data set with its feature sets, prepared once, and the records of what is found on it."""

from __future__ import annotations

import functools
import time
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

import numpy as np

from alignrec_recbole.errors import SettingError
from alignrec_recbole.evaluation.ranking import EvalTask, Ranking
from alignrec_recbole.features.table import ItemFeatures
from alignrec_recbole.protocols.content import Content, Scores, rank_content
from alignrec_recbole.registry.components import components
from alignrec_recbole.runs import provenance
from alignrec_recbole.runs.lists import LIST_LENGTH
from alignrec_recbole.runs.prepare import Prepared, config_hash, prepare
from alignrec_recbole.runs.record import RunRecord, write_record
from alignrec_recbole.runs.spec import RunSpec
from alignrec_recbole.runtime import memory_usage
from alignrec_recbole.settings import Settings, read_settings
from alignrec_recbole.training.trainer import cutoffs

SEED = 999  # of records in which nothing is drawn
TRAINING_KEYS = {
    "epochs",
    "eval_batch_size",
    "eval_step",
    "gpu_id",
    "learner",
    "learning_rate",
    "lr_decay",
    "metric_decimal_place",
    "seed",
    "show_progress",
    "stopping_step",
    "threads",
    "train_batch_size",
}


def data_keys(dataset: str) -> set[str]:
    """Settings of the data set and the ranking: those of a run that trains nothing."""
    parts = components("Pop")
    known = parts.defaults_for(dataset).keys() | parts.known_keys
    return set(known) - TRAINING_KEYS


class ProtocolContext:
    """A data set with feature sets, prepared once for several protocols."""

    def __init__(self, spec: RunSpec, settings_class: type[Settings], protocol: str) -> None:
        started = time.perf_counter()
        self.started_utc = datetime.now(timezone.utc).isoformat(timespec="seconds")
        memory_usage.reset_peaks()
        fields = settings_class.model_fields
        own = {key: value for key, value in spec.overrides.items() if key in fields}
        others = {key: value for key, value in spec.overrides.items() if key not in fields}
        if refused := sorted(TRAINING_KEYS & set(others)):
            raise SettingError(
                f"Protocol {protocol!r} trains nothing.",
                found=f"--set {refused[0]}={others[refused[0]]}",
                expected=f"settings of the protocol ({', '.join(fields) or 'it has none'}) or of "
                "the data set and the ranking",
            )
        self.settings: Any = read_settings(
            own, settings_class, f"Protocol {protocol}", "benchmarks/protocols"
        )
        self.protocol = protocol
        self.prepared = prepare(replace(spec, model="Pop", protocol=protocol, overrides=others))
        dataset = self.prepared.splits[0]
        self.dataset = dataset
        self.tokens = dataset.field2id_token[dataset.iid_field]
        self.sets: dict[str, ItemFeatures] = dataset.features
        self.open_features = functools.cache(dataset.open_features)
        self.pairs = [split.pairs() for split in self.prepared.splits]
        self.device = self.prepared.config["device"]
        self.names = self.prepared.config["metrics"], cutoffs(self.prepared.config)
        self.progress = spec.progress
        self.clock = time.perf_counter()
        self.prepare_seconds = self.clock - started

    def content(
        self,
        history: tuple[np.ndarray, np.ndarray] | None = None,
        sets: dict[str, ItemFeatures] | None = None,
    ) -> Content:
        """What rankers see; by default the training interactions and the features as they are."""
        tables = self.sets if sets is None else sets
        return Content.of(
            self.pairs[0] if history is None else history,
            [table.values for table in tables.values()],
            self.tokens,
            self.dataset.user_num,
            self.device,
        )

    def entry(self, model: str, version: int, frozen: dict[str, Any], seed: int = SEED) -> Prepared:
        """Place and configuration of one record."""
        config = {k: v for k, v in self.prepared.resolved.items() if k not in TRAINING_KEYS}
        config["protocol"] = {"name": self.protocol, "version": version, **frozen}
        spec = replace(self.prepared.spec, model=model, seed=seed)
        files = self.prepared.feature_files
        digest = config_hash(spec, config, self.prepared.data, files)
        return replace(self.prepared, spec=spec, resolved=config, digest=digest)

    def write(self, entry: Prepared, **found: Any) -> RunRecord:
        """The record of an entry, complete with where it comes from.

        Its evaluation is taken to have begun when the bench was ready or the last record written.
        """
        evaluate = time.perf_counter() - self.clock
        record = RunRecord(
            status="finished",
            model=entry.spec.model,
            dataset=entry.spec.dataset,
            features=entry.feature_name,
            protocol=self.protocol,
            setting=entry.config["setting"],
            seed=entry.spec.seed,
            config=entry.resolved,
            config_sha256=entry.digest,
            tuned_on=entry.spec.tuned_on,
            data=entry.data,
            feature_files=entry.feature_files,
            selection=found.pop(
                "selection", {"metric": None, "split": None, "stopped": "nothing to train"}
            ),
            valid_metrics=found.pop("valid_metrics", {}),
            per_user=found.pop("per_user", None),
            epochs=0,
            history=[],
            parameters=0,
            seconds={
                "prepare": self.prepare_seconds,
                "evaluate": evaluate,
                "train_epoch": 0.0,
                "total": self.prepare_seconds + evaluate,
            },
            peak_rss_bytes=memory_usage.peak_rss_bytes(),
            peak_gpu_bytes=memory_usage.peak_gpu_bytes(),
            code=provenance.code(),
            machine=provenance.machine(str(self.device)),
            command=provenance.command(),
            started_utc=self.started_utc,
            notes=entry.notes + found.pop("notes", []),
            **found,
        )
        write_record(entry.record_path, record)
        self.clock = time.perf_counter()
        return record

    def rank(
        self, scores: Scores, content: Content, task: EvalTask, label: str | None = None
    ) -> Ranking:
        """Top lists under the fixed order."""
        shown = label if self.progress else None
        length = max(LIST_LENGTH, *self.names[1])
        return rank_content(scores, content, task, length, progress=shown)
