"""Parts of models with item features: the features themselves, and alignment of two views.

A model reads any number of feature sets, fused or of one modality each, and treats each of them as
a modality.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from alignrec_recbole import losses
from alignrec_recbole.errors import FeatureError
from alignrec_recbole.features.item_order import tie_ranks
from alignrec_recbole.graphs.item_item import item_graph
from alignrec_recbole.graphs.searches import Method
from alignrec_recbole.graphs.user_item import normalised_interactions
from alignrec_recbole.models._base import PairwiseRecommender, UserItemEmbedding, pair_scores
from alignrec_recbole.ops import columns
from alignrec_recbole.ops.frozen_matrix import FrozenMatrix
from alignrec_recbole.ops.linear import linear
from alignrec_recbole.ops.propagation import layer_mean, layers_at_rows
from alignrec_recbole.ops.rows import gather_rows, l2_normalize_rows
from alignrec_recbole.ops.sparse import SparseOperator
from alignrec_recbole.settings import Settings


class KnnSettings(Settings):
    """Settings of models with a graph of each item's nearest neighbours by features."""

    knn_k: int = Field(gt=0, description="neighbours per item, itself included")
    knn_memory_mb: int = Field(gt=0, description="memory bound of a block of similarities, in MiB")


class ItemGraphSettings(KnnSettings):
    """Settings of models whose item graph is searched once, before the training."""

    knn: Method = Field(description="exact, auto or approximate")


