"""MSCA: views of items by each modality and by common users, each contrasted with the ID view.

Paper       Li and Wang, "Multi-view Semantic Contrastive Alignment for Multimodal Recommendation",
            WWW 2026.
Followed    enoche/MMRec pull request 63, src/models/msca.py, the authors' own; compared gradient by
            gradient by `python -m benchmarks.parity.baselines --model MSCA` (no code taken).

    H   = mean_{l=1..L} (Âˡ E)
    S_m = cosine kNN graph of modality m, S_b = unweighted graph of an item itself and the knn_k
          others with most common users, two at least; each normalised
    h_m^i = S_m (E_i ⊙ σ(V_m (W_m f_m + b_m) + c_m)),   h_b^i = S_b E_i,   h_v^u = R̂ h_v^i
    side  = fusion_coeff · Σ_v (1 − a_v) h_v,  a = softmax_v(qᵀ tanh(Q h_v + r)), v: m and b
    h     = H + side,   s(u, i) = ⟨h_u, h_i⟩
    loss  = BPR + cl_weight · Σ_v (NCE(H_u → h_v^u) + NCE(H_i → h_v^i))
            + reg_weight · Σ ‖P‖² over all parameters P, the feature tables too if they are trained

Deviations  D1 items with equally many common users are in a fixed random order, not in that of
               their numbers.
            D2 the two affine maps of a gate are multiplied into one, fusion is computed for the
               batch's rows only, the gradient of a large table's squares is not formed (same
               values).
            D3 an item without a modality has only a self edge in S_m; negative cosines count 0.
Shapes      node table [user_num + item_num, d], features [item_num, f_m]; row 0 is PAD.
Cost        2L + 2 (M + 1) sparse products and M products I × f_m × d per step (three with trained
            features).
"""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from alignrec_recbole import losses
from alignrec_recbole.graphs.item_item import common_user_graph, item_graph
from alignrec_recbole.graphs.user_item import bipartite_adjacency
from alignrec_recbole.models._base import GraphSettings, UserItemEmbedding, pair_scores
from alignrec_recbole.models._content import ItemGraphSettings, ModalityFeatures
from alignrec_recbole.models._gated_views import GatedTwoView
from alignrec_recbole.models._two_views import TwoViewSettings, Views
from alignrec_recbole.ops.propagation import layer_mean
from alignrec_recbole.ops.sparse import SparseOperator
from alignrec_recbole.ops.squares import sum_of_squares
from alignrec_recbole.settings import MAX_LAYERS


class MSCASettings(TwoViewSettings, GraphSettings, ItemGraphSettings):
    """Hyper-parameters; defaults and their sources are in properties/model/MSCA.yaml."""

    n_ui_layers: int = Field(ge=1, le=MAX_LAYERS, description="layers of the user-item graph L")
    fusion_coeff: float = Field(ge=0, description="weight of the other views in a vector")
    cl_weight: float = Field(ge=0, description="weight of the contrasts")
    reg_weight: float = Field(ge=0, description="weight of the squares of all parameters")
    temperature: float = Field(gt=0, description="τ")
    train_features: bool = Field(description="the feature tables are trained, as in MMRec")


class MSCA(GatedTwoView):
    """MSCA on any number of modalities."""

    settings_class = MSCASettings
    capture_refused = ""
    columns_refused = "its penalty adds squares of tables and of dense layers"

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        keys, size = self.settings, self.settings.embedding_size
        self.weights = {"bpr": 1.0, "contrast": keys.cl_weight, "l2": keys.reg_weight}
        self.nodes = UserItemEmbedding(self.n_users, self.n_items, size, nn.init.xavier_uniform_)
        self.tables = ModalityFeatures(dataset, train=keys.train_features)
        self.projections = self.tables.projections(size)
        self.gates = nn.ModuleList(nn.Linear(size, size) for _ in self.tables)
        self.query = nn.Sequential(nn.Linear(size, size), nn.Tanh(), nn.Linear(size, 1, bias=False))
        self.graph = bipartite_adjacency(self.interactions)
        self.user_item = SparseOperator(self.interactions)
        memory, place = keys.knn_memory_mb << 20, self.tables.place
        self.item_graphs = [
            SparseOperator(
                item_graph(
                    table.detach(), keys.knn_k, method=keys.knn, memory_bytes=memory, place=place
                )
            )
            for table in self.tables
        ]
        users, items = dataset.pairs()
        self.behaviour_graph = SparseOperator(
            common_user_graph((items, users), (self.n_items, self.n_users), keys.knn_k, place)
        )

    def terms_and_views(
        self, users: Tensor, positives: Tensor, negatives: Tensor
    ) -> tuple[dict[str, Tensor], Views]:
        """BPR, contrasts of the ID view with every other, squares of the parameters."""
        batch, items = len(users), torch.cat([positives, negatives.ravel()])
        forward = self._forward(users, items)
        ids, side = forward.ids, forward.content_view
        sizes = [batch, batch, len(ids) - 2 * batch]
        user, positive, negative = (ids + side).split(sizes)
        terms = {"bpr": losses.bpr(*pair_scores(user, positive, negative))}
        if self.weights["contrast"]:
            terms["contrast"] = self._contrasts(ids, forward.contents(), users, positives)
        if self.weights["l2"]:
            terms["l2"] = sum_of_squares(*self.parameters())
        (id_user, id_item, _), (content_user, content_item, _) = ids.split(sizes), side.split(sizes)
        return terms, Views(id_user, content_user, id_item, content_item, user, positive)

    def _contrasts(self, ids: Tensor, rows: Tensor, users: Tensor, positives: Tensor) -> Tensor:
        """Contrasts of the ID view [n, d] with each view in rows [n, (M + 1) d], added."""
        batch, tau, terms = len(users), self.settings.temperature, []
        for view in rows.split(ids.shape[1], 1):
            for part, nodes in ((slice(batch), users), (slice(batch, 2 * batch), positives)):
                terms.append(losses.info_nce(ids[part], view[part], tau, ids=nodes))
        return torch.stack(terms).sum()

    def _ids(self) -> Tensor:
        return layer_mean(self.graph, self._first_layer(), self.settings.n_ui_layers - 1)

    def _ids_of(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        layers = self.settings.n_ui_layers - 1
        return layer_mean(self.graph, self._first_layer(), layers, rows), self.nodes.items

    def _first_layer(self) -> Tensor:
        """Â E: the mean over layers 1 to L is that over layers 0 to L − 1 from here."""
        return self.graph @ self.nodes.weight

    def _content_items(self, ids: Tensor) -> Tensor:
        """h_v of all items side by side [item_num, (M + 1) d], from their ID vectors."""
        return torch.cat([*self._gated_items(ids, 1), self.behaviour_graph @ ids], 1)

    def _content_view(self, ids: Tensor, content: Tensor) -> Tensor:
        """side [n, d] of rows with contents [n, (M + 1) d]."""
        views = content.view(len(content), -1, ids.shape[1])  # [n, M + 1, d]
        share = torch.softmax(self.query(views), 1)
        return self.settings.fusion_coeff * ((1 - share) * views).sum(1)
