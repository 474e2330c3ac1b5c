"""What models with item features share: their tables, and alignment of two views as an option.

A model takes any number of feature sets (one fused matrix, several modalities, one of them) and
treats each as a modality.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from alignrec_recbole import losses
from alignrec_recbole.errors import FeatureError
from alignrec_recbole.graphs.item_item import unweighted_item_graph
from alignrec_recbole.graphs.user_item import normalised_interactions
from alignrec_recbole.models._base import PairwiseRecommender, UserItemEmbedding, pair_scores
from alignrec_recbole.ops.frozen_matrix import FrozenMatrix
from alignrec_recbole.ops.linear import linear
from alignrec_recbole.ops.propagation import layer_mean
from alignrec_recbole.ops.rows import gather_rows, l2_normalize_rows
from alignrec_recbole.ops.sparse import SparseOperator
from alignrec_recbole.settings import Settings, read_settings


class ModalityFeatures(nn.Module):
    """The feature sets of a data set: table n [item_num, f_n], zero where an item has none.

    Trained tables stay zero there by `clear_absent` after each of the optimizer's steps.

    Args:
        dataset: with `features`.
        train: the tables are parameters, as in most of MMRec's models; else constants.
        unit: rows are divided by their norm.

    Attributes:
        kinds: text, image, audio or fused, by set.
        widths: f_n.
    """

    def __init__(self, dataset: Any, *, train: bool, unit: bool = False) -> None:
        super().__init__()
        sets = list(dataset.features.values())
        self.kinds = tuple(table.modality for table in sets)
        self.widths = tuple(table.values.shape[1] for table in sets)
        self._factors = [FrozenMatrix() for _ in sets]
        for number, table in enumerate(sets):
            values = torch.from_numpy(table.values).to(torch.get_default_dtype())
            values = l2_normalize_rows(values) if unit else values
            if train:
                self.register_parameter(f"set{number}", nn.Parameter(values.clone()))
            else:
                self.register_buffer(f"set{number}", values, persistent=False)
            present = torch.from_numpy(table.present)
            self.register_buffer(f"present{number}", present, persistent=False)
            absent = torch.nonzero(~present).ravel()
            self.register_buffer(f"absent{number}", absent, persistent=False)

    def __len__(self) -> int:
        return len(self.widths)

    def __getitem__(self, number: int) -> Tensor:
        if not 0 <= number < len(self):
            raise IndexError(number)
        return getattr(self, f"set{number}")

    def __iter__(self) -> Iterator[Tensor]:
        return (self[number] for number in range(len(self)))

    def present(self, number: int) -> Tensor:
        """bool [item_num]: which items have this set."""
        return getattr(self, f"present{number}")

    @torch.no_grad()
    def clear_absent(self) -> None:
        """Zero the rows of items without a set, which a step may have moved."""
        for number, table in enumerate(self):
            if table.requires_grad:
                table.index_fill_(0, getattr(self, f"absent{number}"), 0.0)

    def projections(self, size: int, *, bias: bool = True) -> nn.ModuleList:
        """One linear layer f_n → size a set."""
        return nn.ModuleList(nn.Linear(width, size, bias=bias) for width in self.widths)

    def linear(
        self,
        number: int,
        weight: Tensor,
        bias: Tensor | None = None,
        items: Tensor | None = None,
    ) -> Tensor:
        """Set n times Wᵀ, plus b: [item_num, d], or [m, d] of `items`."""
        return self._factors[number].linear(self[number], weight, bias, items)

    def project(
        self, number: int, layer: Any, then: Any = None, items: Tensor | None = None
    ) -> Tensor:
        """Set n through an affine layer f_n → d, or through two, multiplied into one."""
        weight, bias = layer.weight, layer.bias
        if then is not None:
            weight, bias = then.weight @ weight, then.weight @ bias + then.bias
        return self.linear(number, weight, bias, items)

    def shares(self, others: float) -> list[float]:
        """Weights of the sets, sum 1: `others` divided among those that are not text.

        If all are text, or none is, every set gets the same.
        """
        text = [kind == "text" for kind in self.kinds]
        if all(text) or not any(text):
            return [1 / len(text)] * len(text)
        return [(1 - others) / sum(text) if t else others / (len(text) - sum(text)) for t in text]

    def item_graph(self, others: float, k: int, memory_mb: int) -> SparseOperator:
        """Mean of the sets' unweighted kNN graphs [item_num, item_num], weighted by `shares`."""
        return SparseOperator(
            sum(
                share * unweighted_item_graph(table.detach(), k, memory_bytes=memory_mb << 20)
                for share, table in zip(self.shares(others), self, strict=True)
            )
        )


