"""SLMRec: one graph convolution a view, all fused, with contrasts from ID to each feature set.

Paper       Tao et al., "Self-supervised Learning for Multimedia Recommendation", IEEE Transactions
            on Multimedia 2022, doi 10.1109/TMM.2022.3187556; its fine-and-coarse task (FAC).
Followed    enoche/MMRec@e775373 src/models/slmrec.py (FAC, fusion by concatenation, adj_type pre),
            which follows the authors' zltao/SLMRec; compared gradient by gradient by
            `python -m benchmarks.parity.baselines --model SLMRec` (no code taken).

    h_v = mean_l Âˡ [E_u; X_v],  X_0 = E_i,  X_m = W_m norm(f_m) + b_m
    u = A_u [h_0 … h_M]_u + a_u,   i = A_i [h_0 … h_M]_i + a_i,   s(u, i) = ⟨u, i⟩
    fine    x_1 = B_1 h_0,  x_m = B_m x_{m−1}       coarse   y_m = C_m x_m,  z_m = D_m h_m
    FAC  = NCE⟨x_1, D_1 h_1⟩ + Σ_{m>1} NCE⟨y_m, z_m⟩ over the batch's positives, inner products
    loss = NCE(u → i) by cosine, τ = temp, + ssl_alpha · FAC, τ = ssl_temp;  B, C affine, D linear

Deviations  D1 all views go through the graph side by side; only the batch's rows of the last layer
               and of the fusion are computed (same values).
            D2 scores are inner products, not their sigmoid, which ties large ones in float32; and
               of the present weights, not of those before the last step.
            D3 the reference has two modalities; its two steps to the second (through audio, which
               is commented out there) are the fine and the coarse step here. So the order of the
               modalities matters: each x_m is computed from the one before.
            D4 D has no bias: it moves all scores of a row alike (the reference has one whose
               gradient is rounding).
            D5 an item without a modality has a zero vector in it before the graph.
Shapes      node table [user_num + item_num, d], features [item_num, f_m]; row 0 is PAD.
Cost        2L sparse products of width (M + 1) d, M products I × f_m × d and M + 1 softmaxes b × b
            per step.
"""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from alignrec_recbole import losses
from alignrec_recbole.graphs.user_item import bipartite_adjacency
from alignrec_recbole.models._base import UserItemEmbedding
from alignrec_recbole.models._content import ContentRecommender, ModalityFeatures
from alignrec_recbole.ops import columns
from alignrec_recbole.ops.propagation import layer_mean
from alignrec_recbole.settings import MAX_LAYERS, Settings


class SLMRecSettings(Settings):
    """Hyper-parameters; defaults and their sources are in properties/model/SLMRec.yaml."""

    embedding_size: int = Field(gt=1, description="d")
    n_layers: int = Field(ge=0, le=MAX_LAYERS, description="layers of the user-item graph L")
    temperature: float = Field(gt=0, description="τ of users with items")
    ssl_temperature: float = Field(gt=0, description="τ of FAC")
    ssl_alpha: float = Field(ge=0, description="weight of FAC")


class SLMRec(ContentRecommender):
    """SLMRec with the FAC task on any number of modalities."""

    settings_class = SLMRecSettings
    contrasts_batch = True
    capture_refused = ""
    columns_refused = ""

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        keys, size = self.settings, self.settings.embedding_size
        self.weights = {"contrast": 1.0, "fac": keys.ssl_alpha}
        self.nodes = UserItemEmbedding(self.n_users, self.n_items, size, nn.init.xavier_uniform_)
        self.tables = ModalityFeatures(dataset, train=False, unit=True)
        self.projections = self.tables.projections(size)
        later = range(1, len(self.tables))
        self.fuse_users, self.fuse_items = (
            nn.Linear((len(self.tables) + 1) * size, size) for _ in range(2)
        )
        self.fine = nn.ModuleList(nn.Linear(size, size) for _ in self.tables)
        self.coarse = nn.ModuleList(nn.Linear(size, size // 2) for _ in later)
        self.contents = nn.ModuleList(
            nn.Linear(size, size // 2 if number else size, bias=False)
            for number in range(len(self.tables))
        )
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
        self.graph = bipartite_adjacency(self.interactions)

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """Fused vectors of all users and items."""
        nodes = layer_mean(self.graph, self._start(), self.settings.n_layers)
        users, items = self._whole(nodes).split([self.n_users, self.n_items])
        return columns.own(self.fuse_users(users)), columns.own(self.fuse_items(items))

    def loss_terms(self, users: Tensor, positives: Tensor, negatives: Tensor) -> dict[str, Tensor]:
        """contrast and fac; negatives play no part."""
        keys = self.settings
        rows = torch.cat([users, positives + self.n_users])
        nodes = layer_mean(self.graph, self._start(), keys.n_layers, rows)
        user, item = self._whole(nodes).split(len(users))
        terms = {
            "contrast": losses.pair_info_nce(
                self.fuse_users(user),
                self.fuse_items(item),
                keys.temperature,
                x_ids=users,
                y_ids=positives,
                whole=True,
            )
        }
        if self.weights["fac"]:
            terms["fac"] = self._fine_and_coarse(item, positives)
        return terms

    def _fine_and_coarse(self, items: Tensor, ids: Tensor) -> Tensor:
        """FAC of the batch's items [b, (M + 1) d] with these ids [b]."""
        fine, *views = items.split(self.settings.embedding_size, dim=1)
        total = []
        for number, view in enumerate(views):
            fine = self.fine[number](fine)
            own = fine if number == 0 else self.coarse[number - 1](fine)
            total.append(
                losses.info_nce(
                    own,
                    self.contents[number](view),
                    self.settings.ssl_temperature,
                    normalise=False,
                    ids=ids,
                    whole=True,
                )
            )
        return torch.stack(total).sum()

    def _whole(self, nodes: Tensor) -> Tensor:
        """Nodes [n, (M + 1) d] with all columns, which the dense layers combine."""
        return columns.gather(nodes.view(len(nodes), len(self.tables) + 1, -1)).flatten(1)

    def _start(self) -> Tensor:
        """The views side by side [user_num + item_num, (M + 1) d]; users are the same in all."""
        contents = [
            self.tables.project(number, layer) * self.tables.present(number)[:, None]
            for number, layer in enumerate(self.projections)
        ]
        users = self.nodes.users.repeat(1, len(contents) + 1)
        return torch.cat([users, torch.cat([self.nodes.items, *contents], 1)])
