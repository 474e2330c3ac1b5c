"""Parts of models that are solved, not trained: content rows, EASE's weights, ridge regression."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from pydantic import Field
from recbole.utils import ModelType
from scipy.linalg import cho_factor, cho_solve, lapack
from torch import Tensor, nn

from alignrec_recbole.errors import SettingError
from alignrec_recbole.features.content_map import ContentMap, Rule
from alignrec_recbole.features.content_rows import rows_and_means
from alignrec_recbole.models._content import ContentRecommender
from alignrec_recbole.ops.rows import row_blocks
from alignrec_recbole.settings import Settings

BLOCK_BYTES = 64 << 20  # of a block of rows of a dense items × items matrix


class ContentRows(Settings):
    """How features become rows of length 1; see `content_rows`."""

    centre: bool = Field(description="subtract the mean of the items' rows")


def content_rows(dataset: Any, *, centre: bool) -> np.ndarray:
    """The item features of a data set as one float32 matrix [item_num, Σ f_m].

    See `features/content_rows.py`.
    """
    return rows_and_means(_sets(dataset), centre=centre)[0]


def content_map(
    dataset: Any, rule: Rule, keys: ContentRows, rows: str = "", **numbers: float
) -> ContentMap:
    """The rule by which a model scores new items, with the means of `content_rows`.

    Args:
        rows: the name under which the rule needs the items' rows; "": it needs none.
        numbers: of the rule, besides `centre`.
    """
    matrix, mean = rows_and_means(_sets(dataset), centre=keys.centre)
    sets = {name: table.values.shape[1] for name, table in dataset.features.items()}
    tensors = {"mean": mean, **({rows: matrix} if rows else {})}
    return ContentMap(rule, sets, {"centre": float(keys.centre), **numbers}, tensors)


def _sets(dataset: Any) -> list[tuple[np.ndarray, np.ndarray]]:
    return [(table.values, table.present) for table in dataset.features.values()]


def gram_of(histories: sp.csr_matrix, rows: np.ndarray | None = None, weight: float = 0.0) -> Any:
    """XᵀX + weight · F Fᵀ as a dense float32 matrix [I, I], in blocks of rows.

    Args:
        histories: X [U, I], CSR.
        rows: F [I, f].
    """
    n = histories.shape[1]
    gram = torch.empty(n, n, dtype=torch.float32).numpy()  # refused where it does not fit
    counts = (histories.T @ histories).tocsr()
    for block in row_blocks(n, 4 * n, BLOCK_BYTES):
        gram[block] = counts[block].toarray()
        if rows is not None and weight:
            gram[block] += weight * (rows[block] @ rows.T)
    return gram


def ease_weights(gram: np.ndarray, reg_weight: float) -> np.ndarray:
    """B of min_B ‖X − XB‖² + λ‖B‖² with diag(B) = 0, from G = XᵀX, which is overwritten.

        P = (G + λI)⁻¹      B_ij = −P_ij / P_jj      B_jj = 0

    Cholesky's factor and the inverse are formed in the memory of G.

    Source: Steck, "Embarrassingly Shallow Autoencoders for Sparse Data", WWW 2019, equation 8.

    Raises:
        SettingError: G + λI is not positive definite in float32.

    >>> ease_weights(np.array([[2.0, 1.0], [1.0, 1.0]], dtype=np.float32), 1.0).round(4)
    array([[0.    , 0.3333],
           [0.5   , 0.    ]], dtype=float32)
    """
    n = len(gram)
    gram[np.arange(n), np.arange(n)] += reg_weight
    factor, failed = lapack.spotrf(gram.T, lower=1, clean=0, overwrite_a=1)
    inverse, singular = lapack.spotri(factor, lower=1, overwrite_c=1)
    if failed or singular:
        raise SettingError(
            f"The weights of items cannot be solved for with reg_weight={reg_weight:g}.",
            found="a matrix that is not positive definite in float32",
            expected="a larger reg_weight",
        )
    out = inverse.T  # its upper triangle is the inverse's
    scale = -1 / np.diag(out).copy()
    for block in row_blocks(n, 4 * n, BLOCK_BYTES):
        start, stop = block.start, block.stop
        square = np.triu(out[block, start:stop])
        out[block, start:stop] = square + np.triu(square, 1).T
        out[stop:, start:stop] = out[block, stop:].T
    out *= scale
    out[np.arange(n), np.arange(n)] = 0.0
    return out


def ridge_inverse(rows: np.ndarray, reg_weight: float) -> np.ndarray:
    """(FᵀF + λI)⁻¹ [f, f] of F [n, f], solved in float64 and returned in float32.

    >>> ridge_inverse(np.array([[1.0, 0.0], [0.0, 1.0]], dtype=np.float32), 1.0)
    array([[0.5, 0. ],
           [0. , 0.5]], dtype=float32)
    """
    wide = rows.astype(np.float64)
    gram = wide.T @ wide + reg_weight * np.eye(rows.shape[1])
    inverse = cho_solve(cho_factor(gram, lower=True), np.eye(len(gram)))
    return np.ascontiguousarray(inverse, dtype=np.float32)


class SolvedRecommender(ContentRecommender):
    """A model without training whose scores are s(u, j) = Σ_{i ∈ N_u} W_ij.

    Attributes:
        histories: X [user_num, item_num], CSR float32 of ones.
        neighbours: W [item_num, item_num], set by the subclass: scipy CSR or a NumPy matrix.
    """

    type = ModelType.TRADITIONAL
    bfloat16_refused = "it is not trained in steps"
    new_items_refused = "it solves for the weights of all items together"
    neighbours: Any

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        self.histories = self.interactions.astype(bool).astype(np.float32)
        self.nothing = nn.Parameter(torch.zeros(1))  # RecBole's trainer wants a parameter

    def calculate_loss(self, interaction: Any) -> Tensor:  # type: ignore[override]
        """A constant zero: there is nothing to learn."""
        return self.nothing.sum() * 0

    def predict(self, interaction: Any) -> Tensor:
        """Scores [b] of user-item pairs."""
        scores = self.full_sort_predict(interaction)
        return scores.gather(1, interaction[self.ITEM_ID].to(scores.device)[:, None]).ravel()

    def full_sort_predict(self, interaction: Any) -> Tensor:
        """Scores [b, item_num] of users with every item, PAD included."""
        users = interaction[self.USER_ID].cpu().numpy()
        scores = self.histories[users] @ self.neighbours
        table = scores.toarray() if sp.issparse(scores) else np.asarray(scores)
        return torch.from_numpy(table).to(self.nothing.device)