def project(table: Tensor, layer: Any) -> Tensor:
    """A large table [n, f] that changes from step to step, through an affine layer f → d."""
    return linear(table, layer.weight, layer.bias)


class ContentRecommender(PairwiseRecommender):
    """A pairwise model that cannot be built without item features.

    Attributes:
        settings: read by `settings_class`.
        interactions: R̂ [user_num, item_num], scipy CSR.
    """

    settings_class: type[Settings]
    settings: Any

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        name = type(self).__name__
        self.settings = read_settings(config, self.settings_class, name)
        if not dataset.features:
            raise FeatureError(
                f"{name} needs item features.",
                found="features: none",
                expected="at least one feature set",
                hint="pass --features lsa, or the name of a feature file",
            )
        self.interactions = normalised_interactions(dataset.pairs(), (self.n_users, self.n_items))

    def after_step(self) -> None:
        """What an item does not have is not learnt."""
        for part in self.children():
            if isinstance(part, ModalityFeatures):
                part.clear_absent()


# Two views --------------------------------------------------------------------------------------


class AlignSettings(Settings):
    """Weights of AlignRec's alignment terms in another model; 0 switches a term off."""

    cca: float = Field(0.0, ge=0, description="content view with ID view")
    uia: float = Field(0.0, ge=0, description="user with item")
    reg: float = Field(0.0, ge=0, description="content view with features")
    temperature: float = Field(0.2, gt=0, description="τ of cca")


class TwoViewSettings(Settings):
    """Settings of a model whose views can be aligned."""

    align: AlignSettings = Field(description="align.cca, align.uia, align.reg, align.temperature")


class Views(NamedTuple):
    """The batch's users and positive items in both views, and fused; [b, d] each."""

    user_id: Tensor
    user_content: Tensor
    item_id: Tensor
    item_content: Tensor
    user: Tensor
    item: Tensor


