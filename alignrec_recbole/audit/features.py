"""Feature sets: rows, columns, order, and whether they know held-out rows.

Features that were made without the held-out rows know as much of a user's validation items as of
the test items, since both were chosen alike. So validation rows are the control of test rows, for
the same users and under the same ranker. Features made of all rows know both, and are noticed by
what they know beyond vectors made of the training rows alone. Nothing of items × items is formed
whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from alignrec_recbole.audit.definition import Definition, Finding, NotApplicable
from alignrec_recbole.audit.subject import Subject
from alignrec_recbole.errors import FeatureError
from alignrec_recbole.features.row_order import SURE, RowOrder, row_order

BLOCK = 1024  # rows whose similarities are in memory together
SEARCHED = 4096  # items whose nearest other item is searched
NEAR = 1 - 1e-5  # cosine of near-equal rows
SHARE = 0.2  # of items with a near-equal row that makes a set suspicious
DEAD = 0.1  # share of constant columns that does
FAR_ROW, FAR_COLUMN = 20.0, 100.0  # times the median norm of a row, scale of a column
LINKS = 20_000  # held-out rows that are compared, per split
USERS = 4000  # that are ranked
WINDOW = 20  # places in the order of popularity in which the other item is drawn
GAP, SIGMAS = 0.02, 4.0  # of the share of rows, and in standard errors
ODD, SURELY = 1.2, 1.5  # times the recall of vectors of the training rows
WIDTH = 64  # of these vectors
K = 20


@dataclass(frozen=True)
class Opened:
    """A feature set and the splits by internal ids.

    Attributes:
        name: of the set.
        values: float32 [item_num, f].
        present: bool [item_num].
        pairs: (users, items) of training, validation and test rows.
        shape: (user_num, item_num).
    """

    name: str
    values: np.ndarray
    present: np.ndarray
    pairs: tuple[tuple[np.ndarray, np.ndarray], ...]
    shape: tuple[int, int]

    @property
    def unit(self) -> np.ndarray:
        """Centred rows of length 1; rows of missing items are zero."""
        rows = self.values - self.values[self.present].mean(0, dtype=np.float64).astype(np.float32)
        rows[~self.present] = 0
        return _unit(rows)

    def history(self) -> sp.csr_matrix:
        """Training rows, CSR float32 [user_num, item_num]."""
        users, items = self.pairs[0]
        matrix = sp.csr_matrix((np.ones(len(users), np.float32), (users, items)), self.shape)
        matrix.data[:] = 1
        return matrix


def _unit(rows: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(norms > 0, norms, 1), dtype=np.float32)


def _each(check: Callable[[Subject, Opened], Finding]) -> Callable[[Subject], Iterator[Finding]]:
    """A check's function of the subject from one of a feature set."""

    def run(subject: Subject) -> Iterator[Finding]:
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
            )
            if opened.present.sum() < 3:
                raise NotApplicable(f"fewer than three items have {name}")
            yield check(subject, opened)

    return run


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
    rows = _unit(opened.values[items])
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
    return row_order(opened.values[1:], users[known], items[known] - 1)


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


# What features know of held-out rows --------------------------------------------------------------


@dataclass(frozen=True)
class Links:
    """Rows of a split, each with an item of like popularity that the user has in no split.

    Attributes:
        users: of each row [n].
        items: the row's items, and the others [2, n].
    """

    users: np.ndarray
    items: np.ndarray


def _links(opened: Opened, split: int) -> Links:
    rng = np.random.Generator(np.random.PCG64(split))
    users, items = opened.pairs[split]
    degree = np.bincount(opened.pairs[0][0], minlength=opened.shape[0])
    good = opened.present[items] & (degree[users] > (1 if split == 0 else 0))
    chosen = rng.permutation(np.flatnonzero(good))[:LINKS]
    users, items = users[chosen], items[chosen]
    popularity = np.bincount(opened.pairs[0][1], minlength=opened.shape[1])
    known = np.flatnonzero(opened.present)
    order = known[np.lexsort((rng.permutation(len(known)), popularity[known]))]
    place = np.zeros(opened.shape[1], dtype=np.int64)
    place[order] = np.arange(len(order))
    step = rng.integers(1, WINDOW + 1, len(items)) * rng.choice([-1, 1], len(items))
    other = order[np.clip(place[items] + step, 0, len(order) - 1)]
    own = np.unique(np.concatenate([u * opened.shape[1] + i for u, i in opened.pairs]))
    free = ~np.isin(users * opened.shape[1] + other, own)
    return Links(users[free], np.stack([items[free], other[free]]))


