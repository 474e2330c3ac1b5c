"""Data sets that are made here: `NAME.inter` with its split, and the manifest beside it.

The manifest `NAME.split.json` says how users and items are numbered and how the interactions are
split, with seed, counts and hashes, so that others can do it again and see that it is the same.

Rows are written in an order that says nothing of the test set either, since RecBole numbers by it:
the training interactions by user, then the others by item; ids that are text in an order that is
drawn from the seed, whatever they say.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from alignrec_recbole.data.interactions import LABEL_COLUMN
from alignrec_recbole.data.numbering import number_ids
from alignrec_recbole.data.source import ITEM, RATING, TIME, USER
from alignrec_recbole.data.split_manifest import SUFFIX, Numbers, SplitManifest
from alignrec_recbole.data.split_names import Split
from alignrec_recbole.data.splits import TRAIN, Labels, draw_labels, parts_of
from alignrec_recbole.errors import DataError
from alignrec_recbole.io.files import atomic_write, sha256_file


def write_dataset(
    frame: pd.DataFrame,
    path: Path,
    split: Split,
    *,
    numbering: Numbers,
    source: dict[str, str],
    skipped: Mapping[str, int] | None = None,
) -> SplitManifest:
    """Split interactions and write them; the manifest first, so that no split is without one.

    Args:
        frame: interactions in the common form (`source.py`), every pair once, with the tokens that
            are written.
        path: `NAME.inter`.
        split: how to split.
        numbering: how the tokens came about, for the manifest; not applied here.
        source: name → SHA-256 of the files that the interactions are from.
        skipped: how many rows of them are not in `frame`, by reason.

    Raises:
        DataError: the split cannot be drawn, or a token cannot be a cell of a table.
    """
    _check_tokens(frame, path.name)
    drawn = draw_labels(frame, split)
    table = _table(frame, drawn, split.seed)
    manifest_path = path.with_name(path.stem + SUFFIX)
    with atomic_write(path, "w") as handle:
        table.to_csv(handle, sep="\t", index=False, lineterminator="\n", quoting=csv.QUOTE_NONE)
        handle.flush()
        manifest = SplitManifest(
            dataset=path.stem,
            source=source,
            skipped=dict(skipped or {}),
            numbering=numbering,
            split=split.text,
            seed=split.seed,
            users=frame[USER].nunique(),
            items=frame[ITEM].nunique(),
            interactions=parts_of(drawn.labels, len(frame)),
            cuts=drawn.cuts,
            only_later=drawn.only_later,
            inter_sha256=sha256_file(Path(handle.name)),
        )
        with atomic_write(manifest_path, "w") as other:
            other.write(manifest.model_dump_json(indent=2) + "\n")
    return manifest


def _table(frame: pd.DataFrame, drawn: Labels, seed: int) -> pd.DataFrame:
    """The columns of MMRec's layout; `seed` of the order of ids that are no numbers."""
    columns = {"userID": frame[USER], "itemID": frame[ITEM]}
    for name, column in ((RATING, "rating"), (TIME, "timestamp")):
        if name in frame:
            columns[column] = frame[name]
    table = pd.DataFrame(columns)
    labels = np.full(len(frame), TRAIN) if drawn.labels is None else drawn.labels
    if drawn.labels is not None:
        table[LABEL_COLUMN] = labels
    user, item = _places(frame[USER], seed), _places(frame[ITEM], seed)
    return table.iloc[neutral_order(user, item, labels)]


def neutral_order(user: np.ndarray, item: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """An order of rows that says nothing of the later splits, if the numbers say nothing.

    Training interactions by user, then the others by item: an item that has none of the former
    gets its place by its own number, not by the users of its later interactions.

    >>> neutral_order(np.array([1, 0, 0, 1]), np.array([0, 2, 1, 9]), np.array([0, 0, 2, 1]))
    array([1, 0, 2, 3])
    """
    later = labels != TRAIN
    return np.lexsort((np.where(later, user, item), np.where(later, item, user), later))


def _places(tokens: pd.Series, seed: int) -> np.ndarray:
    """Where each row's token is: its number, or for text a number drawn from the seed."""
    if tokens.dtype.kind == "i":
        return tokens.to_numpy()
    codes, names = pd.factorize(tokens)
    numbers = number_ids([str(name) for name in names], "random", seed)
    return np.array([numbers[str(name)] for name in names])[codes]


def _check_tokens(frame: pd.DataFrame, name: str) -> None:
    """Refuse ids that would be read back as others."""
    for column in (USER, ITEM):
        for token in pd.unique(frame[column]):
            text = str(token)
            if not text or text != text.strip() or any(c in text for c in "\t\r\n\0"):
                raise DataError(
                    f"An id of the column {column!r} cannot be written to {name}.",
                    found=repr(text),
                    expected="text without tabs, line ends and white space at its ends",
                )
