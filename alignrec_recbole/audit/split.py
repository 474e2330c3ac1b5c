"""How training, validation and test rows relate: pairs, users, items, times and duplicates."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import scipy.sparse as sp

from alignrec_recbole.audit.definition import Definition, Finding, NotApplicable
from alignrec_recbole.audit.duplicates import (
    MOST_OF_ONE,
    Pairs,
    hash_of_image,
    same_images,
    same_texts,
)
from alignrec_recbole.audit.ranking import contains, distinct
from alignrec_recbole.audit.report import Verdict
from alignrec_recbole.audit.rows import TEST, TRAIN, VALID
from alignrec_recbole.audit.subject import Subject
from alignrec_recbole.audit.times import real_times

MOST_COLD = 0.1  # of the test rows
RANDOM_PER_USER = 0.5  # of the share in a random split, from which on a split counts as random
RANDOM_FOR_ALL = 0.1  # the same for the data set: a split by each user's time has many such rows
STANDARD_ERRORS = 3
ENDS = 0.1  # smallest difference of shares
SUSPICIOUS_DUPLICATES, LEAKING_DUPLICATES = 0.01, 0.05  # of the test rows


def _keys(subject: Subject, label: int) -> np.ndarray:
    users, items = subject.pairs(label)
    return distinct(users * subject.rows.item_num + items)


def _overlap(subject: Subject) -> Iterator[Finding]:
    train, valid, test = (_keys(subject, label) for label in (TRAIN, VALID, TEST))
    in_train, in_valid = contains(train, test), contains(valid, test)
    both = int(contains(train, valid).sum())
    yield Finding(
        value=float((in_train | in_valid).mean()) if len(test) else 0.0,
        control=0.0,
        verdict="leak" if in_train.any() else "suspicious" if in_valid.any() or both else "clean",
        details={
            "test pairs in training": int(in_train.sum()),
            "test pairs in validation": int(in_valid.sum()),
            "validation pairs in training": both,
        },
    )


def _repeats(subject: Subject) -> Iterator[Finding]:
    rows = subject.rows
    counts = {}
    for name, label in (("training", TRAIN), ("validation", VALID), ("test", TEST)):
        users, _ = subject.pairs(label)
        counts[name] = len(users) - len(_keys(subject, label))
    total = sum(counts.values())
    yield Finding(
        value=total / max(1, len(rows)),
        control=0.0,
        verdict="suspicious" if total else "clean",
        details={f"repeated {name} rows": count for name, count in counts.items()},
    )


def _cold(subject: Subject) -> Iterator[Finding]:
    users, items = subject.pairs(TRAIN)
    known_users = np.bincount(users, minlength=subject.rows.user_num) > 0
    known_items = np.bincount(items, minlength=subject.rows.item_num) > 0
    test_users, test_items = subject.pairs(TEST)
    if not len(test_users):
        raise NotApplicable("there are no test rows")
    cold = ~known_users[test_users] | ~known_items[test_items]
    yield Finding(
        value=float(cold.mean()),
        verdict="suspicious" if cold.mean() > MOST_COLD else "clean",
        details={
            "users without training rows": int((~known_users).sum()),
            "items without training rows": int((~known_items).sum()),
            "test rows of such users": int((~known_users[test_users]).sum()),
            "test rows of such items": int((~known_items[test_items]).sum()),
        },
    )


# Time ---------------------------------------------------------------------------------------------


def _later_than_user(times: np.ndarray, labels: np.ndarray, users: np.ndarray) -> float:
    """Share of the training rows that are later than their user's first test row."""
    first = np.full(users.max() + 1, np.inf)
    test = labels == TEST
    np.minimum.at(first, users[test], times[test])
    train = labels == TRAIN
    return float((times[train] > first[users[train]]).mean())


def _later_than_all(times: np.ndarray, labels: np.ndarray, users: np.ndarray) -> float:
    """Share of the training rows that are later than the first test row of the data set."""
    return float((times[labels == TRAIN] > times[labels == TEST].min()).mean())


