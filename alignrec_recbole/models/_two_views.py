"""Models with an ID view and a content view, which AlignRec's terms can align.

NLGCL+ and MDVT are terms of such models, too; all of them are off by default.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from pydantic import Field, model_validator
from torch import Tensor

from alignrec_recbole import losses
from alignrec_recbole.errors import SettingError
from alignrec_recbole.models._base import UserItemEmbedding
from alignrec_recbole.models._content import ContentRecommender, ModalityFeatures
from alignrec_recbole.ops import columns
from alignrec_recbole.ops.propagation import layers_at_rows
from alignrec_recbole.ops.sparse import SparseOperator
from alignrec_recbole.settings import Settings


class AlignSettings(Settings):
    """Weights of AlignRec's alignment terms in another model; 0 switches a term off."""

    cca: float = Field(0.0, ge=0, description="content view with ID view")
    uia: float = Field(0.0, ge=0, description="user with item")
    reg: float = Field(0.0, ge=0, description="content view with features")
    temperature: float = Field(0.2, gt=0, description="τ of cca")


class NeighbourSettings(Settings):
    """The contrast of neighbours in successive layers, NLGCL+, in any model that propagates IDs."""

    weight: float = Field(0.0, ge=0, description="weight of the contrast, 0: none")
    alpha: float = Field(0.5, ge=0, le=1, description="share of the items' contrast with users")
    temperature: float = Field(0.2, gt=0, description="τ")


EPOCHS_BEFORE = 3  # epochs whose losses decide nothing


class VirtualSettings(Settings):
    """Triplets of users with their nearest and farthest items, MDVT, in any model of two views."""

    weight: float = Field(0.0, ge=0, lt=1, description="share of the loss, 0: none")
    k: int = Field(1, gt=0, description="nearest and farthest items per user")
    warm_up: int = Field(0, ge=0, description="epochs before they begin")
    threshold: float | None = Field(
        None, gt=0, lt=1, description="in place of warm_up: they begin once the loss falls by less"
    )

    @model_validator(mode="after")
    def _one_beginning(self) -> VirtualSettings:
        if self.warm_up and self.threshold is not None:
            raise ValueError("warm_up and threshold are two ways to begin; give one")
        return self

    def have_begun(self, losses: Sequence[float]) -> bool:
        """Whether the triplets take part, after epochs with these mean losses.

        With a threshold, from the epoch after the first with (L_{e−1} − L_e) / L_e < threshold;
        that of the first three epochs is not asked.

        Source: Xu et al., MDVT, KDD 2025; the first three: Jinfeng-Xu/MDVT@b0f36b2 trainer.py.

        >>> dynamic = VirtualSettings(weight=0.1, threshold=0.2)
        >>> dynamic.have_begun([9.0, 8.9, 6.0, 4.0]), dynamic.have_begun([9.0, 8.9, 6.0, 4.0, 3.9])
        (False, True)
        >>> VirtualSettings(weight=0.1, warm_up=2).have_begun([9.0, 8.9])
        True
        """
        if not self.weight:
            return False
        if self.threshold is None:
            return len(losses) >= self.warm_up
        later = itertools.pairwise(losses[EPOCHS_BEFORE - 1 :])
        return any(before - now < self.threshold * now for before, now in later)


class TwoViewSettings(Settings):
    """Settings of a model whose two views can be aligned."""

    align: AlignSettings = Field(description="align.cca, align.uia, align.reg, align.temperature")
    nlgcl: NeighbourSettings = Field(description="nlgcl.weight, nlgcl.alpha, nlgcl.temperature")
    mdvt: VirtualSettings = Field(description="mdvt.weight, mdvt.k, mdvt.warm_up, mdvt.threshold")


class Views(NamedTuple):
    """The batch's users and positive items in the ID view, the content view and fused [b, d].

    Attributes:
        repeats_equal: rows of one user or item are equal: no dropout of their own.
    """

    user_id: Tensor
    user_content: Tensor
    item_id: Tensor
    item_content: Tensor
    user: Tensor
    item: Tensor
    repeats_equal: bool = True


