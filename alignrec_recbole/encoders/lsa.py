"""LSA: TF-IDF of the item texts, reduced by a truncated SVD. No weights, no download.

Source: Deerwester et al., "Indexing by latent semantic analysis", JASIS 1990; scikit-learn's
TfidfVectorizer and TruncatedSVD.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import sklearn
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer

from alignrec_recbole.data.items import ItemTable
from alignrec_recbole.encoders.base import EncodedItems
from alignrec_recbole.errors import DataError

DIMENSIONS = 256  # fewer when the vocabulary or the table is smaller
SEED = 0  # of the randomised SVD
FAINT = 1e-6  # a TF-IDF row has length 1; a shorter reduced row than this is rounding error


def identity(name: str = "lsa") -> dict[str, Any]:
    """Settings, and the version of the library that computes it."""
    return {"dimensions": DIMENSIONS, "seed": SEED, "scikit-learn": sklearn.__version__}


def encode(items: ItemTable, *, dimensions: int = DIMENSIONS, seed: int = SEED) -> EncodedItems:
    """TF-IDF (sublinear term counts, words of two letters or more) → SVD → rows of unit length.

    The texts are reduced in sorted order, so that the rows do not depend on the order of the table;
    scikit-learn fixes the signs. A text none of whose words reach the reduced space counts as
    missing.

    Args:
        dimensions: f, unless there are fewer words or texts.
        seed: of the randomised SVD.

    Raises:
        DataError: no item has a text, or no text has a word.
    """
    present = np.array([bool(text.strip()) for text in items.texts], dtype=bool)
    rows = sorted(np.flatnonzero(present), key=lambda i: items.texts[i])
    if not rows:
        raise DataError(
            f"{items.source} has no text to encode.",
            found=f"text columns: {', '.join(items.text_columns) or 'none'}",
            expected="at least one item with a text",
        )
    try:
        weights = TfidfVectorizer(sublinear_tf=True).fit_transform([items.texts[i] for i in rows])
    except ValueError as error:  # only punctuation
        raise DataError(f"{items.source} has no words to encode.", found=str(error)) from error
    width = max(1, min(dimensions, min(weights.shape) - 1))
    reduced = TruncatedSVD(width, random_state=seed).fit_transform(weights)  # [texts, width]
    length = np.linalg.norm(reduced, axis=1, keepdims=True)
    faint = length[:, 0] < FAINT
    matrix = np.zeros((len(items.ids), width), dtype=np.float32)
    matrix[rows] = np.where(faint[:, None], 0, reduced / np.where(faint[:, None], 1, length))
    present[np.array(rows)[faint]] = False
    settings = {"dimensions": width, "seed": seed, "sublinear_tf": True, "normalise": True}
    return EncodedItems(matrix, present, "text", "lsa", settings)
