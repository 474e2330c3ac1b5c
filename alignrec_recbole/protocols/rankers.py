"""The rankers that need no training, under one interface, and the protocols they are alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from alignrec_recbole.protocols import item_cf, zero_shot
from alignrec_recbole.protocols.content import Content, Scores, chance
from alignrec_recbole.protocols.context import ProtocolContext
from alignrec_recbole.runs.lists import save_lists
from alignrec_recbole.runs.record import RunRecord, read_record
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


def rank_by_features(spec: RunSpec, overwrite: bool = False) -> RunRecord:
    """zero-shot or item-cf (`spec.protocol`): validation and, unless a grid point, test."""
    ranker = RANKERS[spec.protocol]
    bench = ProtocolContext(spec, ranker.settings_class, ranker.name)
    entry = bench.entry(ranker.name, ranker.version, bench.settings.model_dump())
    if entry.record_path.is_file() and not overwrite:
        return read_record(entry.record_path)
    content = bench.content()
    scores = ranker.scorer(content, bench.settings)
    valid = bench.rank(scores, content, valid_task(entry), "validation").means(*bench.names)
    metric = entry.config["valid_metric"]
    found: dict[str, Any] = {"metrics": {}, "valid_metrics": valid}
    if spec.score_test:
        task = test_task(entry)
        ranking = bench.rank(scores, content, task, "test")
        found["metrics"] = ranking.means(*bench.names)
        found["per_user"] = save_lists(entry, ranking, ranking.per_user(*bench.names))
        found["chance"] = chance(task, bench.names[1])
    return bench.write(
        entry,
        selection={
            "metric": metric,
            "split": "valid",
            "best_epoch": 0,
            "best_score": {k.lower(): v for k, v in valid.items()}[metric.lower()],
            "stopped": "nothing to train",
        },
        notes=_without_features(content),
        **found,
    )


def _without_features(content: Content) -> list[str]:
    """How many items and users have nothing to be ranked by."""
    alive = content.vectors.ne(0).any(1).cpu().numpy()
    items = int((~alive[1:]).sum())
    users = int((content.history @ alive.astype(np.float32) == 0)[1:].sum())
    out = [f"{items} items without features"] if items else []
    return out + ([f"{users} users without a profile"] if users else [])
