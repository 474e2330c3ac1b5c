"""ItemKNNHybrid: items like those a user has, by content and by co-occurrence together.

Paper       Ferrari Dacrema et al., "Are We Really Making Much Progress? A Worrying Analysis of
            Recent Neural Recommendation Approaches", RecSys 2019, arXiv 1907.06902, for both
            similarities and the shrinkage; the sum is ours (the paper joins both in one vector).
Followed    the equations; no reference code is compared.

    c_ij = |U_i ∩ U_j| / (√(|U_i| |U_j|) + h)      t_ij = max(⟨f_i, f_j⟩, 0)
    w_ij = (1 − w) c_ij + w t_ij for i ∈ kNN(j), else 0      s(u, j) = Σ_{i ∈ N_u} w_ij

kNN(j) are the k items with the largest w_ij, without j. So an item without interactions has
neighbours by content, and one without features by co-occurrence.

Deviations  D1 never a dense items × items matrix: blocks of rows, of which the k largest are kept.
Shapes      f [item_num, Σ f_m], rows of length 1, centred if `centre`; row 0 is PAD.
Cost        one blockwise I × I × f product and one sparse XᵀX when built; k |N_u| additions per
            user.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from alignrec_recbole.features.content_map import ContentMap
from alignrec_recbole.features.item_order import tie_ranks
from alignrec_recbole.graphs.item_item import hybrid_knn
from alignrec_recbole.models._closed_form import (
    ContentRows,
    SolvedRecommender,
    content_map,
    content_rows,
)
from alignrec_recbole.models._content import KnnSettings


class ItemKNNHybridSettings(KnnSettings, ContentRows):
    """Hyper-parameters; defaults and their sources are in properties/model/ItemKNNHybrid.yaml."""

    knn_k: int = Field(gt=0, description="neighbours per item, without itself")
    content_weight: float = Field(ge=0, le=1, description="w")
    shrink: float = Field(ge=0, description="h")


class ItemKNNHybrid(SolvedRecommender):
    """Nearest neighbours by content and co-occurrence."""

    settings_class = ItemKNNHybridSettings

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        keys = self.settings
        self.neighbours = hybrid_knn(
            self.histories,
            content_rows(dataset, centre=keys.centre),
            keys.knn_k,
            keys.content_weight,
            keys.shrink,
            tie_ranks(dataset.field2id_token[dataset.iid_field]),
            memory_bytes=keys.knn_memory_mb << 20,
        ).T.tocsr()

    def new_items(self, dataset: Any) -> ContentMap:
        """The column of a new item: its k nearest items by content."""
        keys = self.settings
        numbers = {"weight": keys.content_weight, "k": float(keys.knn_k)}
        return content_map(dataset, "hybrid", keys, "rows", **numbers)
