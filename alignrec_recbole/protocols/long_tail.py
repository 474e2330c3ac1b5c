"""long-tail: who gains. Stored top-50 lists, cut by history length and by item popularity.

Nothing is trained or ranked again; candidates, masking and targets are those of the stored ranking.
Degrees are counted in training.

Users by |N_u|: ≤3, 4–7, 8–15, 16–31, ≥32; a group has the ordinary metrics of its users.
Items by degree: 0, 1–3, 4–7, 8–15, 16–31, ≥32; for group g, over the users with a target in it,

    Recall_g@K = |top-K ∩ T_u ∩ g| / |T_u ∩ g|       NDCG_g@K with gains and ideal of T_u ∩ g

at the ranks of the whole list, and exposure_g@K, the share of all top-K places given to g. An empty
group has no values.

Source: the user group ≤3 is the official code's `eval_short_seq`; all else is our definition.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

from alignrec_recbole.errors import DataError, RecordError
from alignrec_recbole.evaluation.metrics import METRICS
from alignrec_recbole.evaluation.ranking import EvalTask, Ranking, find_hits
from alignrec_recbole.io.files import sha256_file
from alignrec_recbole.protocols.context import ProtocolContext
from alignrec_recbole.protocols.rankers import RANKERS
from alignrec_recbole.runs.prepare import config_hash
from alignrec_recbole.runs.record import RunRecord, read_record
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


def long_tails(
    spec: RunSpec, models: Sequence[str], overwrite: bool = False
) -> Iterator[RunRecord]:
    """Groups of every stored ranking of the data set that fits.

    Args:
        models: names of models or rankers; empty: all that are stored.

    Raises:
        DataError: there is no stored ranking, or one of other data.
    """
    stored = list(_stored(spec, models))
    if not stored:
        raise DataError(
            f"There are no stored rankings of {spec.dataset!r} to look at.",
            found=f"no record with its .users.npz for {', '.join(models) or 'any model'} under "
            f"{spec.output / 'runs' / spec.dataset}",
            expected="runs of protocol full, zero-shot or item-cf made on this machine",
            hint="run them first: the lists are written beside the record",
        )
    for setting in sorted({record.setting for _, record in stored}):
        bench = ProtocolContext(replace(spec, features=(), setting=setting), Settings, NAME)
        for path, record in stored:
            if record.setting == setting:
                yield _long_tail(bench, path, record, overwrite)


def _stored(spec: RunSpec, models: Sequence[str]) -> Iterator[tuple[Path, RunRecord]]:
    """Ordinary rankings of the data set whose lists are here."""
    for path in sorted((spec.output / "runs" / spec.dataset).rglob("*.json")):
        record = read_record(path)
        if (
            record.protocol in ("full", *RANKERS)
            and (not models or record.model in models)
            and (not spec.features or record.features in ("none", "+".join(spec.features)))
            and spec.setting in (None, record.setting)
            and record.per_user
            and (path.parent / record.per_user["file"]).is_file()
        ):
            yield path, record


def _long_tail(bench: ProtocolContext, path: Path, record: RunRecord, overwrite: bool) -> RunRecord:
    prepared = bench.prepared
    here = prepared.data["files"], prepared.data["split"]
    if (record.data["files"], record.data["split"]) != here:
        raise DataError(
            f"{path.name} was made on other data.",
            found=f"{', '.join(record.data['files'])} of other content, or another split",
            expected=f"the data set {record.dataset!r} as it is here",
            hint="run that model again, or give the data it was made on",
        )
    frozen = {
        "name": NAME,
        "version": VERSION,
        "users": list(USER_BOUNDS),
        "items": list(ITEM_BOUNDS),
        "of": record.protocol,
        "of_sha256": record.config_sha256,
    }
    spec = replace(prepared.spec, model=record.model, seed=record.seed, tuned_on=record.tuned_on)
    config = {**record.config, "protocol": frozen}
    digest = config_hash(spec, config, record.data, record.feature_files)
    entry = replace(
        prepared,
        spec=spec,
        resolved=config,
        digest=digest,
        feature_files=record.feature_files,
        notes=record.notes,
    )
    if entry.record_path.is_file() and not overwrite:
        return read_record(entry.record_path)
    task = test_task(entry)
    ranking, values = _lists(bench, path.parent, record, task)
    cutoffs = sorted({int(name.partition("@")[2]) for name in values})
    users, items = bench.pairs[0]
    return bench.write(
        entry,
        metrics={name: float(column.mean()) for name, column in values.items()},
        groups={
            "history": by_user(
                values, ranking.users, np.bincount(users, minlength=bench.dataset.user_num)
            ),
            "popularity": by_item(
                ranking, task, np.bincount(items, minlength=bench.dataset.item_num), cutoffs
            ),
        },
    )


def _lists(
    bench: ProtocolContext, folder: Path, record: RunRecord, task: EvalTask
) -> tuple[Ranking, dict[str, np.ndarray]]:
    """A stored ranking and its per-user values, in the ids and the user order of this data set."""
    assert record.per_user is not None
    path = folder / record.per_user["file"]
    if sha256_file(path) != record.per_user["sha256"]:
        raise RecordError(
            f"{path.name} is not the file that its record describes.",
            found="another sha256",
            expected=record.per_user["sha256"][:12] + "…",
            hint="run the model again with --overwrite",
        )
    dataset = bench.dataset
    with np.load(path, allow_pickle=False) as stored:
        users = _ids(dataset, dataset.uid_field, stored["users"])
        items = _ids(dataset, dataset.iid_field, stored["items"])
        top = stored["top"]
        values = {name: stored[name] for name in stored.files if "@" in name}
    order = np.argsort(users)
    if not np.array_equal(users[order], task.users):
        raise RecordError(
            f"{path.name} ranks other users than the test split has.",
            found=f"{len(users)} users",
            expected=f"{len(task.users)}, those with a test item",
            hint="run the model again with --overwrite",
        )
    lists = np.where(top >= 0, items[top], -1)[order]
    ranking = Ranking(task.users, lists, *find_hits(lists, task.targets))
    return ranking, {name: column[order] for name, column in values.items()}


def _ids(dataset: Any, field: str, tokens: np.ndarray) -> np.ndarray:
    known = dataset.field2token_id[field]
    return np.array([known[str(token)] for token in tokens], dtype=np.int64)
