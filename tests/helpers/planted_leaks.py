"""Small data sets with one planted leak each, and the same without it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from alignrec_recbole.audit.rows import Rows
from alignrec_recbole.audit.subject import Subject
from alignrec_recbole.data.items import ItemTable
from alignrec_recbole.runs.spec import DataSpec

USERS, ITEMS, PER_USER = 2000, 1200, 8
LABELS = (0, 0, 0, 0, 0, 0, 1, 2)
SEEDS = (0, 1, 2, 3, 4)


@dataclass(frozen=True)
class World:
    """Columns of a file; every array has a value per row."""

    users: np.ndarray
    items: np.ndarray
    labels: np.ndarray
    times: np.ndarray | None = None
    texts: tuple[str, ...] = ()
    images: tuple[Path, ...] = ()

    def rows(self, order: np.ndarray) -> World:
        """The rows in another order, or a part of them, or some repeated."""
        times = None if self.times is None else self.times[order]
        return replace(
            self,
            users=self.users[order],
            items=self.items[order],
            labels=self.labels[order],
            times=times,
        )

    def subject(self) -> Subject:
        """As the audit reads it."""
        table = None
        if self.texts or self.images:
            table = ItemTable(
                ids=[str(item) for item in range(ITEMS)],
                texts=list(self.texts) or [""] * ITEMS,
                images=list(self.images) or [None] * ITEMS,
                source="items.tsv",
                text_columns=["title"],
            )
        rows = Rows.of(self.users, self.items, self.labels, self.times)
        return Subject(DataSpec("planted"), rows, table=table, seeds=SEEDS)


def world() -> World:
    """Items of different popularity, a random split, random times, numbers and order of rows."""
    generator = np.random.default_rng(5)
    weight = 1 / (400.0 + np.arange(ITEMS))
    items = np.concatenate(
        [
            generator.choice(ITEMS, PER_USER, replace=False, p=weight / weight.sum())
            for _ in range(USERS)
        ]
    )
    items = generator.permutation(ITEMS)[items]
    made = World(
        np.repeat(generator.permutation(USERS), PER_USER),
        items,
        np.concatenate([generator.permutation(LABELS) for _ in range(USERS)]),
        generator.integers(10**9, 2 * 10**9, USERS * PER_USER),
    )
    return made.rows(generator.permutation(len(items)))


def numbered_by(key: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """Tokens replaced by numbers in the order of their smallest key."""
    smallest = np.full(tokens.max() + 1, np.inf)
    np.minimum.at(smallest, tokens, key)
    number = np.empty(len(smallest), dtype=np.int64)
    number[np.argsort(smallest, kind="stable")] = np.arange(len(smallest))
    return number[tokens]


def named(made: World) -> World:
    """Ids that are no numbers."""
    return replace(
        made,
        users=np.array([f"u{user:04}" for user in made.users]),
        items=np.array([f"i{item:04}" for item in made.items]),
    )


# What is planted ----------------------------------------------------------------------------------


def users_by_first_item(made: World) -> World:
    return replace(made, users=numbered_by(made.items, made.users))


def users_by_first_item_downwards(made: World) -> World:
    return replace(made, users=USERS - 1 - numbered_by(made.items, made.users))


def items_by_first_user(made: World) -> World:
    return replace(made, items=numbered_by(made.users, made.items))


def items_by_last_user(made: World) -> World:
    return replace(made, items=numbered_by(USERS - made.users, made.items))


def rows_by_item(made: World) -> World:
    return made.rows(np.lexsort((made.users, made.items)))


def rows_by_user(made: World) -> World:
    return made.rows(np.lexsort((made.items, made.users)))


def test_row_in_training(made: World) -> World:
    copied = np.flatnonzero(made.labels == 2)[:3]
    out = made.rows(np.concatenate([np.arange(len(made.users)), copied]))
    out.labels[-3:] = 0
    return out


def test_row_in_validation(made: World) -> World:
    copied = np.flatnonzero(made.labels == 2)[:3]
    out = made.rows(np.concatenate([np.arange(len(made.users)), copied]))
    out.labels[-3:] = 1
    return out


def repeated_row(made: World) -> World:
    return made.rows(np.concatenate([np.arange(len(made.users)), [7]]))


def items_of_test_alone(made: World) -> World:
    test = np.flatnonzero(made.labels == 2)[: USERS // 5]
    items = made.items.copy()
    items[test] = ITEMS + np.arange(len(test))
    return replace(made, items=items)


def by_user_time(made: World) -> World:
    """Each user's last row is for test, the last but one for validation."""
    assert made.times is not None
    labels = np.zeros(len(made.users), dtype=np.int64)
    ends = np.lexsort((made.times, made.users)).reshape(USERS, PER_USER)
    labels[ends[:, -1]], labels[ends[:, -2]] = 2, 1
    return replace(made, labels=labels)


