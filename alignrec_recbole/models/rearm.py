"""REARM: graphs of users and of items, attention within contents, a personal map of ID vectors.

Paper       Ma et al., "Refining Contrastive Learning and Homography Relations for Multi-Modal
            Recommendation", MM 2025, arXiv 2508.13745.
Followed    MrShouxingMa/REARM@6502a00 model.py and utils/; compared gradient by gradient by
            `python -m benchmarks.parity.baselines --model REARM` (no code taken).

    z_i   = [e_i; W_m f_i,m + b_m]_m,   z_u = [e_u; V_m p_u,m + c_m]_m,   p starts as the mean of
            the f of a user's items
    T     = w C + (1 − w) Σ_m a_m S_m, C the shares of common items (or users) of the k others with
            most, S_m the k largest cosines of p_m (or f_m), divided by k; of users and of items
    x     = norm(Tⁿ z) = [x_0; x_m]_m
    y_m   = φ(LN(x_m + A_m(x_m, x_m))) of items,   A(q, s) attention among the d entries of a row,
            q asks and s answers, LN and φ (PReLU) the same everywhere
    y_m'  = φ(LN(y_m + mean_{n≠m} B_m(y_n, y_m))) of items,   y_m' = φ(x_m) of users
    h     = mean_{l=0..L} Âˡ [x_0; y_m']_m = [h_0; h_m]_m
    t     = K_2ᵀ K_1ᵀ h_0,   K_1 = softmax(G_1 + mean G_1) [d, r], K_2 likewise [r, d], both over
            their rows;  G_1, G_2 of a node are two MLPs of k = N [h_m]_m + n, scaled to length 1
    r     = [φ(h_m) + h_0; φ(t) + h_0]_m,   s(u, i) = ⟨r_u, r_i⟩
    loss  = BPR + cl_weight · Σ_{m<n} (NCE(h_m → h_n) of the batch's users, and of its items)
            + diff_weight · Σ_{m<n} mean (H_mᵀ H_n)² of its users, and of its positives; H the rows
            minus their mean, divided by their length, which is a constant

Deviations  D1 `train_knowledge` is false: k is a constant, so N and n stay as they were drawn, as
               in the reference, which publishes its results so. With true both are learnt.
            D2 negatives, and the users with most items, follow from training rows. The reference
               takes them from validation and test rows as well.
            D3 a node with fewer than k others in C has only those (the reference fills up to k by
               drawing some again). One without any has the k nodes with most partners as there, but
               fewer where only some of equals would be among them. Nodes with equal numbers in C,
               and users with the same items in S, are in a fixed random order, not in that of ids.
            D4 p is the mean over the items that have the modality; an item or user without it has
               W f + b = 0 there and only a self edge in S_m.
            D5 the reference trains f and p, which are as wide as the features, for each item and
               each user. `train_features: false` makes f constant, and p the mean of f, without a
               table of users; at the size of Amazon Electronics it is needed.
            D6 the mean over other modalities in y', and the sums over pairs, are for more than two;
               with one, there are no B, and no terms but BPR.
            D7 K and r are computed for the batch's rows only (same values).
Shapes      node table [user_num + item_num, d], features [item_num, f_m], p [user_num, f_m]; row 0
            is PAD.
Cost        L + 2n sparse products of width (M + 1) d, 2M attentions of I × d², two MLPs of width
            r d of all nodes and 2M products of tables per step; the graphs, once, U² f_m and I² f_m
            (`knn`).
"""

from __future__ import annotations

import functools
import itertools
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from alignrec_recbole import losses
from alignrec_recbole.features.item_order import tie_ranks
from alignrec_recbole.graphs.homogeneous import (
    common_shares,
    cosine_graph,
    mean_over_items,
    same_items,
)
from alignrec_recbole.graphs.user_item import bipartite_adjacency
from alignrec_recbole.models._base import GraphSettings, UserItemEmbedding, pair_scores
from alignrec_recbole.models._content import ContentRecommender, ItemGraphSettings, ModalityFeatures
from alignrec_recbole.ops.entry_attention import entry_attention
from alignrec_recbole.ops.linear import linear
from alignrec_recbole.ops.propagation import layer_mean
from alignrec_recbole.ops.rows import distinct, gather_rows, l2_normalize_rows
from alignrec_recbole.ops.sparse import SparseOperator
from alignrec_recbole.settings import MAX_LAYERS


