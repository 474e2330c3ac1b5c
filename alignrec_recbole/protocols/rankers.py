"""The rankers that need no training, under one interface, and the protocols that run one alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from alignrec_recbole.protocols import item_cf, zero_shot
from alignrec_recbole.protocols.content import Content, Scores, chance
from alignrec_recbole.protocols.context import ProtocolContext
from alignrec_recbole.runs.lists import write_user_values
from alignrec_recbole.runs.record import RunRecord
from alignrec_recbole.runs.spec import RunSpec
from alignrec_recbole.runs.tasks import test_task, valid_task
from alignrec_recbole.settings import Settings


@dataclass(frozen=True)
class Ranker:
    """Something that ranks by content: settings and a scorer."""

    name: str
    version: int
    settings_class: type[Settings]
    scorer: Callable[[Content, Any], Scores]

    def frozen(self) -> dict[str, Any]:
        """Name, version and default settings, for the records of other protocols."""
        return {"name": self.name, "version": self.version, **self.settings_class().model_dump()}


RANKERS = {
    module.NAME: Ranker(module.NAME, module.VERSION, module.SETTINGS, module.scorer)
    for module in (zero_shot, item_cf)
}


def run_ranker(
    spec: RunSpec, models: Sequence[str], seeds: Sequence[int] | None, overwrite: bool
) -> Iterator[RunRecord]:
    """zero-shot or item-cf (`spec.protocol`); models and seeds are not used."""
    yield rank_by_features(spec, overwrite)


def rank_by_features(spec: RunSpec, overwrite: bool = False) -> RunRecord:
    """Rank by zero-shot or item-cf (`spec.protocol`): validation and, unless a grid point, test."""
    ranker = RANKERS[spec.protocol]
    context = ProtocolContext(spec, ranker.settings_class, ranker.name)
    run = context.run(ranker.name, ranker.version, context.settings.model_dump())
    if record := context.finished(run, overwrite):
        return record
    content = context.content()
    scores = ranker.scorer(content, context.settings)
    names = context.metric_names
    valid = context.rank(scores, content, valid_task(run), "validation").means(*names)
    metric = run.config["valid_metric"]
    found: dict[str, Any] = {"metrics": {}, "valid_metrics": valid}
    if not spec.validation_only:
        task = test_task(run)
        ranking = context.rank(scores, content, task, "test")
        found["metrics"] = ranking.means(*names)
        found["per_user"] = write_user_values(run, ranking, ranking.per_user(*names))
        found["chance"] = chance(task, names[1])
    return context.write(
        run,
        selection={
            "metric": metric,
            "split": "valid",
            "best_epoch": 0,
            "best_score": valid[metric],
            "stopped": "nothing to train",
        },
        notes=_without_features(content),
        **found,
    )


def _without_features(content: Content) -> list[str]:
    """Notes on the items and users that have nothing to be ranked by."""
    has_features = content.vectors.ne(0).any(1).cpu().numpy()
    items = int((~has_features[1:]).sum())
    users = int((content.history @ has_features.astype(np.float32) == 0)[1:].sum())
    out = [f"{items} items without features"] if items else []
    return out + ([f"{users} users without a profile"] if users else [])
