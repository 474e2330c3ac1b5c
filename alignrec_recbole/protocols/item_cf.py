"""item-cf: are items with similar features good neighbours for collaborative filtering?

Method: every item of a user's history votes for the items that are most similar to it by
features.

    w_ij = max(f̂_i · f̂_j, 0) for j ∈ kNN(i), else 0        s(u, j) = Σ_{i∈N_u} w_ij

kNN(i) are the k candidates most similar to i, without i itself, equal ones in the fixed order;
f̂ are unit vectors (see `protocols/content.py`). k = 20. There is no shrinkage: with unit
vectors a shrinkage h scales all weights by 1/(1+h) and changes no order. Candidates: all items;
those without a vote score 0 and follow in the fixed order. Excluded items and targets: those of
the evaluation convention.

Metrics: Recall, NDCG, Precision and MAP. Chance of Recall@K: about K / number of items, stored
exactly.

Source: the AlignRec paper names item-CF; neighbourhood, weights and k are our definition. k = 20
was the best of {10, 20, 50, 100} on the validation Recall@20 of lfm2k for most feature sets;
tables use it everywhere, and `--grid k=…` reports a sweep on validation separately.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
import torch
from pydantic import Field
from torch import Tensor

from alignrec_recbole.evaluation.ranking import BLOCK_BYTES
from alignrec_recbole.ops.matmul import matmul_nt
from alignrec_recbole.ops.topk import top_k
from alignrec_recbole.protocols.content import Content, Scores, with_tie_break
from alignrec_recbole.settings import Settings

NAME = "item-cf"
VERSION = 1


class ItemCFSettings(Settings):
    """The neighbourhood."""

    k: int = Field(default=20, gt=0, description="at least 1")


SETTINGS = ItemCFSettings


def scorer(content: Content, settings: ItemCFSettings) -> Scores:
    """Sums of the history's similarities, ≥ 0."""
    votes = neighbours(content, settings.k)
    device = content.vectors.device

    def scores(users: Tensor) -> Tensor:
        table = (content.history[users.cpu().numpy()] @ votes).toarray()
        return torch.from_numpy(table).to(device)

    return scores


@torch.inference_mode()
def neighbours(content: Content, k: int) -> sp.csr_matrix:
    """W as CSR float32 [item_num, columns], in blocks of rows; at most k per row, all positive."""
    vectors, columns = content.vectors, content.columns
    candidates = vectors[torch.from_numpy(columns).to(vectors.device)]
    item_num, width = len(vectors), len(columns)
    k = min(k, width - 1)
    nothing = ~candidates.ne(0).any(1)  # PAD among them
    itself = torch.from_numpy(_positions(columns, item_num)).to(vectors.device)
    tie_rank = content.tie_rank[columns]
    block = max(1, BLOCK_BYTES // (4 * width))
    weights, best = [], []
    for start in range(0, item_num, block):
        similar = matmul_nt(vectors[start : start + block], candidates)
        keys = with_tie_break(similar.clone(), tie_rank)
        keys[:, nothing] = -torch.inf
        own = itself[start : start + block]
        rows = torch.nonzero(own >= 0).ravel()
        keys[rows, own[rows]] = -torch.inf
        order = top_k(keys, k)
        kept = similar.gather(1, order[1]).clamp_(min=0)
        kept[order[0] == -torch.inf] = 0
        weights.append(kept.cpu().numpy())
        best.append(order[1].cpu().numpy())
    row = np.repeat(np.arange(item_num), k)
    votes = sp.csr_matrix(
        (np.concatenate(weights).ravel(), (row, np.concatenate(best).ravel())),
        shape=(item_num, width),
    )
    votes.eliminate_zeros()
    return votes


def _positions(columns: np.ndarray, item_num: int) -> np.ndarray:
    """Position of each item among the columns, −1 for items that are none of them."""
    out = np.full(item_num, -1, dtype=np.int64)
    out[columns] = np.arange(len(columns))
    return out
