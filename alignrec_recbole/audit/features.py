"""Feature sets: the file, its rows and columns, and the order of the rows."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from alignrec_recbole.audit.definition import Definition, Finding
from alignrec_recbole.audit.opened_features import Opened, in_file_order, of_each_set, unit_rows
from alignrec_recbole.audit.subject import Subject
from alignrec_recbole.errors import FeatureError
from alignrec_recbole.features.row_order import SURE, RowOrder, row_order

BLOCK = 1024  # rows whose similarities are in memory together
SEARCHED = 4096  # items whose nearest other item is searched
NEAR = 1 - 1e-5  # cosine of near-equal rows
SHARE = 0.2  # of items with a near-equal row that makes a set suspicious
DEAD = 0.1  # share of constant columns that does
FAR_ROW, FAR_COLUMN = 20.0, 100.0  # times the median norm of a row, scale of a column


def _file(subject: Subject) -> Iterator[Finding]:
    for name in subject.spec.features:
        try:
            table = subject.open_features(name)
        except FeatureError as error:
            yield Finding(
                value=1.0,
                verdict="suspicious",
                subject=name,
                notes=(f"{error.problem} Found: {error.found}",),
            )
            continue
        without = int((~table.present[1:]).sum())
        yield Finding(
            value=0.0,
            verdict="clean",
            subject=name,
            details={"items": len(table.present) - 1, "items without": without},
        )


def _rows(subject: Subject, opened: Opened) -> Finding:
    items = np.flatnonzero(opened.present)
    rows = unit_rows(opened.values[items])
    rng = np.random.Generator(np.random.PCG64(0))
    searched = np.sort(rng.permutation(len(rows))[:SEARCHED])
    near, equal = np.zeros(len(searched), bool), np.zeros(len(searched), bool)
    for start in range(0, len(searched), BLOCK):
        chosen = searched[start : start + BLOCK]
        similar = rows[chosen] @ rows.T
        similar[np.arange(len(chosen)), chosen] = -1
        best = similar.argmax(1)
        near[start : start + BLOCK] = similar[np.arange(len(chosen)), best] >= NEAR
        equal[start : start + BLOCK] = (rows[chosen] == rows[best]).all(1)
    repeated = _repeated_texts(subject, opened, items[searched])
    value = float(near.mean())
    explained = repeated or 0.0
    return Finding(
        value=value,
        control=repeated,
        verdict="suspicious" if value > explained + SHARE else "clean",
        subject=opened.name,
        details={
            "items searched": len(searched),
            "share with an equal row": float(equal.mean()),
        },
    )


def _repeated_texts(subject: Subject, opened: Opened, items: np.ndarray) -> float | None:
    """Share of items whose text another item has too."""
    texts = _texts(subject, opened)
    if texts is None:
        return None
    names, counts = np.unique(texts[1:].astype(str), return_counts=True)
    common = set(names[counts > 1].tolist()) - {""}
    return float(np.mean([texts[item] in common for item in items]))


def _texts(subject: Subject, opened: Opened) -> np.ndarray | None:
    """Text of each item by internal id; None where there is no item table."""
    table = subject.items
    if table is None:
        return None
    text = dict(zip(table.ids, table.texts, strict=True))
    dataset = subject.prepared.splits[0]
    tokens = dataset.field2id_token[dataset.iid_field]
    return np.array([text.get(str(token), "") for token in tokens], dtype=object)


def _columns(subject: Subject, opened: Opened) -> Finding:
    values = opened.values[opened.present]
    spread = values.std(0, dtype=np.float64)
    norms = np.linalg.norm(values.astype(np.float64), axis=1)
    dead = float((spread == 0).mean())
    norm = float(norms.max() / max(np.median(norms), 1e-30))
    alive = spread[spread > 0]
    scale = float(alive.max() / np.median(alive)) if len(alive) else 0.0
    outlying = norm > FAR_ROW or scale > FAR_COLUMN or values.shape[1] > len(values)
    return Finding(
        value=dead,
        verdict="suspicious" if dead > DEAD or outlying else "clean",
        subject=opened.name,
        details={
            "columns": values.shape[1],
            "largest norm of a row / median": norm,
            "largest scale of a column / median": scale,
        },
    )


def _order(subject: Subject, opened: Opened) -> Finding:
    users, items = opened.pairs[0]
    by_users = _order_of(opened, users, items)
    found = {"users": by_users}
    texts = _texts(subject, opened)
    if texts is not None and len(alike := _alike_texts(texts)):
        pair = np.repeat(np.arange(len(alike)), 2)
        found["texts"] = _order_of(opened, pair, alike.ravel())
    best = max(found, key=lambda name: found[name].errors)
    order = found[best]
    mixed = np.random.Generator(np.random.PCG64(1)).permutation(np.flatnonzero(opened.present))
    values = opened.values.copy()
    values[np.flatnonzero(opened.present)] = opened.values[mixed]
    control = row_order(values[1:], users, items - 1).errors
    wrong = any(each.is_contradicted for each in found.values()) or order.errors < SURE
    return Finding(
        value=order.errors,
        control=control,
        verdict="suspicious" if wrong else "clean",
        subject=opened.name,
        details={
            **{f"by common {name}": each.errors for name, each in found.items()},
            "best shift": order.shift,
        },
    )


def _order_of(opened: Opened, users: np.ndarray, items: np.ndarray) -> RowOrder:
    known = opened.present[items]
    return row_order(in_file_order(opened), users[known], opened.places[items[known] - 1])


def _alike_texts(texts: np.ndarray) -> np.ndarray:
    """Pairs [n, 2] of items: each with the item whose text is most like its own, not equal."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    rng = np.random.Generator(np.random.PCG64(0))
    items = rng.permutation(np.flatnonzero(texts != ""))[:SEARCHED]
    if len(items) < 3:
        return np.empty((0, 2), dtype=np.int64)
    try:
        words = TfidfVectorizer(sublinear_tf=True).fit_transform(texts[items])
    except ValueError:  # no word in any text
        return np.empty((0, 2), dtype=np.int64)
    pairs = []
    for start in range(0, len(items), BLOCK):
        similar = (words[start : start + BLOCK] @ words.T).toarray()
        similar[similar > NEAR] = 0  # itself, and copies
        best = similar.argmax(1)
        chosen = np.flatnonzero(similar[np.arange(len(best)), best] > 0)
        pairs.append(np.stack([items[start + chosen], items[best[chosen]]], 1))
    return np.concatenate(pairs)