def _products(opened: Opened, unit: np.ndarray, links: Links, own: bool) -> np.ndarray:
    """A user's mean training vector times the vector of each item [2, n, f].

    Args:
        own: the first items are training items, which are left out of the mean.
    """
    history = opened.history()
    profile = np.asarray(history[links.users] @ unit)
    if own:
        profile = profile - unit[links.items[0]]
    return _unit(profile)[None] * unit[links.items]


def _right(scores: np.ndarray) -> tuple[float, float]:
    """Share of pairs [2, n] in which the first score is larger, and its standard error."""
    first, second = scores
    right = (first > second) + 0.5 * (first == second)
    return float(right.mean()), float(right.std() / max(1, len(right)) ** 0.5)


def _compared(
    opened: Opened,
    test: tuple[float, float],
    valid: tuple[float, float],
    chance: float,
    **details: float,
) -> Finding:
    gap, error = test[0] - valid[0], float(np.hypot(test[1], valid[1]))
    sure = max(GAP, SIGMAS * error)
    return Finding(
        value=test[0],
        control=valid[0],
        chance=chance,
        verdict="leak" if gap > sure else "suspicious" if -gap > sure else "clean",
        subject=opened.name,
        details={"gap": gap, "standard error of the gap": error, **details},
    )


def _neighbours(subject: Subject, opened: Opened) -> Finding:
    history, unit = opened.history(), opened.unit
    held_out = np.union1d(opened.pairs[1][0], opened.pairs[2][0])
    held_out = held_out[np.diff(history.indptr)[held_out] > 0]
    users = np.random.Generator(np.random.PCG64(5)).permutation(held_out)[:USERS]
    valid, test = (_hits(history[users], unit, _targets(opened, k)[users]) for k in (1, 2))
    right = [
        _right(_products(opened, unit, _links(opened, split), split == 0).sum(2))[0]
        for split in range(3)
    ]
    names = ("training", "validation", "test")
    order = {f"{name} rows above like items": r for name, r in zip(names, right, strict=True)}
    return _compared(
        opened, _share(test), _share(valid), min(1.0, K / max(1, opened.shape[1] - 1)), **order
    )


def _targets(opened: Opened, split: int) -> sp.csr_matrix:
    users, items = opened.pairs[split]
    known = opened.present[items]
    return sp.csr_matrix((np.ones(known.sum(), bool), (users[known], items[known])), opened.shape)


def _share(hits: tuple[np.ndarray, np.ndarray]) -> tuple[float, float]:
    """Share of rows that are hits, and its standard error over users, from hits and rows [n]."""
    found, rows = hits
    if not rows.sum():
        raise NotApplicable("a held-out split has no row of an item with features")
    share = found.sum() / rows.sum()
    return float(share), float(np.sqrt(((found - share * rows) ** 2).sum()) / rows.sum())


def _probe(subject: Subject, opened: Opened) -> Finding:
    unit = opened.unit
    found = []
    for split in (1, 2):
        links = _links(opened, split)
        if len(links.users) < 40:
            raise NotApplicable("a held-out split has fewer than 40 rows of items with features")
        products = _products(opened, unit, links, False)
        found.append(_right(_crossed(products[0] - products[1], links.users)))
    return _compared(opened, found[1], found[0], 0.5)


def _crossed(differences: np.ndarray, users: np.ndarray) -> np.ndarray:
    """Scores [2, n] by a ridge probe; each half of the users is scored by the other's probe.

    The probe weighs columns so that the differences [n, f] of a user's two products are positive.
    """
    half = np.random.Generator(np.random.PCG64(3)).integers(0, 2, users.max() + 1)[users]
    out = np.zeros(len(users))
    for own in (0, 1):
        x = differences[half != own].astype(np.float64)
        scale = np.sqrt((x**2).mean(0)) + 1e-12
        x = x / scale
        penalty = len(x) ** 0.5 * x.shape[1] ** 0.5
        weights = np.linalg.solve(x.T @ x + penalty * np.eye(x.shape[1]), x.sum(0))
        out[half == own] = (differences[half == own] / scale) @ weights
    return np.stack([out, np.zeros(len(out))])


