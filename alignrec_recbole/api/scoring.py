"""Ranked lists of a saved model, equal to those of the run's evaluation item by item."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from alignrec_recbole.evaluation.ranking import block_users, user_blocks
from alignrec_recbole.evaluation.ties import best_in_order
from alignrec_recbole.features.item_order import TIE_SEED, tie_ranks
from alignrec_recbole.ops.frozen_matrix import FrozenMatrix
from alignrec_recbole.ops.topk import top_k
from alignrec_recbole.runs.saved_model import SavedModel, sums_of_rows

CPU = torch.device("cpu")


class Ranker:
    """Scores and lists of a saved model by internal ids, on the CPU.

    Scores of a user are computed together with those of the same users as in the evaluation, and
    equal ones are in the same fixed order. So the lists are the evaluation's item by item, if that
    ran on a CPU of the same kind.
    """

    def __init__(self, model: SavedModel, new: np.ndarray | sp.csr_matrix | None = None) -> None:
        """Prepare a model.

        Args:
            model: what a run has stored.
            new: of items that it does not have: vectors [n, d], or columns of the similarities
                [item_num, n]. They get the internal ids behind the model's own, whose scores do not
                depend on them, and come behind these among equal scores.
        """
        self.model, self._new = model, new
        self.n_users, self._n_known = model.train.shape
        self.n_items = self._n_known
        if new is not None:
            self.n_items += new.shape[1] if sp.issparse(new) else len(new)
        self._tables = {
            name: table if sp.issparse(table) else torch.from_numpy(table)
            for name, table in model.tables.items()
        }
        self._packed = FrozenMatrix()
        seed = TIE_SEED if model.card.tie_seed is None else model.card.tie_seed
        ranks = tie_ranks(["[PAD]", *model.items], seed)
        self.tie_rank = np.append(ranks, np.arange(self._n_known, self.n_items) - 1)
        self.tie_rank[0] = self.n_items - 1
        size = block_users(self._n_known, CPU)
        self._blocks = list(user_blocks(model.ranked, self.n_users, size))
        self._block_of = np.zeros(self.n_users, dtype=np.int64)
        for number, block in enumerate(self._blocks):
            self._block_of[block] = number

    @torch.inference_mode()
    def scores(self, users: np.ndarray) -> Iterator[tuple[np.ndarray, Tensor]]:
        """Blocks of (places in `users` [b], scores [b, item_num] with PAD); they may be changed."""
        blocks = self._block_of[users]
        for number in np.unique(blocks):
            places = np.flatnonzero(blocks == number)
            together = self._blocks[number]
            rows = np.searchsorted(together, users[places])
            table = self._score_block(together)
            whole = len(rows) == len(together) and (rows == np.arange(len(rows))).all()
            yield places, table if whole else table[torch.from_numpy(rows)]

    def _score_block(self, users: np.ndarray) -> Tensor:
        known = self._known_scores(users)
        if self._new is None:
            return known
        if sp.issparse(self._new):
            further = torch.from_numpy(sums_of_rows(self.model.train[users], self._new))
        else:
            vectors = self._tables["users"][torch.from_numpy(users)]
            further = vectors @ torch.from_numpy(self._new).T
        return torch.cat([known, further], 1)

    def _known_scores(self, users: np.ndarray) -> Tensor:
        tables, ids = self._tables, torch.from_numpy(users)
        if self.model.card.kind == "vectors":
            return self._packed.matmul_nt(tables["users"][ids], tables["items"])
        if self.model.card.kind == "scores":
            return tables["scores"][ids]
        table = tables["similarity"]
        matrix = table if sp.issparse(table) else table.numpy()
        return torch.from_numpy(sums_of_rows(self.model.train[users], matrix))

    @torch.inference_mode()
    def lists(
        self,
        users: np.ndarray,
        k: int,
        excluded: sp.csr_matrix | None,
        candidates: np.ndarray | None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Internal item ids [n, k], best first, and their scores; −1 and NaN where a list ends.

        Args:
            users: internal ids [n].
            k: length of the lists.
            excluded: CSR bool [user_num, item_num], True at items that a list must not have.
            candidates: internal ids of the only items that a list may have; None: all.
        """
        k = min(k, self.n_items - 1)
        items = np.full((len(users), k), -1, dtype=np.int64)
        values = np.full((len(users), k), np.nan, dtype=np.float32)
        others = None
        if candidates is not None:
            others = torch.from_numpy(np.setdiff1d(np.arange(self.n_items), candidates))
        for places, table in self.scores(users):
            if excluded is not None:
                part = excluded[users[places]]
                row = np.repeat(np.arange(len(places)), np.diff(part.indptr))
                table[
                    torch.from_numpy(row), torch.from_numpy(part.indices.astype(np.int64))
                ] = -torch.inf
            table[:, 0] = -torch.inf
            if others is not None:
                table[:, others] = -torch.inf
            best, where = self._best(table, k)
            ends = (best == -torch.inf).numpy()
            items[places] = np.where(ends, -1, where.numpy())
            values[places] = np.where(ends, np.nan, best.numpy())
        return items, values

    def _best(self, table: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """The k best columns of each row; the first ones are those of the evaluation's lists."""
        if self.model.card.tie_seed is not None:
            return best_in_order(table, k, torch.from_numpy(self.tie_rank))
        return self._best_of_old(table, k)

    def _best_of_old(self, table: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """`_best` of a model that was stored before equal scores had a fixed order.

        Which of equal scores came first depended on the length of a list. So a shorter one is cut
        from one of the evaluation's length, and a longer one goes on behind it, equal scores in the
        order of the items.
        """
        usual = min(self.model.card.list_length, self.n_items - 1)
        best, where = top_k(table, usual)
        if k <= usual:
            return best[:, :k], where[:, :k]
        table = table.scatter(1, where, -torch.inf)
        more, further = table.sort(dim=1, descending=True, stable=True)
        rest = k - usual
        return torch.cat([best, more[:, :rest]], 1), torch.cat([where, further[:, :rest]], 1)
