"""What the numbers of users and items and the order of rows and ids tell of the test rows.

The number of a user or an item is the one in the file where all ids are whole numbers (only their
order counts), else the place of its first appearance in the file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import numpy as np

from alignrec_recbole.audit.definition import Definition, Finding, NotApplicable
from alignrec_recbole.audit.ranking import (
    Numbered,
    by_position,
    first_items,
    fused,
    near_own,
    nearest,
    recall_and_ndcg,
)
from alignrec_recbole.audit.report import Verdict
from alignrec_recbole.audit.rows import TEST, VALID
from alignrec_recbole.audit.subject import Subject

METRIC = "Recall@20"
CONTROL_STREAM = 28  # a data set that was renumbered from the same seed would be numbered back
SAMPLE = 4000  # users that a control or a choice on validation ranks at most
MOST_CHANCE = 0.5
STANDARD_ERRORS = 3
BELOW = 0.25  # of two items at equal distance, the one below the bound comes first
Ranker = Callable[[Numbered], np.ndarray]
Numbers = Literal["number", "appearance"]
Who = tuple[bool, bool]  # whether users, items are renumbered for the control
FLIPS = ((False, False), (False, True), (True, False), (True, True))

RULE = (
    "Lift: the figure minus the mean of its control. leak: the lift is at least the popularity "
    "ranker's Recall@20; suspicious: at least half of it. In both cases the figure must be above "
    "every control, and the lift at least three standard errors of the mean over users; else "
    "clean. Where popularity is below chance, chance takes its place."
)
WEAK = (
    "The figure is above every control, but its lift is less than half of the popularity ranker's "
    "Recall@20: the order says something about test items, but less than popularity does."
)
ROWS = (
    "Write the training rows first and all rows in a random order, or number users and items from "
    "the training rows alone."
)
RENUMBER = (
    "Number users and items at random: `prepare --rekey SEED` (or `run --rekey`) writes the same "
    "split under random numbers."
)


def bound_of_users(split: Numbered) -> np.ndarray:
    """Items by |i − U(u)|, U(u) the smallest training item of a user with a number from u on."""
    return nearest(split, first_items(split) - BELOW, np.arange(split.item_num))


def bound_of_items(split: Numbered) -> np.ndarray:
    """Items by |u − L(i)|, L(i) the smallest training user of an item with a number from i on."""
    return nearest(split, np.arange(split.user_num) + BELOW, first_items(split.mirrored))


def flipped(split: Numbered, flip: tuple[bool, bool]) -> Numbered:
    """Users' and items' numbers counted from the other end where `flip` says so."""
    users, items = flip
    return split.renumbered(
        split.user_num - 1 - np.arange(split.user_num) if users else None,
        split.item_num - 1 - np.arange(split.item_num) if items else None,
    )


def either_end(ranker: Ranker, subject: Subject, numbers: Numbers) -> tuple[Ranker, str]:
    """A ranker that counts from the ends that are best on the validation rows, and which they are.

    The lists have the numbers of the split that is given.
    """
    split = _sample(subject.numbered(numbers, VALID), 0)
    scores = [_recall(flipped(split, flip), ranker) for flip in FLIPS]
    flip = FLIPS[int(np.argmax(scores))]
    ends = " and ".join(
        f"{who} from the {'last' if last else 'first'}"
        for who, last in zip(("users", "items"), flip, strict=True)
    )

    def ranked(split: Numbered) -> np.ndarray:
        lists = ranker(flipped(split, flip))
        if flip[0]:
            lists = lists[::-1]
        return np.where((lists >= 0) & flip[1], split.item_num - 1 - lists, lists)

    return ranked, ends


def _recall(split: Numbered, ranker: Ranker) -> float:
    found, _ = recall_and_ndcg(split, ranker(split))
    return float(found.mean()) if len(found) else 0.0


def judge(
    value: float, controls: Sequence[float], yardstick: float, standard_error: float
) -> Verdict:
    """The verdict of RULE.

    >>> judge(0.15, [0.004, 0.003], 0.05, 0.002), judge(0.04, [0.004, 0.003], 0.05, 0.002)
    ('leak', 'suspicious')
    >>> judge(0.02, [0.004, 0.003], 0.05, 0.002), judge(0.15, [0.004, 0.003], 0.05, 0.06)
    ('clean', 'clean')
    """
    lift = value - float(np.mean(controls))
    if value <= max(controls) or lift < STANDARD_ERRORS * standard_error:
        return "clean"
    return "leak" if lift >= yardstick else "suspicious" if lift >= yardstick / 2 else "clean"


def _sample(split: Numbered, seed: int) -> Numbered:
    """The same with at most SAMPLE users to rank, drawn at random."""
    if len(split.ranked) <= SAMPLE:
        return split
    chosen = np.random.default_rng([seed, 1]).permutation(split.ranked)[:SAMPLE]
    return split.of_users(chosen)


def compare(
    subject: Subject,
    ranker: Ranker,
    numbers: Numbers,
    renumber: Who,
    **details: float | int | str,
) -> Finding:
    """A ranker on the test rows, and on the same rows with users or items renumbered at random.

    Controls rank at most SAMPLE users each.

    Raises:
        NotApplicable: there is nobody to rank, or chance alone finds half of the targets.
    """
    split = subject.numbered(numbers, TEST)
    if not len(split.ranked):
        raise NotApplicable("no user has a training row and a test row")
    chance = split.chance()
    if chance > MOST_CHANCE:
        raise NotApplicable(f"there are so few items that a random order has {METRIC} {chance:.2f}")
    recalls, gains = recall_and_ndcg(split, ranker(split))
    controls = []
    for seed in subject.seeds:
        generator = np.random.default_rng([CONTROL_STREAM, seed])
        users = generator.permutation(split.user_num) if renumber[0] else None
        items = generator.permutation(split.item_num) if renumber[1] else None
        controls.append(_recall(_sample(split.renumbered(users, items), seed), ranker))
    value = float(recalls.mean())
    yardstick = max(subject.popularity, chance)
    error = float(recalls.std() / np.sqrt(len(recalls)))
    verdict = judge(value, controls, yardstick, error)
    weak = verdict == "clean" and judge(value, controls, 0.0, error) != "clean"
    return Finding(
        value=value,
        control=float(np.mean(controls)),
        control_range=(min(controls), max(controls)),
        chance=chance,
        verdict=verdict,
        notes=(WEAK,) if weak else (),
        details={
            "NDCG@20": float(gains.mean()),
            "popularity Recall@20": subject.popularity,
            "users": len(recalls),
            "controls": len(controls),
            "numbers": subject.kind_of_numbers if numbers == "number" else "first appearance",
            **details,
        },
    )


def _users(subject: Subject) -> Iterator[Finding]:
    ranker, ends = either_end(bound_of_users, subject, "number")
    yield compare(subject, ranker, "number", (True, False), counted=ends)


def _items(subject: Subject) -> Iterator[Finding]:
    ranker, ends = either_end(bound_of_items, subject, "number")
    yield compare(subject, ranker, "number", (False, True), counted=ends)


def _both(subject: Subject) -> Iterator[Finding]:
    users, ends = either_end(bound_of_users, subject, "number")
    items, other_ends = either_end(bound_of_items, subject, "number")

    def ranked(split: Numbered) -> np.ndarray:
        return fused(users(split), items(split), split.tie)

    yield compare(subject, ranked, "number", (True, True), counted=ends, counted_by_item=other_ends)


def _positions(subject: Subject) -> Iterator[Finding]:
    yield compare(subject, by_position, "number", (True, False))


def _neighbours(subject: Subject) -> Iterator[Finding]:
    yield compare(subject, near_own, "number", (False, True))


def _rows(subject: Subject) -> Iterator[Finding]:
    best = max(
        (either_end(ranker, subject, "appearance") for ranker in (bound_of_users, bound_of_items)),
        key=lambda entry: _recall(subject.numbered("appearance", VALID), entry[0]),
    )
    yield compare(subject, best[0], "appearance", (True, True), counted=best[1])


def _within(subject: Subject) -> Iterator[Finding]:
    yield compare(subject, near_own, "appearance", (False, True))


NUMBERS = (
    "Numbers are the ids in the file where all are whole numbers, else places of first appearance "
    "in the file."
)
CHECKS = (
    Definition(
        name="numbering-users",
        group="numbering",
        question="Does a user's number tell the user's test items?",
        method="Ranker that reads user numbers and training rows alone: U(u) is the smallest "
        "training item of all users with a number from u on; items are listed by |i − U(u)|, "
        "training items left out. From which end users and items are counted is chosen on "
        "validation. Control: users renumbered at random.",
        metric=METRIC,
        rule=RULE,
        remedy=RENUMBER,
        run=_users,
    ),
    Definition(
        name="numbering-items",
        group="numbering",
        question="Does an item's number tell the users that have it in test?",
        method="The mirror image: L(i) is the smallest training user of all items with a number "
        "from i on; items are listed by |u − L(i)|, training items left out. The ends are chosen "
        "on validation. Control: items renumbered at random.",
        metric=METRIC,
        rule=RULE,
        remedy=RENUMBER,
        run=_items,
    ),
    Definition(
        name="numbering-both",
        group="numbering",
        question="Do the numbers of users and items together tell test items?",
        method="The lists of numbering-users and numbering-items as one, by the sum of "
        "1 / (60 + rank). Control: users and items renumbered at random.",
        metric=METRIC,
        rule=RULE,
        remedy=RENUMBER,
        run=_both,
    ),
    Definition(
        name="numbering-positions",
        group="numbering",
        question="Can a model that adds positional encodings to users read test items?",
        method="Sinusoids of the user's number (64 columns, base 10,000), averaged once over the "
        "training graph to the items; items by the cosine with the user's own. Nothing is learned. "
        "Control: users renumbered at random.",
        metric=METRIC,
        rule=RULE,
        remedy=RENUMBER,
        run=_positions,
    ),
    Definition(
        name="numbering-neighbours",
        group="numbering",
        question="Are a user's test items next to the training items in the order of the numbers?",
        method="Items by the distance of their number to the nearest training item's. Control: "
        "items renumbered at random. Numbers that follow a catalogue carry content, too, which "
        "this figure cannot tell from a leak.",
        metric=METRIC,
        rule=RULE,
        remedy=RENUMBER,
        run=_neighbours,
    ),
    Definition(
        name="order-rows",
        group="numbering",
        question="Does the order of the rows tell test items to readers that number by first "
        "appearance before they split?",
        method="The rankers of numbering-users and numbering-items on the places of first "
        "appearance in the whole file; ranker and ends are chosen on validation. Control: users "
        "and items in a random order.",
        metric=METRIC,
        rule=RULE,
        remedy=ROWS,
        run=_rows,
    ),
    Definition(
        name="order-within-user",
        group="numbering",
        question="Are a user's test items next to the training items in the order of first "
        "appearance?",
        method="Items by the distance of their place of first appearance in the whole file to the "
        "nearest training item's. Control: items in a random order.",
        metric=METRIC,
        rule=RULE,
        remedy=ROWS,
        run=_within,
    ),
)
