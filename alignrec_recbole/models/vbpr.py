"""VBPR: matrix factorisation with a second factor that users compare with item features.

Paper       He and McAuley, "VBPR: Visual Bayesian Personalized Ranking from Implicit Feedback",
            AAAI 2016, arXiv 1510.01784; equation 4 without the bias terms.
Followed    the form behind the published figures, enoche/MMRec@e775373 src/models/vbpr.py: no
            biases, an affine map of the concatenated raw features, and the penalty Σ ‖E‖_F / b of
            the batch's vectors (norms not squared). Compared gradient by gradient by
            `python -m benchmarks.parity.baselines --model VBPR` (no code taken).

    s(u, i) = ⟨γ_u, γ_i⟩ + ⟨θ_u, W f_i + c⟩ = ⟨[γ_u; θ_u], [γ_i; W f_i + c]⟩
    loss = BPR + reg_weight · NORMS

Deviations  D1 only the batch's items are projected, or every item once where a batch has
               more rows (same values).
            D2 PAD rows are zero and outside the Xavier bounds.
            D3 BPR is −ln σ; the reference's is −ln(10⁻¹⁰ + σ), another value where features are so
               large that a score differs from another by more than 18.
Shapes      users [user_num, 2d], items [item_num, d], features [item_num, f]; row 0 is PAD.
Cost        one 2b × f × d product per step.
"""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from alignrec_recbole import losses
from alignrec_recbole.models._base import padded, pair_scores
from alignrec_recbole.models._content import ContentRecommender, ModalityFeatures
from alignrec_recbole.ops.rows import gather_rows
from alignrec_recbole.settings import Settings


class VBPRSettings(Settings):
    """Hyper-parameters; defaults and their sources are in properties/model/VBPR.yaml."""

    embedding_size: int = Field(gt=0, description="d")
    reg_weight: float = Field(ge=0, description="weight of the norms of the batch's vectors")


class VBPR(ContentRecommender):
    """Visual BPR on any number of modalities."""

    settings_class = VBPRSettings
    capture_refused = ""
    columns_refused = ""

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        size = self.settings.embedding_size
        self.weights = {"bpr": 1.0, "norms": self.settings.reg_weight}
        self.users = padded(self.n_users, 2 * size, nn.init.xavier_uniform_, parts=2)
        self.items = padded(self.n_items, size, nn.init.xavier_uniform_)
        self.tables = ModalityFeatures(dataset, train=False)
        self.projection = nn.Linear(sum(self.tables.dims), size)
        nn.init.xavier_normal_(self.projection.weight)
        nn.init.zeros_(self.projection.bias)

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """[γ_u; θ_u] and [γ_i; W f_i + c] of all users and items."""
        return self.users, torch.cat([self.items, self._content()], 1)

    def loss_terms(self, users: Tensor, positives: Tensor, negatives: Tensor) -> dict[str, Tensor]:
        """BPR and the norms of the vectors in the batch."""
        rows = torch.cat([positives, negatives.ravel()])
        items = torch.cat([gather_rows(self.items, rows), self._content(rows)], 1)
        user = gather_rows(self.users, users)
        positive, negative = items.split([len(users), len(rows) - len(users)])
        terms = {"bpr": losses.bpr(*pair_scores(user, positive, negative))}
        if self.weights["norms"]:
            terms["norms"] = losses.l2_norm_penalty(user, positive, negative)
        return terms

    def _content(self, rows: Tensor | None = None) -> Tensor:
        """W f + c of all items, or of some, set by set: no copy of the features side by side."""
        weights = self.projection.weight.split(self.tables.dims, 1)
        biases = [self.projection.bias] + [None] * (len(weights) - 1)
        parts = zip(range(len(weights)), weights, biases, strict=True)
        return torch.stack([self.tables.linear(*part, rows) for part in parts]).sum(0)
