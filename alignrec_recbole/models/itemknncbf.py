"""ItemKNNCBF: items like those a user has, by content alone, without training.

Paper       Ferrari Dacrema et al., "Are We Really Making Much Progress? A Worrying Analysis of
            Recent Neural Recommendation Approaches", RecSys 2019, arXiv 1907.06902.
Followed    enoche/MMRec@e775373 src/models/itemknncbf.py: raw features side by side, each item
            among its own neighbours; scores compared by
            `python -m benchmarks.parity.baselines --model ItemKNNCBF` (no code taken).

    s(u, j) = Σ_{i ∈ N_u} [j ∈ kNN(i)] ⟨f_i, f_j⟩ / (‖f_i‖ ‖f_j‖ + shrink)

Deviations  D1 never an items × items matrix; scores are made for the users that are asked for.
            D2 items without features have no neighbours and are no item's neighbour.
Shapes      features [item_num, Σ f_m]; row 0 is PAD.
Cost        one blockwise I × I × f product when built; k |N_u| additions per user.
"""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from recbole.utils import ModelType
from torch import Tensor, nn

from alignrec_recbole.graphs.item_item import item_knn
from alignrec_recbole.models._content import ContentRecommender, KnnSettings, ModalityFeatures


class ItemKNNCBFSettings(KnnSettings):
    """Hyper-parameters; defaults and their sources are in properties/model/ItemKNNCBF.yaml."""

    shrink: float = Field(ge=0, description="added to the product of the norms")


class ItemKNNCBF(ContentRecommender):
    """Nearest neighbours by content."""

    type = ModelType.TRADITIONAL
    settings_class = ItemKNNCBFSettings
    scores_cold_items = False  # an item in no other item's list scores 0

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        keys = self.settings
        features = torch.cat(list(ModalityFeatures(dataset, train=False)), 1)
        self.neighbours = item_knn(
            features, keys.knn_k, keys.shrink, memory_bytes=keys.knn_memory_mb << 20
        )
        self.histories = self.interactions.astype(bool).astype(features.numpy().dtype)
        self.nothing = nn.Parameter(torch.zeros(1))  # RecBole's trainer wants a parameter

    def calculate_loss(self, interaction: Any) -> Tensor:  # type: ignore[override]
        """A constant zero: there is nothing to learn."""
        return self.nothing.sum() * 0

    def predict(self, interaction: Any) -> Tensor:
        """Scores [b] of user-item pairs."""
        scores = self.full_sort_predict(interaction)
        return scores.gather(1, interaction[self.ITEM_ID].to(scores.device)[:, None]).ravel()

    def full_sort_predict(self, interaction: Any) -> Tensor:
        """Scores [b, item_num] of users with every item, PAD included."""
        users = interaction[self.USER_ID].cpu().numpy()
        scores = (self.histories[users] @ self.neighbours).toarray()
        return torch.from_numpy(scores).to(self.nothing.device)
