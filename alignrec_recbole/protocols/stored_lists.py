"""Stored rankings of a data set, for the protocols that read lists instead of ranking."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from alignrec_recbole.errors import DataError, RecordError
from alignrec_recbole.evaluation.ranking import EvalTask, Ranking, find_hits
from alignrec_recbole.protocols import RANKER_NAMES
from alignrec_recbole.protocols.context import ProtocolContext
from alignrec_recbole.runs.config_hash import same_data
from alignrec_recbole.runs.lists import read_user_values, user_values_path
from alignrec_recbole.runs.prepared import PreparedRun, prepared_run
from alignrec_recbole.runs.record import Run, read_runs, skip_note
from alignrec_recbole.runs.spec import RunSpec


def stored_rankings(
    spec: RunSpec, models: Sequence[str], features: Sequence[str] = ()
) -> list[Run]:
    """Runs of the data set that ranked all items and whose lists are stored here.

    Args:
        models: names of models or rankers; empty: all.
        features: of the runs; empty: any.

    Raises:
        DataError: there is none.
    """
    found = [
        run
        for run in read_runs(spec.output / "runs" / spec.dataset, _warn)
        if run.record.protocol in ("full", *RANKER_NAMES)
        and (not models or run.record.model in models)
        and (not features or run.record.features in ("none", "+".join(features)))
        and spec.setting in (None, run.record.setting)
        and user_values_path(run) is not None
    ]
    if not found:
        raise DataError(
            f"Data set {spec.dataset!r} has no stored rankings.",
            found=f"no record with its .users.npz for {', '.join(models) or 'any model'} under "
            f"{spec.output / 'runs' / spec.dataset}",
            expected="runs of protocol full, zero-shot or item-cf made on this machine",
            hint="run them first: the lists are written beside the record",
        )
    return found


def _warn(path: Path, error: RecordError) -> None:
    warnings.warn(skip_note(path, error), stacklevel=2)


def run_about(context: ProtocolContext, stored: Run, frozen: dict[str, Any]) -> PreparedRun:
    """Path and configuration of a record about a stored ranking.

    Args:
        frozen: settings of the protocol, stored under `protocol` with the ranking's hash.

    Raises:
        DataError: the ranking was made on other data.
    """
    data, source = context.data, stored.record
    if not same_data(source.data, data.data):
        raise DataError(
            f"{stored.path.name} was made on other data.",
            found=f"{', '.join(source.data['files'])} of other content, or another split",
            expected=f"the data set {source.dataset!r} in the data folder",
            hint="run that model again, or use the data of the record",
        )
    protocol = {**frozen, "of": source.protocol, "of_sha256": source.config_sha256}
    return prepared_run(
        replace(context.spec, model=source.model, seed=source.seed, tuned_on=source.tuned_on),
        data,
        {**source.config, "protocol": protocol},
        source.feature_files,
        source.notes,
    )


def lists_of(
    context: ProtocolContext, stored: Run, task: EvalTask
) -> tuple[Ranking, dict[str, np.ndarray]]:
    """A stored ranking and its per-user values, in the ids and the user order of this data set.

    Raises:
        RecordError: the lists are damaged, or of other users than those of the task.
    """
    found = read_user_values(stored)
    assert found is not None  # stored_rankings looked
    dataset = context.dataset
    users = _ids(dataset, dataset.uid_field, found.users)
    items = _ids(dataset, dataset.iid_field, found.items)
    order = np.argsort(users)
    if not np.array_equal(users[order], task.users):
        raise RecordError(
            f"The lists of {stored.path.name} are of other users than the test split's.",
            found=f"{len(users)} users",
            expected=f"{len(task.users)}, those with a test item",
            hint="run the model again with --overwrite",
        )
    lists = np.where(found.top >= 0, items[found.top], -1)[order]
    ranking = Ranking(task.users, lists, *find_hits(lists, task.targets))
    return ranking, {name: column[order] for name, column in found.values.items()}


def _ids(dataset: Any, field: str, tokens: np.ndarray) -> np.ndarray:
    known = dataset.field2token_id[field]
    return np.array([known[str(token)] for token in tokens], dtype=np.int64)
