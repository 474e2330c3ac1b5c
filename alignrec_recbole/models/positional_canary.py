"""PositionalCanary: LightGCN that reads the numbers of users and items. Not a recommender.

It shows whether numbers say something about held-out items, and that a check notices a model that
reads them. It is in no list of models, in no suite and in no table by default.

    e'_n = e_n + p_n,   p_n,2k = sin(n / 10000^(2k/d)) √(2/d),   p_n,2k+1 = cos(…) √(2/d)

with n the internal number of a user, or of an item; the rest is LightGCN.

Paper       sinusoids: Vaswani et al., "Attention Is All You Need", NeurIPS 2017, arXiv 1706.03762.
Followed    no code; ours.
Deviations  D1 the sinusoids have length 1, so that they outweigh the first ID vectors.
Shapes      positions [user_num + item_num, d]; PAD rows are zero.
Cost        that of LightGCN.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from alignrec_recbole.models.lightgcn import LightGCN


class PositionalCanary(LightGCN):
    """LightGCN with sinusoidal positions of user and item numbers."""

    capture_refused = ""
    columns_refused = "it is there for checks"
    positions: Tensor

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        size = self.settings.embedding_size
        parts = [sinusoids(count, size) for count in (self.n_users, self.n_items)]
        self.register_buffer("positions", torch.cat(parts), persistent=False)

    def _first_layer(self) -> Tensor:
        return self.nodes.weight + self.positions


def sinusoids(count: int, size: int) -> Tensor:
    """Unit rows of sines and cosines of 0 … count−1 [count, size]; row 0 is zero.

    >>> sinusoids(3, 2)
    tensor([[ 0.0000,  0.0000],
            [ 0.8415,  0.5403],
            [ 0.9093, -0.4161]])
    """
    half = (size + 1) // 2
    rates = 10000.0 ** (-torch.arange(half, dtype=torch.float64) / half)
    angles = torch.arange(count, dtype=torch.float64)[:, None] * rates
    rows = torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)[:, :size]
    rows[0] = 0
    return (rows / half**0.5).float()
