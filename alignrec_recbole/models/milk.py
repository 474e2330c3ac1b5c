"""MILK: items known by their modalities alone, and users whose preference holds in every mixture.

Paper       Bai et al., "Multimodality Invariant Learning for Multimedia-Based New Item
            Recommendation", SIGIR 2024, arXiv 2405.15783.
Followed    the port of ptkjw1997/DGMRec@cd8f00d src/models/milk.py; compared gradient by gradient
            by `python -m benchmarks.parity.baselines --model MILK` (no code taken).

    z_m = W_m f_m / ‖f_m‖ + b_m,  M modalities, of which item i has M_i
    h_i(λ) = 1/M_i Σ_m λ_m z_im / Σ_m λ_m, sums over what i has;  environments λ: (1/M, …, 1/M) and,
          in every step, the M rotations of a draw from Dirichlet(concentration, …)
    BPR(λ) = mean of −ln σ(⟨h_u, h_i(λ)⟩ − ⟨h_u, h_j(λ)⟩)
    loss = Σ_λ BPR(λ) + penalty_weight · Var_λ BPR(λ)
         + align_weight · Σ_{m<n} mean (z_im − z_in)² over the batch's positives with both
         + reg_weight · ½ Σ ‖h‖² / b over the batch's users and its items in the first environment
    s(u, i) = ⟨h_u, 1/M_i Σ_m z_im⟩;  the variance is that of a sample

Deviations  D1 what an item does not have is no part of its vector and of the alignment. The
               reference puts zeros or the mean row in its place, whose z_m is not zero, aligns
               items that have neither modality, and divides by 1 in place of Σ_m λ_m: the score of
               an item with one modality then follows λ, and small variance means small scores.
            D2 with one modality there is one environment and no variance; the reference needs two.
            D3 only the batch's items are projected.
Shapes      users [user_num, d], features [item_num, f_m]; row 0 is PAD.
Cost        a 2b × f_m × d product per modality and step.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from alignrec_recbole import losses
from alignrec_recbole.features.content_map import ContentMap
from alignrec_recbole.models._base import padded, pair_scores
from alignrec_recbole.models._content import ContentRecommender, ModalityFeatures
from alignrec_recbole.ops.rows import gather_rows
from alignrec_recbole.settings import Settings

LEAST = 1e-30  # of a share: of a small concentration, draws underflow


class MILKSettings(Settings):
    """Hyper-parameters; defaults and their sources are in properties/model/MILK.yaml."""

    embedding_size: int = Field(gt=0, description="d")
    concentration: float = Field(gt=0, description="of the draw of environments; small: uneven")
    penalty_weight: float = Field(ge=0, description="weight of the variance between environments")
    align_weight: float = Field(ge=0, description="weight of the distances between modalities")
    reg_weight: float = Field(ge=0, description="weight of the squares of the batch's vectors")
    train_features: bool = Field(description="the feature tables are trained, as in the reference")


class MILK(ContentRecommender):
    """MILK on any number of modalities."""

    settings_class = MILKSettings
    capture_refused = "its environments are drawn by the host"
    columns_refused = "its mixtures are made of whole inner products"
    id_only_features = None  # content is all it has

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        keys = self.settings
        self.weights = {
            "bpr": 1.0,
            "penalty": keys.penalty_weight,
            "align": keys.align_weight,
            "l2": keys.reg_weight,
        }
        self.users = padded(self.n_users, keys.embedding_size, nn.init.xavier_uniform_)
        self.tables = ModalityFeatures(dataset, train=keys.train_features, unit=True)
        self.projections = self.tables.projections(keys.embedding_size)
        self.pairs = list(itertools.combinations(range(len(self.tables)), 2))

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """h_u of all users, the mean of z of all items."""
        views, has = self._views()
        return self.users, (_equal_shares(has)[..., None] * views).sum(0)

    def loss_terms(self, users: Tensor, positives: Tensor, negatives: Tensor) -> dict[str, Tensor]:
        """BPR in all environments and its variance, the alignment, the squares."""
        batch = len(users)
        views, has = self._views(torch.cat([positives, negatives.ravel()]))
        user = gather_rows(self.users, users)
        products = [torch.cat(pair_scores(user, one[:batch], one[batch:]), 1) for one in views]
        of_modality = torch.stack(products)  # [M, b, 1 + s]
        there = torch.cat([has[:, :batch, None], has[:, batch:].view(len(has), batch, -1)], 2)
        environments = self._environments().to(of_modality)
        each = torch.stack([_bpr_of(one, of_modality, there) for one in environments])
        terms = {"bpr": each.sum()}
        if self.weights["penalty"] and self.pairs:
            terms["penalty"] = each.var()
        if self.weights["align"] and self.pairs:
            terms["align"] = _distances(views[:, :batch], has[:, :batch], self.pairs)
        if self.weights["l2"]:
            share = _equal_shares(has)
            even = ((share * share)[..., None] * views).sum(0)
            terms["l2"] = losses.l2_squared_penalty(user, even, divisor=batch)
        return terms

    def new_items(self, dataset: Any) -> ContentMap:
        """The mean of z of what a new item has is its vector."""
        layers: list[Any] = list(self.projections)
        weights = [layer.weight.detach().cpu().numpy() for layer in layers]
        biases = [layer.bias.detach().cpu().numpy() for layer in layers]
        sets = dict(zip(dataset.features, self.tables.dims, strict=True))
        tensors = {"weights": np.concatenate(weights, 1), "biases": np.stack(biases)}
        return ContentMap("layers", sets, {}, tensors)

    def _views(self, items: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """z of items [n], or of all: [M, n, d], and which they have [M, n]."""
        every = range(len(self.tables))
        views = [self.tables.project(n, self.projections[n], items=items) for n in every]
        return torch.stack(views), torch.stack([self.tables.present(n, items) for n in every])

    def _environments(self) -> Tensor:
        """λ [1, M], or [1 + M, M] with the rotations of what is drawn."""
        count = len(self.tables)
        even = torch.full((1, count), 1 / count)
        if count == 1:
            return even
        concentration = torch.full((count,), self.settings.concentration)
        drawn = torch.distributions.Dirichlet(concentration).sample().clamp(min=LEAST)
        return torch.cat([even, torch.stack([drawn.roll(n) for n in range(count)])])


def _bpr_of(environment: Tensor, products: Tensor, has: Tensor) -> Tensor:
    """BPR(λ) of λ [M] from ⟨h_u, z_m⟩ [M, b, 1 + s], of what items have; the positives first."""
    shares = has * environment[:, None, None]
    shares = shares / (shares.sum(0) * has.sum(0)).clamp(min=LEAST)
    scores = (shares * products).sum(0)
    return losses.bpr(scores[:, :1], scores[:, 1:])


def _equal_shares(has: Tensor) -> Tensor:
    """One over the number of modalities that each item has [M, n].

    >>> _equal_shares(torch.tensor([[True, True, False], [True, False, False]]))
    tensor([[0.5000, 1.0000, 0.0000],
            [0.5000, 0.0000, 0.0000]])
    """
    return has / has.sum(0).clamp(min=1)


def _distances(views: Tensor, has: Tensor, pairs: list[tuple[int, int]]) -> Tensor:
    """Σ over pairs of the mean squared difference of z [M, n, d], of items that have both."""
    total = views.new_zeros(())
    for one, other in pairs:
        both = (has[one] & has[other])[:, None]
        squares = ((views[one] - views[other]) * both).square().sum()
        total = total + squares / (both.sum() * views.shape[-1]).clamp(min=1)
    return total
