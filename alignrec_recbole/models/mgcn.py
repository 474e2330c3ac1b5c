"""MGCN: features gated by ID vectors, spread over item graphs, and fused by behaviour.

Paper       Yu et al., "Multi-View Graph Convolutional Network for Multimedia Recommendation", MM
            2023, arXiv 2308.03588; equations 1-15.
Followed    enoche/MMRec@e775373 src/models/mgcn.py, which follows the authors' demonph10/MGCN;
            compared gradient by gradient by `python -m benchmarks.parity.baselines --model MGCN`
            (no code taken).

    p_m = E_i ⊙ σ(V_m (W_m f_m + b_m) + c_m)        h_m^i = S_mⁿ p_m,  h_m^u = R̂ h_m^i
    H   = mean_l (Âˡ E)                              S_m cosine kNN graph of modality m, normalised
    C   = Σ_m a_m h_m,  a = softmax_m(qᵀ tanh(Q h_m + r))
    side = (C + Σ_m σ(G_m H + g_m) ⊙ (h_m − C)) / (M + 1),    M modalities
    h   = H + side,  s(u, i) = ⟨h_u, h_i⟩
    loss = BPR + reg_weight · ½ Σ ‖h‖² / train_batch_size
           + cl_loss · (NCE(side_i → H_i) + NCE(side_u → H_u)), τ = 0.2

Deviations  D1 with one modality there is nothing to fuse: side = h_m, and q, Q, G are not built.
            D2 the two affine maps of a gate are multiplied into one (same values).
            D3 fusion is computed for the batch's rows only.
            D4 an item without a modality has only a self edge in S_m; negative cosines count 0.
Shapes      node table [user_num + item_num, d], features [item_num, f_m]; row 0 is PAD.
Cost        2L + M n + 1 sparse products and M products I × f_m × d per step (three with trained
            features).
"""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from alignrec_recbole.graphs.item_item import item_graph
from alignrec_recbole.graphs.user_item import bipartite_adjacency
from alignrec_recbole.models._base import GraphSettings, UserItemEmbedding
from alignrec_recbole.models._content import ItemGraphSettings, ModalityFeatures
from alignrec_recbole.models._gated_views import GatedTwoView
from alignrec_recbole.models._two_views import TwoViewSettings
from alignrec_recbole.ops.sparse import SparseOperator
from alignrec_recbole.settings import MAX_LAYERS


class MGCNSettings(TwoViewSettings, GraphSettings, ItemGraphSettings):
    """Hyper-parameters; defaults and their sources are in properties/model/MGCN.yaml."""

    n_layers: int = Field(ge=0, le=MAX_LAYERS, description="layers of the item graphs n")
    reg_weight: float = Field(ge=0, description="weight of the vectors' squares")
    cl_loss: float = Field(ge=0, description="weight of the contrast of the two views")
    temperature: float = Field(gt=0, description="τ")
    train_features: bool = Field(description="the feature tables are trained, as in MMRec")


class MGCN(GatedTwoView):
    """MGCN on any number of modalities."""

    settings_class: type[MGCNSettings] = MGCNSettings
    capture_refused = ""
    columns_refused = ""

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        keys, size = self.settings, self.settings.embedding_size
        self.weights = {"bpr": 1.0, "l2": keys.reg_weight, "contrast": keys.cl_loss}
        self.l2_divisor = config["train_batch_size"]
        self.nodes = UserItemEmbedding(self.n_users, self.n_items, size, nn.init.xavier_uniform_)
        self.tables = ModalityFeatures(dataset, train=keys.train_features)
        self.projections = self.tables.projections(size)
        self.gates = nn.ModuleList(nn.Linear(size, size) for _ in self.tables)
        if len(self.tables) > 1:
            self.query = nn.Sequential(
                nn.Linear(size, size), nn.Tanh(), nn.Linear(size, 1, bias=False)
            )
            self.preferences = nn.ModuleList(nn.Linear(size, size) for _ in self.tables)
        self.item_graphs = [
            SparseOperator(
                item_graph(
                    table.detach(),
                    keys.knn_k,
                    method=keys.knn,
                    memory_bytes=keys.knn_memory_mb << 20,
                    place=self.tables.place,
                )
            )
            for table in self.tables
        ]
        self.graph, self.user_item = self._user_item_graph(dataset.pairs())

    def _user_item_graph(self, pairs: Any) -> tuple[SparseOperator, SparseOperator]:
        """Â [user_num + item_num]² and R̂ [user_num, item_num]."""
        return bipartite_adjacency(self.interactions), SparseOperator(self.interactions)

    def _content_items(self, ids: Tensor) -> Tensor:
        """h_m of all items side by side [item_num, M d], from their ID vectors."""
        return torch.cat(self._gated_items(ids, self.settings.n_layers), 1)

    def _content_view(self, ids: Tensor, content: Tensor) -> Tensor:
        """The content view [n, d] of rows with ID vectors [n, d] and contents [n, M d]."""
        views = content.view(len(content), -1, ids.shape[1])  # [n, M, d]
        if views.shape[1] == 1:
            return views[:, 0]
        common = (torch.softmax(self.query(views), 1) * views).sum(1)
        side = common
        for number, layer in enumerate(self.preferences):
            side = side + torch.sigmoid(layer(ids)) * (views[:, number] - common)
        return side / (views.shape[1] + 1)