CHECKS = (
    Definition(
        name="feature-file",
        group="features",
        question="Is the file the one that its manifest describes, complete and finite?",
        method="The set is opened as a run opens it.",
        metric="refused (0 or 1)",
        rule="suspicious: a run would refuse it.",
        remedy="Restore the file, or encode the items again.",
        run=_file,
    ),
    Definition(
        name="feature-rows",
        group="features",
        question="Do many items have the same, or nearly the same, row?",
        method=f"Share of items, at most {SEARCHED:,} drawn, whose nearest other item has a cosine "
        "of 1 − 1e-5 or more. Control: share whose text another item has too, where there are "
        "texts.",
        metric="share of items",
        rule=f"suspicious: more than {SHARE:g} above the control.",
        remedy="See whether an encoder cut its input off, or whether rows were filled in.",
        run=of_each_set(_rows),
    ),
    Definition(
        name="feature-columns",
        group="features",
        question="Are columns dead, or rows and columns far larger than others?",
        method="Share of columns that are constant; largest norm of a row and largest standard "
        "deviation of a column, relative to the median.",
        metric="share of dead columns",
        rule=f"suspicious: above {DEAD:g}; a norm above {FAR_ROW:g} or a scale above "
        f"{FAR_COLUMN:g} times the median; more columns than items.",
        remedy="See what the encoder did with these items; scale or leave out the columns.",
        run=of_each_set(_columns),
    ),
    Definition(
        name="feature-order",
        group="features",
        question="Do the rows belong to the items?",
        method="Cosines of items with a common training user, and of items with similar texts, "
        "minus those of random items, in standard errors; the larger of both. Control: rows in a "
        "random order.",
        metric="standard errors",
        rule=f"suspicious: below {SURE:g}, or distinctly larger after a shift of the rows.",
        remedy="Compare the manifest's items with the item table.",
        run=of_each_set(_order),
    ),
)
