"""A data set with a known answer: users like exactly the items of their own block.

User number k of a block has warm item k mod w in validation, k+1 mod w in test and the other warm
items of the block in training (w = items − cold). So the only warm item of the block outside a
user's training and validation items is the test item. The last `cold` items of each block are in no
split, only in the item table. Every modality shows the block of an item and nothing else.

Tokens, rows and feature rows are in unrelated random orders, so that code which confuses position,
token and internal id gives wrong answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from alignrec_recbole.features.table import save_features
from alignrec_recbole.io.files import atomic_write

SPLITS = ("train", "valid", "test")
DEFAULT_DIMS = {"image": 32, "text": 24}
_WORDS = ("amber", "birch", "cobalt", "dune", "ember", "fjord", "grove", "harbour")

Files = Literal["mmrec", "atomic"]


@dataclass(frozen=True, eq=False)
class BlockWorld:
    """A world in memory; `write` makes a data set of it, the other methods return changed copies.

    Users and items are numbered by position; `write` names them by token only.

    Attributes:
        name: of the data set.
        users, items: tokens by position.
        user_block, item_block: block of each position.
        cold: bool by item position; True for items in no split.
        rows: split → [n, 2] positions (user, item), in the order of the file.
        features: modality → float32 [items, f], row = item position.
        missing: modality → positions of the items without it.
        feature_order: item position of each row of the feature files.
        item_order: item position of each row of the item table.
    """

    name: str
    users: tuple[str, ...]
    items: tuple[str, ...]
    user_block: np.ndarray
    item_block: np.ndarray
    cold: np.ndarray
    rows: Mapping[str, np.ndarray]
    features: Mapping[str, np.ndarray]
    missing: Mapping[str, tuple[int, ...]]
    feature_order: np.ndarray
    item_order: np.ndarray

    def write(self, folder: Path, files: Files = "mmrec") -> Path:
        """Write `folder/<name>/` and return it.

        Args:
            folder: holds data sets.
            files: mmrec: `<name>.inter` with `x_label`; atomic: RecBole's `<name>.train.inter`,
                `.valid.inter`, `.test.inter` (set `benchmark_filename`). Both come with
                `<name>.item`, `items.tsv` and one feature file with manifest per modality.
        """
        place = Path(folder) / self.name
        place.mkdir(parents=True, exist_ok=True)
        if files == "mmrec":
            lines = [
                f"{self.users[user]}\t{self.items[item]}\t{label}"
                for label, split in enumerate(SPLITS)
                for user, item in self.rows[split]
            ]
            _write_lines(place / f"{self.name}.inter", "userID\titemID\tx_label", lines)
        else:
            for split in SPLITS:
                lines = [f"{self.users[u]}\t{self.items[i]}" for u, i in self.rows[split]]
                _write_lines(
                    place / f"{self.name}.{split}.inter", "user_id:token\titem_id:token", lines
                )
        _write_lines(
            place / f"{self.name}.item", "item_id:token", [self.items[i] for i in self.item_order]
        )
        titles = [f"{self.items[i]}\t{self.title(i)}" for i in self.item_order]
        _write_lines(place / "items.tsv", "item_id\ttitle", titles)
        for modality, matrix in self.features.items():
            self._write_features(place / f"{modality}.npy", modality, matrix)
        return place

    def _write_features(self, path: Path, modality: str, matrix: np.ndarray) -> None:
        without = self.missing.get(modality, ())
        values = matrix.copy()
        values[list(without)] = 0.0
        save_features(
            path,
            values[self.feature_order],
            name=modality,
            modality=modality,  # type: ignore[arg-type]
            encoder="block world",
            settings={},
            source=self.name,
            items=[self.items[i] for i in self.feature_order],
            missing=[self.items[i] for i in without],
        )

    def title(self, item: int) -> str:
        """A text that reveals the block of an item: three of the block's own words."""
        block = int(self.item_block[item])
        words = [f"{_WORDS[(item + k) % len(_WORDS)]}{block}" for k in range(3)]
        return " ".join(words)

    def with_shuffled_features(self, seed: int = 1) -> BlockWorld:
        """Each item has another item's features, of the same one in all modalities."""
        order = np.random.default_rng(seed).permutation(len(self.items))
        return replace(self, features={name: m[order] for name, m in self.features.items()})

    def with_constant_features(self) -> BlockWorld:
        """All items have the same features."""
        return replace(
            self, features={name: np.ones_like(matrix) for name, matrix in self.features.items()}
        )

    def with_equal_features(self, count: int = 3) -> BlockWorld:
        """So many items of a block, one after the other, have the same features."""
        rows = np.arange(len(self.items))
        for block in range(int(self.item_block.max()) + 1):
            own = np.flatnonzero(self.item_block == block)
            rows[own] = own[np.arange(len(own)) // count * count]
        return replace(self, features={name: m[rows] for name, m in self.features.items()})

    def with_missing(self, modality: str, share: float, seed: int = 1) -> BlockWorld:
        """A share of the items is without a modality, declared in the manifest."""
        count = round(share * len(self.items))
        without = np.random.default_rng(seed).permutation(len(self.items))[:count]
        return replace(self, missing={**self.missing, modality: tuple(map(int, without))})

    def with_other_feature_order(self, seed: int = 1) -> BlockWorld:
        """The rows of the feature files in another order, with their tokens."""
        order = np.random.default_rng(seed).permutation(len(self.items))
        return replace(self, feature_order=order)

    def with_other_tokens(self, seed: int = 1) -> BlockWorld:
        """Items renamed one to one; the order of every file stays."""
        order = np.random.default_rng(seed).permutation(len(self.items))
        return replace(self, items=tuple(f"{len(self.items) + i}-renamed" for i in order))

    def with_other_row_order(self, seed: int = 1) -> BlockWorld:
        """The training rows in another order."""
        order = np.random.default_rng(seed).permutation(len(self.rows["train"]))
        return replace(self, rows={**self.rows, "train": self.rows["train"][order]})

    def with_other_numbers(self, seed: int = 1) -> BlockWorld:
        """The rows of every file in another order: other internal ids for all users and items."""
        rng = np.random.default_rng(seed)
        rows = {split: rng.permutation(pairs) for split, pairs in self.rows.items()}
        return replace(self, rows=rows, item_order=rng.permutation(len(self.items)))

    def with_telling_numbers(self) -> BlockWorld:
        """Rows sorted so that a user's number follows the first of the user's items in any split.

        This is how a numbering by first appearance tells test items, if it precedes the split.
        """
        first = np.full(len(self.users), len(self.items))
        every = np.concatenate(list(self.rows.values()))
        np.minimum.at(first, every[:, 0], every[:, 1])
        rows = {
            split: pairs[np.lexsort((pairs[:, 1], pairs[:, 0], first[pairs[:, 0]]))]
            for split, pairs in self.rows.items()
        }
        return replace(self, rows=rows, item_order=np.arange(len(self.items)))

    def with_twins(self) -> BlockWorld:
        """Every item twice, with the same rows and features; the twin of item i is n + i."""
        count = len(self.items)
        doubled = {
            split: np.concatenate([pairs, pairs + np.array([0, count])])
            for split, pairs in self.rows.items()
        }
        return replace(
            self,
            items=(*self.items, *(f"twin of {token}" for token in self.items)),
            item_block=np.tile(self.item_block, 2),
            cold=np.tile(self.cold, 2),
            rows=doubled,
            features={name: np.tile(rows, (2, 1)) for name, rows in self.features.items()},
            missing={
                name: (*rows, *(count + i for i in rows)) for name, rows in self.missing.items()
            },
            feature_order=np.concatenate([self.feature_order, self.feature_order + count]),
            item_order=np.concatenate([self.item_order, self.item_order + count]),
        )

    def with_other_held_out_rows(self, seed: int = 1) -> BlockWorld:
        """Validation and test rows of warm items of other blocks; training rows stay."""
        rng = np.random.default_rng(seed)
        held_out = {}
        for split in ("valid", "test"):
            rows = self.rows[split].copy()
            for row in rows:
                foreign = (self.item_block != self.user_block[row[0]]) & ~self.cold
                row[1] = rng.choice(np.flatnonzero(foreign))
            held_out[split] = rows
        for valid, test in zip(held_out["valid"], held_out["test"], strict=True):
            assert valid[0] == test[0]
            while test[1] == valid[1]:
                foreign = (self.item_block != self.user_block[test[0]]) & ~self.cold
                test[1] = rng.choice(np.flatnonzero(foreign))
        return replace(self, rows={**self.rows, **held_out})


def make_blocks(
    blocks: int = 4,
    users: int = 24,
    items: int = 12,
    cold: int = 2,
    dims: Mapping[str, int] | None = None,
    noise: float = 0.3,
    likes: int | None = None,
    seed: int = 0,
    name: str = "block_world",
) -> BlockWorld:
    """Generate a world.

    Args:
        blocks: number of blocks.
        users, items: per block.
        cold: items per block without interactions.
        dims: width of each modality, at least `blocks`.
        noise: norm of the noise on a feature row, whose signal has norm 1.
        likes: items per user, drawn from the block; None: all warm ones.
        seed: of everything random.
        name: of the data set.

    >>> world = make_blocks()
    >>> {split: len(rows) for split, rows in world.rows.items()}
    {'train': 768, 'valid': 96, 'test': 96}
    """
    rng = np.random.default_rng(seed)
    warm = items - cold
    dims = DEFAULT_DIMS if dims is None else dims
    if warm < 3 or (likes is not None and not 3 <= likes <= warm):
        raise ValueError("users need three items of their block: for training, validation and test")
    if any(width < blocks for width in dims.values()):
        raise ValueError("a modality needs at least one dimension per block")

    n_users, n_items = blocks * users, blocks * items
    user_block = np.repeat(np.arange(blocks), users)
    item_block = np.repeat(np.arange(blocks), items)
    is_cold = np.tile(np.arange(items) >= warm, blocks)
    rows: dict[str, list[tuple[int, int]]] = {split: [] for split in SPLITS}
    for user in range(n_users):
        first, number = user_block[user] * items, user % users
        own = np.arange(warm) if likes is None else rng.permutation(warm)[:likes]
        valid, test = own[number % len(own)], own[(number + 1) % len(own)]
        rows["valid"].append((user, first + valid))
        rows["test"].append((user, first + test))
        rows["train"] += [(user, first + item) for item in own if item not in (valid, test)]

    features = {}
    for modality, width in dims.items():
        axes, _ = np.linalg.qr(rng.standard_normal((width, width)))
        blur = rng.standard_normal((n_items, width)) * noise / np.sqrt(width)
        features[modality] = (axes[item_block] + blur).astype(np.float32)

    order = rng.permutation(len(user_block))
    return BlockWorld(
        name=name,
        users=_tokens("u", rng.permutation(n_users)),
        items=_tokens("i", rng.permutation(n_items)),
        user_block=user_block,
        item_block=item_block,
        cold=is_cold,
        rows={
            "train": np.array(rows["train"])[rng.permutation(len(rows["train"]))],
            **{split: np.array(rows[split])[order] for split in ("valid", "test")},
        },
        features=features,
        missing={},
        feature_order=rng.permutation(n_items),
        item_order=rng.permutation(n_items),
    )


def world_settings(files: Files = "mmrec") -> dict[str, Any]:
    """Configuration keys that a written world needs: its item table makes cold items known."""
    settings: dict[str, Any] = {
        "load_col": {"inter": ["user_id", "item_id"], "item": ["item_id"]},
    }
    if files == "atomic":
        settings["benchmark_filename"] = list(SPLITS)
    return settings


def _tokens(letter: str, numbers: np.ndarray) -> tuple[str, ...]:
    width = len(str(len(numbers) - 1))
    return tuple(f"{letter}{number:0{width}d}" for number in numbers)


def _write_lines(path: Path, header: str, lines: list[str]) -> None:
    with atomic_write(path, "w") as handle:
        handle.write("\n".join([header, *lines]) + "\n")
