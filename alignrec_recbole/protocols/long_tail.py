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
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import scipy.sparse as sp

from alignrec_recbole.evaluation.metrics import METRICS
from alignrec_recbole.evaluation.ranking import EvalTask, Ranking
from alignrec_recbole.protocols.context import ProtocolContext
from alignrec_recbole.protocols.stored_lists import lists_of, run_about, stored_rankings
from alignrec_recbole.runs.record import Run, RunRecord
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
    stored = stored_rankings(spec, models, spec.features)
    for setting in sorted({run.record.setting for run in stored}):
        context = ProtocolContext(replace(spec, features=(), setting=setting), Settings, NAME)
        for run in stored:
            if run.record.setting == setting:
                yield _long_tail(context, run, overwrite)


def _long_tail(context: ProtocolContext, stored: Run, overwrite: bool) -> RunRecord:
    frozen = {
        "name": NAME,
        "version": VERSION,
        "users": list(USER_BOUNDS),
        "items": list(ITEM_BOUNDS),
    }
    run = run_about(context, stored, frozen)
    if record := context.finished(run, overwrite):
        return record
    task = test_task(run)
    ranking, values = lists_of(context, stored, task)
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