def _level(subject: Subject, opened: Opened) -> Finding:
    history, unit = opened.history(), opened.unit
    degree = np.diff(history.indptr)
    users = np.unique(opened.pairs[2][0])
    users = users[degree[users] > 0]
    users = np.random.Generator(np.random.PCG64(4)).permutation(users)[:USERS]
    made = _of_training(history, min(WIDTH, opened.values.shape[1], min(history.shape) - 1))
    popular = np.bincount(opened.pairs[0][1], minlength=opened.shape[1]).astype(np.float32)
    history, targets = history[users], _targets(opened, 2)[users]
    value, control, most = (
        float(np.mean(hits / np.maximum(1, rows)))
        for hits, rows in (
            _hits(history, unit, targets),
            _hits(history, made, targets),
            _hits(history, popular[:, None], targets, flat=True),
        )
    )
    times = value / max(control, most, 1e-30)
    return Finding(
        value=value,
        control=control,
        chance=min(1.0, K / max(1, opened.shape[1] - 1)),
        verdict="leak" if times > SURELY else "suspicious" if times > ODD else "clean",
        subject=opened.name,
        details={"users ranked": len(users), "popularity": most},
    )


def _of_training(history: sp.csr_matrix, width: int) -> np.ndarray:
    """Unit vectors [item_num, width] of the items by a truncated SVD of D⁻½ R D⁻½."""
    from scipy.sparse.linalg import svds

    left, right = (
        sp.diags(1 / np.sqrt(np.maximum(np.asarray(history.sum(axis)).ravel(), 1)))
        for axis in (1, 0)
    )
    _, values, vectors = svds(
        (left @ history @ right).astype(np.float64), k=max(1, width), random_state=0
    )
    return _unit((vectors * values[:, None]).T)


def _hits(
    history: sp.csr_matrix, vectors: np.ndarray, targets: sp.csr_matrix, *, flat: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Targets among the first 20 items, and all targets, of each user [n].

    Items by the product with the sum of a user's training vectors, or with one for all (`flat`);
    training items are left out.
    """
    found, count = [], []
    for start in range(0, history.shape[0], BLOCK):
        part = history[start : start + BLOCK]
        profile = np.ones((part.shape[0], 1), np.float32) if flat else part @ vectors
        scores = np.asarray(profile @ vectors.T)
        scores[part.nonzero()] = -np.inf
        scores[:, 0] = -np.inf
        top = np.argpartition(-scores, min(K, scores.shape[1] - 1), axis=1)[:, :K]
        wanted = targets[start : start + BLOCK].toarray()
        found.append(np.take_along_axis(wanted, top, 1).sum(1))
        count.append(wanted.sum(1))
    return np.concatenate(found), np.concatenate(count)


EXCHANGE = (
    "Control: validation rows, which features made without held-out rows know as well as test rows."
)
MADE = "Make the features again without held-out rows, or use others."
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
        run=_each(_rows),
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
        run=_each(_columns),
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
        run=_each(_order),
    ),
    Definition(
        name="feature-neighbours",
        group="features",
        question="Are a user's test items nearer to the training items than validation items are?",
        method=f"Share of test rows whose item is among the {K} nearest to the mean of the user's "
        f"training items, training items left out, on at most {USERS:,} users. "
        + EXCHANGE
        + " Beside it: how often a row's item is nearer than one of like popularity that the user "
        "does not have, for training, validation and test rows.",
        metric="share of rows",
        rule=f"leak: more than {GAP:g} and {SIGMAS:g} standard errors above the control; "
        "suspicious: as much below it.",
        remedy=MADE,
        run=_each(_neighbours),
    ),
    Definition(
        name="feature-probe",
        group="features",
        question="Can a probe trained on the features predict test rows better than validation "
        "rows?",
        method="How often a row's item is nearer to the mean of the user's training items than an "
        "item of like popularity that the user does not have, with columns weighed by a ridge "
        "probe that is trained on the rows of half of the users and judges the others. " + EXCHANGE,
        metric="share in the right order",
        rule=f"leak: more than {GAP:g} and {SIGMAS:g} standard errors above the control; "
        "suspicious: as much below it.",
        remedy=MADE,
        run=_each(_probe),
    ),
    Definition(
        name="feature-level",
        group="features",
        question="Do features rank test items far better than vectors of the training rows do?",
        method="Items by the product with the mean of the user's training items, on at most "
        f"{USERS:,} users. Control: vectors of at most {WIDTH} columns by SVD of the training "
        "rows.",
        metric=f"Recall@{K}",
        rule=f"leak: more than {SURELY:g} times the control and popularity; suspicious: more than "
        f"{ODD:g} times.",
        remedy=MADE,
        run=_each(_level),
    ),
)
