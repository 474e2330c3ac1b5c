"""What every training-free protocol ranks with: histories, unit vectors and one fixed tie order.

Features (our definition): every row is L2-normalised per feature set, the sets are concatenated,
the row is L2-normalised again. An item without a feature set has zeros there; an item without
any is zero: its similarity with every item is 0 and it adds nothing to a profile. Nothing is
centred or whitened.

Order (our definition): by score, where scores that agree to 2⁻²⁰ (the noise of float32) are
equal; equal ones are in the fixed random order of evaluation/ties.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor
from tqdm.auto import tqdm

from alignrec_recbole.evaluation.ranking import EvalTask, Ranking, rank
from alignrec_recbole.features.content_rows import divided_by_norm
from alignrec_recbole.features.item_order import tie_ranks

STEP = 2.0**-20

Scores = Callable[[Tensor], Tensor]  # internal user ids [b] → [b, columns], may be overwritten


@dataclass(frozen=True)
class Content:
    """Everything that a training-free ranker may use.

    Attributes:
        history: CSR float32 [user_num, item_num], 1 at training interactions.
        vectors: float32 [item_num, f], unit or zero rows.
        tie_rank: [item_num], position of an item among equal scores; PAD last.
        columns: internal ids of the candidates, PAD first; all items unless said otherwise.
    """

    history: sp.csr_matrix
    vectors: Tensor
    tie_rank: np.ndarray
    columns: np.ndarray

    @classmethod
    def of(
        cls,
        history: tuple[np.ndarray, np.ndarray],
        sets: Sequence[np.ndarray],
        tokens: Sequence[str],
        user_num: int,
        device: torch.device | str = "cpu",
    ) -> Content:
        """Build from (users, items) pairs, feature sets [item_num, f] and item tokens."""
        item_num = len(tokens)
        ones = np.ones(len(history[0]), dtype=np.float32)
        matrix = sp.csr_matrix((ones, history), shape=(user_num, item_num))
        matrix.data[:] = 1.0
        vectors = torch.from_numpy(unit_vectors(sets)).to(device)
        return cls(matrix, vectors, tie_ranks(tokens), np.arange(item_num))

    def restricted(self, items: np.ndarray) -> Content:
        """The same with these items as the only candidates."""
        return replace(self, columns=np.concatenate([[0], np.sort(items)]))


def unit_vectors(sets: Sequence[np.ndarray]) -> np.ndarray:
    """Feature sets as one unit vector per item, float32; norms in float64, zero rows stay zero.

    >>> unit_vectors([np.array([[0.0], [5.0], [2.0]]), np.array([[0.0], [0.0], [3.0]])]).round(4)
    array([[0.    , 0.    ],
           [1.    , 0.    ],
           [0.7071, 0.7071]], dtype=float32)
    """
    blocks = [divided_by_norm(np.asarray(block, dtype=np.float64)) for block in sets]
    return divided_by_norm(np.concatenate(blocks, axis=1)).astype(np.float32)


def with_tie_break(scores: Tensor, tie_rank: np.ndarray) -> Tensor:
    """Float64 keys whose descending order is: score in steps of 2⁻²⁰, then tie rank.

    Exact for |score| < 2¹¹ and 2²⁰ items. The scores are overwritten.

    >>> keys = with_tie_break(torch.tensor([[0.5, 0.5, 0.7]]), np.array([2, 0, 1]))
    >>> keys.argsort(descending=True)
    tensor([[2, 1, 0]])
    """
    before = torch.from_numpy(1 - (tie_rank + 1) / (tie_rank.max() + 2)).to(scores.device)
    return scores.div_(STEP).round_().double().add_(before)


def rank_content(
    scores: Scores,
    content: Content,
    task: EvalTask,
    k: int,
    *,
    progress: str | None = None,
) -> Ranking:
    """Top-k lists; the columns of `task` and of the lists are those of `content`.

    Args:
        progress: label of a progress bar, or None for silence.
    """
    tie_rank = content.tie_rank[content.columns]
    with tqdm(
        total=len(task.users), desc=progress, unit="user", disable=progress is None, leave=False
    ) as bar:

        def keys(users: Tensor) -> Tensor:
            bar.update(len(users))
            return with_tie_break(scores(users), tie_rank)

        return rank(keys, task, k, content.vectors.device)


def chance(task: EvalTask, cutoffs: Sequence[int]) -> dict[str, float]:
    """Expected metrics of a random order, exact: every rank is a hit with probability |T| / c.

    Recall@K is min(K, c)/c, Precision@K is |T|·min(K, c)/(c·K) and NDCG@K is |T|/c times the sum of
    the gains over the ideal one, averaged over the users; the c candidates of a user are the
    columns without PAD and without excluded items.
    """
    candidates = task.masked.shape[1] - 1 - np.diff(task.masked.indptr)
    targets = np.diff(task.targets.indptr)
    density = targets / candidates
    out = {}
    for k in cutoffs:
        gains = np.concatenate([[0.0], (1 / np.log2(np.arange(2, k + 2))).cumsum()])
        listed = np.minimum(k, candidates)
        out[f"Recall@{k}"] = float(np.mean(listed / candidates))
        out[f"Precision@{k}"] = float(np.mean(density * listed / k))
        out[f"NDCG@{k}"] = float(np.mean(density * gains[listed] / gains[np.minimum(k, targets)]))
    return out
