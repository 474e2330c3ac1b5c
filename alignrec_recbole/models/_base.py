"""Base class and parts of this package's models: named loss terms, scores by inner product.

A model is one file with a settings class and a model class, a line in registry/models.py and a YAML
of defaults. A model without item features starts from PairwiseRecommender and UserItemEmbedding
(bpr.py is the shortest), one with item features from ContentRecommender and ModalityFeatures in
_content.py (vbpr.py), one whose two views can be aligned from TwoViewRecommender in _two_views.py
(freedom.py).
"""

from __future__ import annotations

import functools
import math
from collections import namedtuple
from collections.abc import Callable, Sequence
from typing import Any

import torch
from pydantic import Field
from recbole.model.abstract_recommender import GeneralRecommender
from recbole.utils import InputType
from torch import Tensor, nn

from alignrec_recbole.features.content_map import ContentMap
from alignrec_recbole.ops import columns
from alignrec_recbole.ops.frozen_matrix import FrozenMatrix
from alignrec_recbole.settings import MAX_LAYERS, Settings, read_settings


class PairwiseRecommender(GeneralRecommender):
    """A model trained on (user, positive, negative) that scores by ⟨h_u, h_i⟩.

    A subclass names its `settings_class`, sets `self.weights` (loss term → weight) and defines
    `embeddings` and `loss_terms`. It may define `begin_epoch(generator)` and `after_step()`, which
    the trainer calls before each epoch and after each step. Row 0 of users and of items is PAD.
    """

    input_type = InputType.PAIRWISE
    settings_class: type[Settings]
    settings: Any  # of settings_class
    new_items_refused = "it knows items by their ids alone"  # why `new_items` gives nothing
    # why columns cannot be divided among processes (`ops.columns`); "": they can
    columns_refused = "its computations are not divided by columns"
    # why a step cannot be repeated as one graph of a GPU (`training.captured`); "": it can
    capture_refused = "its step has not been checked for operators that the host waits for"
    # why precision=bfloat16 has no effect (`ops.matmul.precision`); "": it has
    bfloat16_refused = "it has no large product in training"
    contrasts_batch = False  # whether a loss compares each row of a batch with all its others
    weights: dict[str, float]
    epoch_losses: Sequence[float] = ()  # mean training losses of the epochs before; the trainer's

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        self.settings = read_settings(config, self.settings_class, type(self).__name__)
        self._scoring_cache: tuple[Tensor, Tensor] | None = None
        self._frozen_items = FrozenMatrix()
        self.register_load_state_dict_post_hook(lambda module, _: module._clear_cache())

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """Final user [user_num, d] and item [item_num, d] vectors."""
        raise NotImplementedError

    def loss_terms(self, users: Tensor, positives: Tensor, negatives: Tensor) -> dict[str, Tensor]:
        """Unweighted loss terms by name, scalars; negatives are [b] or [b, s]."""
        raise NotImplementedError

    def weighted_losses(
        self, users: Tensor, positives: Tensor, negatives: Tensor
    ) -> dict[str, Tensor]:
        """The loss terms by name times their weights; the sum is minimised."""
        terms = self.loss_terms(users, positives, negatives)
        return {name: self.weights[name] * value for name, value in terms.items()}

    def changing_parts(self) -> tuple[Any, ...]:
        """What a step reads beside weights and batch if it is replaced between steps.

        A captured step is repeated while these are equal.
        """
        return ()

    def calculate_loss(self, interaction: Any) -> tuple[Tensor, ...]:
        """`weighted_losses` as RecBole asks for them: a tuple, here a named one."""
        losses = self.weighted_losses(
            interaction[self.USER_ID], interaction[self.ITEM_ID], interaction[self.NEG_ITEM_ID]
        )
        return _named_tuple(*losses)(*losses.values())

    def predict(self, interaction: Any) -> Tensor:
        """Scores [b] of user-item pairs."""
        users, items = self._scoring_embeddings()
        return (users[interaction[self.USER_ID]] * items[interaction[self.ITEM_ID]]).sum(-1)

    @torch.no_grad()
    def full_sort_predict(self, interaction: Any) -> Tensor:
        """Scores [b, item_num] of users with every item, PAD included."""
        users, items = self._scoring_embeddings()
        return self._frozen_items.matmul_nt(users[interaction[self.USER_ID]], items)

    def scoring_vectors(self) -> tuple[Tensor, Tensor] | None:
        """User [user_num, d] and item [item_num, d] vectors whose products are the scores.

        None if a subclass scores in another way.
        """
        if type(self).full_sort_predict is not PairwiseRecommender.full_sort_predict:
            return None
        return self._scoring_embeddings()

    def new_items(self, dataset: Any) -> ContentMap | None:
        """How items that were not in the training are scored by their features; None: not at all.

        A subclass that gives None says why in `new_items_refused`.
        """
        return None

    def train(self, mode: bool = True) -> PairwiseRecommender:
        """Switch the mode and drop the vectors cached for scoring.

        Where columns are divided they stay if the mode does: the first process alone stores them.
        """
        if columns.division() is None or mode != self.training:
            self._clear_cache()
        return super().train(mode)

    def _clear_cache(self) -> None:
        self._scoring_cache, self._frozen_items = None, FrozenMatrix()

    @torch.no_grad()
    def _scoring_embeddings(self) -> tuple[Tensor, Tensor]:
        if self.training:
            return self._whole_embeddings()
        if self._scoring_cache is None:
            self._scoring_cache = self._whole_embeddings()
        return self._scoring_cache

    def _whole_embeddings(self) -> tuple[Tensor, Tensor]:
        """`embeddings` with the columns of all processes."""
        users, items = self.embeddings()
        return columns.gather(users), columns.gather(items)


