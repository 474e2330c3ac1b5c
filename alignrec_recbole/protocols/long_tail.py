"""long-tail: which users and items gain: those with few or with many interactions?

Method: stored top-50 lists are split by the length of the user's history and by the popularity
of the items. Nothing is trained or ranked again; candidates, excluded items and targets are
those of the stored ranking. Degrees are counted in the training split.

Users by |N_u|: ≤3, 4–7, 8–15, 16–31, ≥32; a group has the ordinary metrics of its users.
Items by degree: 0, 1–3, 4–7, 8–15, 16–31, ≥32; for group g, over the users with a target in it,

    Recall_g@K = |top-K ∩ T_u ∩ g| / |T_u ∩ g|       NDCG_g@K with gains and ideal of T_u ∩ g

at the ranks of the whole list, and exposure_g@K, the share of all top-K places that g has. An
empty group has no values. Chance of exposure: the share of g among the items.

Source: the user group ≤3 is the official code's `eval_short_seq`; all else is our definition.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

from alignrec_recbole.errors import DataError, RecordError
from alignrec_recbole.evaluation.metrics import METRICS
from alignrec_recbole.evaluation.ranking import EvalTask, Ranking, find_hits
from alignrec_recbole.protocols import RANKER_NAMES
from alignrec_recbole.protocols.context import ProtocolContext
from alignrec_recbole.runs.config_hash import same_data
from alignrec_recbole.runs.lists import read_user_values, user_values_path
from alignrec_recbole.runs.prepare import prepared_run
from alignrec_recbole.runs.record import Run, RunRecord, read_runs, skip_note
from alignrec_recbole.runs.spec import RunSpec
from alignrec_recbole.runs.tasks import test_task
from alignrec_recbole.settings import Settings

NAME = "long-tail"
VERSION = 1
USER_BOUNDS = (4, 8, 16, 32)
ITEM_BOUNDS = (1, 4, 8, 16, 32)
ITEM_METRICS = ("Recall", "NDCG")

Group = dict[str, float]


def labels(bounds: Sequence[int]) -> list[str]:
    """Names of the groups between bounds.

    >>> labels((1, 4, 8))
    ['0', '1-3', '4-7', '>=8']
    """
    first = "0" if bounds[0] == 1 else f"<={bounds[0] - 1}"
    inner = [f"{low}-{high - 1}" for low, high in itertools.pairwise(bounds)]
    return [first, *inner, f">={bounds[-1]}"]


def by_user(
    values: dict[str, np.ndarray], users: np.ndarray, history: np.ndarray
) -> dict[str, Group]:
    """Means of per-user values over groups of history length.

    Args:
        values: metric → [n], one value a ranked user.
        users: internal ids of the ranked users [n].
        history: training items of every user [user_num].
    """
    group = np.digitize(history[users], USER_BOUNDS)
    out: dict[str, Group] = {}
    for number, label in enumerate(labels(USER_BOUNDS)):
        members = group == number
        out[label] = {"users": float(members.sum())}
        if members.any():
            out[label] |= {name: float(column[members].mean()) for name, column in values.items()}
    return out


def by_item(
    ranking: Ranking, task: EvalTask, degree: np.ndarray, cutoffs: Sequence[int]
) -> dict[str, Group]:
    """Metrics of the targets in each group of item popularity.

    Args:
        ranking: lists of the task's users, −1 where a list ends.
        degree: training interactions of every item [item_num].
    """
    group = np.digitize(degree, ITEM_BOUNDS)
    group[0] = -1  # PAD
    listed = np.where(ranking.items >= 0, group[ranking.items], -1)
    wanted = group[task.targets.indices]
    out: dict[str, Group] = {}
    for number, label in enumerate(labels(ITEM_BOUNDS)):
        inside = sp.csr_matrix(
            (wanted == number, task.targets.indices, task.targets.indptr), shape=task.targets.shape
        )
        targets = np.asarray(inside.sum(1, dtype=np.int64)).ravel()
        users = targets > 0
        hits = (ranking.hits & (listed == number))[users]
        out[label] = {
            "items": float((group == number).sum()),
            "users": float(users.sum()),
            "targets": float(targets.sum()),
        }
        if (group == number).any():
            out[label] |= {
                f"exposure@{k}": float(
                    (listed[:, :k] == number).sum() / (ranking.items[:, :k] >= 0).sum()
                )
                for k in cutoffs
            }
        if users.any():
            out[label] |= {
                f"{name}@{k}": float(METRICS[name](hits, targets[users], k).mean())
                for name in ITEM_METRICS
                for k in cutoffs
            }
    return out


def run_long_tail(
    spec: RunSpec, models: Sequence[str], seeds: Sequence[int] | None, overwrite: bool
) -> Iterator[RunRecord]:
    """One record per stored ranking of the data set.

    Args:
        models: names of models or rankers; empty: all that are stored.

    Raises:
        DataError: there is no stored ranking, or one of other data.
    """
    stored = list(_stored(spec, models))
    if not stored:
        raise DataError(
            f"Data set {spec.dataset!r} has no stored rankings.",
            found=f"no record with its .users.npz for {', '.join(models) or 'any model'} under "
            f"{spec.output / 'runs' / spec.dataset}",
            expected="runs of protocol full, zero-shot or item-cf made on this machine",
            hint="run them first: the lists are written beside the record",
        )
    for setting in sorted({run.record.setting for run in stored}):
        context = ProtocolContext(replace(spec, features=(), setting=setting), Settings, NAME)
        for run in stored:
            if run.record.setting == setting:
                yield _long_tail(context, run, overwrite)


def _stored(spec: RunSpec, models: Sequence[str]) -> Iterator[Run]:
    """Rankings of all items of the data set whose lists are stored here."""
    for run in read_runs(spec.output / "runs" / spec.dataset, _warn):
        record = run.record
        if (
            record.protocol in ("full", *RANKER_NAMES)
            and (not models or record.model in models)
            and (not spec.features or record.features in ("none", "+".join(spec.features)))
            and spec.setting in (None, record.setting)
            and user_values_path(run) is not None
        ):
            yield run


def _warn(path: Path, error: RecordError) -> None:
    warnings.warn(skip_note(path, error), stacklevel=2)


def _long_tail(context: ProtocolContext, stored: Run, overwrite: bool) -> RunRecord:
    data, source = context.data, stored.record
    if not same_data(source.data, data.data):
        raise DataError(
            f"{stored.path.name} was made on other data.",
            found=f"{', '.join(source.data['files'])} of other content, or another split",
            expected=f"the data set {source.dataset!r} in the data folder",
            hint="run that model again, or use the data of the record",
        )
    frozen = {
        "name": NAME,
        "version": VERSION,
        "users": list(USER_BOUNDS),
        "items": list(ITEM_BOUNDS),
        "of": source.protocol,
        "of_sha256": source.config_sha256,
    }
    run = prepared_run(
        replace(context.spec, model=source.model, seed=source.seed, tuned_on=source.tuned_on),
        data,
        {**source.config, "protocol": frozen},
        source.feature_files,
        source.notes,
    )
    if record := context.finished(run, overwrite):
        return record
    task = test_task(run)
    ranking, values = _lists(context, stored, task)
    cutoffs = sorted({int(name.partition("@")[2]) for name in values})
    users, items = context.pairs[0]
    return context.write(
        run,
        metrics={name: float(column.mean()) for name, column in values.items()},
        groups={
            "history": by_user(
                values, ranking.users, np.bincount(users, minlength=context.dataset.user_num)
            ),
            "popularity": by_item(
                ranking, task, np.bincount(items, minlength=context.dataset.item_num), cutoffs
            ),
        },
    )


def _lists(
    context: ProtocolContext, stored: Run, task: EvalTask
) -> tuple[Ranking, dict[str, np.ndarray]]:
    """A stored ranking and its per-user values, in the ids and the user order of this data set."""
    found = read_user_values(stored)
    assert found is not None  # _stored looked
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
