"""DualGNN: a user's taste is a weighted sum over modalities, and partly that of similar users.

Paper       Wang et al., "DualGNN: Dual Graph Neural Network for Multimedia Recommendation", IEEE
            Transactions on Multimedia 2021, doi 10.1109/TMM.2021.3138298.
Followed    enoche/MMRec@e775373 src/models/dualgnn.py (aggr_mode add) and
            preprocessing/dualgnn-gen-u-u-matrix.py, which follow the authors' wqf321/dualgnn;
            compared gradient by gradient by `python -m benchmarks.parity.baselines --model DualGNN`
            (no code taken).

    x_m = norm([P_m; C_m leaky(B_m F_m + b_m) + c_m]),   z_m = Σ_{l ≤ L} Âˡ x_m
    r_u = Σ_m a_u,m z_m,u,   h_u = r_u + Σ_v S_uv r_v,   h_i = Σ_m z_m,i,   s(u, i) = ⟨h_u, h_i⟩
    S   a row's softmax of the numbers of common items, over the k users with most of them
    loss = BPR / ln 2 + reg_weight · (Σ_m q(P_m,u) + q(a)),
           q the mean square, of the batch's rows or of the whole table

Deviations  D1 a_u,m weighs z_m, as in the paper and the authors' code. MMRec adds text's z to the
               image's in place before it takes both for the users, who then get a_1 (z_1 + z_2) +
               a_2 z_2; the comparison takes that addition out of place.
            D2 a user with fewer than k such users has each of them once; the reference fills up by
               drawing some again in every epoch, which makes their weights random. Users with
               equally many common items are in a fixed random order, not in that of their ids.
            D3 S comes from the training interactions, without a file and never as users × users.
            D4 with one modality r = z, and a is not built. A weight of the items, which the
               reference penalises and never uses, is not built either.
            D5 an item without a modality has x_m = 0.
            D6 only the batch's rows of the items' last layer and of S are computed.
            D7 scores are of the present weights, not of those before the last step.
Shapes      users [user_num, d] and features [item_num, f_m], one per modality; a [user_num, M, 1];
            S [user_num, user_num], at most k per row; row 0 is PAD.
Cost        2L sparse products of width M d, M products I × f_m × 4d and I × 4d × d per step.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from alignrec_recbole import losses
from alignrec_recbole.features.item_order import tie_ranks
from alignrec_recbole.graphs.user_item import (
    bipartite_adjacency,
    row_softmax,
    user_cooccurrence_graph,
)
from alignrec_recbole.models._base import padded, pair_scores
from alignrec_recbole.models._content import ContentRecommender, ModalityFeatures, project
from alignrec_recbole.ops import columns
from alignrec_recbole.ops.propagation import layer_sum
from alignrec_recbole.ops.rows import gather_rows
from alignrec_recbole.ops.sparse import SparseOperator
from alignrec_recbole.settings import MAX_LAYERS, Settings


class DualGNNSettings(Settings):
    """Hyper-parameters; defaults and their sources are in properties/model/DualGNN.yaml."""

    embedding_size: int = Field(gt=0, description="d")
    n_layers: int = Field(ge=0, le=MAX_LAYERS, description="layers of the user-item graph L")
    user_k: int = Field(gt=0, description="users in a row of S, k")
    reg_weight: float = Field(ge=0, description="weight of the mean squares")


class DualGNN(ContentRecommender):
    """DualGNN on any number of modalities."""

    settings_class = DualGNNSettings
    capture_refused = ""
    columns_refused = ""
    id_only_features = "random"  # items have no ID vectors: features in their place tell them apart

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        keys, size = self.settings, self.settings.embedding_size
        self.weights = {"bpr": 1 / math.log(2), "l2": keys.reg_weight}
        self.tables = ModalityFeatures(dataset, train=False)
        self.hidden = self.tables.projections(4 * size)
        self.projections = nn.ModuleList(nn.Linear(4 * size, size) for _ in self.tables)
        self.users = nn.ParameterList(
            padded(self.n_users, size, nn.init.xavier_normal_) for _ in self.tables
        )
        if len(self.tables) > 1:
            shares = torch.zeros(self.n_users, len(self.tables), 1)
            nn.init.xavier_normal_(shares[1:])
            shares[1:] = torch.softmax(shares[1:], 1)
            self.shares = nn.Parameter(shares)
        self.graph = bipartite_adjacency(self.interactions)
        shape = self.n_users, self.n_items
        place = tie_ranks(dataset.field2id_token[dataset.uid_field])
        self.user_user = SparseOperator(
            row_softmax(user_cooccurrence_graph(dataset.pairs(), shape, keys.user_k, place))
        )

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """Vectors of all users and items."""
        nodes = self._sum_of_layers()
        users = self._tastes(nodes[: self.n_users])
        return users + self.user_user @ users, self._by_set(nodes[self.n_users :]).sum(1)

    def loss_terms(self, users: Tensor, positives: Tensor, negatives: Tensor) -> dict[str, Tensor]:
        """BPR and mean squares."""
        items = torch.cat([positives, negatives.ravel()])
        everyone = torch.arange(self.n_users, device=items.device)
        nodes = self._sum_of_layers(torch.cat([everyone, items + self.n_users]))
        of_users, of_items = nodes.split([self.n_users, len(items)])
        tastes = self._tastes(of_users)
        user = gather_rows(tastes, users) + self.user_user.rows(users, tastes)
        item = self._by_set(of_items).sum(1)
        positive, negative = item.split([len(users), len(items) - len(users)])
        terms = {"bpr": losses.bpr(*pair_scores(user, positive, negative))}
        if self.weights["l2"]:
            squares = [columns.mean(gather_rows(table, users).square()) for table in self.users]
            if len(self.tables) > 1:
                squares.append(self.shares[1:].square().mean())
            terms["l2"] = torch.stack(squares).sum()
        return terms

    def _sum_of_layers(self, rows: Tensor | None = None) -> Tensor:
        """z, the modalities side by side, of all nodes or of some [n, M d]."""
        items = []
        for number in range(len(self.tables)):
            inner = F.leaky_relu(self.tables.project(number, self.hidden[number]))
            content = columns.normalize_rows(project(inner, self.projections[number]))
            items.append(content * self.tables.present(number)[:, None])
        users = [columns.normalize_rows(table) for table in self.users]
        start = torch.cat([torch.cat(users, 1), torch.cat(items, 1)])
        return layer_sum(self.graph, start, self.settings.n_layers, rows)

    def _tastes(self, nodes: Tensor) -> Tensor:
        """r of all users."""
        views = self._by_set(nodes)
        return (views * columns.spread(self.shares)).sum(1) if len(self.tables) > 1 else views[:, 0]

    def _by_set(self, nodes: Tensor) -> Tensor:
        """[n, M d] as [n, M, d]."""
        return nodes.view(len(nodes), len(self.tables), -1)