class REARMSettings(GraphSettings, ItemGraphSettings):
    """Hyper-parameters; defaults and their sources are in properties/model/REARM.yaml."""

    n_mm_layers: int = Field(ge=0, le=MAX_LAYERS, description="layers of the item graph n")
    n_user_layers: int = Field(ge=0, le=MAX_LAYERS, description="layers of the user graph n")
    user_k: int = Field(gt=0, description="neighbours per user, in C and in S")
    mm_image_weight: float = Field(ge=0, le=1, description="weight of all but text, items' graph")
    user_image_weight: float = Field(ge=0, le=1, description="weight of all but text, users' graph")
    item_co_weight: float = Field(ge=0, le=1, description="w of items: share of common users")
    user_co_weight: float = Field(ge=0, le=1, description="w of users: share of common items")
    rank: int = Field(gt=0, description="r")
    self_dropout: float = Field(ge=0, le=1, description="share of A that is dropped")
    mutual_dropout: float = Field(ge=0, le=1, description="share of B that is dropped")
    cl_weight: float = Field(ge=0, description="weight of the contrasts of modalities")
    diff_weight: float = Field(ge=0, description="weight of what modalities have in common")
    temperature: float = Field(gt=0, description="τ")
    train_features: bool = Field(description="the feature tables are trained, those of users too")
    train_knowledge: bool = Field(description="N and n are learnt")


