"""SMORE: features are filtered and multiplied in the frequency domain before they gate ID vectors.

Paper       Ong and Khong, "Spectrum-based Modality Representation Fusion Graph Convolutional
            Network for Multimodal Recommendation", WSDM 2025, arXiv 2412.14978; equations 2-19.
Followed    enoche/MMRec@e775373 src/models/smore.py, the authors' own port of kennethorq/SMORE;
            compared gradient by gradient by `python -m benchmarks.parity.baselines --model SMORE`
            (no code taken).

    z_m = W_m f_m + b_m,  ẑ = rfft(z),  views: c_m = irfft(ẑ_m ⊙ w_m), c_F = irfft(Π_m ẑ_m ⊙ w_F)
    h_v^i = S_vⁿ (E_i ⊙ σ(V_v c_v + e_v)),  h_v^u = R̂ h_v^i     S_F = entry-wise max of the S_m
    H = mean_l (Âˡ E),   p_v = dropout(σ(G_v H + g_v))
    side = (p_F ⊙ h_F + Σ_m p_m ⊙ softmax_d(Q_m tanh(P_m h_F + r_m)) ⊙ h_m) / (M + 1)
    h = H + side,  s(u, i) = ⟨h_u, h_i⟩
    loss = BPR + reg_weight · ½ Σ ‖h‖² / train_batch_size
           + cl_loss · (NCE(side_i → H_i) + NCE(side_u → H_u)), τ = 0.2

Deviations  D1 preferences are computed, and dropped out, for the batch's rows only where these are
               fewer than the nodes; an item twice in a batch has two masks then.
            D2 an item without a modality has only a self edge in S_m; negative cosines count 0.
            D3 `text_knn_k` is that of text, `image_knn_k` that of all others.
Shapes      node table [user_num + item_num, d], features [item_num, f_m]; row 0 is PAD.
Cost        2L + (M + 1) n + 1 sparse products and M products I × f_m × d per step (three with
            trained features).
"""

from __future__ import annotations

import functools
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from alignrec_recbole.graphs.item_item import item_graph
from alignrec_recbole.graphs.searches import Method
from alignrec_recbole.graphs.user_item import bipartite_adjacency
from alignrec_recbole.models._base import GraphSettings, UserItemEmbedding
from alignrec_recbole.models._content import ModalityFeatures
from alignrec_recbole.models._gated_views import GatedTwoView
from alignrec_recbole.models._two_views import TwoViewSettings
from alignrec_recbole.ops import columns
from alignrec_recbole.ops.sparse import SparseOperator
from alignrec_recbole.settings import MAX_LAYERS


class SMORESettings(TwoViewSettings, GraphSettings):
    """Hyper-parameters; defaults and their sources are in properties/model/SMORE.yaml."""

    n_layers: int = Field(ge=0, le=MAX_LAYERS, description="layers of the item graphs n")
    image_knn_k: int = Field(gt=0, description="neighbours by modalities that are not text")
    text_knn_k: int = Field(gt=0, description="neighbours by text")
    knn_memory_mb: int = Field(gt=0, description="memory bound of a block of similarities, in MiB")
    knn: Method = Field(description="exact, auto or approximate")
    dropout_rate: float = Field(ge=0, lt=1, description="of the preferences")
    reg_weight: float = Field(ge=0, description="weight of the vectors' squares")
    cl_loss: float = Field(ge=0, description="weight of the contrast of the two views")
    temperature: float = Field(gt=0, description="τ")
    train_features: bool = Field(description="the feature tables are trained, as in MMRec")


class SMORE(GatedTwoView):
    """SMORE on any number of modalities."""

    settings_class = SMORESettings
    capture_refused = ""
    columns_refused = ""
    drops_per_row = True

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        keys, size = self.settings, self.settings.embedding_size
        self.weights = {"bpr": 1.0, "l2": keys.reg_weight, "contrast": keys.cl_loss}
        self.l2_divisor = config["train_batch_size"]
        self.nodes = UserItemEmbedding(self.n_users, self.n_items, size, nn.init.xavier_uniform_)
        self.tables = ModalityFeatures(dataset, train=keys.train_features)
        self.projections = self.tables.projections(size)
        views = len(self.tables) + 1  # the last one is the fusion
        self.filters = nn.ParameterList(torch.randn(1, size // 2 + 1, 2) for _ in range(views))
        self.gates = nn.ModuleList(nn.Linear(size, size) for _ in range(views))
        self.preferences = nn.ModuleList(nn.Linear(size, size) for _ in range(views))
        self.queries = nn.ModuleList(
            nn.Sequential(nn.Linear(size, size), nn.Tanh(), nn.Linear(size, size, bias=False))
            for _ in self.tables
        )
        self.graph = bipartite_adjacency(self.interactions)
        self.user_item = SparseOperator(self.interactions)
        graphs = [
            item_graph(
                table.detach(),
                keys.text_knn_k if kind == "text" else keys.image_knn_k,
                method=keys.knn,
                memory_bytes=keys.knn_memory_mb << 20,
                place=self.tables.place,
            )
            for table, kind in zip(self.tables, self.tables.modalities, strict=True)
        ]
        fusion = functools.reduce(lambda one, other: one.maximum(other), graphs)
        self.item_graphs = [SparseOperator(graph) for graph in (*graphs, fusion)]

    def _content_items(self, ids: Tensor) -> Tensor:
        """h_v of all items side by side [item_num, (M + 1) d], from their ID vectors."""
        spectra = [
            torch.fft.rfft(columns.gather(self.tables.project(number, layer)), dim=1, norm="ortho")
            for number, layer in enumerate(self.projections)
        ]
        spectra.append(functools.reduce(torch.mul, spectra))
        out = []
        for spectrum, weight, gate, graph in zip(
            spectra, self.filters, self.gates, self.item_graphs, strict=True
        ):
            filtered = torch.fft.irfft(
                spectrum * torch.view_as_complex(weight),
                n=self.settings.embedding_size,
                dim=1,
                norm="ortho",
            )
            content = ids * columns.own(torch.sigmoid(gate(filtered)))
            for _ in range(self.settings.n_layers):
                content = graph @ content
            out.append(content)
        return torch.cat(out, 1)

    def _content_view(self, ids: Tensor, content: Tensor) -> Tensor:
        """The content view [n, d] of rows with ID vectors [n, d] and contents [n, (M + 1) d]."""
        views = list(content.split(ids.shape[1], dim=1))
        fusion = views[-1]
        for number, query in enumerate(self.queries):
            views[number] = torch.softmax(query(fusion), 1) * views[number]
        preferred = [
            F.dropout(torch.sigmoid(layer(ids)), self.settings.dropout_rate, self.training) * view
            for layer, view in zip(self.preferences, views, strict=True)
        ]
        return torch.stack(preferred).mean(0)
