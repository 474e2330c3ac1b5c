"""How training, validation and test rows relate: pairs, users, items, times and duplicates."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from alignrec_recbole.audit.definition import Definition, Finding
from alignrec_recbole.audit.ranking import contains
from alignrec_recbole.audit.rows import TEST, TRAIN, VALID
from alignrec_recbole.audit.subject import Subject


def _keys(subject: Subject, label: int) -> np.ndarray:
    users, items = subject.pairs(label)
    return np.unique(users * subject.rows.item_num + items)


def _overlap(subject: Subject) -> Iterator[Finding]:
    train, valid, test = (_keys(subject, label) for label in (TRAIN, VALID, TEST))
    in_train, in_valid = contains(train, test), contains(valid, test)
    both = int(contains(train, valid).sum())
    count = int((in_train | in_valid).sum())
    yield Finding(
        value=count / max(1, len(test)),
        control=0.0,
        verdict="leak" if in_train.any() else "suspicious" if in_valid.any() or both else "clean",
        details={
            "test pairs in training": int(in_train.sum()),
            "test pairs in validation": int(in_valid.sum()),
            "validation pairs in training": both,
        },
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
)
