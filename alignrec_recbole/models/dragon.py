"""DRAGON: one graph convolution per modality, then a graph among users and one among items.

Paper       Zhou et al., "Enhancing Dyadic Relations with Homogeneous Graphs for Multimodal
            Recommendation", ECAI 2023, arXiv 2301.12097; equations 1-10, attentive concatenation.
Followed    enoche/MMRec@e775373 src/models/dragon.py (aggr_mode add) and its script
            preprocessing/dualgnn-gen-u-u-matrix.py; compared gradient by gradient by
            `python -m benchmarks.parity.baselines --model DRAGON` (no code taken).

    z_m = V_m leaky(W_m f_m + b_m) + c_m          x_m = norm([p_m; z_m]),  p_m of users
    y_m = Σ_{l=0..L} Âˡ x_m                       y_i = [y_m]_i,  y_u = [a_u,m y_m]_u side by side
    h_u = y_u + (T y)_u,  h_i = y_i + (Sⁿ y)_i,   s(u, i) = ⟨h_u, h_i⟩
    T   softmax of the numbers of common items of a user's k nearest users;  S as in FREEDOM
    loss = BPR / ln 2 + reg_weight · (Σ_m mean p_m² of the batch's users + mean a²)

Deviations  D1 a user with fewer than k neighbours has only those (the reference fills up to k by
               drawing some again in each epoch, which makes their weights random); users with
               equally many common items are in a fixed random order, not in that of their ids.
            D2 scores are of the present weights, not of those before the last step.
            D3 with one modality a is not built (the reference has it in the penalty alone).
            D4 an item without a modality has a zero z_m and only a self edge in its graph.
            D5 only the batch's rows of the last layers of T and S are computed.
            D6 features are constants, as they are there; its unused layers are not built.
Shapes      p_m [user_num, d], a [user_num, M, 1], features [item_num, f_m]; row 0 is PAD.
Cost        2L + n sparse products of width M d, M products I × f_m × 4d and I × 4d × d per step.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from alignrec_recbole import losses
from alignrec_recbole.models._base import padded, pair_scores
from alignrec_recbole.models._two_graphs import TwoGraphRecommender, TwoGraphSettings
from alignrec_recbole.ops import columns
from alignrec_recbole.ops.propagation import layer_sum
from alignrec_recbole.ops.rows import gather_rows


class DRAGONSettings(TwoGraphSettings):
    """Hyper-parameters; defaults and their sources are in properties/model/DRAGON.yaml."""

    reg_weight: float = Field(ge=0, description="weight of the squares of p and a")


class DRAGON(TwoGraphRecommender):
    """DRAGON on any number of modalities."""

    settings_class = DRAGONSettings
    capture_refused = ""
    columns_refused = ""
    id_only_features = "random"  # items have no ID vectors: features in their place tell them apart
    id_only_settings: ClassVar[dict[str, Any]] = {"n_mm_layers": 0}  # and no graph of them

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        if len(self.tables) > 1:
            drawn = padded(self.n_users, len(self.tables), nn.init.xavier_normal_).detach()
            shares = torch.softmax(drawn, 1)[:, :, None]
            shares[0] = 0
            self.attention = nn.Parameter(shares)

    def loss_terms(self, users: Tensor, positives: Tensor, negatives: Tensor) -> dict[str, Tensor]:
        """bpr and squares."""
        items = torch.cat([positives, negatives.ravel()])
        user, item = self._at_rows(users, items)
        positive, negative = item.split([len(users), len(items) - len(users)])
        terms = {"bpr": losses.bpr(*pair_scores(user, positive, negative))}
        if self.weights["squares"]:
            squares = [
                columns.mean(gather_rows(table, users).square()) for table in self.preferences
            ]
            if len(self.tables) > 1:
                squares.append(self.attention[1:].square().mean())
            terms["squares"] = torch.stack(squares).sum()
        return terms

    def _propagated(self) -> tuple[Tensor, Tensor]:
        """y of all users and items, the modalities side by side [·, M d]."""
        start = [
            columns.normalize_rows(torch.cat([users, self._content(number)]))
            for number, users in enumerate(self.preferences)
        ]
        nodes = layer_sum(self.graph, torch.cat(start, 1), self.settings.n_ui_layers)
        users, items = nodes.split([self.n_users, self.n_items])
        if len(self.tables) > 1:
            views = users.view(self.n_users, len(self.tables), -1)
            users = (columns.spread(self.attention) * views).view(self.n_users, -1)
        return users, items
