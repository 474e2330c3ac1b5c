"""LightGCN: ID vectors averaged over the layers of a user-item graph convolution.

Paper       He et al., "LightGCN: Simplifying and Powering Graph Convolution Network for
            Recommendation", SIGIR 2020, arXiv 2002.02126; equations 3-11.
Followed    the paper; the regulariser is that of RecBole's and MMRec's LightGCN, whose published
            figures it belongs to: Σ ‖E‖_F / b over the batch's ID vectors, norms not squared.
Deviations  D1 only the batch's rows of the last layer are computed (same values).
            D2 PAD rows are zero and outside the graph; Xavier bounds count real rows only.
Shapes      users [user_num, d], items [item_num, d]; row 0 is PAD.
Cost        2L products with the training graph per step.
"""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from alignrec_recbole import losses
from alignrec_recbole.graphs.user_item import bipartite_adjacency, normalised_interactions
from alignrec_recbole.models._base import PairwiseRecommender, UserItemEmbedding, pair_scores
from alignrec_recbole.ops.propagation import layer_mean
from alignrec_recbole.settings import MAX_LAYERS, Settings


class LightGCNSettings(Settings):
    """Hyper-parameters; defaults and their sources are in properties/model/LightGCN.yaml."""

    embedding_size: int = Field(gt=0, description="d")
    n_layers: int = Field(ge=0, le=MAX_LAYERS, description="graph layers L")
    reg_weight: float = Field(ge=0, description="weight of the norms of the batch's ID vectors")


class LightGCN(PairwiseRecommender):
    """LightGCN on the shared graph code."""

    settings_class = LightGCNSettings
    capture_refused = ""
    columns_refused = ""

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        self.weights = {"bpr": 1.0, "norms": self.settings.reg_weight}
        self.nodes = UserItemEmbedding(
            self.n_users, self.n_items, self.settings.embedding_size, nn.init.xavier_uniform_
        )
        self.graph = bipartite_adjacency(
            normalised_interactions(dataset.pairs(), (self.n_users, self.n_items))
        )

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """Layer means of all users and items."""
        nodes = layer_mean(self.graph, self._first_layer(), self.settings.n_layers)
        return nodes[: self.n_users], nodes[self.n_users :]

    def loss_terms(self, users: Tensor, positives: Tensor, negatives: Tensor) -> dict[str, Tensor]:
        """BPR on the layer means, norms of the ID vectors."""
        batch = len(users)
        rows = torch.cat([users, positives + self.n_users, negatives.ravel() + self.n_users])
        sizes = [batch, batch, len(rows) - 2 * batch]
        first = self._first_layer()
        mean, ids = layer_mean(self.graph, first, self.settings.n_layers, rows, rows)
        user, positive, negative = mean.split(sizes)
        terms = {"bpr": losses.bpr(*pair_scores(user, positive, negative))}
        if self.weights["norms"]:
            terms["norms"] = losses.l2_norm_penalty(*ids.split(sizes))
        return terms

    def _first_layer(self) -> Tensor:
        return self.nodes.weight