class TwoViewRecommender(ContentRecommender):
    """A model that forms an ID view and a content view, which `align.*` can pull together.

    Its `loss_terms` calls `expose`. The terms are AlignRec's (alignrec.py): CCA by cosine from
    content to ID, UIA on the fused vectors, REG against the features as given, of items with any.
    """

    resamples_dropout_per_row = (
        False  # whether an item twice in a batch has two vectors, by dropout
    )

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        self.align: AlignSettings = self.settings.align
        self._views: Callable[[], Views] | None = None
        if self.align.reg:
            fused = dataset.fused_features().to(torch.get_default_dtype())
            self.register_buffer("alignment_target", l2_normalize_rows(fused), persistent=False)
            has_features = fused.norm(dim=1).ne(0).to(fused.dtype)
            self.register_buffer("has_features", has_features, persistent=False)

    def expose(self, views: Callable[[], Views]) -> None:
        """Offer the batch's views; they are made only if something aligns them."""
        self._views = views

    def calculate_loss(self, interaction: Any) -> tuple[Tensor, ...]:
        """The model's terms, then the alignment terms with a non-zero weight, all weighted."""
        terms = super().calculate_loss(interaction)
        views, self._views = self._views, None
        if not (self.align.cca or self.align.uia or self.align.reg):
            return terms
        assert views is not None, "loss_terms did not expose its views"
        batch = interaction[self.USER_ID], interaction[self.ITEM_ID]
        return (*terms, *self._alignment(views(), *batch))

    def _alignment(self, views: Views, users: Tensor, positives: Tensor) -> list[Tensor]:
        keys, out = self.align, []
        if keys.cca:
            out.append(keys.cca * self._views_agree(views, users, positives, keys.temperature))
        if keys.uia:
            out.append(keys.uia * losses.cosine_distance(views.user, views.item))
        if keys.reg:
            target = self.alignment_target[positives]
            own = l2_normalize_rows(views.item_content)
            distance = losses.similarity_matrix_distance(own, target, self.has_features[positives])
            out.append(keys.reg * distance)
        return out

    def _views_agree(
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
        side: their content view [n, d].
        content: content vectors of all items.
        user_content: content vectors of all users, where asked for.
    """

    ids: Tensor
    side: Tensor
    content: Tensor
    user_content: Tensor | None


class GatedTwoView(TwoViewRecommender):
    """A model whose content view starts from the items' ID vectors and is added to the ID view.

    A subclass sets `nodes`, `graph` (Â), `user_item` (R̂), `l2_divisor` and the weights of bpr, l2
    and contrast, and gives `_content_items` (of all items, from their ID vectors) and `_side` (the
    content view of some rows, from both).
    """

    nodes: UserItemEmbedding
    graph: SparseOperator
    user_item: SparseOperator
    l2_divisor: float
    ROWS = 8192  # fused at once

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """Fused vectors of all users and items."""
        nodes = layer_mean(self.graph, self.nodes.weight, self.settings.n_ui_layers)
        items = self._content_items(self.nodes.items)
        return (
            self._fused(nodes[: self.n_users], self.user_item @ items),
            self._fused(nodes[self.n_users :], items),
        )

    def _fused(self, ids: Tensor, content: Tensor) -> Tensor:
        """Both views added, block by block: what `_side` makes on the way stays small."""
        blocks = zip(ids.split(self.ROWS), content.split(self.ROWS), strict=True)
        return torch.cat([rows + self._side(rows, own) for rows, own in blocks])

    def loss_terms(self, users: Tensor, positives: Tensor, negatives: Tensor) -> dict[str, Tensor]:
        """BPR, squares of the batch's vectors, contrast of content and ID view."""
        made = self._forward(users, torch.cat([positives, negatives.ravel()]))
        return self._gated_terms(made, users, positives)[0]

    def _forward(self, users: Tensor, items: Tensor, *, all_users: bool = False) -> GatedPass:
        ids, own = layer_mean(
            self.graph,
            self.nodes.weight,
            self.settings.n_ui_layers,
            torch.cat([users, items + self.n_users]),
            slice(self.n_users, None),
        )
        content = self._content_items(own)
        everyone = self.user_item @ content if all_users else None
        if everyone is None:
            user_rows = self.user_item.rows(users, content)
        else:
            user_rows = gather_rows(everyone, users)
        side = self._side(ids, torch.cat([user_rows, gather_rows(content, items)]))
        return GatedPass(ids, side, content, everyone)

    def _gated_terms(
        self, made: GatedPass, users: Tensor, positives: Tensor
    ) -> tuple[dict[str, Tensor], Views]:
        batch = len(users)
        sizes = [batch, batch, len(made.ids) - 2 * batch]
        user, positive, negative = (made.ids + made.side).split(sizes)
        id_user, id_item, _ = made.ids.split(sizes)
        side_user, side_item, _ = made.side.split(sizes)

        terms = {"bpr": losses.bpr(*pair_scores(user, positive, negative))}
        if self.weights["l2"]:
            terms["l2"] = losses.l2_squared_penalty(
                user, positive, negative, divisor=self.l2_divisor
            )
        views = Views(id_user, side_user, id_item, side_item, user, positive)
        if self.weights["contrast"]:
            tau = self.settings.temperature
            terms["contrast"] = self._views_agree(views, users, positives, tau)
        self.expose(lambda: views)
        return terms, views

    def _content_items(self, ids: Tensor) -> Tensor:
        raise NotImplementedError

    def _side(self, ids: Tensor, content: Tensor) -> Tensor:
        raise NotImplementedError
