"""Rankers that read numbers and training rows alone, without a dense matrix of users × items.

All of them list items by a distance, training items excluded, equal distances in an order drawn
once from a fixed seed.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch

from alignrec_recbole.evaluation.metrics import ndcg, recall
from alignrec_recbole.features.item_order import TIE_SEED

K = 20
BLOCK = 1 << 21  # candidates looked at together


@dataclass(frozen=True)
class Numbered:
    """Training rows and a held-out split, users and items numbered from 0.

    Attributes:
        train: (users, items) of the training rows.
        targets: (users, items) of the held-out rows.
        user_num, item_num: how many numbers there are.
    """

    train: tuple[np.ndarray, np.ndarray]
    targets: tuple[np.ndarray, np.ndarray]
    user_num: int
    item_num: int

    def renumbered(
        self, users: np.ndarray | None = None, items: np.ndarray | None = None
    ) -> Numbered:
        """The same interactions under other numbers: number n becomes `users[n]`, `items[n]`."""

        def change(pairs: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
            user, item = pairs
            return (
                user if users is None else users[user],
                item if items is None else items[item],
            )

        return Numbered(change(self.train), change(self.targets), self.user_num, self.item_num)

    @property
    def mirrored(self) -> Numbered:
        """Users and items exchanged."""
        return Numbered(self.train[::-1], self.targets[::-1], self.item_num, self.user_num)

    @functools.cached_property
    def train_keys(self) -> np.ndarray:
        """`user · items + item` of the training rows, sorted, each once."""
        return distinct(self.train[0] * self.item_num + self.train[1])

    @functools.cached_property
    def target_keys(self) -> np.ndarray:
        """The same of the held-out rows, without pairs that are training rows too."""
        keys = distinct(self.targets[0] * self.item_num + self.targets[1])
        return keys[~contains(self.train_keys, keys)]

    @functools.cached_property
    def degrees(self) -> np.ndarray:
        """Training items of each user."""
        return np.bincount(self.train_keys // self.item_num, minlength=self.user_num)

    @functools.cached_property
    def ranked(self) -> np.ndarray:
        """Users with a training row and a target, ascending."""
        wanted = np.bincount(self.target_keys // self.item_num, minlength=self.user_num)
        return np.flatnonzero((wanted > 0) & (self.degrees > 0))

    @functools.cached_property
    def target_counts(self) -> np.ndarray:
        """Targets of each of the `ranked` users."""
        counts = np.bincount(self.target_keys // self.item_num, minlength=self.user_num)
        return counts[self.ranked]

    @functools.cached_property
    def tie(self) -> np.ndarray:
        """Place of each item among equals."""
        return np.random.default_rng(TIE_SEED).permutation(self.item_num)

    def of_users(self, users: np.ndarray) -> Numbered:
        """The same with the targets of these users alone."""
        user, item = self.targets
        chosen = np.bincount(users, minlength=self.user_num)[user] > 0
        out = Numbered(self.train, (user[chosen], item[chosen]), self.user_num, self.item_num)
        for name in ("train_keys", "degrees", "tie"):  # of the training rows: computed once
            out.__dict__[name] = getattr(self, name)
        return out

    def hits(self, users: np.ndarray, lists: np.ndarray) -> np.ndarray:
        """Where lists (−1: nothing) of users have a target, [n, K]."""
        keys = users[:, None] * self.item_num + lists
        return contains(self.target_keys, keys) & (lists >= 0)

    def chance(self, k: int = K) -> float:
        """Expected Recall@k of a random order of the items that may be listed."""
        candidates = self.item_num - self.degrees[self.ranked]
        return float(np.mean(np.minimum(k, candidates) / candidates)) if len(candidates) else 0.0


def distinct(keys: np.ndarray) -> np.ndarray:
    """The keys in ascending order, each once; several times as fast as np.unique of NumPy 2.3.

    >>> distinct(np.array([3, 1, 3])).tolist()
    [1, 3]
    """
    ordered = np.sort(keys)
    return ordered[np.concatenate([[True], ordered[1:] != ordered[:-1]])] if len(keys) else ordered


def contains(ordered: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Which keys are in a sorted array.

    >>> contains(np.array([2, 5]), np.array([[1, 2], [5, 9]])).tolist()
    [[False, True], [True, False]]
    """
    if not len(ordered):
        return np.zeros(keys.shape, dtype=bool)
    places = np.searchsorted(ordered, keys)
    return ordered[np.minimum(places, len(ordered) - 1)] == keys


