"""LGMRec: local vectors from graphs, global ones from a few hyperedges that features define.

Paper       Guo et al., "LGMRec: Local and Global Graph Learning for Multimodal Recommendation",
            AAAI 2024, arXiv 2312.16400; equations 1-16.
Followed    enoche/MMRec@e775373 src/models/lgmrec.py, the authors' own port of
            georgeguo-cn/LGMRec; compared gradient by gradient by
            `python -m benchmarks.parity.baselines --model LGMRec` (no code taken).

    C   = mean_l (Âˡ E)                            z_m^i = F_m W_m, z_m^u = mean of u's items
    G_m = Âⁿ [z_m^u; z_m^i]         K_m^i = gumbel(F_m V_m), K_m^u = gumbel(R F_m V_m)
    X⁰ = C_i;  Y = drop(K^i)ᵀ Xˡ,  Xˡ⁺¹ = drop(K^i) Y,  U_m = drop(K^u) Y;   X_m, U_m of the last l
    h   = C + Σ_m norm(G_m) + α norm(Σ_m [U_m; X_m]),   s(u, i) = ⟨h_u, h_i⟩
    loss = BPR + reg_weight · NORMS + cl_weight · HCL
    HCL = Σ over the batch of NCE(U_m → U_m' among all users) + NCE(X_m → X_m' among all items),
          for every two modalities m before m'; NORMS = Σ ‖h‖_F / b; τ = 0.2 everywhere

Deviations  D1 scoring uses the softmax without Gumbel noise and without dropout (the reference
               draws noise when scoring too, so that its scores are random).
            D2 one modality has no HCL (the reference crashes); of two, the order is the given one.
            D3 only the batch's rows of the last modal layer are computed.
            D4 the softmax with all rows is computed in blocks.
Shapes      node table [user_num + item_num, d], features [item_num, f_m], W_m [f_m, d],
            V_m [f_m, hyper_num]; row 0 is PAD, in no hyperedge.
Cost        2L + 2n sparse products of width d and M d, M products I × f_m × (d + hyper_num), and
            b × (U + I) × d for HCL per step.
"""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from alignrec_recbole import losses
from alignrec_recbole.graphs.user_item import bipartite_adjacency
from alignrec_recbole.models._base import GraphSettings, UserItemEmbedding, pair_scores
from alignrec_recbole.models._content import ContentRecommender, ModalityFeatures
from alignrec_recbole.ops import columns
from alignrec_recbole.ops.propagation import layer_mean
from alignrec_recbole.ops.rows import gather_rows
from alignrec_recbole.ops.sparse import SparseOperator
from alignrec_recbole.settings import MAX_LAYERS


class LGMRecSettings(GraphSettings):
    """Hyper-parameters; defaults and their sources are in properties/model/LGMRec.yaml."""

    n_mm_layers: int = Field(ge=1, le=MAX_LAYERS, description="layers of the modal graph n")
    n_hyper_layer: int = Field(ge=1, le=MAX_LAYERS, description="layers of the hypergraph")
    hyper_num: int = Field(gt=0, description="hyperedges per modality")
    keep_rate: float = Field(gt=0, le=1, description="share of hyperedge memberships retained")
    alpha: float = Field(ge=0, description="α, weight of the global vectors")
    cl_weight: float = Field(ge=0, description="weight of HCL")
    reg_weight: float = Field(ge=0, description="weight of the norms of the batch's vectors")
    temperature: float = Field(ge=0.02, description="τ")


class _Global(NamedTuple):
    """Global vectors of one modality: users [user_num, d], items [item_num, d]."""

    users: Tensor
    items: Tensor


