"""Full ranking: scores in user blocks, exact top-K without PAD and masked items, metrics per user.

Users without a target in the split are neither ranked nor averaged. Masked items never appear in a
list; a list with fewer than K candidates is filled with −1. Items with equal scores are in one
fixed random order (ties.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from alignrec_recbole.errors import DivergedError
from alignrec_recbole.evaluation.metrics import METRICS
from alignrec_recbole.evaluation.ties import best_in_order
from alignrec_recbole.features.item_order import TIE_SEED

BLOCK_BYTES = 16 << 20  # of scores at a time; twice as much is 3 to 5 % faster
GPU_BLOCK_BYTES = 512 << 20  # a tenth as many launches, and topk takes half as long
HIT_BLOCK_ROWS = 4096  # lists searched for targets at once

Scores = Callable[[Tensor], Tensor]  # internal user ids [b] → [b, item_num], may be overwritten


@dataclass(frozen=True)
class EvalTask:
    """The users to rank, the items excluded from their lists and their targets.

    Attributes:
        users: internal ids [n] of the users with at least one target, ascending.
        masked: CSR [n, n_items], True at items a list must not contain (PAD apart).
        targets: CSR [n, n_items], True at targets.
        tie_rank: [n_items], position of each column among equal scores (`ties.tie_ranks`); None:
            a fixed random order of the columns.
    """

    users: np.ndarray
    masked: sp.csr_matrix
    targets: sp.csr_matrix
    tie_rank: np.ndarray | None = None

    @classmethod
    def from_pairs(
        cls,
        targets: tuple[np.ndarray, np.ndarray],
        masked: Sequence[tuple[np.ndarray, np.ndarray]],
        shape: tuple[int, int],
        tie_rank: np.ndarray | None = None,
    ) -> EvalTask:
        """Build from (users, items) pairs; `shape` is (user_num, item_num) with PAD."""
        wanted = _boolean(*targets, shape)
        hidden = sum(
            (_boolean(*pairs, shape) for pairs in masked), sp.csr_matrix(shape, dtype=bool)
        )
        users = np.flatnonzero(np.diff(wanted.indptr))
        return cls(users, sp.csr_matrix(hidden[users]), wanted[users], tie_rank)

    def place_among_equals(self) -> np.ndarray:
        """Position of each column among equal scores [n_items]."""
        if self.tie_rank is not None:
            return self.tie_rank
        return np.random.Generator(np.random.PCG64(TIE_SEED)).permutation(self.masked.shape[1])


def _boolean(users: np.ndarray, items: np.ndarray, shape: tuple[int, int]) -> sp.csr_matrix:
    matrix = sp.csr_matrix((np.ones(len(users), dtype=bool), (users, items)), shape=shape)
    matrix.sum_duplicates()
    matrix.sort_indices()
    return matrix


@dataclass(frozen=True)
class Ranking:
    """Top-K lists of a task.

    Attributes:
        users: internal ids [n].
        items: internal item ids [n, K], int32, best first, −1 where a list ends.
        hits: [n, K], True at targets.
        targets: number of targets [n].
    """

    users: np.ndarray
    items: np.ndarray
    hits: np.ndarray
    targets: np.ndarray

    def per_user(self, metrics: Sequence[str], cutoffs: Sequence[int]) -> dict[str, np.ndarray]:
        """Values per user under names like "Recall@20"."""
        return {
            f"{name}@{k}": METRICS[name](self.hits, self.targets, k)
            for name in metrics
            for k in cutoffs
        }

    def means(self, metrics: Sequence[str], cutoffs: Sequence[int]) -> dict[str, float]:
        """Unweighted means over the users, unrounded."""
        return {
            name: float(values.mean()) for name, values in self.per_user(metrics, cutoffs).items()
        }


def block_users(n_items: int, device: torch.device | str) -> int:
    """Users whose scores are computed together; `n_items` counts PAD."""
    held = BLOCK_BYTES if torch.device(device).type == "cpu" else GPU_BLOCK_BYTES
    return max(1, held // (4 * n_items))


def user_blocks(ranked: np.ndarray, n_users: int, size: int) -> Iterator[np.ndarray]:
    """Internal ids of all users in blocks: the ranked ones as `rank` takes them, then the others.

    >>> [block.tolist() for block in user_blocks(np.array([1, 3, 4]), 6, size=2)]
    [[1, 3], [4], [2, 5]]
    """
    others = np.setdiff1d(np.arange(1, n_users), ranked)
    for part in (ranked, others):
        yield from (part[start : start + size] for start in range(0, len(part), size))


@torch.inference_mode()
def rank(scores: Scores, task: EvalTask, k: int, device: torch.device | str) -> Ranking:
    """Rank every user of the task.

    Args:
        scores: internal user ids [b] → scores [b, item_num] whose column 0 is PAD; the result may
            be overwritten.
        k: length of the lists.
        device: where `scores` lives.

    Raises:
        DivergedError: the highest score of a user is NaN or infinite.
    """
    n_items = task.masked.shape[1]
    width = min(k, n_items - 1)
    block = block_users(n_items, device)
    top = np.full((len(task.users), k), -1, dtype=np.int32)
    tie_rank = torch.from_numpy(task.place_among_equals()).to(device)
    for start in range(0, len(task.users), block):
        stop = min(start + block, len(task.users))
        users = torch.from_numpy(task.users[start:stop]).to(device)
        table = scores(users).view(stop - start, n_items)
        part = task.masked[start:stop]
        row = np.repeat(np.arange(stop - start), np.diff(part.indptr))
        hide = torch.from_numpy(row * n_items + part.indices.astype(np.int64)).to(device)
        table.view(-1)[hide] = -torch.inf
        table[:, 0] = -torch.inf
        best, items = best_in_order(table, width, tie_rank)
        del table  # before the next one is made
        if (torch.isnan(best[:, 0]) | (best[:, 0] == torch.inf)).any():
            raise DivergedError(
                "The model scored NaN or infinity: the ranking would be meaningless.",
                expected="finite numbers",
                hint="lower learning_rate, or check the features",
            )
        top[start:stop, :width] = torch.where(best == -torch.inf, -1, items).cpu().numpy()
    return Ranking(task.users, top, *find_hits(top, task.targets))


def find_hits(top: np.ndarray, targets: sp.csr_matrix) -> tuple[np.ndarray, np.ndarray]:
    """Where lists [n, K] (−1: no item) hold targets, and the number of targets per row."""
    n_items = targets.shape[1]
    degree = np.diff(targets.indptr)
    wanted = np.repeat(np.arange(len(degree)), degree) * n_items + targets.indices  # ascending
    hits = np.zeros(top.shape, dtype=bool)
    for start in range(0, len(top), HIT_BLOCK_ROWS):  # bounds the memory of a search
        part = top[start : start + HIT_BLOCK_ROWS]
        listed = np.arange(start, start + len(part))[:, None] * n_items + part
        place = np.minimum(np.searchsorted(wanted, listed), len(wanted) - 1)
        hits[start : start + HIT_BLOCK_ROWS] = (wanted[place] == listed) & (part >= 0)
    return hits, degree