class ModalityFeatures(nn.Module):
    """The item features of a data set, one table [item_num, f_m] per modality.

    Rows of items without a modality are zero. Where tables are trained, `clear_missing` keeps them
    so after each step of the optimizer.

    Args:
        dataset: with `features`, see `MultimodalDataset`.
        train: the tables are parameters, as in most of MMRec's models; else constants.
        unit: divide each row by its L2 norm.
        fuse: one table of all modalities side by side; if there are several, the rows of each are
            divided by their norm first.

    Attributes:
        modalities: text, image, audio or fused, per table.
        dims: f_m per table.
    """

    def __init__(
        self, dataset: Any, *, train: bool, unit: bool = False, fuse: bool = False
    ) -> None:
        super().__init__()
        features = list(dataset.features.values())
        groups = [features] if fuse else [[one] for one in features]
        self.modalities = tuple(g[0].modality if len(g) == 1 else "fused" for g in groups)
        self.dims = tuple(sum(one.values.shape[1] for one in group) for group in groups)
        self._tokens = dataset.field2id_token[dataset.iid_field]
        self._frozen = [FrozenMatrix() for _ in groups]
        self._inverse_norms: dict[int, tuple[Tensor, Tensor]] = {}
        self._missing: list[list[tuple[str, slice]]] = []  # buffer of rows, columns; per table
        for number, group in enumerate(groups):
            values = _side_by_side(group).to(torch.get_default_dtype())
            values = l2_normalize_rows(values) if unit else values
            if train:
                table = columns.mark(nn.Parameter(values.clone()))
                self.register_parameter(f"set{number}", table)
            else:
                self.register_buffer(f"set{number}", values, persistent=False)
            present = torch.from_numpy(np.any([one.present for one in group], axis=0))
            self.register_buffer(f"present{number}", present, persistent=False)
            self._missing.append(self._register_missing(number, group))

    def _register_missing(self, number: int, group: list[Any]) -> list[tuple[str, slice]]:
        out, start = [], 0
        for part, one in enumerate(group):
            name, stop = f"missing{number}_{part}", start + one.values.shape[1]
            rows = torch.from_numpy(np.flatnonzero(~one.present))
            self.register_buffer(name, rows, persistent=False)
            out.append((name, slice(start, stop)))
            start = stop
        return out

    def __len__(self) -> int:
        return len(self.dims)

    def __getitem__(self, number: int) -> Tensor:
        if not 0 <= number < len(self):
            raise IndexError(number)
        return getattr(self, f"set{number}")

    def __iter__(self) -> Iterator[Tensor]:
        return (self[number] for number in range(len(self)))

    @functools.cached_property
    def place(self) -> np.ndarray:
        """Of each item among equally near ones [item_num]; only item graphs ask for it."""
        return tie_ranks(self._tokens)

    def present(self, number: int) -> Tensor:
        """bool [item_num]: which items have the modality, or any of those in a fused table."""
        return getattr(self, f"present{number}")

    @torch.no_grad()
    def clear_missing(self) -> None:
        """Zero what an optimizer's step may have moved: modalities that items do not have."""
        for table, blocks in zip(self, self._missing, strict=True):
            if table.requires_grad:
                for name, part in blocks:
                    table[:, columns.own_part(part, table)].index_fill_(0, getattr(self, name), 0.0)

    def blocks(self) -> list[tuple[int, slice, Tensor]]:
        """Of each feature set: its table, its columns there, and which items have it [item_num]."""
        out = []
        for number, blocks in enumerate(self._missing):
            for name, part in blocks:
                has = torch.ones(len(self[number]), dtype=torch.bool, device=self[number].device)
                out.append((number, part, has.index_fill_(0, getattr(self, name), False)))
        return out

    @torch.no_grad()
    def replace(self, number: int, values: Tensor) -> None:
        """Put values [item_num, f_m] in the place of a table, trained or not."""
        table = getattr(self, f"set{number}")
        if isinstance(table, nn.Parameter):
            table.data = values
        else:
            setattr(self, f"set{number}", values)

    def projections(self, size: int, *, bias: bool = True) -> nn.ModuleList:
        """One linear layer f_m → size per table."""
        return nn.ModuleList(nn.Linear(dim, size, bias=bias) for dim in self.dims)

    def linear(
        self,
        number: int,
        weight: Tensor,
        bias: Tensor | None = None,
        items: Tensor | None = None,
    ) -> Tensor:
        """Table `number` times Wᵀ, plus b: [item_num, d], or [m, d] for `items` [m].

        Where columns are divided among processes, W and b are whole and the result is divided.
        """
        table, product = self[number], self._frozen[number].linear
        if columns.division() is None:
            return product(table, weight, bias, items)
        bias = None if bias is None else columns.own(bias)
        if not columns.is_divided(table):
            return product(table, columns.own(weight, 0), bias, items)
        out = columns.scatter_total(product(table, columns.own(weight, 1), None, items))
        return out if bias is None else out + bias

    def project(
        self, number: int, layer: Any, then: Any = None, items: Tensor | None = None
    ) -> Tensor:
        """Table `number` through an affine layer f_m → d, or through two, multiplied into one."""
        weight, bias = layer.weight, layer.bias
        if then is not None:
            weight, bias = then.weight @ weight, then.weight @ bias + then.bias
        return self.linear(number, weight, bias, items)

    def unit_rows(self, number: int, items: Tensor) -> Tensor:
        """Rows of `items` [m, f_m] divided by their norm, as a constant; zero rows stay zero."""
        table = self[number]
        if table.requires_grad:
            rows = columns.gather(table.detach().index_select(0, items), self.dims[number])
            return l2_normalize_rows(rows)
        if self._inverse_norms.get(number, (None,))[0] is not table:  # else: of this table
            norms = table.norm(dim=1, keepdim=True)
            inverse = norms.reciprocal().masked_fill_(norms == 0, 0.0)
            self._inverse_norms[number] = table, inverse
        rows = self._frozen[number].rounded(table).index_select(0, items)
        return rows.mul_(self._inverse_norms[number][1].index_select(0, items))

    def modality_weights(self, non_text_weight: float) -> list[float]:
        """A weight per table, sum 1: `non_text_weight` divided among those that are not text.

        If all are text, or none is, every table gets the same.
        """
        text = [modality == "text" for modality in self.modalities]
        if all(text) or not any(text):
            return [1 / len(text)] * len(text)
        each, other = (1 - non_text_weight) / sum(text), non_text_weight / (len(text) - sum(text))
        return [each if is_text else other for is_text in text]

    def item_graph(self, non_text_weight: float, keys: ItemGraphSettings) -> SparseOperator:
        """Mean of the tables' unweighted kNN graphs [item_num]², weighted by `modality_weights`."""
        return SparseOperator(
            sum(
                weight
                * item_graph(
                    table.detach(),
                    keys.knn_k,
                    method=keys.knn,
                    weighted=False,
                    memory_bytes=keys.knn_memory_mb << 20,
                    place=self.place,
                )
                for weight, table in zip(self.modality_weights(non_text_weight), self, strict=True)
            )
        )


