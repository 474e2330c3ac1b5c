"""From the features of items that were not in the training to what a model scores them by.

A model that can score such items gives a `ContentMap`, which is stored with it. Each new item is
treated as if it alone were added to the items of the training, without an interaction:

    rows    its row of length 1 is its vector                               (ContentRidge)
    layers  its vector is the mean of W_m f_m / ‖f_m‖ + b_m of the sets that it has
                                                                            (MILK)
    knn     column: ⟨f_i, f⟩ / (‖f_i‖ ‖f‖ + h) of every item i whose list the item would enter
                                                                            (ItemKNNCBF)
    ease    column: w · f_iᵀ M f, M of the items of the training            (AddEASE)
    hybrid  column: the k largest of w · max(⟨f_i, f⟩, 0)                   (ItemKNNHybrid)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import scipy.sparse as sp

from alignrec_recbole.features.content_rows import further_rows, unit

Rule = Literal["rows", "layers", "knn", "ease", "hybrid"]
VECTORS: tuple[Rule, ...] = ("rows", "layers")
ROUNDING = 1e-6  # relative: products in another order differ by less
BLOCK_NUMBERS = 1 << 24  # of the scores of a block of new items; 64 MiB
TENSORS: dict[Rule, tuple[str, ...]] = {
    "rows": ("mean",),
    "layers": ("weights", "biases"),
    "knn": ("rows", "least"),
    "ease": ("mean", "left"),
    "hybrid": ("mean", "rows"),
}
NUMBERS: dict[Rule, tuple[str, ...]] = {
    "rows": ("centre",),
    "layers": (),
    "knn": ("shrink",),
    "ease": ("centre", "weight"),
    "hybrid": ("centre", "weight", "k"),
}


@dataclass(frozen=True)
class ContentMap:
    """What a model needs to score new items.

    Attributes:
        rule: see above.
        sets: name of each feature set and its columns f_m, in the order of the model.
        numbers: by rule: centre (0 or 1), shrink h, weight w, k.
        tensors: by rule: rows and left, F M, [item_num, Σ f_m] and least [item_num] (the smallest
            similarity in an item's list), weights [d, Σ f_m] and biases [M, d], float32; mean
            [Σ f_m], float64.
    """

    rule: Rule
    sets: dict[str, int]
    numbers: dict[str, float]
    tensors: dict[str, np.ndarray] = field(repr=False)

    @property
    def nbytes(self) -> int:
        """Bytes of the tensors."""
        return sum(tensor.nbytes for tensor in self.tensors.values())

    @property
    def gives_vectors(self) -> bool:
        """Whether new items get vectors, not columns."""
        return self.rule in VECTORS

    def vectors(self, features: Sequence[np.ndarray]) -> np.ndarray:
        """Vectors of new items [n, d] from features [n, f_m] per set; rules `rows` and `layers`."""
        return self._rows(features) if self.rule == "rows" else self._layers(features)

    def columns(self, features: Sequence[np.ndarray]) -> sp.csr_matrix:
        """Columns of W of new items, CSR [item_num, n]; the other rules.

        Blocks of new items are scored one after the other, so the dense scores of all are never
        there at once.
        """
        known = self.tensors["left" if self.rule == "ease" else "rows"]
        if self.rule == "knn":
            new = np.concatenate(features, axis=1).astype(np.float32)
            dense = self._knn
        else:
            new = self._rows(features)
            dense = self._ease if self.rule == "ease" else self._hybrid
        step = max(1, BLOCK_NUMBERS // max(1, len(known)))
        starts = range(0, max(1, len(new)), step)
        blocks = [sp.csr_matrix(dense(new[start : start + step])) for start in starts]
        return blocks[0] if len(blocks) == 1 else sp.hstack(blocks, format="csr")

    def _rows(self, features: Sequence[np.ndarray]) -> np.ndarray:
        return further_rows(features, self.tensors["mean"], centre=bool(self.numbers["centre"]))

    def _layers(self, features: Sequence[np.ndarray]) -> np.ndarray:
        rows = [unit(np.asarray(values, dtype=np.float64)) for values in features]
        ends = np.cumsum([values.shape[1] for values in rows])[:-1]
        layers = np.split(self.tensors["weights"], ends, axis=1)
        has = np.stack([values.any(1) for values in rows])  # [M, n]
        parts = [
            here[:, None] * (values @ weight.T + bias)
            for here, values, weight, bias in zip(
                has, rows, layers, self.tensors["biases"], strict=True
            )
        ]
        return (sum(parts) / np.maximum(has.sum(0), 1)[:, None]).astype(np.float32)

    def _ease(self, rows: np.ndarray) -> np.ndarray:
        """With f in F, the column is f_iᵀ M' f / (1 − fᵀ M' f), which is f_iᵀ M f without it."""
        return (self.numbers["weight"] * (self.tensors["left"] @ rows.T)).astype(np.float32)

    def _hybrid(self, rows: np.ndarray) -> np.ndarray:
        similar = self.numbers["weight"] * np.maximum(self.tensors["rows"] @ rows.T, 0)
        k = min(int(self.numbers["k"]), len(similar))
        smallest = np.partition(similar, len(similar) - k, axis=0)[len(similar) - k]
        return np.where(similar >= smallest, similar, 0).astype(np.float32)

    def _knn(self, rows: np.ndarray) -> np.ndarray:
        known, least = self.tensors["rows"], self.tensors["least"]
        norms, norm = np.linalg.norm(known, axis=1), np.linalg.norm(rows, axis=1)
        lengths = np.outer(norms, norm) + np.float32(self.numbers["shrink"])
        similar = known @ rows.T / np.where(lengths > 0, lengths, 1)  # a zero row enters no list
        enters = similar >= (least - ROUNDING * np.abs(least))[:, None]
        enters &= np.outer(norms > 0, norm > 0)
        return np.where(enters, similar, 0).astype(np.float32)
