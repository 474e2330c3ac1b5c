"""Whether feature sets know held-out rows.

Features that were made without the held-out rows know as much of a user's validation items as of
the test items, since both were chosen alike. So validation rows are the control of test rows, for
the same users and under the same ranker. Features made of all rows know both, and are noticed by
what they know beyond vectors made of the training rows alone. Nothing of items × items is formed
whole.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from alignrec_recbole.audit.definition import Definition, Finding, NotApplicable
from alignrec_recbole.audit.opened_features import Opened, of_each_set, unit_rows
from alignrec_recbole.audit.subject import Subject

BLOCK = 1024  # users whose scores are in memory together
LINKS = 20_000  # held-out rows that are compared, per split
USERS = 4000  # that are ranked
WINDOW = 20  # places in the order of popularity in which the other item is drawn
GAP, SIGMAS = 0.02, 4.0  # of the share of rows, and in standard errors
ODD, SURELY = 1.2, 1.5  # times the recall of vectors of the training rows
WIDTH = 64  # of these vectors
K = 20
EXCHANGE = (
    "Control: the same figure on validation rows; features that were made without held-out rows do "
    "equally well on both."
)
MADE = "Make the features again without held-out rows, or use others."


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
    return unit_rows(profile)[None] * unit[links.items]


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
    return unit_rows((vectors * values[:, None]).T)


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


CHECKS = (
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
        run=of_each_set(_neighbours),
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
        run=of_each_set(_probe),
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
        run=of_each_set(_level),
    ),
)