def _side_by_side(group: list[Any]) -> Tensor:
    """Features as given, or the unit rows of several side by side [item_num, Σ f_m]."""
    values = [torch.from_numpy(one.values) for one in group]
    if len(values) == 1:
        return values[0]
    return torch.cat([nn.functional.normalize(one, dim=1) for one in values], 1)


def project(table: Tensor, layer: Any) -> Tensor:
    """A large matrix [n, f] that differs from step to step, through an affine layer f → d."""
    if columns.division() is None:
        return linear(table, layer.weight, layer.bias)
    out = columns.scatter_total(linear(table, columns.own(layer.weight, 1)))
    return out + columns.own(layer.bias)


class ContentRecommender(PairwiseRecommender):
    """A pairwise model that cannot be built without item features.

    Attributes:
        interactions: R̂ [user_num, item_num], scipy CSR.
        id_only_features: control features, zero or random, that make this model its own twin
            without content; None if it is nothing without content.
        id_only_settings: settings of the twin beside them.
    """

    new_items_refused = "it learns a part of each item's vector from interactions"
    id_only_features: str | None = "zero"
    id_only_settings: ClassVar[dict[str, Any]] = {}

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        if not dataset.features:
            raise FeatureError(
                f"{type(self).__name__} needs item features.",
                found="features: none",
                expected="at least one feature set",
                hint="name an encoder, such as lsa, or a feature file in `features`",
            )
        self.interactions = normalised_interactions(dataset.pairs(), (self.n_users, self.n_items))

    def after_step(self) -> None:
        """Keep the rows of missing modalities zero; the trainer calls it after each step."""
        for part in self.children():
            if isinstance(part, ModalityFeatures):
                part.clear_missing()


# Two views --------------------------------------------------------------------------------------


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
    """The batch's users and positive items in the ID view, the content view and fused [b, d]."""

    user_id: Tensor
    user_content: Tensor
    item_id: Tensor
    item_content: Tensor
    user: Tensor
    item: Tensor


class TwoViewRecommender(ContentRecommender):
    """A model with an ID view and a content view, which the settings `align.*` can align.

    It also propagates the table `nodes` in `graph` over `n_ui_layers`, whose layers the settings
    `nlgcl.*` can contrast (`_neighbour_contrast`).

    A subclass gives `terms_and_views` in place of `loss_terms`. The alignment terms are AlignRec's
    (alignrec.py): CCA by cosine from content to ID, UIA of the fused vectors, REG against the
    features as given, of items that have any.

    Attributes:
        needs_views: `terms_and_views` has to return the views.
        resamples_dropout_per_row: dropout gives an item that is twice in a batch two vectors.
    """

    resamples_dropout_per_row = False
    nodes: UserItemEmbedding
    graph: SparseOperator

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        self.align: AlignSettings = self.settings.align
        self.neighbours: NeighbourSettings = self.settings.nlgcl
        self.virtual: VirtualSettings = self.settings.mdvt
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
            present = self.given_features.present(0)[positives].to(target.dtype)
            own = columns.normalize_rows(views.item_content)
            distance = losses.similarity_matrix_distance(own, target, present)
            out["align_reg"] = keys.reg * distance
        return out

    def _contrast(
        self, views: Views, users: Tensor, positives: Tensor, temperature: float
    ) -> Tensor:
        """InfoNCE from the content view to the ID view, of the batch's items and users."""
        ids = (None, None) if self.resamples_dropout_per_row else (positives, users)
        items = losses.info_nce(views.item_content, views.item_id, temperature, ids=ids[0])
        return items + losses.info_nce(views.user_content, views.user_id, temperature, ids=ids[1])


class GatedPass(NamedTuple):
    """A forward pass of a GatedTwoView for a batch.

    Attributes:
        ids: ID vectors of the batch's users, then items [n, d].
        content_view: of the same rows [n, d].
        item_content: content vectors of all items.
        user_content: content vectors of all users, or None.
    """

    ids: Tensor
    content_view: Tensor
    item_content: Tensor
    user_content: Tensor | None


