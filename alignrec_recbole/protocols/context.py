"""One data set with its feature sets, prepared once, and the records of a protocol on it."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import numpy as np

from alignrec_recbole.errors import SettingError
from alignrec_recbole.evaluation.ranking import EvalTask, Ranking
from alignrec_recbole.features.table import ItemFeatures
from alignrec_recbole.protocols.content import Content, Scores, rank_content
from alignrec_recbole.runs.effective_config import training_keys
from alignrec_recbole.runs.identity import finished_record
from alignrec_recbole.runs.lists import LIST_LENGTH
from alignrec_recbole.runs.prepare import prepare_data
from alignrec_recbole.runs.prepared import PreparedRun, prepared_run
from alignrec_recbole.runs.record import RunRecord, write_record
from alignrec_recbole.runs.recording import Stopwatch, record_of
from alignrec_recbole.runs.spec import RunSpec
from alignrec_recbole.runtime import progress
from alignrec_recbole.settings import Settings, read_settings
from alignrec_recbole.training.metric_names import cutoffs

SEED = 999  # of records in which nothing is drawn


def check_untrained(protocol: str, settings_class: type[Settings], others: dict[str, Any]) -> None:
    """Refuse settings of training in a protocol without.

    Args:
        others: the settings that are not the protocol's own.

    Raises:
        SettingError: with the protocol's own settings.
    """
    fields = settings_class.model_fields
    if refused := sorted(training_keys() & set(others)):
        raise SettingError(
            f"Protocol {protocol!r} trains nothing, so it does not use {refused[0]!r}.",
            found=f"--set {refused[0]}={others[refused[0]]}",
            expected=f"settings of the protocol ({', '.join(fields) or 'it has none'}) or of "
            "the data set and the ranking",
        )


class ProtocolContext:
    """A data set with feature sets, prepared once for several rankers of one protocol.

    Attributes:
        data: splits, features and configuration; see PreparedData.
        settings: the protocol's own.
        feature_sets: name → aligned features.
        pairs: (users, items) of the training, validation and test split.
        metric_names: metrics and cut-offs, as `Ranking.means` expects them.
    """

    def __init__(self, spec: RunSpec, settings_class: type[Settings], protocol: str) -> None:
        self.stopwatch = Stopwatch()
        self.spec = spec
        self.protocol = protocol
        fields = settings_class.model_fields
        own = {key: value for key, value in spec.overrides.items() if key in fields}
        others = {key: value for key, value in spec.overrides.items() if key not in fields}
        check_untrained(protocol, settings_class, others)
        self.settings: Any = read_settings(
            own, settings_class, f"protocol {protocol}", f"docs/protocols.md, {protocol}"
        )
        with progress.shown(spec.progress):
            progress.announce(f"{protocol} on {spec.dataset}: reading the data")
            self.data = prepare_data(replace(spec, overrides=others).data)
            progress.announce(f"{protocol} on {spec.dataset}: {self.data.read}")
        dataset = self.data.splits[0]
        self.dataset = dataset
        self.tokens = dataset.field2id_token[dataset.iid_field]
        self.feature_sets: dict[str, ItemFeatures] = dataset.features
        self.open_features = functools.cache(dataset.open_features)
        self.pairs = [split.pairs() for split in self.data.splits]
        self.device = self.data.config["device"]
        self.metric_names = self.data.config["metrics"], cutoffs(self.data.config)
        self.progress = spec.progress
        self.prepare_seconds = self._last_record = self.stopwatch.seconds()

    def content(
        self,
        history: tuple[np.ndarray, np.ndarray] | None = None,
        feature_sets: dict[str, ItemFeatures] | None = None,
    ) -> Content:
        """What rankers use; default: the training interactions and all features."""
        tables = self.feature_sets if feature_sets is None else feature_sets
        return Content.of(
            self.pairs[0] if history is None else history,
            [table.values for table in tables.values()],
            self.tokens,
            self.dataset.user_num,
            self.device,
        )

    def run(
        self, model: str, version: int, frozen: dict[str, Any], seed: int = SEED
    ) -> PreparedRun:
        """Path and configuration of one record.

        Args:
            model: the ranker's name, or none.
            version: of the protocol; another version has another record.
            frozen: settings of the protocol, stored under `protocol`.
        """
        config = {
            **self.data.effective_config,
            "protocol": {"name": self.protocol, "version": version, **frozen},
        }
        spec = replace(self.spec, model=model, seed=seed)
        return prepared_run(spec, self.data, config, self.data.feature_files, self.data.notes)

    def finished(self, run: PreparedRun, overwrite: bool) -> RunRecord | None:
        """The record of a run, if it exists and is not to be replaced.

        Raises:
            RecordError: it is damaged, or of another run.
        """
        return finished_record(run, overwrite)

    def write(self, run: PreparedRun, **found: Any) -> RunRecord:
        """Build and write a run's record; see `record_of` for what can be found.

        Its evaluation is timed from the preparation, or from the previous record of this context.
        """
        evaluate = self.stopwatch.seconds() - self._last_record
        seconds = {
            "prepare": self.prepare_seconds,
            "evaluate": evaluate,
            "total": self.prepare_seconds + evaluate,
        }
        record = record_of(run, self.stopwatch, seconds=seconds, **found)
        write_record(run.record_path, record)
        self._last_record = self.stopwatch.seconds()
        return record

    def rank(
        self, scores: Scores, content: Content, task: EvalTask, label: str | None = None
    ) -> Ranking:
        """Top lists, equal scores in the fixed order."""
        shown = label if self.progress else None
        length = max(LIST_LENGTH, *self.metric_names[1])
        return rank_content(scores, content, task, length, progress=shown)