def _shuffled(labels: np.ndarray, users: np.ndarray | None, seed: int) -> np.ndarray:
    """The labels in a random order, within each user if `users` is given."""
    draw = np.random.default_rng(seed).random(len(labels))
    if users is None:
        return labels[np.argsort(draw)]
    out = np.empty_like(labels)
    out[np.lexsort((draw, users))] = labels[np.argsort(users, kind="stable")]
    return out


def _future(
    subject: Subject, share: Callable[[np.ndarray, np.ndarray, np.ndarray], float], per_user: bool
) -> Finding:
    """The share of training rows from the future, against that of a random split."""
    times, labels, users = real_times(subject), subject.labels, subject.rows.users
    if not (labels == TRAIN).any() or not (labels == TEST).any():
        raise NotApplicable("there are no training rows or no test rows")
    value = share(times, labels, users)
    controls = [
        share(times, _shuffled(labels, users if per_user else None, seed), users)
        for seed in subject.seeds
    ]
    control = float(np.mean(controls))
    if value == 0:
        verdict, note = "clean", "The split follows time: no training row is from the future."
    elif value >= (RANDOM_PER_USER if per_user else RANDOM_FOR_ALL) * control:
        verdict = "clean"
        note = (
            f"The split does not follow {'each user' if per_user else 'the data set'}'s time: "
            f"{value:.0%} of the training rows are later than the first test row, {control:.0%} in "
            "a random split. It measures how well gaps are filled, not how well the future is "
            "predicted."
        )
    else:
        verdict = "leak"
        note = "The split follows time but for these training rows."
    return Finding(
        value=value,
        control=control,
        control_range=(min(controls), max(controls)),
        chance=control,
        verdict=verdict,  # type: ignore[arg-type]
        details={"column": subject.rows.time_column},
        notes=(note,),
    )


def _user_time(subject: Subject) -> Iterator[Finding]:
    yield _future(subject, _later_than_user, per_user=True)


def _global_time(subject: Subject) -> Iterator[Finding]:
    yield _future(subject, _later_than_all, per_user=False)


def _ends(subject: Subject) -> Iterator[Finding]:
    """First and last by time, or where there is none by item number."""
    try:
        order, by = real_times(subject), f"by {subject.rows.time_column}"
    except NotApplicable as reason:
        order = subject.numbers_of_items[subject.rows.items].astype(np.float64)
        by = f"by item number, since {reason}"
    users, test = subject.rows.users, subject.labels == TEST
    sizes = np.bincount(users)
    expected = np.bincount(users, test) / sizes
    ranked = expected > 0
    shares = {}
    ties = np.random.Generator(np.random.PCG64(0)).random(len(users))  # else the file's order
    for name, sign in (("first", 1.0), ("last", -1.0)):
        places = np.lexsort((ties, sign * order, users))
        shares[name] = test[places[np.cumsum(sizes) - sizes]][ranked]
    chance = float(expected[ranked].mean())
    error = float(np.sqrt((expected[ranked] * (1 - expected[ranked])).sum()) / ranked.sum())
    first, last = (float(shares[name].mean()) for name in ("first", "last"))
    by_design = float(_tests_are_last(users, test, order)[ranked].mean()) > 0.99
    verdict: Verdict = "clean"
    for value, allowed in ((first, False), (last, by_design)):
        far = value - chance > max(ENDS, STANDARD_ERRORS * error)
        if far and not allowed:
            verdict = "suspicious"
    yield Finding(
        value=max(first, last),
        control=chance,
        chance=chance,
        verdict=verdict,
        details={"first item in test": first, "last item in test": last, "order": by},
    )


