"""The common part of models whose content view is gated by the IDs (MGCN, SMORE, SOIL, MSCA)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from alignrec_recbole import losses
from alignrec_recbole.models._base import UserItemEmbedding, pair_scores
from alignrec_recbole.models._content import ModalityFeatures
from alignrec_recbole.models._two_views import TwoViewRecommender, Views
from alignrec_recbole.ops import columns
from alignrec_recbole.ops.propagation import layer_mean
from alignrec_recbole.ops.rows import gather_rows
from alignrec_recbole.ops.sparse import SparseOperator


class GatedPass(NamedTuple):
    """A forward pass of a GatedTwoView for a batch.

    Attributes:
        ids: ID vectors of the batch's users, then items [n, d].
        contents: gives the content vectors of the same rows [n, M d].
        content_view: of the same rows [n, d].
        item_content: content vectors of all items.
        user_content: content vectors of all users, or None.
        repeats_equal: rows of one user or item are equal.
    """

    ids: Tensor
    contents: Callable[[], Tensor]
    content_view: Tensor
    item_content: Tensor
    user_content: Tensor | None
    repeats_equal: bool


class GatedTwoView(TwoViewRecommender):
    """A model whose content view starts from the items' ID vectors and is added to the ID view.

    A subclass sets `nodes`, `graph` (Â), `user_item` (R̂), `l2_divisor` and the weights of bpr, l2
    and contrast, and gives `_content_items` (of all items, from their ID vectors) and
    `_content_view` (of some rows, from their ID and content vectors).

    Attributes:
        drops_per_row: `_content_view` drops out values of each row.
    """

    drops_per_row = False
    contrasts_batch = True

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
        """The batch's rows; of a batch that has as many as there are nodes, all nodes are computed.

        Then each node is computed once, however often the batch has it, and dropout is that of the
        node, as in the reference code.
        """
        rows = torch.cat([users, items + self.n_users])
        if len(rows) >= self.n_users + self.n_items:
            return self._whole_forward(rows)
        ids, own = self._ids_of(rows)
        content = self._content_items(own)
        user_content = self.user_item @ content if all_users else None
        if user_content is None:
            user_rows = self.user_item.rows(users, content)
        else:
            user_rows = gather_rows(user_content, users)
        contents = torch.cat([user_rows, gather_rows(content, items)])
        view = self._joint_view(ids, contents)
        equal = not self.drops_per_row
        return GatedPass(ids, lambda: contents, view, content, user_content, equal)

    def _whole_forward(self, rows: Tensor) -> GatedPass:
        nodes, content = self._ids(), self._content_items(self.nodes.items)
        user_content = self.user_item @ content
        contents = torch.cat([user_content, content])
        view = gather_rows(self._joint_view(nodes, contents), rows)
        return GatedPass(
            gather_rows(nodes, rows),
            lambda: gather_rows(contents, rows),
            view,
            content,
            user_content,
            repeats_equal=True,
        )

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
        views = Views(
            id_user, content_user, id_item, content_item, user, positive, forward.repeats_equal
        )
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