class GatedTwoView(TwoViewRecommender):
    """A model whose content view starts from the items' ID vectors and is added to the ID view.

    A subclass sets `nodes`, `graph` (Â), `user_item` (R̂), `l2_divisor` and the weights of bpr, l2
    and contrast, and gives `_content_items` (of all items, from their ID vectors) and
    `_content_view` (of some rows, from their ID and content vectors).
    """

    nodes: UserItemEmbedding
    tables: ModalityFeatures
    projections: nn.ModuleList
    gates: nn.ModuleList
    item_graphs: list[SparseOperator]
    graph: SparseOperator
    user_item: SparseOperator
    l2_divisor: float
    ROWS = 8192  # fused at once

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """Fused vectors of all users and items."""
        nodes = self._ids()
        items = self._content_items(self.nodes.items)
        return (
            self._fused(nodes[: self.n_users], self.user_item @ items),
            self._fused(nodes[self.n_users :], items),
        )

    def _ids(self) -> Tensor:
        """ID view of all nodes [user_num + item_num, d]."""
        return layer_mean(self.graph, self.nodes.weight, self.settings.n_ui_layers)

    def _ids_of(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """ID view of some nodes [n, d], and the ID vectors of all items [item_num, d]."""
        items = slice(self.n_users, None)
        return layer_mean(self.graph, self.nodes.weight, self.settings.n_ui_layers, rows, items)

    def _fused(self, ids: Tensor, content: Tensor) -> Tensor:
        """Both views added, in blocks of rows, which bounds the memory of `_content_view`."""
        blocks = zip(ids.split(self.ROWS), content.split(self.ROWS), strict=True)
        return torch.cat([rows + self._joint_view(rows, own) for rows, own in blocks])

    def terms_and_views(
        self, users: Tensor, positives: Tensor, negatives: Tensor
    ) -> tuple[dict[str, Tensor], Views]:
        """BPR, squares of the batch's vectors, contrast of content and ID view."""
        forward = self._forward(users, torch.cat([positives, negatives.ravel()]))
        return self._gated_terms(forward, users, positives)

    def _forward(self, users: Tensor, items: Tensor, *, all_users: bool = False) -> GatedPass:
        ids, own = self._ids_of(torch.cat([users, items + self.n_users]))
        content = self._content_items(own)
        user_content = self.user_item @ content if all_users else None
        if user_content is None:
            user_rows = self.user_item.rows(users, content)
        else:
            user_rows = gather_rows(user_content, users)
        content_view = self._joint_view(ids, torch.cat([user_rows, gather_rows(content, items)]))
        return GatedPass(ids, content_view, content, user_content)

    def _gated_terms(
        self, forward: GatedPass, users: Tensor, positives: Tensor
    ) -> tuple[dict[str, Tensor], Views]:
        batch = len(users)
        sizes = [batch, batch, len(forward.ids) - 2 * batch]
        user, positive, negative = (forward.ids + forward.content_view).split(sizes)
        id_user, id_item, _ = forward.ids.split(sizes)
        content_user, content_item, _ = forward.content_view.split(sizes)

        terms = {"bpr": losses.bpr(*pair_scores(user, positive, negative))}
        if self.weights["l2"]:
            terms["l2"] = losses.l2_squared_penalty(
                user, positive, negative, divisor=self.l2_divisor
            )
        views = Views(id_user, content_user, id_item, content_item, user, positive)
        if self.weights["contrast"]:
            tau = self.settings.temperature
            terms["contrast"] = self._contrast(views, users, positives, tau)
        return terms, views

    def _joint_view(self, ids: Tensor, content: Tensor) -> Tensor:
        """`_content_view`, which may combine columns of vectors."""
        if columns.division() is None:
            return self._content_view(ids, content)
        views = content.view(len(content), -1, ids.shape[1])
        whole = columns.gather(views).flatten(1)
        return columns.own(self._content_view(columns.gather(ids), whole))

    def _gated_items(self, ids: Tensor, layers: int) -> list[Tensor]:
        """Of each modality S_mⁿ (E_i ⊙ σ(V_m (W_m f_m + b_m) + c_m)) [item_num, d]."""
        out = []
        for number, (first, second, graph) in enumerate(
            zip(self.projections, self.gates, self.item_graphs, strict=True)
        ):
            content = ids * torch.sigmoid(self.tables.project(number, first, second))
            for _ in range(layers):
                content = graph @ content
            out.append(content)
        return out

    def _content_items(self, ids: Tensor) -> Tensor:
        raise NotImplementedError

    def _content_view(self, ids: Tensor, content: Tensor) -> Tensor:
        raise NotImplementedError
