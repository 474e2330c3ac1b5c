"""COHESION: modalities fused with ID vectors early, refined layers, graphs of users and of items.

Paper       Xu et al., "COHESION: Composite Graph Convolutional Network with Dual-Stage Fusion for
            Multimodal Recommendation", SIGIR 2025, arXiv 2504.04452.
Followed    Jinfeng-Xu/COHESION@3fccdaf src/models/cohesion.py, and MMRec's script for the graph of
            users; compared gradient by gradient by
            `python -m benchmarks.parity.baselines --model COHESION` (no code taken).

    t_m = V_m leaky(W_m f_m + b_m) + c_m of the modalities, and of the view "id", whose f are the
          items' ID vectors e
    z_m = ((e² + t_m²)/2 + 1e-8)^½ entry by entry,   x_m = norm([p_m; z_m]),  p_m of users
    n_l = Â x_m,l-1,   x_m,l = cos(n_l, x_m) n_l,   x_m,0 = x_m,   y_m = Σ_{l=0..L} x_m,l
    y = [y_m]_m side by side, that of id among them
    h_u = y_u + (T y)_u,  h_i = y_i + (Sⁿ y)_i,   s(u, i) = ⟨h_u, h_i⟩;  T and S as in DRAGON
    loss = −log₂ σ(Σ_m w_m (s_m(u, p) − s_m(u, q))) in the mean,  s_m the part of view m, and
           w_m = 1 − softmax_m(s_m(u, p) − s_m(u, q)), a constant,
           + reg_weight · Σ_m mean p_m² of the batch's users, without id

Deviations  D1 `train_id_view` is false: the view id gives no gradient, as in the reference, which
               publishes its results so. Its p and layers stay as they were drawn, and e is learnt
               from the other views alone. With true the view is learnt like the others.
            D2 a user with fewer than k neighbours has only those (the reference fills up to k by
               drawing some again in each epoch); users with equally many common items are in a
               fixed random order, not in that of their ids.
            D3 scores are of the present weights, not of those before the last step.
            D4 an item without a modality has t_m = 0 and only a self edge in its graph.
            D5 the reference's dropout of edges, 0 in its settings, and the weights of users that
               occur in its penalty alone are not built; features are constants, as they are there.
            D6 only the batch's rows of the last layers of T and S are computed.
Shapes      p_m [user_num, d], e [item_num, d], features [item_num, f_m]; row 0 is PAD.
Cost        2L + n + 1 sparse products of width (M + 1) d, half of those of the view id if it is not
            learnt; M products I × f_m × 4d and M + 1 I × 4d × d per step.
"""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from alignrec_recbole import losses
from alignrec_recbole.models._base import padded
from alignrec_recbole.models._two_graphs import TwoGraphRecommender, TwoGraphSettings
from alignrec_recbole.ops.cosine_weights import weighted_by_cosine
from alignrec_recbole.ops.rows import gather_rows, l2_normalize_rows


class COHESIONSettings(TwoGraphSettings):
    """Hyper-parameters; defaults and their sources are in properties/model/COHESION.yaml."""

    reg_weight: float = Field(ge=0, description="weight of the squares of p")
    train_id_view: bool = Field(description="the view id is learnt")


class COHESION(TwoGraphRecommender):
    """COHESION on any number of modalities."""

    settings_class = COHESIONSettings
    capture_refused = ""
    columns_refused = "its layers and views are weighted by inner products of whole vectors"

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        keys, size = self.settings, self.settings.embedding_size
        self.id_items = padded(self.n_items, size, nn.init.xavier_normal_)
        self.id_users = padded(self.n_users, size, nn.init.xavier_normal_)
        self.id_layers = nn.Sequential(
            nn.Linear(size, 4 * size), nn.LeakyReLU(), nn.Linear(4 * size, size)
        )
        self.id_users.requires_grad_(keys.train_id_view)
        self.id_layers.requires_grad_(keys.train_id_view)

    def loss_terms(self, users: Tensor, positives: Tensor, negatives: Tensor) -> dict[str, Tensor]:
        """bpr and squares."""
        items = torch.cat([positives, negatives.ravel()])
        user, item = self._at_rows(users, items)
        positive, negative = item.split([len(users), len(items) - len(users)])
        terms = {"bpr": self._balanced_bpr(user, positive, negative)}
        if self.weights["squares"]:
            squares = [gather_rows(table, users).square().mean() for table in self.preferences]
            terms["squares"] = torch.stack(squares).sum()
        return terms

    def _balanced_bpr(self, user: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        """BPR in which a view weighs less, the better it tells the positive from the negative."""
        gap = user[:, None] * (positive[:, None] - negative.view(len(user), -1, user.shape[1]))
        gap = gap.unflatten(2, (-1, self.settings.embedding_size)).sum(3)  # [b, s, views]
        weight = 1 - gap.detach().softmax(2)
        gain = (weight * gap).sum(2)
        return losses.bpr(gain, torch.zeros_like(gain))

    def _propagated(self) -> tuple[Tensor, Tensor]:
        """y of all users and items, the views side by side [·, (M + 1) d]."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.settings.train_id_view):
            ids = self._refined([self._start(self.id_users, self.id_layers(self.id_items))])
        start = []
        for number, users in enumerate(self.preferences):
            start.append(self._start(users, self._content(number)))
        nodes = torch.cat([ids, self._refined(start)], 1)
        users, items = nodes.split([self.n_users, self.n_items])
        return users, items

    def _start(self, users: Tensor, items: Tensor) -> Tensor:
        """x_m [user_num + item_num, d] from p_m and t_m."""
        fused = ((self.id_items.square() + items.square()) / 2 + 1e-8).sqrt()
        return l2_normalize_rows(torch.cat([users, fused]))

    def _refined(self, start: list[Tensor]) -> Tensor:
        """y_m of all nodes, side by side, from x_m."""
        first = torch.cat(start, 1)
        layer = total = first
        size = self.settings.embedding_size
        for _ in range(self.settings.n_ui_layers):
            near = (self.graph @ layer).view(-1, size)
            layer = weighted_by_cosine(near, first.view(-1, size)).view(first.shape)
            total = total + layer
        return total
