"""Training pairs with uniform negatives, sampled for a whole epoch at once in NumPy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from alignrec_recbole.errors import DataError

REJECTED_ROUNDS = 100  # of a user with half of the items, one draw of 2^100 is left


class PairSampler:
    """Shuffles the training pairs and samples negatives outside the user's training items.

    A negative is uniform over the items that occur in training and is sampled again while it is one
    of the user's training items; after REJECTED_ROUNDS, it is drawn among the items that are left.
    It can be one of the user's validation or test items.

    Args:
        users, items: training pairs, internal ids, equal length.
        negatives: number of negatives per pair.
        tokens: of the users by internal id, for the error.

    Raises:
        DataError: a user has every training item, so no negative exists.
    """

    def __init__(
        self,
        users: np.ndarray,
        items: np.ndarray,
        *,
        negatives: int = 1,
        tokens: Sequence[str] | None = None,
    ) -> None:
        self.users = np.asarray(users, dtype=np.int64)
        self.items = np.asarray(items, dtype=np.int64)
        if len(self.users) == 0:
            raise DataError(
                "There are no training interactions.", expected="at least one training row"
            )
        self.negatives = negatives
        self.candidate_items = np.unique(self.items)
        self._stride = int(self.items.max()) + 1
        self._seen = np.unique(self.users * self._stride + self.items)
        owners, degree = np.unique(self._seen // self._stride, return_counts=True)
        if (degree >= len(self.candidate_items)).any():
            user = int(owners[degree.argmax()])
            name = f"internal user id {user}" if tokens is None else f"user {str(tokens[user])!r}"
            raise DataError(
                "No negative item can be drawn for a user who has every training item.",
                found=f"{name} with {degree.max()} items",
                expected=f"fewer than the {len(self.candidate_items)} items that occur in training",
                hint="remove the user or add items",
            )

    def __len__(self) -> int:
        return len(self.users)

    def epoch(self, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Users [n], positives [n] and negatives [n] or [n, s] of one epoch, in a new order."""
        order = generator.permutation(len(self.users))
        users, items = self.users[order], self.items[order]
        return users, items, self.sample_negatives(users, generator)

    def sample_negatives(self, users: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Negatives for `users` [n]: [n], or [n, s] when s = `negatives` > 1."""
        owners = np.repeat(users, self.negatives)
        drawn = self.candidate_items[
            generator.integers(len(self.candidate_items), size=len(owners))
        ]
        wrong = np.flatnonzero(self._is_seen(owners, drawn))
        for _ in range(REJECTED_ROUNDS):
            if not len(wrong):
                break
            drawn[wrong] = self.candidate_items[
                generator.integers(len(self.candidate_items), size=len(wrong))
            ]
            wrong = wrong[self._is_seen(owners[wrong], drawn[wrong])]
        if len(wrong):  # of users with nearly every item
            wrong = wrong[np.argsort(owners[wrong], kind="stable")]
            users_left, first = np.unique(owners[wrong], return_index=True)
            for user, places in zip(users_left, np.split(wrong, first[1:]), strict=True):
                left = self._other_items(int(user))
                drawn[places] = left[generator.integers(len(left), size=len(places))]
        return drawn if self.negatives == 1 else drawn.reshape(-1, self.negatives)

    def _other_items(self, user: int) -> np.ndarray:
        """The items that occur in training, but not with this user."""
        start = user * self._stride
        first, stop = np.searchsorted(self._seen, (start, start + self._stride))
        own = self._seen[first:stop] - start
        return np.setdiff1d(self.candidate_items, own, assume_unique=True)

    def _is_seen(self, users: np.ndarray, items: np.ndarray) -> np.ndarray:
        keys = users * self._stride + items
        place = np.searchsorted(self._seen, keys)
        place[place == len(self._seen)] = 0
        return self._seen[place] == keys
