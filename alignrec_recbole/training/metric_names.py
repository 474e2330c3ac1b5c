"""Names of metrics: as ours spell them, and as RecBole's configurations and callers do."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from alignrec_recbole.evaluation.metrics import METRICS


def cutoffs(config: Any) -> list[int]:
    """The list lengths K of the metrics; `topk` may be one number."""
    return [config["topk"]] if isinstance(config["topk"], int) else list(config["topk"])


def canonical(metrics: list[str]) -> list[str]:
    """Names as METRICS spells them; RecBole's configurations may have them in lower case.

    >>> canonical(["recall", "NDCG"])
    ['Recall', 'NDCG']
    """
    names = {name.lower(): name for name in METRICS}
    return [names[metric.lower()] for metric in metrics]


def canonical_at_k(name: str) -> str:
    """The same for a metric at a list length.

    >>> canonical_at_k("recall@20")
    'Recall@20'
    """
    metric, _, k = name.partition("@")
    return f"{canonical([metric])[0]}@{k}"


def recbole_names(result: dict[str, float] | None) -> dict[str, float] | None:
    """Results as RecBole's callers expect them: lower-case names, in an OrderedDict."""
    return result and OrderedDict((name.lower(), value) for name, value in result.items())
