"""CEASE: EASE that also has to explain the items' features, in one regression.

Paper       Jeunen, Van Balen and Goethals, "Closed-Form Models for Collaborative Filtering with
            Side-Information", RecSys 2020, doi 10.1145/3383313.3418480: collective EASE.
Followed    the paper; no reference code is compared.

    min_B ‖X − XB‖² + α‖Fᵀ − FᵀB‖² + λ‖B‖²   with diag(B) = 0

Stacking the rows √α Fᵀ under X gives EASE on one taller matrix, whose Gram matrix is XᵀX + α F Fᵀ:

    P = (XᵀX + α F Fᵀ + λI)⁻¹      B_ij = −P_ij / P_jj      s(u, j) = Σ_{i ∈ N_u} B_ij

Deviations  D1 the paper's tags are sparse and binary; F here are dense rows, one per set divided
               by its norm, centred if `centre` (constant features then say nothing).
            D2 α = 0 is EASE itself.
Shapes      X [user_num, item_num], F [item_num, Σ f_m], B [item_num, item_num], dense by
            definition; row 0 is PAD and its row and column of B are zero.
Cost        item_num³ multiplications, once, in one matrix of 4 · item_num² bytes (1.3 GiB on
            Sports); a matrix that does not fit is refused before it is allocated.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from alignrec_recbole.models._closed_form import (
    ContentRows,
    SolvedRecommender,
    content_rows,
    ease_weights,
    gram_of,
)


class CEASESettings(ContentRows):
    """Hyper-parameters; defaults and their sources are in properties/model/CEASE.yaml."""

    reg_weight: float = Field(gt=0, description="λ")
    content_weight: float = Field(ge=0, description="α")


class CEASE(SolvedRecommender):
    """Collective EASE."""

    settings_class = CEASESettings

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        keys = self.settings
        rows = content_rows(dataset, centre=keys.centre)
        gram = gram_of(self.histories, rows, keys.content_weight)
        self.neighbours = ease_weights(gram, keys.reg_weight)
