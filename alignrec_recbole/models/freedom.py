"""FREEDOM: a frozen item graph from features, and a user-item graph sampled again every epoch.

Paper       Zhou and Shen, "A Tale of Two Graphs: Freezing and Denoising Graph Structures for
            Multimodal Recommendation", MM 2023, arXiv 2211.06924; equations 1-11.
Followed    enoche/MMRec@e775373 src/models/freedom.py, the authors' own; compared gradient by
            gradient by `python -m benchmarks.parity.baselines --model FREEDOM` (no code taken).

    S   = Σ_m w_m D^-½ A_m D^-½, A_m the unweighted cosine kNN graph of modality m
    Â_e = normalised graph of (1 − dropout) of the training edges, drawn each epoch without
          replacement with probability ∝ (d_u d_i)^-½; all edges for scoring
    h_u = mean_l (Â_eˡ E)_u,  h_i = mean_l (Â_eˡ E)_i + Sⁿ E_i,  s(u, i) = ⟨h_u, h_i⟩
    loss = BPR(h_u, h_i) + reg_weight · Σ_m BPR(h_u, W_m f_m)

Deviations  D1 an item without a modality has only a self edge in that modality's graph.
            D2 only the batch's rows of the last layers and of the features are computed.
            D3 no bias beside W_m: it cancels in the difference of two scores (the reference has one
               whose gradient is rounding).
            D4 `mm_image_weight` is the weight of all modalities but text (_content.py).
Shapes      node table [user_num + item_num, d], features [item_num, f_m]; row 0 is PAD.
Cost        2L + n sparse products per step; features of the batch's items only.
"""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from alignrec_recbole import losses
from alignrec_recbole.graphs.user_item import bipartite_adjacency, sample_edges
from alignrec_recbole.models._base import GraphSettings, UserItemEmbedding, pair_scores
from alignrec_recbole.models._content import ItemGraphSettings, ModalityFeatures
from alignrec_recbole.models._two_views import TwoViewRecommender, TwoViewSettings, Views
from alignrec_recbole.ops.propagation import layer_mean
from alignrec_recbole.ops.rows import gather_rows
from alignrec_recbole.ops.sparse import SparseOperator
from alignrec_recbole.settings import MAX_LAYERS


class FREEDOMSettings(TwoViewSettings, GraphSettings, ItemGraphSettings):
    """Hyper-parameters; defaults and their sources are in properties/model/FREEDOM.yaml."""

    n_mm_layers: int = Field(ge=0, le=MAX_LAYERS, description="layers of the item graph n")
    mm_image_weight: float = Field(ge=0, le=1, description="weight of all that is not text")
    dropout: float = Field(ge=0, lt=1, description="share of the edges removed in an epoch")
    reg_weight: float = Field(ge=0, description="weight of BPR on the features")
    train_features: bool = Field(description="the feature tables are trained, as in MMRec")


class FREEDOM(TwoViewRecommender):
    """FREEDOM on any number of modalities."""

    settings_class = FREEDOMSettings
    capture_refused = ""
    columns_refused = ""

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        keys = self.settings
        self.weights = {"bpr": 1.0, "content": keys.reg_weight}
        self.nodes = UserItemEmbedding(
            self.n_users, self.n_items, keys.embedding_size, nn.init.xavier_uniform_
        )
        self.tables = ModalityFeatures(dataset, train=keys.train_features)
        self.projections = self.tables.projections(keys.embedding_size, bias=False)

        self.graph = bipartite_adjacency(self.interactions)
        self.epoch_graph = self.graph
        self.user_item = SparseOperator(self.interactions)
        self.item_item = self.tables.item_graph(keys.mm_image_weight, keys)

    def begin_epoch(self, generator: torch.Generator) -> None:
        """Draw this epoch's edges."""
        if self.settings.dropout:
            share = 1 - self.settings.dropout
            self.epoch_graph = sample_edges(self.interactions, share, generator)

    def changing_parts(self) -> tuple[Any, ...]:
        """The graph of the epoch."""
        return (*super().changing_parts(), self.epoch_graph)

    def _propagated_graph(self) -> SparseOperator:
        return self.epoch_graph

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """Vectors of all users and items on the whole graph."""
        return self._embeddings_on(self.graph)

    def _training_embeddings(self) -> tuple[Tensor, Tensor]:
        return self._embeddings_on(self.epoch_graph)

    def _embeddings_on(self, graph: SparseOperator) -> tuple[Tensor, Tensor]:
        nodes = layer_mean(graph, self.nodes.weight, self.settings.n_ui_layers)
        content = self._content_items(self.nodes.items)
        return nodes[: self.n_users], nodes[self.n_users :] + content

    def terms_and_views(
        self, users: Tensor, positives: Tensor, negatives: Tensor
    ) -> tuple[dict[str, Tensor], Views | None]:
        """BPR on the vectors and on the projected features."""
        batch, drawn = len(users), negatives.ravel()
        items = torch.cat([positives, drawn])
        ids, own = layer_mean(
            self.epoch_graph,
            self.nodes.weight,
            self.settings.n_ui_layers,
            torch.cat([users, items + self.n_users]),
            slice(self.n_users, None),
        )
        content = self._content_items(own)
        user, id_item = ids.split([batch, len(items)])
        content_item = gather_rows(content, items)
        positive, negative = (id_item + content_item).split([batch, len(drawn)])
        terms = {"bpr": losses.bpr(*pair_scores(user, positive, negative))}
        if self.weights["content"]:
            terms["content"] = torch.stack(
                [self._content_loss(n, user, items) for n in range(len(self.tables))]
            ).sum()
        if not self.needs_views:
            return terms, None
        return terms, Views(
            user_id=user,
            user_content=self.user_item.rows(users, content),
            item_id=id_item[:batch],
            item_content=content_item[:batch],
            user=user,
            item=positive,
        )

    def _content_loss(self, number: int, user: Tensor, items: Tensor) -> Tensor:
        content = self.tables.project(number, self.projections[number], items=items)
        positive, negative = content.split([len(user), len(items) - len(user)])
        return losses.bpr(*pair_scores(user, positive, negative))

    def _content_items(self, content: Tensor) -> Tensor:
        for _ in range(self.settings.n_mm_layers):
            content = self.item_item @ content
        return content
