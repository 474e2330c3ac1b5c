"""ContentRidge: for each user a ridge regression of the interactions on the items' features.

Paper       Hoerl and Kennard, "Ridge Regression", Technometrics 1970, for every user by itself;
            with a one-hot F it is the least-squares content model of collaborative filtering.
Followed    the equations; no reference code is compared.

    w_u = argmin_w ‖x_u − F w‖² + λ‖w‖² = (FᵀF + λI)⁻¹ Fᵀ x_u      s(u, i) = f_iᵀ w_u

x_u has ones at the user's training items and zeros at all others. One f × f matrix serves every
user, and the scores are products of vectors.

Deviations  D1 no intercept: F is centred if `centre`, and a constant changes no user's order.
Shapes      X [user_num, item_num], F [item_num, Σ f_m], W [user_num, Σ f_m]; row 0 is PAD.
Cost        item_num f² + f³ multiplications and one sparse product X F, once; no items × items
            matrix.
"""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from recbole.utils import ModelType
from torch import Tensor, nn

from alignrec_recbole.features.content_map import ContentMap
from alignrec_recbole.models._closed_form import (
    ContentRows,
    content_map,
    content_rows,
    ridge_inverse,
)
from alignrec_recbole.models._content import ContentRecommender


class ContentRidgeSettings(ContentRows):
    """Hyper-parameters; defaults and their sources are in properties/model/ContentRidge.yaml."""

    reg_weight: float = Field(gt=0, description="λ")


class ContentRidge(ContentRecommender):
    """Ridge regression on content, user by user."""

    type = ModelType.TRADITIONAL
    settings_class = ContentRidgeSettings
    id_only_features = None  # content is all it has
    users: Tensor
    items: Tensor

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        keys = self.settings
        rows = content_rows(dataset, centre=keys.centre)
        histories = self.interactions.astype(bool).astype(rows.dtype)
        weights = (histories @ rows) @ ridge_inverse(rows, keys.reg_weight)
        self.register_buffer("users", torch.from_numpy(weights), persistent=False)
        self.register_buffer("items", torch.from_numpy(rows), persistent=False)
        self.nothing = nn.Parameter(torch.zeros(1))  # RecBole's trainer wants a parameter

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """w_u [user_num, Σ f_m] and f_i [item_num, Σ f_m]."""
        return self.users, self.items

    def new_items(self, dataset: Any) -> ContentMap:
        """The row of a new item is its vector."""
        return content_map(dataset, "rows", self.settings)

    def calculate_loss(self, interaction: Any) -> Tensor:  # type: ignore[override]
        """A constant zero: there is nothing to learn."""
        return self.nothing.sum() * 0
