"""GRCN: doubtful edges of the user-item graph lose their weight, judged by item features.

Paper       Wei et al., "Graph-Refined Convolutional Network for Multimedia Recommendation with
            Implicit Feedback", MM 2020, arXiv 2008.10137; equations 1-11.
Followed    enoche/MMRec@e775373 src/models/grcn.py, which follows the authors' weiyinwei/GRCN;
            compared gradient by gradient by `python -m benchmarks.parity.baselines --model GRCN`
            (no code taken).

    f_m = norm(leaky(W_m F_m + b_m)),  p_m = norm(P_m);   n times p_m ← norm(p_m + Σ_i a_ui f_m,i)
    x_m = [p_m; f_m];   a_m(s → r) = softmax over the senders s of r of ⟨x_m,r, x_m,s⟩
    c_m = x_m + Σ_s a_m(s → r) x_m,s
    w(s → r) = max(0, max_m a_m(s → r) t_m,s)          t_m,s a learnt trust of s in modality m
    e   = norm(E);   e' = Σ_s w e_s,   e" = Σ_s w e'_s
    h   = [e + e' + e", c_1 … c_M],   s(u, i) = ⟨h_u, h_i⟩
    loss = BPR + reg_weight · (q(E_u) + q(E_i) + Σ_m q(P_m,u) + Σ_{m not text} q(P_m)),
           q the mean square, of the batch's rows or of the whole table

Deviations  D1 n_routings (n) is 0. The reference's `n_layers` rounds go along user → item edges and
               then read the users, so that no round reaches them, in MMRec as in the authors' code:
               whatever `n_layers` is there, it computes n = 0. n > 0 is the paper's routing.
            D2 an item without a modality has a zero vector in it.
            D3 any modalities: the reference needs an image (with text alone it crashes); its
               penalty on the image's whole P applies to all modalities but text.
            D4 scores are of the present weights, not of those before the last step.
            D5 P and E are drawn without their PAD rows, which are 0.
Shapes      node tables [user_num + item_num, d] and [user_num + item_num, M], users
            [user_num, d_c] and features [item_num, f_m], one per modality; row 0 is PAD.
Cost        per step and modality 1 + n rounds of edge products, softmax and sums of width d_c and a
            product I × f_m × d_c, and two sums of width d; E numbers per edge weight, not E × d.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from alignrec_recbole import losses
from alignrec_recbole.models._base import (
    UserItemEmbedding,
    padded,
    pair_scores,
    xavier_normal_as_one,
)
from alignrec_recbole.models._content import ContentRecommender, ModalityFeatures
from alignrec_recbole.ops.edge_weights import EdgeWeights
from alignrec_recbole.ops.rows import gather_rows, l2_normalize_rows
from alignrec_recbole.settings import MAX_LAYERS, Settings


class GRCNSettings(Settings):
    """Hyper-parameters; defaults and their sources are in properties/model/GRCN.yaml."""

    embedding_size: int = Field(gt=0, description="d")
    latent_embedding: int = Field(gt=0, description="d_c, size of a modality's vectors")
    n_routings: int = Field(
        ge=0, le=MAX_LAYERS, description="rounds of routing n; 0: as the reference"
    )
    reg_weight: float = Field(ge=0, description="weight of the mean squares")


class GRCN(ContentRecommender):
    """GRCN on any number of modalities."""

    settings_class = GRCNSettings
    capture_refused = ""
    columns_refused = "the weights of its edges are inner products of whole tables"

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        keys, count = self.settings, self.n_users + self.n_items - 2
        self.weights = {"bpr": 1.0, "l2": keys.reg_weight}
        self.tables = ModalityFeatures(dataset, train=False)
        self.nodes, self.trust = (
            UserItemEmbedding(self.n_users, self.n_items, size, xavier_normal_as_one(count))
            for size in (keys.embedding_size, len(self.tables))
        )
        self.users = nn.ParameterList(
            padded(self.n_users, keys.latent_embedding, nn.init.xavier_normal_) for _ in self.tables
        )
        self.projections = self.tables.projections(keys.latent_embedding)
        for layer in (*self.projections,):
            nn.init.xavier_normal_(layer.weight)
        self.edges = EdgeWeights(dataset.pairs(), (self.n_users, self.n_items))

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """Refined ID vectors and the modalities' vectors side by side, of all users and items."""
        vectors = torch.cat(self._views(), 1)
        return vectors[: self.n_users], vectors[self.n_users :]

    def loss_terms(self, users: Tensor, positives: Tensor, negatives: Tensor) -> dict[str, Tensor]:
        """BPR and mean squares."""
        items = torch.cat([positives, negatives.ravel()])
        rows = torch.cat([users, items + self.n_users])
        vectors = torch.cat([gather_rows(view, rows) for view in self._views()], 1)
        user, positive, negative = vectors.split([len(users), len(users), len(items) - len(users)])
        terms = {"bpr": losses.bpr(*pair_scores(user, positive, negative))}
        if self.weights["l2"]:
            ids = gather_rows(self.nodes.weight, rows).split([len(users), len(items)])
            own = [gather_rows(table, users) for table in self.users]
            whole = [
                table[1:]
                for table, kind in zip(self.users, self.tables.modalities, strict=True)
                if kind != "text"
            ]
            terms["l2"] = losses.mean_squared_penalty(*ids, *own, *whole)
        return terms

    def _views(self) -> list[Tensor]:
        """[e + e' + e"], c_1 … c_M of all nodes."""
        edges, views, shares = self.edges, [], []
        for number in range(len(self.tables)):
            content = self._content(number)
            share = edges.softmax(edges.dot(content))
            views.append(content + edges.aggregate(share, content))
            shares.append(share)
        trust = gather_rows(self.trust.weight, edges.sender)  # [2E, M]
        weights = (torch.stack(shares, 1) * trust).max(1).values.relu()
        ids = l2_normalize_rows(self.nodes.weight)
        first = edges.aggregate(weights, ids)
        return [ids + first + edges.aggregate(weights, first), *views]

    def _content(self, number: int) -> Tensor:
        """[p_m; f_m] of all nodes."""
        items = F.leaky_relu(self.tables.project(number, self.projections[number]))
        items = l2_normalize_rows(items) * self.tables.present(number)[:, None]
        users = l2_normalize_rows(self.users[number])
        for _ in range(self.settings.n_routings):
            nodes = torch.cat([users, items])
            share = self.edges.softmax(self.edges.dot(nodes))
            users = l2_normalize_rows(users + self.edges.aggregate(share, nodes)[: self.n_users])
        return torch.cat([users, items])
