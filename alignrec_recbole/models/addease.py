"""AddEASE: two EASE models, one of interactions and one of features, whose weights are added.

Paper       Jeunen, Van Balen and Goethals, "Closed-Form Models for Collaborative Filtering with
            Side-Information", RecSys 2020, doi 10.1145/3383313.3418480: additive EASE.
Followed    the paper; no reference code is compared.

    W = (1 − w) B_X + w B_F      s(u, j) = Σ_{i ∈ N_u} W_ij
    B_X = EASE of X with λ       B_F = EASE of Fᵀ with λ_F

B_F is never formed by inverting items × items: with M = (FᵀF + λ_F I)⁻¹ [f, f],

    B_F,ij = f_iᵀ M f_j / (1 − f_jᵀ M f_j)      B_F,jj = 0

Deviations  D1 the paper's tags are sparse and binary; F here are dense rows, one per set divided
               by its norm, centred if `centre` (constant features then say nothing).
Shapes      X [user_num, item_num], F [item_num, Σ f_m], W [item_num, item_num], dense by
            definition; row 0 is PAD and its row and column of W are zero.
Cost        item_num³ + item_num² f multiplications, once, in one matrix of 4 · item_num² bytes
            (1.3 GiB on Sports); one that does not fit is refused before it is allocated.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from pydantic import Field

from alignrec_recbole.features.content_map import ContentMap
from alignrec_recbole.models._closed_form import (
    BLOCK_BYTES,
    ContentRows,
    SolvedRecommender,
    content_map,
    content_rows,
    ease_weights,
    gram_of,
    ridge_inverse,
)
from alignrec_recbole.ops.rows import row_blocks


class AddEASESettings(ContentRows):
    """Hyper-parameters; defaults and their sources are in properties/model/AddEASE.yaml."""

    reg_weight: float = Field(gt=0, description="λ of the interactions")
    content_reg_weight: float = Field(gt=0, description="λ_F of the features")
    content_weight: float = Field(ge=0, le=1, description="w")


class AddEASE(SolvedRecommender):
    """Additive EASE."""

    settings_class = AddEASESettings

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        keys = self.settings
        rows = content_rows(dataset, centre=keys.centre)
        weights = ease_weights(gram_of(self.histories), keys.reg_weight)
        add_content_weights(weights, rows, keys.content_reg_weight, keys.content_weight)
        self.neighbours = weights

    def new_items(self, dataset: Any) -> ContentMap:
        """The column of a new item: w B_F of its features, as an item without interactions has."""
        keys = self.settings
        found = content_map(dataset, "ease", keys, "left", weight=keys.content_weight)
        inverse = ridge_inverse(found.tensors["left"], keys.content_reg_weight)
        left = found.tensors["left"] @ inverse
        return replace(found, tensors={**found.tensors, "left": left})


def add_content_weights(
    weights: np.ndarray, rows: np.ndarray, reg_weight: float, share: float
) -> None:
    """Replace B_X by (1 − share) B_X + share B_F in its own memory, in blocks of rows.

    Args:
        weights: B_X [I, I].
        rows: F [I, f].
        reg_weight: λ_F.
    """
    n = len(weights)
    left = rows @ ridge_inverse(rows, reg_weight)
    own = np.einsum("ij,ij->i", left, rows, dtype=np.float64)
    right = (rows / (1 - own)[:, None]).astype(np.float32)
    weights *= 1 - share
    for block in row_blocks(n, 4 * n, BLOCK_BYTES):
        part = left[block] @ right.T
        part[np.arange(len(part)), np.arange(block.start, block.stop)] = 0.0
        weights[block] += share * part
