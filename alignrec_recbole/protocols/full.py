"""full: how well does a trained model rank all items?

Method: the model is trained on the training split and stopped early by its validation metric; the
weights of the best validation epoch rank all items for every user with a test item. Items of the
training split are excluded from the lists; under the evaluation convention `recbole` those of the
validation split are excluded too, under `mmrec` they remain candidates.

Metrics (K in 5, 10, 20, 50): Recall, NDCG, Precision and MAP, means over users with a target,
unrounded; users without a target are neither ranked nor averaged.

Chance: of Recall@K about K / number of items.

Source: MMRec's and RecBole's evaluation with full ranking.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from alignrec_recbole.registry.models import resolve
from alignrec_recbole.runs.record import RunRecord
from alignrec_recbole.runs.run import run_one
from alignrec_recbole.runs.spec import RunSpec

NAME = "full"


def run_full(
    spec: RunSpec, models: Sequence[str], seeds: Sequence[int] | None, overwrite: bool
) -> Iterator[RunRecord]:
    """Train and rank every model with every seed (default: 999); some read no features."""
    for model in models:
        features = spec.features if resolve(model).needs_features else ()
        own = replace(spec, model=model, features=features)
        for seed in seeds or (999,):
            yield run_one(replace(own, seed=seed), overwrite=overwrite)
