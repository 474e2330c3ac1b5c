"""GUME: MGCN with edges between items that every set finds alike, and users' own content vectors.

Paper       Lin et al., "GUME: Graphs and User Modalities Enhancement for Long-Tail Multimodal
            Recommendation", CIKM 2024, arXiv 2407.12338.
Followed    NanGongNingYi/GUME@44a4dce src/models/gume.py, the authors' own; compared gradient by
            gradient by `python -m benchmarks.parity.baselines --model GUME` (no code taken).

    A = [[0, R], [Rᵀ, B]],  B_ij = 1 where j ≠ i is among i's k nearest by every modality
    Â = D^-½ A D^-½, D row sums;  R̂ its user-item block;  S_m and p_m as in MGCN (mgcn.py)
    H = mean_l (Âˡ E),   h_m^i = S_mⁿ p_m,  h_m^u = R̂ h_m^i,   side, h and s(u, i) as in MGCN
    X = mean_l Âˡ [mean_m Q_m; mean_m h_m^i],  Q_m user vectors of modality m
    loss = BPR + reg_weight · ½ Σ ‖h‖² / train_batch_size + cl_loss · (NCE(side_i → H_i)
           + NCE(side_u → H_u)) + vt_loss · VT + um_loss · UM + reg_weight_2 · ½ Σ ‖X_i‖² /
           train_batch_size over the batch's positives
    VT  = |var h_1 − var h_2| + |mean h_1 − mean h_2| over all entries of users and items, summed
          over every two modalities
    UM  = NCE(X_u → side_u) + NCE(side_u + ε → side_u + ε') + NCE(X_u + ε → X_u + ε'), τ = um_temp;
          ε = 0.1 · sign(x) ⊙ norm(r), r uniform in [0, 1]

Deviations  D1 D1-D4 of MGCN; with one modality there is no VT, and B is that modality's graph.
            D2 X is one propagation of the mean, not the mean of one per modality (same values).
            D3 ε is drawn for the batch's rows, so a user twice in a batch has two.
            D4 B takes the k of `knn_k` (the reference always compares lists of 10), of these only
               neighbours with a positive cosine.
Shapes      node table [user_num + item_num, d], Q_m [user_num, d], features [item_num, f_m]; row 0
            is PAD, outside VT.
Cost        4L + M n + 1 sparse products and M products I × f_m × d per step (three with trained
            features).
"""

from __future__ import annotations

import functools
import itertools
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from alignrec_recbole import losses
from alignrec_recbole.graphs.user_item import extended_adjacency
from alignrec_recbole.models._base import padded
from alignrec_recbole.models._two_views import Views
from alignrec_recbole.models.mgcn import MGCN, MGCNSettings
from alignrec_recbole.ops import columns
from alignrec_recbole.ops.propagation import layer_mean
from alignrec_recbole.ops.sparse import SparseOperator


class GUMESettings(MGCNSettings):
    """Hyper-parameters; defaults and their sources are in properties/model/GUME.yaml."""

    vt_loss: float = Field(ge=0, description="weight of VT")
    um_loss: float = Field(ge=0, description="weight of UM")
    um_temp: float = Field(gt=0, description="τ of UM")
    reg_weight_2: float = Field(ge=0, description="weight of the squares of X")


class GUME(MGCN):
    """GUME on any number of modalities."""

    settings_class = GUMESettings
    capture_refused = ""
    columns_refused = ""

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        keys = self.settings
        self.weights |= {"vt": keys.vt_loss, "um": keys.um_loss, "l2_user": keys.reg_weight_2}
        self.users = nn.ParameterList(
            padded(self.n_users, keys.embedding_size, nn.init.xavier_uniform_) for _ in self.tables
        )

    def _user_item_graph(self, pairs: Any) -> tuple[SparseOperator, SparseOperator]:
        """Â with edges among items, and its user-item block."""
        alike = functools.reduce(lambda a, b: a.multiply(b), (g.csr != 0 for g in self.item_graphs))
        edges = alike.tocoo()
        other = edges.row != edges.col
        links = sp.csr_matrix(
            (np.ones(other.sum()), (edges.row[other], edges.col[other])), shape=edges.shape
        )
        graph = extended_adjacency(pairs, (self.n_users, self.n_items), links)
        return SparseOperator(graph), SparseOperator(graph[: self.n_users, self.n_users :])

    def terms_and_views(
        self, users: Tensor, positives: Tensor, negatives: Tensor
    ) -> tuple[dict[str, Tensor], Views]:
        """bpr, l2, contrast of content and ID view, vt, um, l2_user."""
        batch, items = len(users), torch.cat([positives, negatives.ravel()])
        forward = self._forward(users, items, all_users=True)
        terms, views = self._gated_terms(forward, users, positives)
        assert forward.user_content is not None
        if self.weights["vt"] and len(self.tables) > 1:
            contents = torch.cat([forward.user_content[1:], forward.item_content[1:]])
            terms["vt"] = self._moments(contents)
        if self.weights["um"] or self.weights["l2_user"]:
            rows = torch.cat([users, positives + self.n_users])
            own_user, own_item = self._extended(forward.item_content, rows).split(batch)
            terms["um"] = self._agree(own_user, views.user_content, users)
            terms["l2_user"] = losses.l2_squared_penalty(own_item, divisor=self.l2_divisor)
        return terms, views

    def _extended(self, content: Tensor, rows: Tensor) -> Tensor:
        """X[rows] from h_m^i of all items side by side [item_num, M d]."""
        users = torch.stack(list(self.users)).mean(0)
        items = content.view(self.n_items, len(self.tables), -1).mean(1)
        return layer_mean(self.graph, torch.cat([users, items]), self.settings.n_ui_layers, rows)

    def _moments(self, content: Tensor) -> Tensor:
        """VT of rows [n, M d]."""
        views = content.view(len(content), len(self.tables), -1)
        moments = _moments(views)
        pairs = itertools.combinations(moments.unbind(1), 2)
        return torch.stack([(one - other).abs().sum() for one, other in pairs]).sum()

    def _agree(self, own: Tensor, content: Tensor, users: Tensor) -> Tensor:
        """UM of the batch's X_u and content views side_u [b, d]."""
        agree = functools.partial(losses.info_nce, temperature=self.settings.um_temp)
        return (
            agree(own, content, ids=users)
            + agree(_perturbed(content), _perturbed(content))
            + agree(_perturbed(own), _perturbed(own))
        )


def _moments(views: Tensor) -> Tensor:
    """Variance and mean of every modality [2, M] over rows and columns of [n, M, d]."""
    within = columns.division()
    if within is None:
        return torch.stack([views.var((0, 2)), views.mean((0, 2))])
    count = len(views) * columns.whole_width(views)
    mean = columns.total(views.sum((0, 2))) / count
    squares = (views - columns.spread(mean)[:, None]).square().sum((0, 2))
    return torch.stack([columns.total(squares) / (count - 1), mean])


def _perturbed(x: Tensor) -> Tensor:
    x = columns.gather(x)
    return columns.own(x + 0.1 * torch.sign(x) * F.normalize(torch.rand_like(x), dim=1))
