"""cold-start: are items without any training interaction found by their content?

Method: released splits have nearly no such items, so they are simulated (our definition). For
seed s the cold set C is the first ⌊0.2·I⌋ of PCG64(2000+s).permutation(I) over the items in the
order of their tokens. All interactions with C are removed from training; users without a
remaining training item are dropped. Targets: every interaction (training, validation, test) of
the remaining users with C. Candidates: C only; nothing is excluded, because no history contains
a cold item. Ranked by zero-shot, and by item-cf with kNN among C. s = 0, 1, 2; mean and spread
are over s.

Metrics: Recall, NDCG, Precision and MAP. Chance of Recall@K: K/|C|.

Source: our definition.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from alignrec_recbole.errors import SettingError
from alignrec_recbole.evaluation.ranking import EvalTask
from alignrec_recbole.features.item_order import seeded_order
from alignrec_recbole.protocols.content import chance
from alignrec_recbole.protocols.context import ProtocolContext
from alignrec_recbole.protocols.rankers import RANKERS
from alignrec_recbole.runs.lists import write_user_values
from alignrec_recbole.runs.record import RunRecord
from alignrec_recbole.runs.spec import RunSpec
from alignrec_recbole.settings import Settings

NAME = "cold-start"
VERSION = 1
MASK_SEED_OFFSET = 2000

Pairs = tuple[np.ndarray, np.ndarray]


class ColdStartSettings(Settings):
    """The cold set; frozen for tables."""

    cold_share: float = Field(default=0.2, gt=0, lt=1, description="between 0 and 1")
    cold_seeds: tuple[Annotated[int, Field(ge=-MASK_SEED_OFFSET, lt=2**63)], ...] = Field(
        default=(0, 1, 2),
        min_length=1,
        description=f"list of whole numbers from -{MASK_SEED_OFFSET}",
    )


@dataclass(frozen=True)
class ColdStartSplit:
    """A data set whose cold items occur in no training interaction.

    Attributes:
        cold: internal ids of C, ascending.
        history: training pairs (users, items) without C.
        task: users and targets; its columns are PAD and then `cold`.
    """

    cold: np.ndarray
    history: Pairs
    task: EvalTask


def simulate(
    splits: Sequence[Pairs], tokens: Sequence[str], user_num: int, share: float, seed: int
) -> ColdStartSplit:
    """Remove the cold items from the training split (the first) and make them the targets.

    Raises:
        SettingError: the share is less than one item, or no user has both a training item and a
            cold one.

    >>> train = (np.array([1, 1, 2]), np.array([1, 2, 2]))
    >>> world = simulate([train, (train[0][:0], train[1][:0])], ["[PAD]", "0", "1"], 3, 0.5, 0)
    >>> world.cold, world.history[1], world.task.users
    (array([2]), array([1]), array([1]))
    """
    count = int(share * (len(tokens) - 1) + 1e-9)
    if count == 0:
        raise SettingError(
            f"cold_share {share:g} selects no items.",
            found=f"cold_share = {share:g} of {len(tokens) - 1} items",
            expected="a share of at least one item",
        )
    cold = np.sort(seeded_order(tokens, MASK_SEED_OFFSET + seed)[:count])
    is_cold = np.zeros(len(tokens), dtype=bool)
    is_cold[cold] = True
    users, items = splits[0]
    history = users[~is_cold[items]], items[~is_cold[items]]
    known = np.zeros(user_num, dtype=bool)
    known[history[0]] = True
    every_user = np.concatenate([pairs[0] for pairs in splits])
    every_item = np.concatenate([pairs[1] for pairs in splits])
    kept = is_cold[every_item] & known[every_user]
    if not kept.any():
        raise SettingError(
            f"cold_share {share:g} leaves no user with a training item and a cold item.",
            found=f"{count} cold items of {len(tokens) - 1}",
            expected="users with training items and a cold one",
            hint="pass another cold_share, or use a larger data set",
        )
    targets = every_user[kept], 1 + np.searchsorted(cold, every_item[kept])
    task = EvalTask.from_pairs(targets, [], (user_num, 1 + len(cold)))
    return ColdStartSplit(cold, history, task)


def run_cold_start(
    spec: RunSpec, models: Sequence[str], seeds: Sequence[int] | None, overwrite: bool
) -> Iterator[RunRecord]:
    """One record per ranker (`models`; default: all) and cold set, whose seed is the record's."""
    context = ProtocolContext(spec, ColdStartSettings, NAME)
    settings = context.settings
    for seed in settings.cold_seeds:
        split = simulate(
            context.pairs, context.tokens, context.dataset.user_num, settings.cold_share, seed
        )
        content = context.content(split.history).restricted(split.cold)
        for name in models or RANKERS:
            ranker = RANKERS[name]
            frozen = {"cold_share": settings.cold_share, "ranker": ranker.frozen()}
            run = context.run(name, VERSION, frozen, seed)
            if record := context.finished(run, overwrite):
                yield record
                continue
            scores = ranker.scorer(content, ranker.settings_class())
            ranking = context.rank(scores, content, split.task, f"cold set {seed}")
            values = ranking.per_user(*context.metric_names)
            yield context.write(
                run,
                metrics=ranking.means(*context.metric_names),
                chance=chance(split.task, context.metric_names[1]),
                per_user=write_user_values(run, ranking, values, content.columns),
                notes=[f"{len(split.cold)} cold items, {len(ranking.users)} users"],
            )
