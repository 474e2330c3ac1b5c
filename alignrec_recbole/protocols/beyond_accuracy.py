"""beyond-accuracy: what are the recommended lists like, apart from whether they are right?

Method: stored top-50 lists are described. Nothing is trained or ranked again; candidates, excluded
items and targets are those of the stored ranking. Popularity is counted in the training split.

At each K: item coverage, the Gini coefficient and the Shannon entropy of the places that items
have, the lists' average popularity and its lift over the users' own training items, the share of
tail items, novelty (EPC) and, with `--features F`, the intra-list distance by content of F, the
same for every model that is compared. For all users, and by the length of their history: the groups
≤3, 4–7, 8–15, 16–31, ≥32 of long-tail. Formulas and sources are in
`alignrec_recbole/evaluation/beyond_accuracy.py`. The metrics of the stored ranking are repeated.

Tail: the items outside of the most popular ones that have 80 % of the training interactions;
equally popular ones in the fixed order. Content: unit vectors as in every other protocol. A figure
without any value (a group without users, no features) is absent. No figure has a chance level or is
better by itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import scipy.sparse as sp

from alignrec_recbole.evaluation.beyond_accuracy import (
    HEAD_SHARE,
    Lists,
    per_user,
    profile_popularity,
    summary,
    tail_of,
)
from alignrec_recbole.protocols.content import tie_ranks, unit_vectors
from alignrec_recbole.protocols.context import ProtocolContext
from alignrec_recbole.protocols.long_tail import USER_BOUNDS, labels
from alignrec_recbole.protocols.stored_lists import lists_of, run_about, stored_rankings
from alignrec_recbole.runs.record import Run, RunRecord
from alignrec_recbole.runs.spec import RunSpec
from alignrec_recbole.runs.tasks import test_task
from alignrec_recbole.settings import Settings

NAME = "beyond-accuracy"
VERSION = 1


def by_history(lists: Lists, history: np.ndarray, cutoffs: Sequence[int]) -> dict[str, dict]:
    """The figures of users in groups of history length.

    Args:
        history: training items of each listed user [n].
    """
    values = per_user(lists, cutoffs)
    group = np.digitize(history, USER_BOUNDS)
    out: dict[str, dict[str, float]] = {}
    for number, label in enumerate(labels(USER_BOUNDS)):
        members = np.flatnonzero(group == number)
        out[label] = {"users": float(len(members))}
        if len(members):
            own = {name: column[members] for name, column in values.items()}
            out[label] |= summary(lists.of(members), own, cutoffs)
    return out


def run_beyond_accuracy(
    spec: RunSpec, models: Sequence[str], seeds: Sequence[int] | None, overwrite: bool
) -> Iterator[RunRecord]:
    """One record per stored ranking of the data set.

    Args:
        spec: its features are the content of the intra-list distance; none: there is no such
            figure.
        models: names of models or rankers; empty: all that are stored.

    Raises:
        DataError: there is no stored ranking, or one of other data.
    """
    stored = stored_rankings(spec, models)
    for setting in sorted({run.record.setting for run in stored}):
        context = ProtocolContext(replace(spec, setting=setting), Settings, NAME)
        for run in stored:
            if run.record.setting == setting:
                yield _describe(context, run, overwrite)


def _describe(context: ProtocolContext, stored: Run, overwrite: bool) -> RunRecord:
    files = context.data.feature_files
    frozen = {
        "name": NAME,
        "version": VERSION,
        "users": list(USER_BOUNDS),
        "head_share": HEAD_SHARE,
        "content": {name: file["sha256"] for name, file in files.items()},
    }
    run = run_about(context, stored, frozen)
    if record := context.finished(run, overwrite):
        return record
    history = _history(context)
    ranking, values = lists_of(context, stored, test_task(run))
    cutoffs = sorted({int(name.partition("@")[2]) for name in values})
    counts = np.asarray(history.sum(0)).ravel().astype(np.int64)
    lists = Lists(
        ranking.items,
        ranking.hits,
        counts,
        int((np.diff(history.indptr) > 0).sum()),
        profile_popularity(history, counts)[ranking.users],
        tail_of(counts, tie_ranks(context.tokens)),
        unit_vectors([table.values for table in context.feature_sets.values()]) if files else None,
    )
    return context.write(
        run,
        metrics={
            **{name: float(column.mean()) for name, column in values.items()},
            **summary(lists, per_user(lists, cutoffs), cutoffs),
        },
        groups={"history": by_history(lists, np.diff(history.indptr)[ranking.users], cutoffs)},
    )


def _history(context: ProtocolContext) -> sp.csr_matrix:
    """Ones [user_num, item_num] at the training pairs, each pair once."""
    users, items = context.pairs[0]
    shape = context.dataset.user_num, context.dataset.item_num
    matrix = sp.csr_matrix((np.ones(len(users)), (users, items)), shape=shape)
    matrix.data[:] = 1.0
    return matrix