class PersonalMaps(nn.Module):
    """Of each node of one kind a map d → d of rank r, which follows from its contents.

    Args:
        content: columns of the contents M d.
        size: d.
        rank: r.
        train_knowledge: the layer of the contents is learnt.
    """

    ROWS = 8192  # at once

    def __init__(self, content: int, size: int, rank: int, *, train_knowledge: bool) -> None:
        super().__init__()
        self.train_knowledge = train_knowledge
        self.knowledge = nn.Linear(content, size).requires_grad_(train_knowledge)
        width = size * rank
        self.left, self.right = (
            nn.Sequential(nn.Linear(size, width), nn.PReLU(), nn.Linear(width, width))
            for _ in range(2)
        )

    def forward(self, contents: Tensor, ids: Tensor, rows: Tensor | None = None) -> Tensor:
        """t [n, d].

        Args:
            contents: of all nodes [count, M d], PAD first.
            ids: vectors to be mapped [n, d].
            rows: their nodes [n]; None: all.
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.train_knowledge):
            known = self.knowledge(contents)
        parts = []
        for layers in (self.left, self.right):
            each = l2_normalize_rows(layers(known))
            own = each if rows is None else gather_rows(each, rows)
            parts.append((own, each[1:].mean(0)))
        (left, left_mean), (right, right_mean) = parts
        blocks = zip(*(part.split(self.ROWS) for part in (left, right, ids)), strict=True)
        return torch.cat([_mapped(g + left_mean, h + right_mean, own) for g, h, own in blocks])


def _mapped(left: Tensor, right: Tensor, ids: Tensor) -> Tensor:
    """K_2ᵀ K_1ᵀ h of G_1 and G_2 with their means added [n, r d], and h [n, d].

    These are at most 2, so their exponentials need no scale.
    """
    count, size = ids.shape
    inner = _weighted_mean(ids, left.exp().view(count, size, -1))
    return _weighted_mean(inner, right.exp().view(count, -1, size))


def _weighted_mean(rows: Tensor, weights: Tensor) -> Tensor:
    """Σ_m x_m w_mj / Σ_m w_mj of rows [n, m] and weights [n, m, j]."""
    sums = torch.bmm(torch.stack([rows, torch.ones_like(rows)], 1), weights)
    return sums[:, 0] / sums[:, 1]


class EntryAttention(nn.Module):
    """torch's MultiheadAttention of one head and width 1, its names and its first values.

    A bias of what it gives, which LN would subtract, is left out.
    """

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.in_proj_weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(3, 1)))
        self.in_proj_bias = nn.Parameter(torch.zeros(3))
        self.out_proj = nn.Linear(1, 1, bias=False)

    def forward(self, query: Tensor, source: Tensor) -> Tensor:
        """A(q, s) of rows [n, d]."""
        q, k, v = (
            rows * weight + bias
            for rows, weight, bias in zip(
                (query, source, source), self.in_proj_weight, self.in_proj_bias, strict=True
            )
        )
        dropout = self.dropout if self.training else 0.0
        return entry_attention(q, k, v, dropout) * self.out_proj.weight[0]


class REARM(ContentRecommender):
    """REARM on any number of modalities."""

    settings_class = REARMSettings
    contrasts_batch = True
    capture_refused = "its contrasts are over a batch's different users and items, of any number"
    columns_refused = "its attention is among the entries of whole vectors"

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        keys, size = self.settings, self.settings.embedding_size
        self.weights = {
            "bpr": 1.0, "contrast": keys.cl_weight, "orthogonal": keys.diff_weight,
        }  # fmt: skip
        normal = functools.partial(nn.init.normal_, std=0.1)
        self.nodes = UserItemEmbedding(self.n_users, self.n_items, size, normal)
        self.tables = ModalityFeatures(dataset, train=keys.train_features)
        self.item_projections = self.tables.projections(size)
        self.user_projections = self.tables.projections(size)
        for layer in (*self.item_projections, *self.user_projections):
            nn.init.xavier_normal_(layer.weight)
        count = len(self.tables)
        self.self_attention = _attentions(count, keys.self_dropout)
        self.mutual_attention = _attentions(count if count > 1 else 0, keys.mutual_dropout)
        self.norm, self.activation = nn.LayerNorm(size), nn.PReLU()
        self.user_maps, self.item_maps = (
            PersonalMaps(count * size, size, keys.rank, train_knowledge=keys.train_knowledge)
            for _ in range(2)
        )
        self.graph = bipartite_adjacency(self.interactions)
        self._build_graphs(dataset)

    def _build_graphs(self, dataset: Any) -> None:
        """T of users and of items, and p, as tables or as the means that give them."""
        keys, (users, items) = self.settings, dataset.pairs()
        shape = self.n_users, self.n_items
        fields = dataset.uid_field, dataset.iid_field
        places = [tie_ranks(dataset.field2id_token[name]) for name in fields]
        self.means, profiles, same = [], [], []
        for number, table in enumerate(self.tables):
            present = self.tables.present(number).cpu().numpy()
            mean, rows = mean_over_items((users, items), shape, present), table.detach().cpu()
            profile = torch.from_numpy(mean.astype(rows.numpy().dtype) @ rows.numpy())
            profiles.append(profile.to(table.device).clone())  # torch's memory: products are equal
            same.append(same_items((users, items), shape, present))
            known = torch.from_numpy(np.asarray(mean.sum(1)).ravel() > 0)
            self.register_buffer(f"has_profile{number}", known, persistent=False)
            if not keys.train_features:
                self.means.append(SparseOperator(mean))
        self.user_graph = self._homogeneous(
            common_shares((users, items), shape, keys.user_k, places[0]),
            [
                (profile, {"same": which, "place": places[0]})
                for profile, which in zip(profiles, same, strict=True)
            ],
            (keys.user_co_weight, keys.user_image_weight, keys.user_k),
        )
        self.item_graph = self._homogeneous(
            common_shares((items, users), shape[::-1], keys.knn_k, places[1]),
            [(table.detach(), {"place": places[1]}) for table in self.tables],
            (keys.item_co_weight, keys.mm_image_weight, keys.knn_k),
        )
        self.users = nn.ParameterList(profiles if keys.train_features else [])

    def _homogeneous(
        self,
        shares: Any,
        tables: list[tuple[Tensor, dict[str, Any]]],
        weights: tuple[float, float, int],
    ) -> SparseOperator:
        """T from C and the tables whose cosines are S; a graph of weight 0 is not searched.

        Args:
            shares: C.
            tables: rows per modality, and what is known of equal ones.
            weights: w, that of modalities other than text, and k.
        """
        weight, image_weight, k = weights
        graph, keys = weight * shares, self.settings
        parts = self.tables.modality_weights(image_weight)
        for part, (table, equals) in zip(parts, tables, strict=True):
            if (1 - weight) * part:
                memory = keys.knn_memory_mb << 20
                alike = cosine_graph(table, k, method=keys.knn, memory_bytes=memory, **equals)
                graph = graph + (1 - weight) * part * alike
        return SparseOperator(graph)

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """Vectors of all users and items."""
        size = self.settings.embedding_size
        users, items = self._propagated().split([self.n_users, self.n_items])
        return (
            self._vectors(users, self.user_maps(users[:, size:], users[:, :size])),
            self._vectors(items, self.item_maps(items[:, size:], items[:, :size])),
        )

    def loss_terms(self, users: Tensor, positives: Tensor, negatives: Tensor) -> dict[str, Tensor]:
        """bpr, contrast and orthogonal."""
        size, batch = self.settings.embedding_size, len(users)
        items = torch.cat([positives, negatives.ravel()])
        nodes = self._propagated()
        rows = gather_rows(nodes, torch.cat([users, items + self.n_users]))
        user, item = rows.split([batch, len(items)])
        contents = nodes[:, size:].split([self.n_users, self.n_items])
        shared = [
            maps(content, own[:, :size], which)
            for maps, content, own, which in (
                (self.user_maps, contents[0], user, users),
                (self.item_maps, contents[1], item, items),
            )
        ]
        scored = self._vectors(rows, torch.cat(shared))
        sides = scored.split([batch, batch, len(items) - batch])
        terms = {"bpr": losses.bpr(*pair_scores(*sides))}
        if len(self.tables) > 1 and self.weights["contrast"]:
            terms["contrast"] = self._contrast(user, users) + self._contrast(item, items)
        if len(self.tables) > 1 and self.weights["orthogonal"]:
            terms["orthogonal"] = self._overlap(user) + self._overlap(item[:batch])
        return terms

    def _contrast(self, rows: Tensor, ids: Tensor) -> Tensor:
        """NCE between modalities of the rows [n, (M + 1) d], each node once."""
        found, place = distinct(ids)
        first = torch.empty_like(found).scatter_(
            0, place, torch.arange(len(ids), device=ids.device)
        )
        once = gather_rows(rows, first)
        return self._over_pairs(
            once, lambda one, other: losses.info_nce(one, other, self.settings.temperature)
        )

    def _overlap(self, rows: Tensor) -> Tensor:
        """mean (H_mᵀ H_n)² of the rows [b, (M + 1) d]."""
        return self._over_pairs(
            rows, lambda one, other: (_centred(one).T @ _centred(other)).square().mean()
        )

    def _over_pairs(self, rows: Tensor, term: Any) -> Tensor:
        _, *views = rows.split(self.settings.embedding_size, 1)
        return torch.stack([term(*pair) for pair in itertools.combinations(views, 2)]).sum()

    def _vectors(self, rows: Tensor, shared: Tensor) -> Tensor:
        """r of nodes with h [n, (M + 1) d] and t [n, d]."""
        ids, *views = rows.split(self.settings.embedding_size, 1)
        return torch.cat([self.activation(view) + ids for view in (*views, shared)], 1)

    def _propagated(self) -> Tensor:
        """h of all nodes [user_num + item_num, (M + 1) d]."""
        size, keys = self.settings.embedding_size, self.settings
        users, items = [self.nodes.users], [self.nodes.items]
        for number in range(len(self.tables)):
            users.append(self._user_content(number))
            content = self.tables.project(number, self.item_projections[number])
            items.append(content * self.tables.present(number)[:, None])
        user = _refined(self.user_graph, torch.cat(users, 1), keys.n_user_layers)
        item = _refined(self.item_graph, torch.cat(items, 1), keys.n_mm_layers)
        ids, *views = item.split(size, 1)
        item = torch.cat([ids, *self._attended(views)], 1)
        user = torch.cat([user[:, :size], self.activation(user[:, size:])], 1)
        return layer_mean(self.graph, torch.cat([user, item]), keys.n_ui_layers)

    def _user_content(self, number: int) -> Tensor:
        """V_m p_m + c_m of all users [user_num, d]."""
        layer: Any = self.user_projections[number]
        if self.settings.train_features:
            out = linear(self.users[number], layer.weight, layer.bias)
        else:
            out = self.means[number] @ self.tables.linear(number, layer.weight) + layer.bias
        return out * getattr(self, f"has_profile{number}")[:, None]

    def _attended(self, views: list[Tensor]) -> list[Tensor]:
        """y_m' of all items [item_num, d], from x_m."""
        own = [
            self._normed(view + attention(view, view))
            for attention, view in zip(self.self_attention, views, strict=True)
        ]
        if len(own) == 1:
            return own
        out = []
        for number, (attention, view) in enumerate(zip(self.mutual_attention, own, strict=True)):
            others = own[:number] + own[number + 1 :]
            asked = torch.stack([attention(other, view) for other in others]).mean(0)
            out.append(self._normed(view + asked))
        return out

    def _normed(self, rows: Tensor) -> Tensor:
        return self.activation(self.norm(rows))


def _attentions(count: int, dropout: float) -> nn.ModuleList:
    return nn.ModuleList(EntryAttention(dropout) for _ in range(count))


def _refined(graph: SparseOperator, rows: Tensor, layers: int) -> Tensor:
    """norm(Tⁿ z)."""
    for _ in range(layers):
        rows = graph @ rows
    return l2_normalize_rows(rows)


def _centred(rows: Tensor) -> Tensor:
    """H [b, d]."""
    rows = rows - rows.mean(0)
    return rows / (torch.linalg.vector_norm(rows.detach(), dim=1, keepdim=True) + 1e-6)
