"""MENTOR: modalities whose distributions are brought close to one another's and to the ID view's.

Paper       Xu et al., "MENTOR: Multi-level Self-supervised Learning for Multimodal
            Recommendation", AAAI 2025, arXiv 2402.19407.
Followed    Jinfeng-Xu/MENTOR@1581d27 src/models/mentor.py; compared gradient by gradient by
            `python -m benchmarks.parity.baselines --model MENTOR` (no code taken).

    z_m = V_m leaky(W_m f_m + b_m) + c_m of the modalities, and of the view "id", whose f are the
          items' ID vectors
    x_m = norm([p_m; z_m]),   y_m = Σ_{l=0..L} Âˡ x_m,   h_m,u = [y_m]_u,  h_m,i = [y_m + Sⁿ y_m]_i
    h_u = [a_u,m h_m,u]_m,  h_i = [h_m,i]_m side by side, without id;   s(u, i) = ⟨h_u, h_i⟩
    loss = BPR / ln 2 + reg_weight · (Σ_m mean p_m² of the batch's users + mean a²)
           + align_weight · Σ |mean v − mean w| + |var v − var w|, over all pairs of views v, w
             among h, h_id and each h_m, mean and variance over all numbers of a view
           + mask_weight_f · Σ over users and items of mean 1 − cos(Q h + q, dropout(h))
           + mask_weight_g · Σ over users and items of InfoNCE(h', h''), all others negatives
    h', h''  h with noise after each layer l: + noise · sign(Âˡ x) · norm(uniform draws), drawn anew
    S        as in FREEDOM

Deviations  D1 h' and h'' are of the weights of h, and dropout(h) alone is a constant of the masked
               loss; so are they in the comparison. The reference gives h' and h'' weights of their
               own, which no score reads, and records no gradient of the masked loss: there both
               losses move no score, except through a. As its published results are, so are our
               defaults: mask_weight_f and mask_weight_g are 0.
            D2 with one modality a is not built, and the fused view equals it.
            D3 scores are of the present weights, not of those before the last step.
            D4 an item without a modality has a zero z_m and only a self edge in its graph.
            D5 features are constants, as they are there; its unused layers, its graph of users and
               its edges without some items, which it does not read either, are not built.
            D6 the noise is a constant for the gradient, and so h, h' and h'' have one backward.
Shapes      p_m [user_num, d], a [user_num, M, 1], features [item_num, f_m]; row 0 is PAD.
Cost        2L + n sparse products of width (M + 1) d, M products I × f_m × 4d and I × 4d × d per
            step; with mask_weight_g 2L + 2n more, and the products of all users with all users and
            of all items with all items, in blocks of rows.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from alignrec_recbole import losses
from alignrec_recbole.graphs.user_item import bipartite_adjacency
from alignrec_recbole.models._base import GraphSettings, padded, pair_scores
from alignrec_recbole.models._content import (
    ContentRecommender,
    ItemGraphSettings,
    ModalityFeatures,
    project,
)
from alignrec_recbole.ops.propagation import layer_sum
from alignrec_recbole.ops.rows import gather_rows, l2_normalize_rows
from alignrec_recbole.settings import MAX_LAYERS


class MENTORSettings(GraphSettings, ItemGraphSettings):
    """Hyper-parameters; defaults and their sources are in properties/model/MENTOR.yaml."""

    n_mm_layers: int = Field(ge=0, le=MAX_LAYERS, description="layers of the item graph n")
    mm_image_weight: float = Field(ge=0, le=1, description="weight of all that is not text")
    reg_weight: float = Field(ge=0, description="weight of the squares of p and a")
    align_weight: float = Field(ge=0, description="weight of the distances between distributions")
    mask_weight_f: float = Field(ge=0, description="weight of the loss of masked vectors")
    mask_weight_g: float = Field(ge=0, description="weight of the contrast of noisy views")
    dropout: float = Field(ge=0, lt=1, description="share of a vector that is masked")
    noise: float = Field(ge=0, description="length of the noise of a layer")
    temperature: float = Field(gt=0, description="τ of the contrast")


class MENTOR(ContentRecommender):
    """MENTOR on any number of modalities."""

    settings_class = MENTORSettings
    contrasts_batch = True
    capture_refused = ""
    columns_refused = "its views are compared by what combines all their columns"
    id_only_features = "random"  # scores know items by features alone
    id_only_settings: ClassVar[dict[str, Any]] = {"n_mm_layers": 0}  # and no graph of them

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        keys, size = self.settings, self.settings.embedding_size
        self.weights = {
            "bpr": 1 / math.log(2),
            "squares": keys.reg_weight,
            "align": keys.align_weight,
            "mask": keys.mask_weight_f,
            "noise": keys.mask_weight_g,
        }
        self.tables = ModalityFeatures(dataset, train=False)
        self.projections = self.tables.projections(4 * size)
        self.outer = nn.ModuleList(nn.Linear(4 * size, size) for _ in self.tables)
        self.preferences = nn.ParameterList(
            padded(self.n_users, size, nn.init.xavier_normal_) for _ in self.tables
        )
        self.width = len(self.tables) * size
        if len(self.tables) > 1:
            drawn = padded(self.n_users, len(self.tables), nn.init.xavier_normal_).detach()
            shares = torch.softmax(drawn, 1)[:, :, None]
            shares[0] = 0
            self.attention = nn.Parameter(shares)
        if keys.align_weight:
            self.id_items = padded(self.n_items, size, nn.init.xavier_normal_)
            self.id_users = padded(self.n_users, size, nn.init.xavier_normal_)
            self.id_layers = nn.Sequential(
                nn.Linear(size, 4 * size), nn.LeakyReLU(), nn.Linear(4 * size, size)
            )
        if keys.mask_weight_f:
            self.predictor = nn.Linear(self.width, self.width)
        self.graph = bipartite_adjacency(self.interactions)
        self.item_item = self.tables.item_graph(keys.mm_image_weight, keys)

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """Vectors of all users and items."""
        start = torch.cat(self._content_start(), 1)
        users, items = self._views(layer_sum(self.graph, start, self.settings.n_ui_layers))
        return self._shared_out(users), items

    def loss_terms(self, users: Tensor, positives: Tensor, negatives: Tensor) -> dict[str, Tensor]:
        """bpr, squares, align, mask and noise; those without weight are not computed."""
        content = self._content_start()
        start = torch.cat([*content, *self._id_start()], 1)
        nodes = layer_sum(self.graph, start, self.settings.n_ui_layers)
        views = self._views(nodes)
        user, item = self._shared_out(views[0][:, : self.width]), views[1][:, : self.width]
        chosen = gather_rows(item, torch.cat([positives, negatives.ravel()]))
        positive, negative = chosen.split([len(users), len(chosen) - len(users)])
        scores = pair_scores(gather_rows(user, users), positive, negative)
        terms = {"bpr": losses.bpr(*scores)}
        if self.weights["squares"]:
            squares = [gather_rows(table, users).square().mean() for table in self.preferences]
            if len(self.tables) > 1:
                squares.append(self.attention[1:].square().mean())
            terms["squares"] = torch.stack(squares).sum()
        if self.weights["align"]:
            terms["align"] = self._distance(user[1:], views[0][1:], views[1][1:])
        if self.weights["mask"]:
            terms["mask"] = self._masked(user[1:]) + self._masked(item[1:])
        if self.weights["noise"]:
            own = nodes[:, : self.width]
            noisy = [own + self._noise(torch.cat(content, 1), own) for _ in range(2)]
            terms["noise"] = self._contrast(*noisy)
        return terms

    def _content_start(self) -> list[Tensor]:
        """x_m of all users and items [user_num + item_num, d], per modality."""
        out = []
        for number, users in enumerate(self.preferences):
            hidden = F.leaky_relu(self.tables.project(number, self.projections[number]))
            items = project(hidden, self.outer[number]) * self.tables.present(number)[:, None]
            out.append(l2_normalize_rows(torch.cat([users, items])))
        return out

    def _id_start(self) -> list[Tensor]:
        """x of the view id, where it is compared with others."""
        if not self.weights["align"]:
            return []
        items = self.id_layers(self.id_items)
        return [l2_normalize_rows(torch.cat([self.id_users, items]))]

    def _views(self, nodes: Tensor) -> tuple[Tensor, Tensor]:
        """h_m of all users and items side by side, from y."""
        users, items = nodes.split([self.n_users, self.n_items])
        near = items
        for _ in range(self.settings.n_mm_layers):
            near = self.item_item @ near
        return users, items + near

    def _shared_out(self, users: Tensor) -> Tensor:
        """Each h_m,u [user_num, M d] times the user's share of the modality."""
        if len(self.tables) == 1:
            return users
        views = users.view(len(users), len(self.tables), -1)
        return (self.attention * views).view(len(users), -1)

    def _distance(self, fused: Tensor, users: Tensor, items: Tensor) -> Tensor:
        """Σ over pairs of views of the distances of their means and variances."""
        size, width = self.settings.embedding_size, self.width
        each = _moments(users.unflatten(1, (-1, size)), items.unflatten(1, (-1, size)))
        joint = _moments(fused[:, None], items[:, None, :width])
        count = (len(users) + len(items)) * width
        unbiased = count / (count - 1)
        mean, variance = (torch.cat(pair) for pair in zip(joint, each, strict=True))
        return _gaps(mean) + unbiased * _gaps(variance)

    def _masked(self, vectors: Tensor) -> Tensor:
        """Distance of what is predicted for vectors [n, M d] from them with a part masked."""
        target = F.dropout(vectors.detach(), self.settings.dropout)
        return losses.cosine_distance(self.predictor(vectors), target)

    @torch.no_grad()
    def _noise(self, start: Tensor, nodes: Tensor) -> Tensor:
        """What noise after each layer adds to the nodes [n, M d] that follow from `start`."""
        layers, size = self.settings.n_ui_layers, self.settings.embedding_size
        drawn = [
            [self.settings.noise * l2_normalize_rows(torch.rand_like(one)) for _ in range(layers)]
            for one in start.split(size, 1)
        ]
        layer = total = start
        for number in range(layers):
            layer = self.graph @ layer
            layer = layer + layer.sign() * torch.cat([one[number] for one in drawn], 1)
            total = total + layer
        return total - nodes

    def _contrast(self, left: Tensor, right: Tensor) -> Tensor:
        """InfoNCE of all users plus that of all items, from their nodes [n, M d] in two views."""
        (user, item), (other_user, other_item) = self._views(left), self._views(right)
        tau = self.settings.temperature
        users = losses.info_nce(self._shared_out(user)[1:], self._shared_out(other_user)[1:], tau)
        return users + losses.info_nce(item[1:], other_item[1:], tau)


def _moments(users: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance [k] of the numbers of users [n, k, d] and items [m, k, d] together."""
    (spread, center), (other_spread, other_center) = (
        torch.var_mean(rows, (0, 2), correction=0) for rows in (users, items)
    )
    share = len(users) / (len(users) + len(items))
    mean = share * center + (1 - share) * other_center
    within = share * spread + (1 - share) * other_spread
    return mean, within + share * (1 - share) * (center - other_center).square()


def _gaps(values: Tensor) -> Tensor:
    """Σ |v − w| over all pairs of values [k]."""
    return (values[:, None] - values).abs().sum() / 2