class TwoViewRecommender(ContentRecommender):
    """A model with an ID view and a content view, which the settings `align.*` can align.

    It also propagates the table `nodes` in `graph` over `n_ui_layers`, whose layers the settings
    `nlgcl.*` can contrast (`_neighbour_contrast`).

    A subclass gives `terms_and_views` in place of `loss_terms`. The alignment terms are AlignRec's
    (alignrec.py): CCA by cosine from content to ID, UIA of the fused vectors, REG against the
    features as given, of items that have any.

    Attributes:
        needs_views: `terms_and_views` has to return the views.
    """

    nodes: UserItemEmbedding
    graph: SparseOperator

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        self.align: AlignSettings = self.settings.align
        self.neighbours: NeighbourSettings = self.settings.nlgcl
        self.virtual: VirtualSettings = self.settings.mdvt
        if self.neighbours.weight and not self.settings.n_ui_layers:
            raise SettingError(
                "The contrast of neighbours, nlgcl.weight, needs a layer.",
                found=f"nlgcl.weight={self.neighbours.weight:g} with n_ui_layers=0",
                expected="n_ui_layers of 1 or more, or nlgcl.weight=0",
            )
        self.contrasts_batch |= bool(self.align.cca or self.neighbours.weight)
        self.needs_views = bool(self.align.cca or self.align.uia or self.align.reg)
        if self.align.reg:
            self.given_features = ModalityFeatures(dataset, train=False, unit=True, fuse=True)

    def terms_and_views(
        self, users: Tensor, positives: Tensor, negatives: Tensor
    ) -> tuple[dict[str, Tensor], Views | None]:
        """Unweighted loss terms by name, and the batch's views; None unless `needs_views`."""
        raise NotImplementedError

    def loss_terms(self, users: Tensor, positives: Tensor, negatives: Tensor) -> dict[str, Tensor]:
        """The model's own terms, without alignment."""
        return self.terms_and_views(users, positives, negatives)[0]

    def weighted_losses(
        self, users: Tensor, positives: Tensor, negatives: Tensor
    ) -> dict[str, Tensor]:
        """The model's own terms, align_cca, align_uia, align_reg, nlgcl and mdvt, by weight."""
        terms, views = self.terms_and_views(users, positives, negatives)
        out = {name: self.weights[name] * value for name, value in terms.items()}
        if self.needs_views:
            assert views is not None
            out |= self._alignment(views, users, positives)
        if self.neighbours.weight:
            out["nlgcl"] = self.neighbours.weight * self._neighbour_contrast(users, positives)
        if self._has_triplets():
            share = self.virtual.weight
            out = {name: (1 - share) * value for name, value in out.items()}
            out["mdvt"] = share * self._virtual_triplets()
        return out

    def changing_parts(self) -> tuple[Any, ...]:
        """Whether the triplets have begun."""
        return (self._has_triplets(),)

    def _has_triplets(self) -> bool:
        return self.virtual.have_begun(self.epoch_losses)

    def _virtual_triplets(self) -> Tensor:
        """`losses.virtual_triplets` of all vectors that the training's graph gives."""
        vectors, items = self._training_embeddings()
        k = min(self.virtual.k, self.n_items - 1)
        return losses.virtual_triplets(vectors[1:], items[1:], k)

    def _training_embeddings(self) -> tuple[Tensor, Tensor]:
        """Vectors of all users and items on the training's graph."""
        return self.embeddings()

    def _neighbour_contrast(self, users: Tensor, items: Tensor) -> Tensor:
        """b Σ_{l=1..L} (α NCE(i_l → u_{l−1}) + (1 − α) NCE(u_l → i_{l−1})) of the ID layers.

        u_l and i_l are rows of Âˡ E; a user and an item of a row are each other's positive, and
        those of the other rows are negatives.

        Source: Xu et al., NLGCL+, TORS 2026, as in Jinfeng-Xu/NLGCL-Plus@47d2192 freedom_plus.py,
        whose sum over a batch is what the published weights belong to.
        """
        keys, batch = self.neighbours, len(users)
        rows = torch.cat([users, items + self.n_users])
        layers = layers_at_rows(
            self._propagated_graph(), self.nodes.weight, self.settings.n_ui_layers, rows
        )
        total = layers.new_zeros(())
        for before, now in itertools.pairwise(layers):
            by_item = losses.info_nce(now[batch:], before[:batch], keys.temperature)
            by_user = losses.info_nce(now[:batch], before[batch:], keys.temperature)
            total = total + keys.alpha * by_item + (1 - keys.alpha) * by_user
        return batch * total

    def _propagated_graph(self) -> SparseOperator:
        """The graph of the training's layers."""
        return self.graph

    def _alignment(self, views: Views, users: Tensor, positives: Tensor) -> dict[str, Tensor]:
        keys, out = self.align, {}
        if keys.cca:
            contrast = self._contrast(views, users, positives, keys.temperature)
            out["align_cca"] = keys.cca * contrast
        if keys.uia:
            out["align_uia"] = keys.uia * losses.cosine_distance(views.user, views.item)
        if keys.reg:
            target = self.given_features[0][positives]
            present = self.given_features.present(0, positives).to(target.dtype)
            own = columns.normalize_rows(views.item_content)
            distance = losses.similarity_matrix_distance(own, target, present)
            out["align_reg"] = keys.reg * distance
        return out

    def _contrast(
        self, views: Views, users: Tensor, positives: Tensor, temperature: float
    ) -> Tensor:
        """InfoNCE from the content view to the ID view, of the batch's items and users."""
        ids = (positives, users) if views.repeats_equal else (None, None)
        items = losses.info_nce(views.item_content, views.item_id, temperature, ids=ids[0])
        return items + losses.info_nce(views.user_content, views.user_id, temperature, ids=ids[1])
