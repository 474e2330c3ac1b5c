"""BM3: two views of the same vectors, one of them dropped out, predict each other; no negatives.

Paper       Zhou et al., "Bootstrap Latent Representations for Multi-modal Recommendation", WWW
            2023, arXiv 2207.05969; equations 3-12.
Followed    enoche/MMRec@e775373 src/models/bm3.py, the authors' own port; compared gradient by
            gradient by `python -m benchmarks.parity.baselines --model BM3` (no code taken).

    h = (1/(L+1)) Σ_l Âˡ [E_u; E_i],  items also + E_i      z_m = W_m f_m + b_m
    h̃, z̃ = dropout of h, z as constants                     P = one shared linear map
    UI  = D(P h_u, h̃_i) + D(P h_i, h̃_u)                     D = mean 1 − cos
    MM  = Σ_m D(P z_m, h̃_i) + D(P z_m, z̃_m)
    loss = UI + cl_weight · MM + reg_weight · (‖h_u‖_F + ‖h_i‖_F) / I, norms of all rows
    s(u, i) = ⟨P h_u, P h_i⟩

    Within a step a user or an item has one mask, even if the batch names it twice.

Deviations  D1 an item without a modality is excluded from that modality's means.
            D2 the norms are divided by the number of real items (the reference's tables have no
               PAD row, ours does).
Shapes      node table [user_num + item_num, d], features [item_num, f_m]; row 0 is PAD.
Cost        2L sparse products per step; features of the batch's positives only.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from alignrec_recbole import losses
from alignrec_recbole.graphs.user_item import bipartite_adjacency
from alignrec_recbole.models._base import UserItemEmbedding
from alignrec_recbole.models._content import ContentRecommender, ModalityFeatures
from alignrec_recbole.ops import columns
from alignrec_recbole.ops.propagation import layer_mean
from alignrec_recbole.ops.rows import distinct_places, gather_rows
from alignrec_recbole.settings import MAX_LAYERS, Settings


class BM3Settings(Settings):
    """Hyper-parameters; defaults and their sources are in properties/model/BM3.yaml."""

    embedding_size: int = Field(gt=0, description="d")
    n_layers: int = Field(ge=0, le=MAX_LAYERS, description="layers of the user-item graph L")
    dropout: float = Field(ge=0, lt=1, description="of the target views")
    reg_weight: float = Field(ge=0, description="weight of the norms of all vectors")
    cl_weight: float = Field(ge=0, description="weight of MM")
    train_features: bool = Field(description="the feature tables are trained, as in MMRec")


class BM3(ContentRecommender):
    """BM3 on any number of modalities."""

    settings_class = BM3Settings
    capture_refused = ""
    columns_refused = ""
    scores_cold_items = False  # features teach ID vectors, they do not score

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        keys = self.settings
        self.weights = {"ui": 1.0, "norms": keys.reg_weight, "mm": keys.cl_weight}
        self.nodes = UserItemEmbedding(
            self.n_users, self.n_items, keys.embedding_size, nn.init.xavier_uniform_
        )
        self.tables = ModalityFeatures(dataset, train=keys.train_features)
        self.projections = self.tables.projections(keys.embedding_size)
        self.predictor = nn.Linear(keys.embedding_size, keys.embedding_size)
        for layer in (self.predictor, *self.projections):
            nn.init.xavier_normal_(layer.weight)
        self.graph = bipartite_adjacency(self.interactions)

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """Predicted vectors of all users and items."""
        users, items = self._propagated()
        return self._predicted(users), self._predicted(items)

    def loss_terms(self, users: Tensor, positives: Tensor, negatives: Tensor) -> dict[str, Tensor]:
        """ui, norms and mm; negatives play no part."""
        all_users, all_items = self._propagated()
        user, item = gather_rows(all_users, users), gather_rows(all_items, positives)
        user_target, item_target = self._target(user, users), self._target(item, positives)
        terms = {
            "ui": losses.cosine_distance(self._predicted(user), item_target)
            + losses.cosine_distance(self._predicted(item), user_target)
        }
        if self.weights["norms"]:
            terms["norms"] = losses.l2_norm_penalty(all_users[1:], all_items[1:])
        if self.weights["mm"]:
            terms["mm"] = torch.stack(
                [self._content_loss(n, positives, item_target) for n in range(len(self.tables))]
            ).sum()
        return terms

    def _content_loss(self, number: int, items: Tensor, item_target: Tensor) -> Tensor:
        content = self.tables.project(number, self.projections[number], items=items)
        predicted, rows = self._predicted(content), self.tables.present(number, items)
        return losses.masked_cosine_distance(
            predicted, item_target, rows
        ) + losses.masked_cosine_distance(predicted, self._target(content, items), rows)

    def _target(self, vectors: Tensor, rows: Tensor) -> Tensor:
        """`vectors` [b, d] as constants, dropped out; rows that are the same have one mask."""
        place, count = distinct_places(rows)
        ones = vectors.new_ones(count, columns.whole_width(vectors))
        mask = F.dropout(ones, self.settings.dropout)[:, columns.own_slice(ones.shape[1])]
        return vectors.detach() * mask[place]

    def _predicted(self, vectors: Tensor) -> Tensor:
        """P of vectors [n, d]; it combines their columns."""
        return columns.own(self.predictor(columns.gather(vectors)))

    def _propagated(self) -> tuple[Tensor, Tensor]:
        nodes = layer_mean(self.graph, self.nodes.weight, self.settings.n_layers)
        return nodes[: self.n_users], nodes[self.n_users :] + self.nodes.items
