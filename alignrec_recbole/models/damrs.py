"""DA-MRS: item graphs on which the modalities agree, a denoised BPR, and two alignments.

Paper       Xv et al., "Improving Multi-modal Recommender Systems by Denoising and Aligning
            Multi-modal Content and User Feedback", KDD 2024; its form on LightGCN.
Followed    enoche/MMRec@e775373 src/models/damrs.py, which is XMUDM/DA-MRS@7dee19e
            src/models/lightgcn.py, and its build_iib_graph.py; compared gradient by gradient by
            `python -m benchmarks.parity.baselines --model DAMRS` (no code taken).

    S_m = normalised unweighted graph of each item's knn_k nearest by modality m, among those whose
          cosine is at least its mean over all pairs in every modality
    S_b = the same of an item itself and the cooccurrence_k others with most common users, two at
          least
    H   = mean_l (Âˡ E),   h_v = S_vⁿ E_i for the views v: each modality and b,   c = mean_v h_v
    h_u = H_u,  h_i = H_i + c_i,   s(u, i) = ⟨h_u, h_i⟩
    loss = mean[−w⁺ ln σ(s(u, p) − s(u, q)) − w⁻ ln σ(s(u, q) − s(u, p))]
           + kl_weight · KL + neighbor_weight · ND
    w⁺ = mean_v(π_v) · exp(−var_v(π_v))²,   π_v = σ(⟨h_u, norm(h_v,p)⟩), constants, and
    w⁻ = max_v(π_v) − π⁻ where mean_v(π_v) < π⁻, else 0;  π⁻ mean of the same over all negatives
    KL = mean of (σ(a) − σ(b)) (a − b), a = ⟨h_u, norm(H_i)⟩ and b = ⟨h_u, norm(c_i)⟩, over the
         batch's different users and items: both divergences of two Bernoulli variables, added
    ND = mean over the views and the batch's items of two contrasts with all items, whose positives
         are the items that all views find nearest and those that this view finds nearest
         (ops/neighbour_contrast.py)

Deviations  D1 any number of modalities; two items are compared in those that both have, and an item
               without a modality has only a self edge in its graph.
            D2 items with equally many common users are in a fixed random order, not in that of
               their numbers.
            D3 KL is computed from the inner products, not from logarithms of probabilities, which
               are infinite where a probability is rounded to 0 or 1.
            D4 w⁻ is never negative there either; the unused layers of the reference, the weights
               of its graph of common users, which it does not read, and its page ranks are not
               built.
Shapes      node table [user_num + item_num, d], features [item_num, f_m]; row 0 is PAD.
Cost        2L + (M + 1) n sparse products; for M + 1 views three products of the batch's different
            items with all items, the similarities in blocks of rows.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from alignrec_recbole import losses
from alignrec_recbole.graphs.item_item import agreed_item_graphs, common_user_graph
from alignrec_recbole.graphs.user_item import bipartite_adjacency
from alignrec_recbole.models._base import GraphSettings, UserItemEmbedding, pair_scores
from alignrec_recbole.models._content import ContentRecommender, KnnSettings, ModalityFeatures
from alignrec_recbole.ops.neighbour_contrast import neighbour_contrast
from alignrec_recbole.ops.propagation import layer_mean
from alignrec_recbole.ops.rows import distinct, gather_rows, l2_normalize_rows
from alignrec_recbole.ops.sparse import SparseOperator
from alignrec_recbole.settings import MAX_LAYERS


class DAMRSSettings(GraphSettings, KnnSettings):
    """Hyper-parameters; defaults and their sources are in properties/model/DAMRS.yaml."""

    n_mm_layers: int = Field(ge=0, le=MAX_LAYERS, description="layers of the item graphs n")
    cooccurrence_k: int = Field(gt=0, description="neighbours per item by common users")
    kl_weight: float = Field(ge=0, description="weight of KL")
    neighbor_weight: float = Field(ge=0, description="weight of ND")
    neighbor_labels: int = Field(gt=0, description="positives of each contrast of ND")
    temperature: float = Field(ge=0.02, description="τ of ND")


class DAMRS(ContentRecommender):
    """DA-MRS on LightGCN with any number of modalities."""

    settings_class = DAMRSSettings
    capture_refused = "its terms are means over a batch's different users and items, of any number"
    bfloat16_refused = "its products decide which items are near, and stay in float32"
    columns_refused = "its contrast compares the vectors of all items, with all their columns"

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        keys = self.settings
        self.weights = {"bpr": 1.0, "kl": keys.kl_weight, "neighbors": keys.neighbor_weight}
        self.nodes = UserItemEmbedding(
            self.n_users, self.n_items, keys.embedding_size, nn.init.xavier_uniform_
        )
        self.tables = ModalityFeatures(dataset, train=False)
        self.graph = bipartite_adjacency(self.interactions)
        users, items = dataset.pairs()
        place = self.tables.place
        behaviour = common_user_graph(
            (items, users), (self.n_items, self.n_users), keys.cooccurrence_k, place
        )
        content = agreed_item_graphs(
            list(self.tables), keys.knn_k, place, memory_bytes=keys.knn_memory_mb << 20
        )
        self.item_graphs = [SparseOperator(graph) for graph in (*content, behaviour)]

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """Vectors of all users and items."""
        nodes = layer_mean(self.graph, self.nodes.weight, self.settings.n_ui_layers)
        users, items = nodes.split([self.n_users, self.n_items])
        return users, items + _mean(self._views(self.nodes.items))

    def loss_terms(self, users: Tensor, positives: Tensor, negatives: Tensor) -> dict[str, Tensor]:
        """bpr, kl and neighbors."""
        (user_ids, user_place), (item_ids, item_place) = (
            distinct(users),
            distinct(torch.cat([positives, negatives.ravel()])),
        )
        ids, own = layer_mean(
            self.graph,
            self.nodes.weight,
            self.settings.n_ui_layers,
            torch.cat([user_ids, item_ids + self.n_users]),
            slice(self.n_users, None),
        )
        user, id_item = ids.split([len(user_ids), len(item_ids)])
        views = self._views(own)
        rows = [gather_rows(view, item_ids) for view in views]
        content = _mean(rows)
        terms = {"bpr": self._denoised_bpr(user, id_item + content, rows, user_place, item_place)}
        if self.weights["kl"]:
            unit_id, unit_content = l2_normalize_rows(id_item), l2_normalize_rows(content)
            terms["kl"] = losses.bernoulli_divergence(user, unit_id, unit_content)
        if self.weights["neighbors"]:
            unit = [l2_normalize_rows(view[1:]) for view in views]
            terms["neighbors"] = neighbour_contrast(
                unit, item_ids - 1, self.settings.neighbor_labels, self.settings.temperature
            )
        return terms

    def _views(self, items: Tensor) -> list[Tensor]:
        """h_v of all items, per modality and by common users."""
        out = []
        for graph in self.item_graphs:
            view = items
            for _ in range(self.settings.n_mm_layers):
                view = graph @ view
            out.append(view)
        return out

    def _denoised_bpr(
        self,
        user: Tensor,
        item: Tensor,
        views: list[Tensor],
        user_place: Tensor,
        item_place: Tensor,
    ) -> Tensor:
        """BPR of different users and items, weighted per row; places are those of the batch."""
        batch = len(user_place)
        users, items = gather_rows(user, user_place), gather_rows(item, item_place)
        positive, negative = items.split([batch, len(items) - batch])
        right, wrong = pair_scores(users, positive, negative)  # [b, 1], [b, s]
        up, down = self._row_weights(users, views, item_place)
        lost = F.softplus(wrong - right) * up[:, None] + F.softplus(right - wrong) * down[:, None]
        return lost.mean()

    @torch.no_grad()
    def _row_weights(
        self, users: Tensor, views: list[Tensor], item_place: Tensor
    ) -> tuple[Tensor, Tensor]:
        """w⁺ and w⁻ [b]."""
        batch = len(users)
        found = []
        for view in views:
            positive, negative = l2_normalize_rows(view)[item_place].split(
                [batch, len(item_place) - batch]
            )
            found.append(torch.cat(pair_scores(users, positive, negative), 1))
        likely = torch.sigmoid(torch.stack(found))  # [views, b, 1 + s]
        positive, negative = likely[..., 0], likely[..., 1:].mean()
        mean = positive.mean(0)
        up = mean * torch.exp(-2 * positive.var(0))
        down = (positive.amax(0) - negative).clamp(min=0) * (mean < negative)
        return up, down


def _mean(tensors: list[Tensor]) -> Tensor:
    return torch.stack(tensors).mean(0)
