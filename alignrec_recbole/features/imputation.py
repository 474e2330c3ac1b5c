"""Rows for items without a modality, from those of other items; nothing is trained.

mean         the mean row of the items that have one
neighbours   the mean row of an item's neighbours that have one
propagation  X ← D^-½ A D^-½ X forty times from X = 0, with the known rows set again after each step

Neighbours of an item are the 20 others with which it shares most training users, at least one.
A is 1 where one of two items is a neighbour of the other, and D its row sums. An item that no
known row reaches stays missing. Rows filled by `propagation` may be longer or shorter than those
around them, because the rows of D^-½ A D^-½ do not sum to 1.

Source: Malitesta et al., "Do We Really Need to Drop Items with Missing Modalities in Multimodal
Recommendation?", CIKM 2024; the propagation is Rossi et al., "On the Unreasonable Effectiveness of
Feature Propagation in Learning on Graphs with Missing Node Features", LoG 2022. Ours: neighbours
are neither the item itself nor items that share no user with it, those without a row do not count
as rows of zeros, and A is symmetric.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import scipy.sparse as sp

from alignrec_recbole.errors import FeatureError
from alignrec_recbole.features.controls import with_content_hash
from alignrec_recbole.features.derived_names import Fill, parse_filled
from alignrec_recbole.features.table import ItemFeatures
from alignrec_recbole.graphs.user_item import inverse_root, user_cooccurrence_graph

NEIGHBOURS = 20
STEPS = 40
Graph = Callable[[], sp.csr_matrix]  # made at first use


def neighbour_graph(
    pairs: tuple[np.ndarray, np.ndarray], shape: tuple[int, int], place: np.ndarray
) -> sp.csr_matrix:
    """Ones from each item to its neighbours: CSR float32 [item_num, item_num].

    Args:
        pairs: items and users of the training interactions.
        shape: (item_num, user_num).
        place: of each item among equals, the smallest first.
    """
    counts = user_cooccurrence_graph(pairs, shape, NEIGHBOURS, place)
    return (counts > 0).astype(np.float32).tocsr()


def imputed(
    values: np.ndarray, known: np.ndarray, wanted: np.ndarray, fill: Fill, graph: Graph
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the wanted items, and which of them have one.

    Args:
        values: rows [n, f]; those of unknown items are not read.
        known: bool [n], which rows are.
        wanted: ids of unknown items [m].
        fill: the method.
        graph: `neighbour_graph`.

    Returns:
        float32 [m, f] and bool [m]; rows that there are none of are zero.

    >>> path = sp.csr_matrix(np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]], dtype=np.float32))
    >>> given = np.float32([[4], [0], [0]]), np.array([True, False, False]), np.array([1, 2])
    >>> rows, found = imputed(*given, "neighbours", lambda: path)
    >>> rows.ravel().tolist(), found.tolist()
    ([4.0, 0.0], [True, False])
    >>> rows, found = imputed(*given, "propagation", lambda: path)
    >>> rows.round(3), found.tolist()  # x₁ = (4 + x₂)/√2, x₂ = x₁/√2
    (array([[5.657],
           [4.   ]], dtype=float32), [True, True])
    """
    if fill == "mean":
        row = values[known].mean(0, dtype=np.float64) if known.any() else np.zeros(values.shape[1])
        rows = np.broadcast_to(row.astype(np.float32), (len(wanted), values.shape[1])).copy()
        return rows, np.full(len(wanted), known.any())
    edges = graph()
    if fill == "neighbours":
        near = edges[wanted][:, known]
        count = np.asarray(near.sum(1)).ravel()
        rows = near @ values[known] / np.maximum(count, 1)[:, None]
        return rows.astype(np.float32), count > 0
    either = edges.maximum(edges.T).tocsr()
    root = inverse_root(np.asarray(either.sum(1)).ravel()).astype(np.float32)
    unknown = np.flatnonzero(~known)
    steps = (sp.diags(root[unknown]) @ either[unknown] @ sp.diags(root)).tocsr()
    given, own = (steps[:, known] @ values[known]).astype(np.float32), steps[:, unknown]
    rows = given
    reached = steps[:, known].getnnz(1) > 0
    for _ in range(STEPS - 1):
        rows = own @ rows + given
        reached = reached | (own @ reached.astype(np.float32) > 0)
    at = np.searchsorted(unknown, wanted)
    return rows[at].astype(np.float32), reached[at]


def filled_features(
    name: str,
    tokens: Sequence[str],
    open_features: Callable[[str], ItemFeatures],
    graph: Graph,
) -> ItemFeatures:
    """The feature set `filled-FILL:NAME`: NAME, with rows for the items that have none.

    Args:
        name: its name.
        tokens: item token by internal id; tokens[0] is PAD.
        open_features: returns the features that are filled.
        graph: see `imputed`.

    Raises:
        UnknownNameError: no such method.
        FeatureError: no item has NAME.
    """
    fill, source = parse_filled(name)
    real = open_features(source)
    if not real.present.any():
        raise FeatureError(
            f"The features {name!r} cannot be made.",
            found=f"no item that has {source}",
            expected="items with rows, of which those of the others are made",
        )
    wanted = np.flatnonzero(~real.present[1:]) + 1
    rows, found = imputed(real.values, real.present, wanted, fill, graph)
    values, present = real.values.copy(), real.present.copy()
    values[wanted], present[wanted] = rows, found
    manifest = real.manifest.model_copy(
        update={
            "name": name,
            "settings": {
                **real.manifest.settings,
                "filled": fill,
                "rows_filled": int(found.sum()),
                "of_sha256": real.manifest.sha256,
            },
            "missing": [str(tokens[i]) for i in wanted[~found]],
            "notes": [*real.manifest.notes, f"{int(found.sum())} rows filled by {fill}"],
        }
    )
    return with_content_hash(ItemFeatures(values, present, manifest), tokens)
