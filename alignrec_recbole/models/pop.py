"""Pop: every user is offered the most popular items.

Followed    RecBole 1.2.1's Pop, with one repair: its counter adds each item at most once per batch
            (an indexed assignment does not accumulate), and counts sampled negatives when the
            loader supplies them. Here the counts are those of the training interactions.
Shapes      counts [item_num]; PAD has none.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from recbole.model.general_recommender import pop
from torch import Tensor


class Pop(pop.Pop):
    """Popularity from the training interactions."""

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        counts = np.bincount(dataset.pairs()[1], minlength=self.n_items)
        self.item_cnt = torch.from_numpy(counts)[:, None].to(self.device)
        self.max_cnt = self.item_cnt.max(dim=0)[0]

    def scoring_vectors(self) -> tuple[Tensor, Tensor]:
        """Vectors of size 1: 1 for every user, the share of the largest count for every item."""
        shares = (self.item_cnt.double() / self.max_cnt.double()).float()
        return torch.ones(self.n_users, 1, device=shares.device), shares

    def calculate_loss(self, interaction: Any) -> Tensor:
        """A constant zero: there is nothing to learn."""
        return self.fake_loss.sum() * 0
