"""MMGCN: one graph convolution per modality, tied together by shared ID vectors.

Paper       Wei et al., "MMGCN: Multi-modal Graph Convolution Network for Personalized
            Recommendation of Micro-video", MM 2019; equations 1-9.
Followed    enoche/MMRec@e775373 src/models/mmgcn.py, which follows the authors' weiyinwei/MMGCN;
            compared gradient by gradient by `python -m benchmarks.parity.baselines --model MMGCN`
            (no code taken).

    x⁰_m = norm([P_m; F_m W_m + b_m]) for a modality that is not text, norm([P_m; F_m]) for text
    n_m  = leaky(D⁻¹A xˡ⁻¹_m V_m,l),   o_m = leaky(U_m,l xˡ⁻¹_m + c_m,l) + E
    xˡ_m = leaky(G_m,l [n_m; o_m] + g_m,l),  l = 1 … L
    h    = (1/M) Σ_m x^L_m,   s(u, i) = ⟨h_u, h_i⟩
    loss = BPR + reg_weight · (q(E_u) + q(E_i) + Σ_{m not text} q(P_m)),
           q the mean square, of the batch's rows or of the whole table

Deviations  D1 E and P are constants as they were drawn, and the penalty, then a constant too, is
               omitted, unless `train_vectors` is set. In MMRec, as in the authors' code, both are
               tensors that no optimizer is given; the paper trains them, so does the comparison.
            D2 layers are set by `n_layers`; the reference has 3, whatever its setting.
            D3 an item without a modality has x⁰_m = 0.
            D4 the reference's latent vectors of the image, and its penalty on P, belong to all sets
               that are not text.
            D5 only the batch's rows of the last layer are computed.
            D6 scores are of the present weights, not of those before the last step.
            D7 P and E are drawn without their PAD rows, which are 0.
Shapes      node table [user_num + item_num, d]; users [user_num, w_m] and features [item_num, f_m],
            one per modality, w_m = latent_size or, for text, f_m; row 0 is PAD.
Cost        per modality one sparse product of width w_m and L − 1 of width d, and as many products
            (U + I) × w_m × (w_m + d) and (U + I) × d × 2d per step.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from alignrec_recbole import losses
from alignrec_recbole.graphs.user_item import random_walk_adjacency
from alignrec_recbole.models._base import (
    UserItemEmbedding,
    padded,
    pair_scores,
    xavier_normal_as_one,
)
from alignrec_recbole.models._content import ContentRecommender, ModalityFeatures, project
from alignrec_recbole.ops.linear import linear
from alignrec_recbole.ops.rows import gather_rows, l2_normalize_rows
from alignrec_recbole.ops.sparse import SparseOperator
from alignrec_recbole.settings import MAX_LAYERS, Settings


class MMGCNSettings(Settings):
    """Hyper-parameters; defaults and their sources are in properties/model/MMGCN.yaml."""

    embedding_size: int = Field(gt=0, description="d")
    latent_size: int = Field(gt=0, description="w_m of a modality that is not text")
    n_layers: int = Field(ge=1, le=MAX_LAYERS, description="layers L")
    reg_weight: float = Field(ge=0, description="weight of the mean squares")
    train_vectors: bool = Field(description="ID vectors and preferences are trained; not in MMRec")


class MMGCN(ContentRecommender):
    """MMGCN on any number of modalities."""

    settings_class = MMGCNSettings
    capture_refused = ""
    columns_refused = (
        "the dense layers of its graph convolutions combine the columns of whole tables"
    )

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        keys, size = self.settings, self.settings.embedding_size
        self.weights = {"bpr": 1.0, "l2": keys.reg_weight if keys.train_vectors else 0.0}
        self.nodes = UserItemEmbedding(
            self.n_users, self.n_items, size, xavier_normal_as_one(self.n_users + self.n_items - 2)
        )
        self.tables = ModalityFeatures(dataset, train=False)
        self.branches = nn.ModuleList(
            _Branch(self.n_users, width, 0 if kind == "text" else keys.latent_size, size, keys)
            for width, kind in zip(self.tables.dims, self.tables.modalities, strict=True)
        )
        for table in (self.nodes.weight, *(branch.users for branch in self.branches)):
            table.requires_grad_(keys.train_vectors)
        self.graph = random_walk_adjacency(
            dataset.pairs(), (self.n_users, self.n_items), loops=False
        )

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """Mean of the modalities' vectors of all users and items."""
        nodes = self._propagated(None)
        return nodes[: self.n_users], nodes[self.n_users :]

    def loss_terms(self, users: Tensor, positives: Tensor, negatives: Tensor) -> dict[str, Tensor]:
        """BPR and, if they are trained, mean squares of ID vectors and preferences."""
        items = torch.cat([positives, negatives.ravel()])
        rows = torch.cat([users, items + self.n_users])
        sizes = [len(users), len(users), len(items) - len(users)]
        user, positive, negative = self._propagated(rows).split(sizes)
        terms = {"bpr": losses.bpr(*pair_scores(user, positive, negative))}
        if self.weights["l2"]:
            ids = gather_rows(self.nodes.weight, rows).split([len(users), len(items)])
            branches: list[Any] = [b for b in self.branches if b.reduce is not None]
            whole = [branch.users[1:] for branch in branches]
            terms["l2"] = losses.mean_squared_penalty(*ids, *whole)
        return terms

    def _propagated(self, rows: Tensor | None) -> Tensor:
        """h of all nodes, or of some."""
        out = []
        for number, branch in enumerate(self.branches):
            reduce: Any = branch.reduce
            table = self.tables[number] if reduce is None else self.tables.project(number, reduce)
            present = self.tables.present(number)[:, None]
            out.append(
                branch(l2_normalize_rows(table) * present, self.nodes.weight, self.graph, rows)
            )
        return torch.stack(out).mean(0)


class _Branch(nn.Module):
    """The convolutions of one modality.

    Args:
        width: of the features.
        latent: they are projected to this size; 0: not projected.
        size: d.
    """

    def __init__(self, n_users: int, width: int, latent: int, size: int, keys: Any) -> None:
        super().__init__()
        self.reduce = nn.Linear(width, latent) if latent else None
        first = latent or width
        sizes = [first] + [size] * (keys.n_layers - 1)
        self.users = padded(n_users, first, nn.init.xavier_normal_)
        self.messages = nn.ParameterList(
            nn.init.xavier_normal_(torch.empty(width, width)) for width in sizes
        )
        self.own = nn.ModuleList(nn.Linear(width, size) for width in sizes)
        self.join: Any = nn.ModuleList(nn.Linear(width + size, size) for width in sizes)
        for layer in (*self.own, self.join[0]):
            nn.init.xavier_normal_(layer.weight)

    def forward(
        self,
        content: Tensor,
        ids: Tensor,
        graph: SparseOperator,
        rows: Tensor | None,
    ) -> Tensor:
        """x^L of all nodes, or of some, from the items' unit rows [item_num, first]."""
        x = torch.cat([l2_normalize_rows(self.users), content])
        for number, message in enumerate(self.messages):
            sent = linear(x, message.T)
            if rows is not None and number == len(self.messages) - 1:
                heard = graph.rows(rows, sent)
                x, ids = gather_rows(x, rows), gather_rows(ids, rows)
            else:
                heard = graph @ sent
            own = F.leaky_relu(project(x, self.own[number])) + ids
            heard, join = F.leaky_relu(heard), self.join[number]
            left, right = join.weight.tensor_split([heard.shape[1]], 1)  # spares [n_m; o_m]
            x = F.leaky_relu(linear(heard, left, join.bias) + linear(own, right))
        return x
