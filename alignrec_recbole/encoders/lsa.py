"""LSA: TF-IDF of the item texts, reduced by a truncated SVD. No weights, no download.

Source: Deerwester et al., "Indexing by latent semantic analysis", JASIS 1990; scikit-learn's
TfidfVectorizer and TruncatedSVD.
"""

from __future__ import annotations

import re
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


# Thai and Lao, Burmese, Khmer, kana, Han ideographs with their extensions
UNSPACED = re.compile(
    "[\u0e01-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3041-\u30ff\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff]+"
)
WORD = re.compile(r"\b\w\w+\b")  # of scikit-learn


def words_and_bigrams(text: str) -> list[str]:
    """Words as scikit-learn finds them; of unspaced scripts each character pair.

    >>> words_and_bigrams("Red 红色自行车 27"), words_and_bigrams("a 灯")
    (['red', '27', '红色', '色自', '自行', '行车'], ['灯'])
    """
    text = text.lower()
    pairs = [run[i : i + 2] for run in UNSPACED.findall(text) for i in range(max(1, len(run) - 1))]
    return WORD.findall(UNSPACED.sub(" ", text)) + pairs


def identity(name: str = "lsa") -> dict[str, Any]:
    """Settings, and the version of the library that computes it."""
    return {"dimensions": DIMENSIONS, "seed": SEED, "scikit-learn": sklearn.__version__}


def identity_of_table(items: ItemTable) -> dict[str, Any]:
    """How words are found in a table with an unspaced script; nothing for other tables."""
    unspaced = any(map(UNSPACED.search, items.texts))
    return {"unspaced_scripts": "character bigrams"} if unspaced else {}


def encode(items: ItemTable, *, dimensions: int = DIMENSIONS, seed: int = SEED) -> EncodedItems:
    """TF-IDF (sublinear term counts, words of two letters or more) → SVD → rows of unit length.

    Scripts without blanks between words (Chinese, Japanese, Thai, Lao, Khmer, Burmese) are read as
    pairs of neighbouring characters; texts of other scripts give the rows that they gave before.

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
    texts = [items.texts[i] for i in rows]
    of_table = identity_of_table(items)
    words = {"analyzer": words_and_bigrams} if of_table else {}
    try:
        weights = TfidfVectorizer(sublinear_tf=True, **words).fit_transform(texts)
    except ValueError as error:  # only punctuation
        raise DataError(f"{items.source} has no words to encode.", found=str(error)) from error
    width = max(1, min(dimensions, min(weights.shape) - 1))
    if weights.shape[1] == 1:  # one word in all texts: nothing to reduce, and the SVD needs two
        reduced = weights.toarray()
    else:
        reduced = TruncatedSVD(width, random_state=seed).fit_transform(weights)  # [texts, width]
    length = np.linalg.norm(reduced, axis=1, keepdims=True)
    faint = length[:, 0] < FAINT
    matrix = np.zeros((len(items.ids), width), dtype=np.float32)
    matrix[rows] = np.where(faint[:, None], 0, reduced / np.where(faint[:, None], 1, length))
    present[np.array(rows)[faint]] = False
    settings = {"dimensions": width, "seed": seed, "sublinear_tf": True, "normalise": True}
    settings |= of_table
    return EncodedItems(matrix, present, "text", "lsa", settings)
