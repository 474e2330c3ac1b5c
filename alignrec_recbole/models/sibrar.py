"""SiBraR: one network for ID vectors and all modalities; an item is the mean of what it has.

Paper       Ganhör et al., "A Multimodal Single-Branch Embedding Network for Recommendation in
            Cold-Start and Missing Modality Scenarios", RecSys 2024, arXiv 2409.17864.
Followed    the port of ptkjw1997/DGMRec@cd8f00d src/models/sibrar.py, in which items alone have
            several views; compared gradient by gradient by `python -m
            benchmarks.parity.baselines --model SiBraR` (no code taken).

    g(x) = W₂ relu(W₁ x + c₁) + c₂, shared by all views
    v_i0 = g(E_i),   v_im = norm(g(W_m f_im + b_m)),   m = 1 … M
    of each triple (u, i, j) two views m ≠ n are drawn that i and j have
    loss = mean of −ln σ(⟨h_u, v_im + v_in⟩ − ⟨h_u, v_jm + v_jn⟩)
         + contrast_weight · mean of −ln σ((⟨v_im, v_in⟩ − ⟨v_im, v_jn⟩) / temperature)
                                     −ln σ((⟨v_im, v_in⟩ − ⟨v_jm, v_in⟩) / temperature)
    s(u, i) = ⟨h_u, mean of the views that i has⟩

Deviations  D1 what an item does not have is never drawn and no part of its mean, as in the paper;
               the reference puts zeros or the mean row in its place. Where i and j have fewer than
               two views in common, the ID vectors stand for both, without a contrast.
            D2 an item without training interactions has no ID view, as it has no interactions in
               the paper, unless it has nothing else; in the reference (`id_views: all`) its ID
               vector, which only negatives move, is a view like any other.
            D3 only the batch's items are computed.
Shapes      users and ID vectors [user_num, d], [item_num, d]; features [item_num, f_m]; row 0 is
            PAD.
Cost        a 2b × f_m × d product per modality and step.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from alignrec_recbole import losses
from alignrec_recbole.models._base import padded, pair_scores
from alignrec_recbole.models._content import ContentRecommender, ModalityFeatures
from alignrec_recbole.ops.rows import gather_rows, l2_normalize_rows
from alignrec_recbole.settings import Settings


class SiBraRSettings(Settings):
    """Hyper-parameters; defaults and their sources are in properties/model/SiBraR.yaml."""

    embedding_size: int = Field(gt=0, description="d")
    contrast_weight: float = Field(ge=0, description="weight of the contrast of two views")
    temperature: float = Field(gt=0, description="of the contrast")
    id_views: Literal["trained", "all"] = Field(
        description="items whose ID vector is a view: those with training interactions, or all"
    )
    train_features: bool = Field(description="the feature tables are trained, as in the reference")


class SiBraR(ContentRecommender):
    """SiBraR on any number of modalities."""

    settings_class = SiBraRSettings
    capture_refused = ""
    columns_refused = "its network reads all columns of a vector"

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        keys, size = self.settings, self.settings.embedding_size
        self.weights = {"bpr": 1.0, "contrast": keys.contrast_weight}
        self.users = padded(self.n_users, size, nn.init.xavier_uniform_)
        self.items = padded(self.n_items, size, nn.init.xavier_uniform_)
        self.tables = ModalityFeatures(dataset, train=keys.train_features)
        self.projections = self.tables.projections(size)
        known = torch.ones(self.n_items, dtype=torch.bool)
        if keys.id_views == "trained":
            known = torch.from_numpy(self.interactions.getnnz(axis=0) > 0)
            known |= ~torch.stack([self.tables.present(n) for n in range(len(self.tables))]).any(0)
        self.register_buffer("known", known, persistent=False)
        self.branch = nn.Sequential(nn.Linear(size, size), nn.ReLU(), nn.Linear(size, size))

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """h_u of all users, means of the views of all items."""
        views, has = self._views()
        return self.users, (views * has[..., None]).sum(1) / has.sum(1)[:, None]

    def loss_terms(self, users: Tensor, positives: Tensor, negatives: Tensor) -> dict[str, Tensor]:
        """BPR on sums of two views, and their contrast."""
        batch = len(users)
        views, has = self._views(torch.cat([positives, negatives.ravel()]))
        common = has[:batch] & has[batch:].view(batch, -1, has.shape[1]).all(1)
        pair, alone = _two_of(common)
        wrong = views[batch:].view(batch, -1, *views.shape[1:])
        positive = views[:batch].gather(1, pair[..., None].expand(-1, -1, views.shape[2]))
        place = pair[:, None, :, None].expand(-1, wrong.shape[1], -1, views.shape[2])
        negative = wrong.gather(2, place)  # [b, s, 2, d]
        user = gather_rows(self.users, users)
        flat = negative.sum(2).flatten(0, 1)
        terms = {"bpr": losses.bpr(*pair_scores(user, positive.sum(1), flat))}
        if self.weights["contrast"]:
            terms["contrast"] = self._contrast(positive, negative, alone)
        return terms

    def _contrast(self, positive: Tensor, negative: Tensor, alone: Tensor) -> Tensor:
        """Of views [b, 2, d] and of negatives [b, s, 2, d]; rows with one view are left out."""
        same = (positive[:, 0] * positive[:, 1]).sum(-1, keepdim=True)
        others = [(positive[:, None, n] * negative[:, :, 1 - n]).sum(-1) for n in (0, 1)]
        each = [F.softplus((other - same) / self.settings.temperature) for other in others]
        rows = (each[0] + each[1]).mean(1).masked_fill(alone, 0.0)
        return rows.sum() / (~alone).sum().clamp(min=1)

    def _views(self, items: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Views of items [n], or of all: [n, 1 + M, d], and which they have [n, 1 + M]."""
        ids = self.items if items is None else gather_rows(self.items, items)
        views, has = [self.branch(ids)], [self.known if items is None else self.known[items]]
        for number, layer in enumerate(self.projections):
            content = self.tables.project(number, layer, items=items)
            views.append(l2_normalize_rows(self.branch(content)))
            has.append(self.tables.present(number, items))
        return torch.stack(views, 1), torch.stack(has, 1)


def _two_of(has: Tensor) -> tuple[Tensor, Tensor]:
    """Two different views drawn among those that are there [b, 2], and which rows have one alone.

    >>> pair, alone = _two_of(torch.tensor([[True, False, True], [True, False, False]]))
    >>> pair.sort(1).values.tolist(), alone.tolist()
    ([[0, 2], [0, 0]], [False, True])
    """
    alone = has.sum(1) < 2
    pair = torch.multinomial((has | alone[:, None]).to(torch.get_default_dtype()), 2)
    return pair.masked_fill(alone[:, None], 0), alone
