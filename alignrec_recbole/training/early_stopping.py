"""Selection of the best epoch on validation, and when to stop."""

from __future__ import annotations

import math
from dataclasses import dataclass, field


@dataclass
class EarlyStopping:
    """The best validation result so far, and how many evaluations ago it was.

    Attributes:
        metric: decides, under its name in the results.
        larger_is_better: of the metric.
        patience: training stops after more than so many evaluations in a row without improvement.
        ties_improve: whether an equal score is an improvement.
        best_score, best_result, best_epoch: of the best evaluation.
        misses: evaluations without improvement since then.

    >>> stopping = EarlyStopping("NDCG@20", larger_is_better=True, patience=0)
    >>> [stopping.update(epoch, {"NDCG@20": score}) for epoch, score in enumerate([0.1, 0.2, 0.2])]
    [True, True, False]
    >>> stopping.best_epoch, stopping.exhausted
    (1, True)
    """

    metric: str
    larger_is_better: bool
    patience: int
    ties_improve: bool = False
    best_score: float = field(init=False)
    best_result: dict[str, float] | None = field(init=False, default=None)
    best_epoch: int | None = field(init=False, default=None)
    misses: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self.best_score = -math.inf if self.larger_is_better else math.inf

    def update(self, epoch: int, result: dict[str, float]) -> bool:
        """Record an evaluation; whether it is the best so far."""
        score, best = result[self.metric], self.best_score
        if not self.larger_is_better:
            score, best = -score, -best
        improved = score > best or (self.ties_improve and score == best)
        if improved:
            self.best_score, self.best_result = result[self.metric], result
            self.best_epoch, self.misses = epoch, 0
        else:
            self.misses += 1
        return improved

    @property
    def exhausted(self) -> bool:
        """Whether training should stop."""
        return self.misses > self.patience