@functools.cache
def _named_tuple(*names: str) -> Any:
    return namedtuple("Losses", names)


class GraphSettings(Settings):
    """Settings of models that propagate vectors in the user-item graph."""

    embedding_size: int = Field(gt=0, description="size of a vector d")
    n_ui_layers: int = Field(ge=0, le=MAX_LAYERS, description="layers of the user-item graph L")


class UserItemEmbedding(nn.Module):
    """ID vectors of users and items in one table [user_num + item_num, d], for propagation.

    `initialise` fills the users' part and the items' part apart, without their PAD rows, which are
    zero.
    """

    def __init__(self, n_users: int, n_items: int, size: int, initialise: Any) -> None:
        super().__init__()
        self.n_users = n_users
        self.weight = columns.mark(nn.Parameter(torch.zeros(n_users + n_items, size)))
        with torch.no_grad():
            initialise(self.users[1:])
            initialise(self.items[1:])

    @property
    def users(self) -> Tensor:
        """[user_num, d]."""
        return self.weight[: self.n_users]

    @property
    def items(self) -> Tensor:
        """[item_num, d]."""
        return self.weight[self.n_users :]


def padded(rows: int, size: int, initialise: Any, parts: int = 1) -> nn.Parameter:
    """A parameter [rows, size] filled by `initialise`, except for the PAD row, which is zero.

    `parts`: vectors side by side in a row, see `ops.columns.mark`.
    """
    table = torch.zeros(rows, size)
    initialise(table[1:])
    return columns.mark(nn.Parameter(table), parts)


def pair_scores(user: Tensor, positive: Tensor, negative: Tensor) -> tuple[Tensor, Tensor]:
    """Scores [b, 1] and [b, s] of users [b, d] with positives [b, d] and negatives [b·s, d].

    >>> pair_scores(torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 1.0]]), torch.eye(2))
    (tensor([[3.]]), tensor([[1., 2.]]))
    """
    right = (user * positive).sum(-1, keepdim=True)
    wrong = (user[:, None] * negative.view(len(user), -1, user.shape[1])).sum(-1)
    if columns.division() is None:
        return right, wrong
    scores = columns.total(torch.cat([right, wrong], 1))
    return scores[:, :1], scores[:, 1:]


def xavier_normal_as_one(rows: int) -> Callable[[Tensor], Tensor]:
    """Xavier's normal initialisation of a table [rows, d] that is filled in parts [n, d]."""
    return lambda part: nn.init.normal_(part, std=math.sqrt(2 / (rows + part.shape[1])))
