"""BPR: matrix factorisation trained on pairs, with the regulariser of the published figures.

Paper       Rendle et al., "BPR: Bayesian Personalized Ranking from Implicit Feedback", UAI 2009.
Followed    RecBole's BPR (Xavier-normal tables), plus MMRec's penalty Σ ‖E‖_F / b over the batch's
            user, positive and negative vectors (norms not squared); RecBole's BPR has none.
Deviations  none known; PAD rows are zero.
Shapes      users [user_num, d], items [item_num, d]; row 0 is PAD.
Cost        proportional to batch size, plus Adam over both tables.
"""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from alignrec_recbole import losses
from alignrec_recbole.models._base import PairwiseRecommender, UserItemEmbedding, pair_scores
from alignrec_recbole.ops.rows import gather_rows
from alignrec_recbole.settings import Settings


class BPRSettings(Settings):
    """Hyper-parameters; defaults and their sources are in properties/model/BPR.yaml."""

    embedding_size: int = Field(gt=0, description="d")
    reg_weight: float = Field(ge=0, description="weight of the norms of the batch's vectors")


class BPR(PairwiseRecommender):
    """Matrix factorisation with a norm penalty."""

    settings_class = BPRSettings
    capture_refused = ""
    columns_refused = ""

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        self.weights = {"bpr": 1.0, "norms": self.settings.reg_weight}
        self.nodes = UserItemEmbedding(
            self.n_users, self.n_items, self.settings.embedding_size, nn.init.xavier_normal_
        )

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """The two tables."""
        return self.nodes.users, self.nodes.items

    def loss_terms(self, users: Tensor, positives: Tensor, negatives: Tensor) -> dict[str, Tensor]:
        """BPR and the norms of the vectors in the batch."""
        batch = len(users)
        rows = torch.cat([users, positives + self.n_users, negatives.ravel() + self.n_users])
        vectors = gather_rows(self.nodes.weight, rows)
        user, positive, negative = vectors.split([batch, batch, len(rows) - 2 * batch])
        terms = {"bpr": losses.bpr(*pair_scores(user, positive, negative))}
        if self.weights["norms"]:
            terms["norms"] = losses.l2_norm_penalty(user, positive, negative)
        return terms