def _tests_are_last(users: np.ndarray, test: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Whether no other row of a user is later than one of the user's test rows, bool [users]."""
    count = int(users.max()) + 1
    first_test, last_other = np.full(count, np.inf), np.full(count, -np.inf)
    np.minimum.at(first_test, users[test], order[test])
    np.maximum.at(last_other, users[~test], order[~test])
    return last_other <= first_test


# Duplicates ---------------------------------------------------------------------------------------


def _duplicates(subject: Subject, pairs: Pairs, notes: tuple[str, ...] = ()) -> Finding:
    """Test rows whose user has the same item under another id in training.

    Args:
        pairs: of items as `rows` numbers them.
    """
    rows = subject.rows
    users, items = subject.pairs(TRAIN)
    shape = rows.user_num, rows.item_num
    history = sp.csr_matrix((np.ones(len(users), np.float32), (users, items)), shape=shape)
    test_users, test_items = subject.pairs(TEST)
    if not len(test_users):
        raise NotApplicable("there are no test rows")
    keys = test_users * rows.item_num + test_items

    def share(first: np.ndarray, second: np.ndarray) -> float:
        ones = np.ones(len(first), np.float32)
        same = sp.csr_matrix((ones, (first, second)), shape=(rows.item_num, rows.item_num))
        near = sp.csr_matrix(history @ same)
        near.sort_indices()
        row = np.repeat(np.arange(rows.user_num), np.diff(near.indptr))
        return float(contains(row * rows.item_num + near.indices, keys).mean())

    value = share(*pairs)
    controls = []
    for seed in subject.seeds:
        order = np.random.default_rng(seed).permutation(rows.item_num)
        controls.append(share(order[pairs[0]], order[pairs[1]]))
    lift = value - float(np.mean(controls))
    verdict: Verdict = "clean"
    if value > max(controls) and lift >= SUSPICIOUS_DUPLICATES:
        verdict = "leak" if lift >= LEAKING_DUPLICATES else "suspicious"
    return Finding(
        value=value,
        control=float(np.mean(controls)),
        control_range=(min(controls), max(controls)),
        verdict=verdict,
        details={
            "pairs of items": len(pairs[0]) // 2,
            "items in such pairs": len(np.unique(pairs[0])),
        },
        notes=notes,
    )


def _content(subject: Subject) -> tuple[list[str], list[int]]:
    """Ids of the item table and the number of each in `rows`, −1 for items without rows."""
    if subject.items is None:
        raise NotApplicable("the data set has no item table")
    number = {str(token): place for place, token in enumerate(subject.rows.item_tokens)}
    return subject.items.ids, [number.get(item, -1) for item in subject.items.ids]


def _known(pairs: Pairs, places: list[int]) -> Pairs:
    """Pairs of table rows as pairs of items that have interactions."""
    first, second = (np.asarray(places)[part] for part in pairs)
    both = (first >= 0) & (second >= 0)
    return first[both], second[both]


def _same_texts(subject: Subject) -> Iterator[Finding]:
    _, places = _content(subject)
    assert subject.items is not None
    if not any(subject.items.texts):
        raise NotApplicable("no item has a text")
    try:
        pairs, notes = same_texts(subject.items.texts)
    except ValueError:  # scikit-learn's, of an empty vocabulary
        raise NotApplicable("no item's text has a word") from None
    yield _duplicates(subject, _known(pairs, places), notes)


def _same_images(subject: Subject) -> Iterator[Finding]:
    _, places = _content(subject)
    assert subject.items is not None
    files = subject.items.images
    if not any(files):
        raise NotApplicable("no item has an image")
    hashes = [None if file is None else hash_of_image(file) for file in files]
    shared: dict[int, int] = {}
    for value in hashes:
        if value is not None:
            shared[value] = shared.get(value, 0) + 1
    if not shared:
        raise NotApplicable("no image file can be read")
    stand_ins = {value for value, count in shared.items() if count > MOST_OF_ONE}
    kept = [None if value in stand_ins else value for value in hashes]
    notes = [f"{sum(value is not None for value in hashes):,} images were read."]
    if stand_ins:
        count = sum(shared[value] for value in stand_ins)
        notes.append(f"{count:,} items have an image that more than {MOST_OF_ONE} items have.")
    yield _duplicates(subject, _known(same_images(kept), places), tuple(notes))


FUTURE_RULE = (
    "clean: no training row is from the future (the split follows time), or at least {} as many as "
    "in a random split (it does not, and a note says so); leak: some, but fewer: the split follows "
    "time with exceptions."
)
DUPLICATES_RULE = (
    "Lift: the figure minus the mean of its control. leak: 5 % of the test rows or more; "
    "suspicious: 1 % or more, each above every control; else clean."
)
DUPLICATES_REMEDY = (
    "Give equal items one id before the split, or rank without the duplicates of training items."
)

CHECKS = (
    Definition(
        name="split-overlap",
        group="split",
        question="Is a pair of user and item in two splits?",
        method="Pairs of the test rows that are training or validation rows, too.",
        metric="share of test pairs",
        rule="leak: a test pair is a training pair; suspicious: another pair is in two splits.",
        remedy="Remove the pair from all splits but one.",
        run=_overlap,
    ),
    Definition(
        name="split-repeats",
        group="split",
        question="Is a pair of user and item in a split more than once?",
        method="Rows whose pair occurs before in the same split.",
        metric="share of rows",
        rule="suspicious: there are such rows; they count twice in training and metrics.",
        remedy="Keep the first row of each pair.",
        run=_repeats,
    ),
    Definition(
        name="split-cold",
        group="split",
        question="How many test rows have a user or an item without training rows?",
        method="Test rows whose user or item has no training row.",
        metric="share of test rows",
        rule="suspicious: more than 10 %.",
        remedy="Say so beside results, or use the protocol cold-start; models without content "
        "cannot find these items.",
        run=_cold,
    ),
    Definition(
        name="split-time-user",
        group="split",
        question="Are training rows later than their user's test rows?",
        method="Training rows that are later than the user's first test row. Control: labels in a "
        "random order within each user.",
        metric="share of training rows",
        rule=FUTURE_RULE.format("half"),
        remedy="Split each user's rows by time (`--split user-time` or `leave-last-out`), or say "
        "that the split is random.",
        run=_user_time,
    ),
    Definition(
        name="split-time-all",
        group="split",
        question="Are training rows later than the first test row of the data set?",
        method="Training rows that are later than the first test row of anyone. Control: labels in "
        "a random order.",
        metric="share of training rows",
        rule=FUTURE_RULE.format("a tenth"),
        remedy="Split all rows at one point in time (`--split global-time`), or say that the split "
        "does not.",
        run=_global_time,
    ),
    Definition(
        name="split-ends",
        group="split",
        question="Is a user's first or last item in test more often than by chance?",
        method="Users with test rows whose first row in time, or whose last, is a test row, the "
        "larger of both (without times: rows in the order of the items' numbers; equal times in a "
        "random order). Chance: the mean share of a user's rows that are test rows.",
        metric="share of users",
        rule="suspicious: the first or the last is in test more often than by chance, by 10 points "
        "and three standard errors; if no other row is later than its user's test rows, the split "
        "is by time and more last ones are clean.",
        remedy="Draw the split at random or by time.",
        run=_ends,
    ),
    Definition(
        name="split-same-text",
        group="split",
        question="Do users have in training what is in test under another id, by its text?",
        method="Test rows whose user has in training an item with nearly the same text (cosine of "
        "TF-IDF vectors at least 0.95). Control: the pairs of items drawn at random.",
        metric="share of test rows",
        rule=DUPLICATES_RULE,
        remedy=DUPLICATES_REMEDY,
        run=_same_texts,
    ),
    Definition(
        name="split-same-image",
        group="split",
        question="Do users have in training what is in test under another id, by its image?",
        method="Test rows whose user has in training an item with nearly the same image (hashes "
        "of 64 bits that differ in at most 2). Control: the pairs of items drawn at random.",
        metric="share of test rows",
        rule=DUPLICATES_RULE,
        remedy=DUPLICATES_REMEDY,
        run=_same_images,
    ),
)
