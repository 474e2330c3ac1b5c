"""Feature sets as the checks see them: rows by internal ids, beside the splits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from alignrec_recbole.audit.definition import Finding, NotApplicable
from alignrec_recbole.audit.subject import Subject
from alignrec_recbole.errors import FeatureError
from alignrec_recbole.features.content_rows import divided_by_norm
from alignrec_recbole.features.table import FeatureManifest, is_row_number


@dataclass(frozen=True)
class Opened:
    """A feature set and the splits by internal ids.

    Attributes:
        name: of the set.
        values: float32 [item_num, f].
        present: bool [item_num].
        pairs: (users, items) of training, validation and test rows.
        shape: (user_num, item_num).
        places: int64 [item_num - 1], row of each item but PAD in the file.
    """

    name: str
    values: np.ndarray
    present: np.ndarray
    pairs: tuple[tuple[np.ndarray, np.ndarray], ...]
    shape: tuple[int, int]
    places: np.ndarray

    @property
    def unit(self) -> np.ndarray:
        """Centred rows of length 1; rows of missing items are zero."""
        rows = self.values - self.values[self.present].mean(0, dtype=np.float64).astype(np.float32)
        rows[~self.present] = 0
        return unit_rows(rows)

    def history(self) -> sp.csr_matrix:
        """Training rows, CSR float32 [user_num, item_num]."""
        users, items = self.pairs[0]
        matrix = sp.csr_matrix((np.ones(len(users), np.float32), (users, items)), self.shape)
        matrix.data[:] = 1
        return matrix


def unit_rows(rows: np.ndarray) -> np.ndarray:
    """Rows of length 1, float32; rows of zeros stay zero."""
    return np.asarray(divided_by_norm(rows), dtype=np.float32)


def in_file_order(opened: Opened) -> np.ndarray:
    """Rows [places.max() + 1, f] as in the file; of items that are not in the data set the mean."""
    values = opened.values[1:]
    mean = values.mean(0, dtype=np.float64).astype(np.float32)
    rows = np.tile(mean, (int(opened.places.max()) + 1, 1))
    rows[opened.places] = values
    return rows


def _places(manifest: FeatureManifest, tokens: np.ndarray) -> np.ndarray:
    """Row of each item in its file; a set that is made for the data set has the items' order."""
    names = [str(token) for token in tokens]
    row = {name: place for place, name in enumerate(manifest.items or [])}
    if manifest.items is None and all(map(is_row_number, names)):
        row = {name: int(name) for name in names}
    known = [row.get(name, -1) for name in names]
    if min(known) >= 0 and max(known) < manifest.shape[0]:
        return np.array(known)
    return np.arange(len(names))


def of_each_set(
    check: Callable[[Subject, Opened], Finding],
) -> Callable[[Subject], Iterator[Finding | NotApplicable]]:
    """A check's function of the subject from one of a feature set, made for every named set.

    A set that the check cannot be made on does not end the check of the others.
    """

    def run(subject: Subject) -> Iterator[Finding | NotApplicable]:
        for name in subject.spec.features:
            try:
                table = subject.open_features(name)
            except FeatureError:
                continue  # the finding of feature-file
            splits = subject.prepared.splits
            opened = Opened(
                name,
                table.values,
                table.present,
                tuple(split.pairs() for split in splits),
                (splits[0].user_num, splits[0].item_num),
                _places(table.manifest, splits[0].field2id_token[splits[0].iid_field][1:]),
            )
            try:
                if opened.present.sum() < 3:
                    raise NotApplicable("fewer than three items have these features")
                yield check(subject, opened)
            except NotApplicable as reason:
                yield NotApplicable(f"{name}: {reason}")

    return run
