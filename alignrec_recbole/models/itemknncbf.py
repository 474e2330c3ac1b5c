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

import numpy as np
import torch
from pydantic import Field

from alignrec_recbole.features.content_map import ContentMap
from alignrec_recbole.graphs.item_item import item_knn
from alignrec_recbole.models._closed_form import SolvedRecommender
from alignrec_recbole.models._content import KnnSettings, ModalityFeatures


class ItemKNNCBFSettings(KnnSettings):
    """Hyper-parameters; defaults and their sources are in properties/model/ItemKNNCBF.yaml."""

    shrink: float = Field(ge=0, description="added to the product of the norms")


class ItemKNNCBF(SolvedRecommender):
    """Nearest neighbours by content."""

    settings_class = ItemKNNCBFSettings
    id_only_features = None  # content is all it has
    scores_cold_items = False  # an item in no other item's list scores 0

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        keys = self.settings
        tables = ModalityFeatures(dataset, train=False)
        self.neighbours = item_knn(
            torch.cat(list(tables), 1),
            keys.knn_k,
            keys.shrink,
            tables.place,
            memory_bytes=keys.knn_memory_mb << 20,
        )

    def new_items(self, dataset: Any) -> ContentMap:
        """The column of a new item: its similarity with the items whose lists it enters."""
        rows = torch.cat(list(ModalityFeatures(dataset, train=False)), 1).numpy()
        lists, k = self.neighbours, self.settings.knn_k
        full = np.diff(lists.indptr) == k  # any item enters a list that is not full
        least = np.full(len(rows), -np.inf, dtype=np.float32)
        if full.any():
            least[full] = np.minimum.reduceat(lists.data, lists.indptr[:-1][full])
        sets = {name: table.values.shape[1] for name, table in dataset.features.items()}
        numbers = {"shrink": float(self.settings.shrink)}
        return ContentMap("knn", sets, numbers, {"rows": rows, "least": least})