def recall_and_ndcg(split: Numbered, lists: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Recall@K and NDCG@K of each ranked user; `lists` [ranked users, K]."""
    hits = split.hits(split.ranked, lists)
    return recall(hits, split.target_counts, K), ndcg(hits, split.target_counts, K)


def nearest(split: Numbered, centres: np.ndarray, places: np.ndarray, k: int = K) -> np.ndarray:
    """The k items whose place is nearest to a user's centre, [ranked users, k], −1 at the end.

    Args:
        centres: of every user [users].
        places: of every item [items].
    """
    order = np.lexsort((split.tie, places))
    ordered = places[order]
    users = split.ranked
    out = np.full((len(users), k), -1, dtype=np.int64)
    # of k + degree neighbours on each side, at least k are no training items
    widths = 1 << np.ceil(np.log2(k + split.degrees[users])).astype(np.int64)
    for width in np.unique(widths):
        rows = np.flatnonzero(widths == width)
        offsets = np.arange(-min(width, split.item_num), min(width, split.item_num))
        size = max(1, BLOCK // len(offsets))
        for start in range(0, len(rows), size):
            part = rows[start : start + size]
            first = np.searchsorted(ordered, centres[users[part]])
            index = first[:, None] + offsets
            inside = (index >= 0) & (index < split.item_num)
            items = order[np.clip(index, 0, split.item_num - 1)]
            far = np.abs(places[items] - centres[users[part]][:, None]).astype(np.float64)
            excluded = contains(split.train_keys, users[part][:, None] * split.item_num + items)
            far[excluded | ~inside] = np.inf
            out[part] = first_k(far, items, split.tie, k)
    return out


def first_k(far: np.ndarray, items: np.ndarray, tie: np.ndarray, k: int) -> np.ndarray:
    """The items of the k smallest distances per row, equal ones by `tie`; −1 for infinite ones."""
    best = np.lexsort((tie[items], far), axis=-1)[:, :k]
    chosen = np.take_along_axis(items, best, axis=1)
    chosen = np.where(np.isfinite(np.take_along_axis(far, best, axis=1)), chosen, -1)
    missing = k - chosen.shape[1]
    return np.pad(chosen, ((0, 0), (0, missing)), constant_values=-1) if missing > 0 else chosen


def first_items(split: Numbered) -> np.ndarray:
    """U(u) = min over users u' ≥ u of the smallest training item of u'; `item_num` if none."""
    users, items = split.train
    smallest = np.full(split.user_num, split.item_num, dtype=np.int64)
    np.minimum.at(smallest, users, items)
    return np.minimum.accumulate(smallest[::-1])[::-1]


def near_own(split: Numbered, k: int = K) -> np.ndarray:
    """The k items whose number is nearest to one of the user's training items, as `nearest`.

    All items within a distance of some training item are looked at; the distance is doubled for the
    users that have fewer than k of them.
    """
    out = np.full((len(split.ranked), k), -1, dtype=np.int64)
    todo, width = np.arange(len(split.ranked)), 4
    starts = np.searchsorted(split.train_keys, split.ranked * split.item_num)
    while len(todo):
        size = max(
            1, int(BLOCK // (2 * width * max(1.0, split.degrees[split.ranked[todo]].mean())))
        )
        short = []
        for first in range(0, len(todo), size):
            part = todo[first : first + size]
            out[part], found = _near_own(split, part, starts, width, k)
            short.append(part[found < k])
        todo = np.concatenate(short) if width < split.item_num else np.empty(0, dtype=np.int64)
        width *= 2
    return out


def _near_own(
    split: Numbered, part: np.ndarray, starts: np.ndarray, width: int, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Lists of some users, and how many items each has within the width."""
    users = split.ranked[part]
    degrees = split.degrees[users]
    row = np.repeat(np.arange(len(part)), degrees)
    within = np.arange(len(row)) - np.repeat(np.cumsum(degrees) - degrees, degrees)
    own = split.train_keys[np.repeat(starts[part], degrees) + within] % split.item_num
    offsets = np.concatenate([np.arange(-width, 0), np.arange(1, width + 1)])
    near = own[:, None] + offsets
    keys = users[row][:, None] * split.item_num + near
    allowed = (near >= 0) & (near < split.item_num) & ~contains(split.train_keys, keys)
    far = np.broadcast_to(np.abs(offsets), near.shape)[allowed]
    row = np.broadcast_to(row[:, None], near.shape)[allowed]
    near = near[allowed]
    # one number that sorts by row, distance and place among equals
    order = np.argsort((row * (width + 1) + far) * split.item_num + split.tie[near])
    row, near = row[order], near[order]
    _, first = np.unique(row * split.item_num + near, return_index=True)  # at its least distance
    first.sort()
    row, near = row[first], near[first]
    lists = _lists(row, near, len(part), k)
    return lists, np.bincount(row, minlength=len(part))


def fused(first: np.ndarray, second: np.ndarray, tie: np.ndarray, k: int = K) -> np.ndarray:
    """Two lists per user as one [users, k], by the sum of 1 / (60 + rank) over the lists.

    An item of one list alone has one addend (reciprocal rank fusion, Cormack and others 2009).

    >>> fused(np.array([[0, 1]]), np.array([[1, 2]]), np.arange(3), 2).tolist()
    [[1, 0]]
    """
    items = np.concatenate([first, second], axis=1)
    ranks = np.concatenate([np.arange(part.shape[1]) for part in (first, second)])
    row, column = np.nonzero(items >= 0)
    keys, place = np.unique(row * len(tie) + items[row, column], return_inverse=True)
    total = np.bincount(place, 1 / (61.0 + ranks[column]))
    row, item = np.divmod(keys, len(tie))
    order = np.lexsort((tie[item], -total, row))
    return _lists(row[order], item[order], len(items), k)


def _lists(row: np.ndarray, item: np.ndarray, rows: int, k: int) -> np.ndarray:
    """The first k items of each row; `row` is sorted."""
    out = np.full((rows, k), -1, dtype=np.int64)
    rank = np.arange(len(row)) - np.searchsorted(row, row)
    kept = rank < k
    out[row[kept], rank[kept]] = item[kept]
    return out


def by_position(split: Numbered, k: int = K) -> np.ndarray:
    """Items by the cosine of their position and the user's, [users, k].

    A user's position is the sinusoids of the user's number (Vaswani and others 2017: 64 columns,
    base 10,000); an item's the mean over the users that have it in training.
    """
    position = sinusoids(split.user_num)
    user, item = np.divmod(split.train_keys, split.item_num)
    ones = np.ones(len(user), dtype=np.float32)
    graph = sp.csr_matrix((ones, (item, user)), shape=(split.item_num, split.user_num))
    mean = graph @ position
    mean /= np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-12)
    table = torch.from_numpy(np.ascontiguousarray(mean.T, dtype=np.float32))
    ranked = split.ranked
    out = np.empty((len(ranked), min(k, split.item_num)), dtype=np.int64)
    bounds = np.searchsorted(user, np.arange(split.user_num + 1))
    size = max(1, 8 * BLOCK // split.item_num)
    for start in range(0, len(ranked), size):
        block = ranked[start : start + size]
        scores = torch.from_numpy(position[block]) @ table
        counts = split.degrees[block]
        rows = np.repeat(np.arange(len(block)), counts)
        within = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
        own = item[np.repeat(bounds[block], counts) + within]
        scores[torch.from_numpy(rows), torch.from_numpy(own)] = -torch.inf
        out[start : start + size] = scores.topk(out.shape[1]).indices.numpy()
    return out


def sinusoids(count: int, columns: int = 64, base: float = 10_000.0) -> np.ndarray:
    """Positional encodings of 0 … count − 1, float32 [count, columns]: sines, then cosines."""
    frequencies = base ** (-np.arange(0, columns, 2) / columns)
    angles = np.arange(count)[:, None] * frequencies
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1).astype(np.float32)
