"""The common form of data from outside: readers return it; filters, splits and numbering use it.

One row per interaction, in the order of the source:

    user, item   categorical; the categories are tokens (str), the codes numbers in order of
                 appearance, which are for work in memory only and never written
    time         int64 or float64, in the unit of the source; absent if it has none
    rating       float64; absent if the source has none
    split        int8, 0 train, 1 validation, 2 test; absent if the source has no split
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd

from alignrec_recbole.data.cores import k_core
from alignrec_recbole.errors import DataError, printable

USER, ITEM, TIME, RATING, SPLIT = "user", "item", "time", "rating", "split"
IMAGE, IMAGE_URL = "image", "image_url"  # columns of item content besides its texts
MAX_TOKEN = 500  # characters


def no_items(wanted: Collection[str]) -> pd.DataFrame:
    """The content of items of a source that has none."""
    return pd.DataFrame({ITEM: []}, dtype=object)


@dataclass(frozen=True)
class Source:
    """Interactions in the common form, and how to read the content of items.

    Attributes:
        name: of the source, for messages.
        interactions: see the top of this file.
        files: that the interactions are from.
        read_items: content of the items of these tokens: a frame with the column `item` (tokens,
            each once), text columns and, if there are images, `image` (paths of files) or
            `image_url`. Items of which nothing is known have no row.
        features: files of features whose row is the number that the item's token is, by modality.
        core: interactions that users and items have at least, unless asked for otherwise.
        skipped: rows that were read and are not in `interactions`, by reason.
        notes: facts for the summary, by what they say.
    """

    name: str
    interactions: pd.DataFrame
    files: tuple[Path, ...] = ()
    read_items: Callable[[Collection[str]], pd.DataFrame] = no_items
    features: dict[str, Path] = field(default_factory=dict)
    core: int = 1
    skipped: Counter[str] = field(default_factory=Counter)
    notes: dict[str, str] = field(default_factory=dict)


class Tokens:
    """Codes of tokens, in order of first appearance.

    >>> tokens = Tokens()
    >>> tokens.code("B0"), tokens.code(" A "), tokens.code("B0"), tokens.names()
    (0, 1, 0, ['B0', 'A'])
    """

    def __init__(self) -> None:
        self._codes: dict[str, int] = {}  # also of spellings with white space around them
        self._names: list[str] = []

    def code(self, text: str) -> int:
        """The code of a token, without the white space around it.

        Raises:
            ValueError: it cannot be a token; the message says why.
        """
        code = self._codes.get(text)
        if code is None:
            token = text.strip()
            if problem := token_problem(token):
                raise ValueError(problem)
            code = self._codes.setdefault(token, len(self._names))
            if code == len(self._names):
                self._names.append(token)
            self._codes[text] = code
        return code

    def known(self, texts: Sequence[str]) -> list[int]:
        """The code of each spelling that occurred before, or −1."""
        get = self._codes.get
        return [get(text, -1) for text in texts]

    def names(self) -> list[str]:
        """Tokens by code."""
        return list(self._names)

    def column(self, codes: np.ndarray) -> pd.Categorical:
        """A column of the common form."""
        return pd.Categorical.from_codes(codes, categories=pd.Index(self.names(), dtype=object))


def token_problem(token: str) -> str:
    r"""Why a text cannot be a token; empty if it can.

    >>> token_problem("0108 é/中"), token_problem(""), token_problem("a\tb")
    ('', 'empty', 'a control character')
    """
    if not token:
        return "empty"
    if len(token) > MAX_TOKEN:
        return f"longer than {MAX_TOKEN} characters"
    if not token.isprintable() and printable(token, MAX_TOKEN) != token:
        return "a control character"
    return "" if "\n" not in token else "a line feed"


def first_of_each_pair(source: Source) -> Source:
    """The earliest row of each user and item, in the order of the source; the others are counted.

    Without times, and among equal times, the first row. A pair in two splits is refused.

    Raises:
        DataError: a pair is in two splits.
    """
    frame = source.interactions
    users, items = (frame[column].cat.codes.to_numpy(np.int64) for column in (USER, ITEM))
    pairs = users * max(1, len(frame[ITEM].cat.categories)) + items
    order = np.argsort(frame[TIME].to_numpy(), kind="stable") if TIME in frame else slice(None)
    _, first = np.unique(pairs[order], return_index=True)
    repeated = len(frame) - len(first)
    if not repeated:
        return source
    if SPLIT in frame:
        _check_one_split(source, pairs)
    places = np.sort(np.arange(len(frame))[order][first])
    skipped = source.skipped + Counter({"repeated user and item": repeated})
    return replace(source, interactions=frame.iloc[places].reset_index(drop=True), skipped=skipped)


def _check_one_split(source: Source, pairs: np.ndarray) -> None:
    splits = source.interactions[SPLIT].to_numpy()
    order = np.lexsort((splits, pairs))
    same = pairs[order][1:] == pairs[order][:-1]
    other = np.flatnonzero(same & (splits[order][1:] != splits[order][:-1]))
    if len(other):
        row = source.interactions.iloc[order[other[0]]]
        raise DataError(
            f"The splits of {source.name} overlap.",
            found=f"{len(other)} pairs in two splits, for example user {row[USER]!r} with item "
            f"{row[ITEM]!r}",
            expected="every user and item in one split",
        )


def core(source: Source, user_k: int, item_k: int) -> Source:
    """The rows of the k-core: see `k_core`.

    Raises:
        DataError: no row remains.
    """
    frame = source.interactions
    users, items = (frame[column].cat.codes.to_numpy() for column in (USER, ITEM))
    mask = k_core(users, items, user_k, item_k)
    if not mask.any():
        raise DataError(
            f"No interactions of {source.name} remain.",
            found=f"{len(frame)} rows, none of a user with {user_k} and an item with {item_k}",
            expected="users and items with enough interactions",
            hint="lower --core",
        )
    skipped = source.skipped + Counter({"user or item with too few rows": int((~mask).sum())})
    return replace(source, interactions=used_categories(frame[mask]), skipped=skipped)


def used_categories(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows with a new index, and categories of the users and items that occur in them alone."""
    out = frame.reset_index(drop=True)
    for column in (USER, ITEM):
        out[column] = out[column].cat.remove_unused_categories()
    return out


def tokens_of(frame: pd.DataFrame, column: str) -> Sequence[str]:
    """The distinct tokens of a column, by code."""
    return list(frame[column].cat.categories)