class LGMRec(ContentRecommender):
    """LGMRec on any number of modalities."""

    settings_class = LGMRecSettings
    capture_refused = ""
    columns_refused = ""
    scores_cold_items = False  # beside hyperedges such an item has a random ID vector, and no edges

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        keys, size = self.settings, self.settings.embedding_size
        self.weights = {"bpr": 1.0, "norms": keys.reg_weight, "hcl": keys.cl_weight}
        self.nodes = UserItemEmbedding(self.n_users, self.n_items, size, nn.init.xavier_uniform_)
        self.tables = ModalityFeatures(dataset, train=False)
        self.projections, self.hyperedges = (
            nn.ParameterList(
                nn.init.xavier_uniform_(torch.empty(f, width)) for f in self.tables.dims
            )
            for width in (size, keys.hyper_num)
        )
        self.graph = bipartite_adjacency(self.interactions)
        counts = self.interactions.astype(bool).astype(np.float64)
        self.user_counts = SparseOperator(counts)
        totals = np.asarray(counts.sum(1)).ravel()
        self.user_means = SparseOperator(sp.diags(1 / np.maximum(totals, 1)) @ counts)

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """Vectors of all users and items, without chance."""
        ids = layer_mean(self.graph, self.nodes.weight, self.settings.n_ui_layers)
        made = self._products()
        hyper = self._globals(ids[self.n_users :], [logits for _, logits in made])
        modal = self.graph @ self._before_last_layer([content for content, _ in made])
        fused = self._fuse(ids, modal, torch.cat([self._total(hyper, 0), self._total(hyper, 1)]))
        return fused[: self.n_users], fused[self.n_users :]

    def loss_terms(self, users: Tensor, positives: Tensor, negatives: Tensor) -> dict[str, Tensor]:
        """bpr, norms and, with more than one modality, hcl."""
        items = torch.cat([positives, negatives.ravel()])
        rows = torch.cat([users, items + self.n_users])
        ids = layer_mean(self.graph, self.nodes.weight, self.settings.n_ui_layers)
        made = self._products()
        hyper = self._globals(ids[self.n_users :], [logits for _, logits in made])
        spread = torch.cat(
            [gather_rows(self._total(hyper, 0), users), gather_rows(self._total(hyper, 1), items)]
        )
        modal = self.graph.rows(rows, self._before_last_layer([content for content, _ in made]))
        fused = self._fuse(gather_rows(ids, rows), modal, spread)
        user, positive, negative = fused.split([len(users), len(users), len(items) - len(users)])
        terms = {"bpr": losses.bpr(*pair_scores(user, positive, negative))}
        if self.weights["norms"]:
            terms["norms"] = losses.l2_norm_penalty(user, positive, negative)
        if self.weights["hcl"] and len(hyper) > 1:
            terms["hcl"] = self._contrast(hyper, users, positives)
        return terms

    def _products(self) -> list[tuple[Tensor, Tensor]]:
        """F_m W_m [item_num, d] and F_m V_m [item_num, hyper_num] of every modality.

        They are one product: that of V_m alone, a few columns wide, would take longer than both.
        """
        sizes = [self.settings.embedding_size, self.settings.hyper_num]
        out = []
        for number, weights in enumerate(zip(self.projections, self.hyperedges, strict=True)):
            both = self.tables.linear(number, torch.cat(weights, 1).T)
            content, logits = columns.gather(both, sum(sizes)).split(sizes, 1)
            out.append((columns.own(content), logits))
        return out

    def _before_last_layer(self, content: list[Tensor]) -> Tensor:
        """Âⁿ⁻¹ [z^u; z^i], the modalities side by side [user_num + item_num, M d]."""
        items = torch.cat(content, 1)
        modal = torch.cat([self.user_means @ items, items])
        for _ in range(self.settings.n_mm_layers - 1):
            modal = self.graph @ modal
        return modal

    def _globals(self, items: Tensor, logits_of_sets: list[Tensor]) -> list[_Global]:
        """U_m and X_m of every modality from the items' ID vectors [item_num, d] and F_m V_m."""
        drop = 1 - self.settings.keep_rate
        real = (torch.arange(self.n_items, device=items.device) > 0)[:, None]
        out = []
        for logits in logits_of_sets:
            of_items = F.dropout(self._membership(logits) * real, drop, self.training)
            of_items = columns.spread(of_items)
            of_users = F.dropout(self._membership(self.user_counts @ logits), drop, self.training)
            of_users = columns.spread(of_users)
            vectors = items
            for _ in range(self.settings.n_hyper_layer):
                edge_vectors = of_items.T @ vectors  # [hyper_num, d]
                vectors = of_items @ edge_vectors
            out.append(_Global(of_users @ edge_vectors, vectors))
        return out

    def _membership(self, logits: Tensor) -> Tensor:
        if self.training:
            return F.gumbel_softmax(logits, self.settings.temperature, dim=1)
        return torch.softmax(logits / self.settings.temperature, 1)

    def _total(self, hyper: list[_Global], side: int) -> Tensor:
        return torch.stack([vectors[side] for vectors in hyper]).sum(0)

    def _fuse(self, ids: Tensor, modal: Tensor, spread: Tensor) -> Tensor:
        views = columns.normalize_rows(modal.view(len(ids), -1, ids.shape[1]))
        return ids + views.sum(1) + self.settings.alpha * columns.normalize_rows(spread)

    def _contrast(self, hyper: list[_Global], users: Tensor, items: Tensor) -> Tensor:
        """HCL; PAD is no negative."""
        total = []
        for one, other in itertools.combinations(hyper, 2):
            for here, there, rows in (
                (one.users, other.users, users),
                (one.items, other.items, items),
            ):
                total.append(
                    losses.info_nce_all_negatives(
                        gather_rows(here, rows),
                        there[1:],
                        rows - 1,
                        self.settings.temperature,
                        ids=rows,
                    )
                )
        return torch.stack(total).sum()
