"""What DRAGON and COHESION share: contents by two layers, a graph of users and one of items.

    z_m = V_m leaky(W_m f_m + b_m) + c_m of items,   p_m of users, learnt
    h_u = y_u + (T y)_u,  h_i = y_i + (Sⁿ y)_i,   s(u, i) = ⟨h_u, h_i⟩
    T   softmax of the numbers of common items of a user's k nearest users;  S as in FREEDOM

A model makes y of z, p and the graph of interactions.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from alignrec_recbole.features.item_order import tie_ranks
from alignrec_recbole.graphs.user_item import (
    bipartite_adjacency,
    row_softmax,
    user_cooccurrence_graph,
)
from alignrec_recbole.models._base import GraphSettings, padded
from alignrec_recbole.models._content import (
    ContentRecommender,
    ItemGraphSettings,
    ModalityFeatures,
    project,
)
from alignrec_recbole.ops.rows import gather_rows
from alignrec_recbole.ops.sparse import SparseOperator
from alignrec_recbole.settings import MAX_LAYERS


class TwoGraphSettings(GraphSettings, ItemGraphSettings):
    """Settings of both; `reg_weight` is the model's own."""

    n_mm_layers: int = Field(ge=0, le=MAX_LAYERS, description="layers of the item graph n")
    user_k: int = Field(gt=0, description="neighbours of a user in T")
    mm_image_weight: float = Field(ge=0, le=1, description="weight of all that is not text")


class TwoGraphRecommender(ContentRecommender):
    """Tables p, the layers of z, the graph of interactions, T and S."""

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        keys, size = self.settings, self.settings.embedding_size
        self.weights = {"bpr": 1 / math.log(2), "squares": keys.reg_weight}
        self.tables = ModalityFeatures(dataset, train=False)
        self.projections = self.tables.projections(4 * size)
        self.outer = nn.ModuleList(nn.Linear(4 * size, size) for _ in self.tables)
        self.preferences = nn.ParameterList(
            padded(self.n_users, size, nn.init.xavier_normal_) for _ in self.tables
        )
        self.graph = bipartite_adjacency(self.interactions)
        shape = self.n_users, self.n_items
        place = tie_ranks(dataset.field2id_token[dataset.uid_field])
        self.user_user = SparseOperator(
            row_softmax(user_cooccurrence_graph(dataset.pairs(), shape, keys.user_k, place))
        )
        self.item_item = self.tables.item_graph(keys.mm_image_weight, keys)

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """h of all users and items."""
        users, items = self._propagated()
        content = items
        for _ in range(self.settings.n_mm_layers):
            content = self.item_item @ content
        return users + self.user_user @ users, items + content

    @abstractmethod
    def _propagated(self) -> tuple[Tensor, Tensor]:
        """y of all users and items, the modalities side by side."""

    def _at_rows(self, users: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
        """h of some users and items."""
        all_users, all_items = self._propagated()
        user = gather_rows(all_users, users) + self.user_user.rows(users, all_users)
        layers, content = self.settings.n_mm_layers, all_items
        for _ in range(layers - 1):
            content = self.item_item @ content
        near = self.item_item.rows(items, content) if layers else gather_rows(content, items)
        return user, gather_rows(all_items, items) + near

    def _content(self, number: int) -> Tensor:
        """z of a modality; zero where an item is without it."""
        hidden = F.leaky_relu(self.tables.project(number, self.projections[number]))
        return project(hidden, self.outer[number]) * self.tables.present(number)[:, None]
