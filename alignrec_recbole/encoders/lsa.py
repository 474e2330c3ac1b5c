"""LSA: TF-IDF of the item texts, reduced by a truncated SVD. No weights, no download.

Source: Deerwester et al., "Indexing by latent semantic analysis", JASIS 1990; scikit-learn's
TfidfVectorizer and TruncatedSVD.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer

from alignrec_recbole.data.items import ItemTable
from alignrec_recbole.encoders import EncodedItems
from alignrec_recbole.errors import DataError

DIMENSIONS = 256  # fewer when the vocabulary or the table is smaller
SEED = 0  # of the randomised SVD


def encode(items: ItemTable, **_: Any) -> EncodedItems:
    """TF-IDF (sublinear term counts, words of two letters or more) → SVD → rows of unit length.

    Raises:
        DataError: no item has a text.
    """
    present = np.array([bool(text.strip()) for text in items.texts])
    texts = [text for text, there in zip(items.texts, present, strict=True) if there]
    if not texts:
        raise DataError(
            f"{items.source} has no text to encode.",
            came=f"text columns: {', '.join(items.text_columns) or 'none'}",
            expected="at least one item with a text",
        )
    try:
        counts = TfidfVectorizer(sublinear_tf=True).fit_transform(texts)
    except ValueError as error:  # only stop words or punctuation
        raise DataError(f"{items.source} has no words to encode.", came=str(error)) from error
    width = max(1, min(DIMENSIONS, min(counts.shape) - 1))
    reduced = TruncatedSVD(width, random_state=SEED).fit_transform(counts)
    norm = np.linalg.norm(reduced, axis=1, keepdims=True)
    wordless = norm[:, 0] == 0  # a text without a known word says nothing
    matrix = np.zeros((len(items.ids), width), dtype=np.float32)
    matrix[present] = (reduced / np.where(norm > 0, norm, 1)).astype(np.float32)
    present[np.flatnonzero(present)[wordless]] = False
    settings = {"dimensions": width, "seed": SEED, "sublinear_tf": True}
    return EncodedItems(matrix, present, "text", "lsa", settings)
