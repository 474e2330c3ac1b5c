"""MMGF: a linear low-pass filter on graphs of items from interactions and from each modality.

Paper       Roh, Kim, Park and Shin, "Training-free Graph Filtering via Multimodal Feature
            Refinement for Extremely Fast Multimodal Recommendation" (MM-GF), arXiv 2503.04406.
Followed    the paper and the behaviour of gracekim15237/MM-GF@01d6a93, whose graph is built from
            the training and the validation interactions; here, as everywhere, from those of
            training alone (no code taken, scores not compared).

    R̃ = D_U^−α R D_I^(α−1)      P = (R̃ᵀR̃)^∘s
    Z_m = robust(F_m) − min      Z̃_m = D_r^−α Z_m D_c^(α−1)      P_m = (Z̃_m Z̃_mᵀ)^∘s
    s(u, ·) = r_u (P + Σ_m a_m P_m)

∘s is the power of each entry; D are sums of rows and of columns; `robust` subtracts a column's
median and divides by its interquartile range; the smallest entry is then 0. a_m is `text_weight`
for texts and `non_text_weight` for all other modalities.

Deviations  D1 P_m is positive everywhere; each item i keeps its k largest P_m,ij, so that nothing
               dense in items × items is formed. With k = item_num nothing is left out.
            D2 a column whose quartiles are equal is not scaled; items without a modality, and PAD,
               have zero rows in Z_m, and the median, quartiles and minimum are of the others.
Shapes      R [user_num, item_num], F_m [item_num, f_m]; row 0 is PAD.
Cost        a blockwise I × I × f_m product per modality and one sparse R̃ᵀR̃, once.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
from pydantic import Field

from alignrec_recbole.features.item_order import tie_ranks
from alignrec_recbole.graphs.item_item import largest_products
from alignrec_recbole.models._closed_form import SolvedRecommender
from alignrec_recbole.models._content import KnnSettings


class MMGFSettings(KnnSettings):
    """Hyper-parameters; defaults and their sources are in properties/model/MMGF.yaml."""

    knn_k: int = Field(gt=0, description="entries per item of the graph of a modality")
    degree_power: float = Field(ge=0, le=1, description="α")
    power: float = Field(gt=0, description="s")
    text_weight: float = Field(ge=0, description="a of texts")
    non_text_weight: float = Field(ge=0, description="a of other modalities")


class MMGF(SolvedRecommender):
    """Multimodal graph filtering."""

    settings_class = MMGFSettings

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        keys = self.settings
        balanced = balance(self.histories, keys.degree_power)
        graph = (balanced.T @ balanced).tocsr()
        graph.data **= keys.power
        place = tie_ranks(dataset.field2id_token[dataset.iid_field])
        for table in dataset.features.values():
            weight = keys.text_weight if table.modality == "text" else keys.non_text_weight
            if weight:
                rows = positive_rows(table.values, table.present)
                similar = largest_products(
                    balance(sp.csr_matrix(rows), keys.degree_power).toarray(),
                    keys.knn_k,
                    place,
                    memory_bytes=keys.knn_memory_mb << 20,
                )
                similar.data = weight * similar.data.astype(np.float64) ** keys.power
                graph = graph + similar
        self.neighbours = graph.astype(np.float32).tocsr()


def balance(matrix: sp.csr_matrix, power: float) -> sp.csr_matrix:
    """D_r^−α M D_c^(α−1) of a non-negative matrix; rows and columns without a sum stay zero.

    >>> balance(sp.csr_matrix([[1.0, 1.0], [0.0, 2.0]]), 0.5).toarray().round(4)
    array([[0.7071, 0.4082],
           [0.    , 0.8165]])
    """
    wide = matrix.astype(np.float64)
    row, column = np.asarray(wide.sum(1)).ravel(), np.asarray(wide.sum(0)).ravel()
    left = np.where(row > 0, np.where(row > 0, row, 1.0) ** -power, 0.0)
    right = np.where(column > 0, np.where(column > 0, column, 1.0) ** (power - 1), 0.0)
    return (sp.diags(left) @ wide @ sp.diags(right)).tocsr()


def positive_rows(values: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Features by column minus median over interquartile range, less the smallest entry.

    >>> positive_rows(np.array([[0.0], [1.0], [2.0], [3.0]]), np.array([False, True, True, True]))
    array([[0.],
           [0.],
           [1.],
           [2.]])
    """
    out = np.zeros(values.shape, dtype=np.float64)
    if present.any():
        rows = values[present].astype(np.float64)
        low, middle, high = np.percentile(rows, [25, 50, 75], axis=0)
        rows = (rows - middle) / np.where(high > low, high - low, 1.0)
        out[present] = rows - rows.min()
    return out
