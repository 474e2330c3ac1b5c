"""MMGCF: LightGCN's item vectors fused late with projected features.

Paper       "Multimodal Graph Collaborative Filtering for Recommendation with Graph Convolutional
            Networks", UMAP 2026, doi 10.1145/3774935.3806158.
Followed    enoche/MMRec@e775373 src/models/mmgcf.py, the authors' own; compared gradient by
            gradient by `python -m benchmarks.parity.baselines --model MMGCF` (no code taken).

    Â_e = normalised graph of (1 − dropout) of the training edges, drawn each epoch without
          replacement with probability ∝ (d_u d_i)^-½; all edges for scoring
    H   = mean_l (Â_eˡ E),   p_m = W_m f_m (+ b_m if `normalized`), M modalities
    h_u = H_u,   h_i by `weighting`, where F is the mean, the sum or a linear layer (`fusion_mode`):
        equal       F(H_i, F(p_1, …, p_M)), and F(H_i, p_1) if M = 1
        alpha       F(σ(a) H_i, (1 − σ(a)) p_1, …, (1 − σ(a)) p_M), a learnt from 0
        normalized  F(M · norm(H_i), norm(p_1), …, norm(p_M))
    s(u, i) = ⟨h_u, h_i⟩
    loss = BPR + reg_weight · ½ Σ ‖E‖² / b over the batch's ID vectors

Deviations  D1 only the batch's rows of the last layers and of the features are computed.
            D2 p_m has the size of an ID vector; linear layers that the settings do not use are not
               built.
            D3 biases are built where they are normalised; elsewhere they cancel in the difference
               of two scores. norm() of a zero row is zero.
Shapes      node table [user_num + item_num, d], features [item_num, f_m]; row 0 is PAD.
Cost        2L sparse products per step; features of the batch's items only.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from alignrec_recbole import losses
from alignrec_recbole.graphs.user_item import bipartite_adjacency, sample_edges
from alignrec_recbole.models._base import GraphSettings, UserItemEmbedding, pair_scores
from alignrec_recbole.models._content import ContentRecommender, ModalityFeatures
from alignrec_recbole.ops.propagation import layer_mean
from alignrec_recbole.ops.rows import l2_normalize_rows


class MMGCFSettings(GraphSettings):
    """Hyper-parameters; defaults and their sources are in properties/model/MMGCF.yaml."""

    fusion_mode: Literal["mean", "sum", "concat"] = Field(description="how vectors are joined, F")
    weighting: Literal["equal", "alpha", "normalized"] = Field(
        description="how ID vector and features are weighted"
    )
    dropout: float = Field(ge=0, lt=1, description="share of the edges removed in an epoch")
    reg_weight: float = Field(ge=0, description="weight of the squares of the batch's ID vectors")


class MMGCF(ContentRecommender):
    """MMGCF on any number of modalities."""

    settings_class = MMGCFSettings
    capture_refused = ""
    columns_refused = "its fusion by `concat` and `normalized` reads all columns of a vector"

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        keys, size = self.settings, self.settings.embedding_size
        self.weights = {"bpr": 1.0, "l2": keys.reg_weight}
        self.nodes = UserItemEmbedding(self.n_users, self.n_items, size, nn.init.xavier_uniform_)
        self.tables = ModalityFeatures(dataset, train=False)
        self.projections = self.tables.projections(size, bias=keys.weighting == "normalized")
        count = len(self.tables)
        if keys.weighting == "alpha":
            self.balance = nn.Parameter(torch.tensor(0.0))
        if keys.fusion_mode == "concat":
            joined = 1 if keys.weighting == "equal" else count
            self.join = nn.Linear((1 + joined) * size, size, bias=False)
            if keys.weighting == "equal" and count > 1:
                self.join_content = nn.Linear(count * size, size, bias=False)
        self.graph = bipartite_adjacency(self.interactions)
        self.epoch_graph = self.graph

    def begin_epoch(self, generator: torch.Generator) -> None:
        """Draw this epoch's edges."""
        if self.settings.dropout:
            share = 1 - self.settings.dropout
            self.epoch_graph = sample_edges(self.interactions, share, generator)

    def changing_parts(self) -> tuple[Any, ...]:
        """The graph of the epoch."""
        return (self.epoch_graph,)

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """Vectors of all users and items on the whole graph."""
        nodes = layer_mean(self.graph, self.nodes.weight, self.settings.n_ui_layers)
        users, items = nodes.split([self.n_users, self.n_items])
        return users, self._fused(items)

    def loss_terms(self, users: Tensor, positives: Tensor, negatives: Tensor) -> dict[str, Tensor]:
        """BPR on the vectors, squares of the ID vectors."""
        batch, items = len(users), torch.cat([positives, negatives.ravel()])
        rows = torch.cat([users, items + self.n_users])
        mean, ids = layer_mean(
            self.epoch_graph, self.nodes.weight, self.settings.n_ui_layers, rows, rows
        )
        user, id_item = mean.split([batch, len(items)])
        positive, negative = self._fused(id_item, items).split([batch, len(items) - batch])
        terms = {"bpr": losses.bpr(*pair_scores(user, positive, negative))}
        if self.weights["l2"]:
            terms["l2"] = losses.l2_squared_penalty(ids, divisor=batch)
        return terms

    def _fused(self, ids: Tensor, items: Tensor | None = None) -> Tensor:
        """h_i from H_i [n, d] of `items`, or of all."""
        content = [
            self.tables.project(number, layer, items=items)
            for number, layer in enumerate(self.projections)
        ]
        weighting = self.settings.weighting
        if weighting == "alpha":
            own = torch.sigmoid(self.balance)
            return self._join([own * ids, *((1 - own) * one for one in content)], "join")
        if weighting == "normalized":
            units = [l2_normalize_rows(one) for one in content]
            return self._join([len(content) * l2_normalize_rows(ids), *units], "join")
        common = self._join(content, "join_content") if len(content) > 1 else content[0]
        return self._join([ids, common], "join")

    def _join(self, vectors: list[Tensor], layer: str) -> Tensor:
        """F of vectors [n, d] each; `layer` is the linear layer of `concat`."""
        if self.settings.fusion_mode == "concat":
            return getattr(self, layer)(torch.cat(vectors, -1))
        total = torch.stack(vectors).sum(0)
        return total if self.settings.fusion_mode == "sum" else total / len(vectors)
