"""zero-shot: do the items that a user interacts with next resemble the earlier ones?

Method: a user is represented by the mean of the features of their training items, and all items
are ranked by their cosine similarity with it. There is no parameter and no training.

    p_u = Σ_{i∈N_u} f̂_i        s(u, j) = p̂_u · f̂_j

N_u are the user's training items, f̂ unit vectors (see `protocols/content.py`), p̂ the profile
divided by its length, so that sum and mean give the same order. Candidates: all items. Excluded
items and targets: those of the evaluation convention, so that results are comparable with
trained models. For a user without a profile the fixed order of the items is used.

Metrics: Recall, NDCG, Precision and MAP. Chance of Recall@K: about K / number of items, stored
exactly.

Source: the idea is the AlignRec paper's, as a later paper describes it (user = mean of the
history's features, candidates by similarity); candidates, excluded items and order are our
definition. Results with another hold-out (the last item) are not comparable.
"""

from __future__ import annotations

import torch
from torch import Tensor

from alignrec_recbole.ops.matmul import matmul_nt
from alignrec_recbole.ops.rows import l2_normalize_rows
from alignrec_recbole.ops.sparse import SparseOperator
from alignrec_recbole.protocols.content import Content, Scores
from alignrec_recbole.settings import Settings

NAME = "zero-shot"
VERSION = 1


class ZeroShotSettings(Settings):
    """There is nothing to set."""


SETTINGS = ZeroShotSettings


def scorer(content: Content, settings: ZeroShotSettings) -> Scores:
    """Cosines of profiles with the candidates, in [−1, 1]."""
    history = SparseOperator(content.history)
    candidates = content.vectors[torch.from_numpy(content.columns).to(content.vectors.device)]

    def scores(users: Tensor) -> Tensor:
        profiles = l2_normalize_rows(history.rows(users, content.vectors))
        return matmul_nt(profiles, candidates)

    return scores