def by_global_time(made: World) -> World:
    assert made.times is not None
    cuts = np.quantile(made.times, [0.8, 0.9])
    return replace(made, labels=np.searchsorted(cuts, made.times, "right"))


def few_future_rows(made: World) -> World:
    """One training row in fifty is moved behind all others."""
    assert made.times is not None
    times = made.times.copy()
    times[np.flatnonzero(made.labels == 0)[::50]] += 2 * 10**9
    return replace(made, times=times)


def first_row_in_test(made: World) -> World:
    """For two users in three the first row in time is the test row."""
    assert made.times is not None
    times = made.times.copy()
    times[(made.labels == 2) & (made.users % 3 > 0)] -= 10**9
    return replace(made, times=times)


def last_row_in_test(made: World) -> World:
    """For two users in three the last row in time is the test row."""
    assert made.times is not None
    times = made.times.copy()
    times[(made.labels == 2) & (made.users % 3 > 0)] += 10**9
    return replace(made, times=times)


def _twins(made: World) -> list[tuple[int, int]]:
    """A training and a test item of each of some users, no item twice."""
    taken: set[int] = set()
    out = []
    for user in range(USERS):
        own = made.users == user
        train = [i for i in made.items[own & (made.labels == 0)] if i not in taken]
        test = [i for i in made.items[own & (made.labels == 2)] if i not in taken]
        if train and test and len(out) < ITEMS // 4:
            out.append((int(train[0]), int(test[0])))
            taken |= set(out[-1])
    return out


def texts(made: World) -> World:
    generator = np.random.default_rng(6)
    words = [f"w{n}" for n in range(400)]
    return replace(made, texts=tuple(" ".join(generator.choice(words, 7)) for _ in range(ITEMS)))


def same_texts(made: World) -> World:
    changed = list(made.texts)
    for first, second in _twins(made):
        changed[second] = changed[first].upper() + "!"
    return replace(made, texts=tuple(changed))


def images(folder: Path) -> Callable[[World], World]:
    """An image of noise for the items of the twins, none for the others."""

    def made_with_images(made: World) -> World:
        return _images(made, folder, same=False)

    return made_with_images


def same_images(folder: Path) -> Callable[[World], World]:
    """The same with the second of each two a smaller copy of the first."""

    def made_with_images(made: World) -> World:
        return _images(made, folder, same=True)

    return made_with_images


def _images(made: World, folder: Path, same: bool) -> World:
    files: list[Any] = [None] * ITEMS
    generator = np.random.default_rng(7)
    for first, second in _twins(made):
        coarse = [generator.integers(0, 255, (6, 6, 3), dtype=np.uint8) for _ in range(2)]
        for item, pixels in zip((first, second), coarse, strict=True):
            files[item] = folder / f"{item}.png"
            Image.fromarray(pixels).resize((96, 96)).save(files[item])
        if same:
            with Image.open(files[first]) as image:
                image.resize((48, 48)).save(files[second])
    return replace(made, images=tuple(files))
