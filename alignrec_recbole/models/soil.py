"""SOIL: what users might have liked next, in the user-item graph and in the item graphs.

Paper       Su et al., "SOIL: Contrastive Second-Order Interest Learning for Multimodal
            Recommendation", MM 2024; equations 1-18.
Followed    TL-UESTC/SOIL@2ee898e models/soil.py; compared gradient by gradient by
            `python -m benchmarks.parity.baselines --model SOIL` (no code taken).

    R^a   each user's own items and second_order_k pairs of an own item with another one that are
          most alike, by the product of the cosines of all modalities (graphs/interest.py)
    A     = Â + ½ Â^a of both, each normalised, and R_a its user-item block
    G_m   = cosine kNN graph of modality m + graph from users' items to the interest_k items most
            like all of these, each normalised
    H     = mean_l (Aˡ E)
    p_m   = E_i ⊙ σ(V_m (W_m f_m + b_m) + c_m),   h_m^i = G_mⁿ p_m,   h_m^u = R_a h_m^i
    side  = (Σ_m h_m − C) / (M + 1),  C = Σ_m a_m h_m,  a = softmax_m(qᵀ tanh(Q h_m + r))
    h     = H + side,   s(u, i) = ⟨h_u, h_i⟩
    loss  = BPR + cl_loss · (NCE(side_i → H_i) + NCE(side_u → H_u))
            + cl_loss2 · (NCE(h_u → H_i) + NCE(h_u → side_i)), τ = 0.2

Deviations  D1 R_a is a block of A, as the paper's one normalisation of both graphs says. The
               reference divides the items' side of the second order by degrees that it reads from
               users with the items' numbers.
            D2 with one modality there is nothing to fuse: side = h_m, and q, Q are not built.
            D3 items are compared in the modalities that both have; an item without a modality has
               only a self edge in G_m. Negative cosines count 0.
            D4 equally alike pairs share the last places of the second order; in the reference
               rounding decides.
            D5 the two affine maps of a gate are multiplied into one, fusion is computed for the
               batch's rows only (same values).
            D6 of the paper, A has Â^a once; ½ is from the reference.
Shapes      node table [user_num + item_num, d], features [item_num, f_m]; row 0 is PAD.
Cost        2L + M n + 1 sparse products and M products I × f_m × d per step; the graphs, once, cost
            I² f_m and U I f_m.
"""

from __future__ import annotations

import functools
from typing import Any

import scipy.sparse as sp
import torch
from pydantic import Field
from torch import Tensor, nn

from alignrec_recbole import losses
from alignrec_recbole.graphs.interest import interest_graphs, second_order_interactions
from alignrec_recbole.graphs.item_item import item_graph
from alignrec_recbole.graphs.user_item import bipartite_adjacency, inverse_root
from alignrec_recbole.models._base import GraphSettings, UserItemEmbedding
from alignrec_recbole.models._content import ItemGraphSettings, ModalityFeatures
from alignrec_recbole.models._gated_views import GatedTwoView
from alignrec_recbole.models._two_views import TwoViewSettings, Views
from alignrec_recbole.ops.sparse import SparseOperator
from alignrec_recbole.settings import MAX_LAYERS


class SOILSettings(TwoViewSettings, GraphSettings, ItemGraphSettings):
    """Hyper-parameters; defaults and their sources are in properties/model/SOIL.yaml."""

    n_layers: int = Field(ge=0, le=MAX_LAYERS, description="layers of the item graphs n")
    interest_k: int = Field(gt=0, description="items of a user's interest per modality")
    second_order_k: int = Field(gt=0, le=100, description="pairs of the second order per user")
    cl_loss: float = Field(ge=0, description="weight of the contrast of the two views")
    cl_loss2: float = Field(ge=0, description="weight of the contrasts of users with items")
    temperature: float = Field(gt=0, description="τ")


class SOIL(GatedTwoView):
    """SOIL on any number of modalities."""

    settings_class = SOILSettings
    capture_refused = ""
    columns_refused = ""

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        keys, size = self.settings, self.settings.embedding_size
        self.weights = {"bpr": 1.0, "l2": 0.0, "contrast": keys.cl_loss, "interest": keys.cl_loss2}
        self.nodes = UserItemEmbedding(self.n_users, self.n_items, size, nn.init.xavier_uniform_)
        self.tables = ModalityFeatures(dataset, train=False)
        self.projections = self.tables.projections(size)
        self.gates = nn.ModuleList(nn.Linear(size, size) for _ in self.tables)
        if len(self.tables) > 1:
            self.query = nn.Sequential(
                nn.Linear(size, size), nn.Tanh(), nn.Linear(size, 1, bias=False)
            )
        self.graph, self.user_item = self._user_item_graph(dataset)
        self.item_graphs = self._item_graphs(dataset)

    def _user_item_graph(self, dataset: Any) -> tuple[SparseOperator, SparseOperator]:
        """A [user_num + item_num]² and R_a [user_num, item_num]."""
        likes = second_order_interactions(
            list(self.tables),
            dataset.pairs(),
            (self.n_users, self.n_items),
            self.settings.second_order_k,
            self.tables.place,
            memory_bytes=self.settings.knn_memory_mb << 20,
        )
        user, item = (sp.diags(inverse_root(likes.sum(axis))) for axis in (1, 0))
        block = (self.interactions + user @ likes @ item / 2).tocsr()
        return bipartite_adjacency(block), SparseOperator(block)

    def _item_graphs(self, dataset: Any) -> list[SparseOperator]:
        """G_m [item_num]²."""
        keys, memory = self.settings, self.settings.knn_memory_mb << 20
        shape, tables = (self.n_users, self.n_items), list(self.tables)
        place = self.tables.place
        interest = interest_graphs(
            tables, dataset.pairs(), shape, keys.interest_k, place, memory_bytes=memory
        )
        return [
            SparseOperator(
                item_graph(table, keys.knn_k, method=keys.knn, memory_bytes=memory, place=place)
                + graph
            )
            for table, graph in zip(tables, interest, strict=True)
        ]

    def terms_and_views(
        self, users: Tensor, positives: Tensor, negatives: Tensor
    ) -> tuple[dict[str, Tensor], Views]:
        """BPR, contrast of content and ID view, contrasts of users with their items in both."""
        terms, views = super().terms_and_views(users, positives, negatives)
        if self.weights["interest"]:
            tau = self.settings.temperature
            of_items = functools.partial(
                losses.pair_info_nce, views.user, temperature=tau, x_ids=users, y_ids=positives
            )
            terms["interest"] = of_items(views.item_id) + of_items(views.item_content)
        return terms, views

    def _content_items(self, ids: Tensor) -> Tensor:
        """h_m of all items side by side [item_num, M d], from their ID vectors."""
        return torch.cat(self._gated_items(ids, self.settings.n_layers), 1)

    def _content_view(self, ids: Tensor, content: Tensor) -> Tensor:
        """side [n, d] of rows with contents [n, M d]."""
        views = content.view(len(content), -1, ids.shape[1])  # [n, M, d]
        if views.shape[1] == 1:
            return views[:, 0]
        share = torch.softmax(self.query(views), 1)
        return ((1 - share) * views).sum(1) / (views.shape[1] + 1)
