"""A trained model by user and item tokens: lists, vectors, similar items."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import scipy.sparse as sp

from alignrec_recbole.api.new_items import Features, matrices, numbers, unit_rows
from alignrec_recbole.api.scoring import Ranker
from alignrec_recbole.errors import (
    DataError,
    FeatureError,
    RecordError,
    SettingError,
    UnknownNameError,
)
from alignrec_recbole.io.html import facts_table
from alignrec_recbole.io.suggest import suggest
from alignrec_recbole.runs.record import RunRecord, read_record
from alignrec_recbole.runs.saved_model import (
    CARD_SUFFIX,
    FOLDER_NAMES,
    SUFFIX,
    ModelCard,
    SavedModel,
    model_paths,
    read_model,
)

Exclude = Literal["run", "train", "seen"]
MAX_LIST = 1_000_000  # items per user
AGAIN = "run it again with --overwrite (in Python: overwrite=True)"


@dataclass(frozen=True)
class NewItems:
    """Items beside those of a stored model.

    Attributes:
        tokens: [n].
        scored_by: vectors [n, d], or columns of similarities, CSR [item_num, n].
    """

    tokens: np.ndarray
    scored_by: Any


class TrainedModel:
    """A model that a run has kept; see `load_model`.

    Everything is by token, as ids are written in the data. Nothing is trained or changed, and
    neither interactions nor features are needed.
    """

    def __init__(self, saved: SavedModel, new: NewItems | None = None) -> None:
        self._saved = saved
        self._new = new
        self._ranker = Ranker(saved, None if new is None else new.scored_by)
        self._users = pd.Index(saved.users)
        names = saved.items if new is None else np.concatenate([saved.items, new.tokens])
        self._items = pd.Index(names)
        self._tokens = names  # of items; internal id n is token n - 1

    @property
    def card(self) -> ModelCard:
        """Model, data set, features, settings and test metrics of the run."""
        return self._saved.card

    @property
    def users(self) -> list[str]:
        """Tokens of all users."""
        return list(self._saved.users)

    @property
    def items(self) -> list[str]:
        """Tokens of all items, new ones last."""
        return list(self._tokens)

    def with_items(self, features: Features) -> TrainedModel:
        """A model that also lists items that were not in the training, by their features.

        Each new item is scored as the model would score it in the training's place without an
        interaction; no other score changes. Only models that score by content alone can do that:
        ContentRidge, ItemKNNCBF, ItemKNNHybrid, AddEASE and MILK. MILK reads a new item's features
        as they are given, where its own items' have been trained (`train_features`, its default).

        Args:
            features: a data frame indexed by item token, made by the encoder of the training; of a
                model with several feature sets, a mapping of their names to such frames. An item
                that a frame does not have is missing there.

        Raises:
            SettingError: the model cannot score new items; the reason is said.
            FeatureError: the features are not those of the model, or a new item is no new one.
        """
        content = self._saved.content
        if content is None:
            reason = self.card.content_refused or "it was stored by an earlier version"
            raise SettingError(
                f"{self.card.model} cannot score new items.",
                found=reason,
                expected="a model that scores by content alone: ContentRidge, ItemKNNCBF, "
                "ItemKNNHybrid, AddEASE or MILK",
                hint="train it again with their interactions, or train one of these models",
            )
        names, values = matrices(features, content.sets)
        known = self._items.intersection(pd.Index(names))
        if len(known):
            raise FeatureError(
                f"The item {known[0]!r} is no new one.",
                found=f"{len(known):,} items that the model has",
                expected="tokens of other items",
            )
        if content.gives_vectors:
            scored: Any = content.vectors(values)
        else:
            scored = content.columns(values)
        tokens_ = np.array(names, dtype=object)
        if self._new is not None:
            tokens_ = np.concatenate([self._new.tokens, tokens_])
            earlier = self._new.scored_by
            both = [earlier, scored]
            scored = sp.hstack(both).tocsr() if sp.issparse(scored) else np.concatenate(both)
        return TrainedModel(self._saved, NewItems(tokens_, scored))

    def recommend(
        self,
        users: str | int | Iterable[Any] | None = None,
        k: int = 20,
        exclude: Exclude | None = "run",
        items: Iterable[Any] | None = None,
    ) -> pd.DataFrame:
        """The k items with the largest scores for each user.

        Args:
            users: tokens, or one; None: all users.
            k: items per user; fewer where there are no more candidates.
            exclude: what a list leaves out: `train`, the user's training items; `seen`, the
                training and validation items; `run`, what the run's evaluation left out, which is
                `train` under the convention mmrec and `seen` under recbole; None, nothing.
            items: tokens of the only items that may be listed; None: all.

        Returns:
            columns user, rank (from 1), item and score, in the order of `users`. With
            `exclude="run"`, these are the lists of the run's test ranking, item by item.

        Raises:
            UnknownNameError: a user or an item was not in the data.
            SettingError: k or exclude is out of range.
        """
        _check_length(k)
        names = self._saved.users if users is None else tokens(users)
        ids = self._ids(self._users, names, "user")
        wanted = None if items is None else self._ids(self._items, tokens(items), "item")
        found, scores = self._ranker.lists(ids, int(k), self._excluded(exclude), wanted)
        row, column = np.nonzero(found >= 0)
        return pd.DataFrame(
            {
                "user": self._saved.users[ids[row] - 1],
                "rank": column + 1,
                "item": self._tokens[found[row, column] - 1],
                "score": scores[row, column],
            }
        )

    def user_vectors(self) -> pd.DataFrame:
        """Final vectors of the users: one row per user, indexed by token.

        Raises:
            SettingError: the model does not score by an inner product.
        """
        return self._vectors("users", self._users)

    def item_vectors(self) -> pd.DataFrame:
        """Final vectors of the items: one row per item, indexed by token.

        Raises:
            SettingError: the model does not score by an inner product.
        """
        return self._vectors("items", self._items)

    def similar_items(self, items: str | int | Iterable[Any], k: int = 10) -> pd.DataFrame:
        """The k items nearest to each item.

        By the cosine of item vectors, or by the model's own matrix of items × items. Equal
        similarities are in the fixed random order that lists have. An item is not listed for
        itself.

        Returns:
            columns item, rank (from 1), similar and similarity.

        Raises:
            SettingError: the model has neither, or k is out of range.
            UnknownNameError: an item was not in the data.
        """
        _check_length(k)
        ids = self._ids(self._items, tokens(items), "item")
        rows, place = [], self._ranker.tie_rank[1:]
        for item in ids:
            values = self.similarities(item)
            values[item] = -np.inf
            order = np.lexsort((place, -values[1:]))[: min(k, len(self._items) - 1)] + 1
            rows.append((item, order, values[order]))
        count = [len(order) for _, order, _ in rows]
        return pd.DataFrame(
            {
                "item": np.repeat(self._tokens[ids - 1], count),
                "rank": np.concatenate([np.arange(1, n + 1) for n in count]) if count else [],
                "similar": _joined([self._tokens[order - 1] for _, order, _ in rows]),
                "similarity": _joined([values for _, _, values in rows]),
            }
        )

    def similarities(self, item: int) -> np.ndarray:
        """Similarity of an item with every item [item_num] by internal ids.

        Of a matrix of items × items this is the item's row, and the column of a new item, which has
        no row; two new items have similarity 0.
        """
        tables = self._saved.tables
        if "similarity" in tables:
            return self._row_of_similarities(item)
        if "items" not in tables:
            raise self._no_vectors("similar items")
        vectors = self._item_table
        lengths = self._item_lengths * self._item_lengths[item]
        lengths[lengths == 0] = 1  # a zero vector resembles none
        return np.asarray(vectors @ vectors[item] / lengths, dtype=float)

    def _row_of_similarities(self, item: int) -> np.ndarray:
        table = self._saved.tables["similarity"]
        size = len(self._items) + 1
        if item >= table.shape[0]:
            assert self._new is not None
            part = self._new.scored_by[:, [item - table.shape[0]]].toarray().ravel()
        else:
            row = table[[item]]
            part = (row.toarray() if sp.issparse(row) else np.array(row)).ravel()
            if self._new is not None:
                further = self._new.scored_by[[item]].toarray().ravel()
                part = np.concatenate([part, further])
        return np.pad(part.astype(float), (0, size - len(part)))

    @cached_property
    def _item_table(self) -> np.ndarray:
        """Vectors of all items, PAD first and new ones last."""
        vectors = self._saved.tables["items"]
        return vectors if self._new is None else np.concatenate([vectors, self._new.scored_by])

    @cached_property
    def _item_lengths(self) -> np.ndarray:
        return np.linalg.norm(self._item_table, axis=1)

    def explain(
        self, lists: pd.DataFrame, content: pd.DataFrame | Sequence[pd.DataFrame] | None = None
    ) -> pd.DataFrame:
        """`recommend`'s table with the training item of the user nearest to each listed item.

        The column `nearest_training_item` is the training item with the largest similarity, as
        `similar_items` has it, and `similarity` is that value. It is a neighbour in the model's
        space, not a cause: the model did not compute the score from it alone.

        Args:
            lists: from `recommend`.
            content: features of the items, indexed by token, one data frame per feature set. With
                them `nearest_by_content` is the training item whose features have the largest
                cosine with those of the listed item, and `content_cosine` is that value: what the
                items show, whatever the model did. Sets are joined as in the protocol zero-shot.

        Raises:
            SettingError: the model has no similarities, and no content is given.
            FeatureError: the content cannot be used, or has none of the items.
        """
        out = lists
        frames = [] if content is None else _content_frames(content)
        if content is None or self.card.kind != "scores":
            nearest, values = self._nearest(lists, lambda item: self.similarities(item).take)
            out = out.assign(nearest_training_item=nearest, similarity=values)
        if content is not None:
            rows = unit_rows(frames, self._items)
            if not rows.any():
                raise FeatureError(
                    "The content has none of the model's items.",
                    found=f"{len(frames[0]):,} items, first {frames[0].index[0]!r}",
                    expected=f"tokens of {self.card.dataset}",
                )
            padded = np.concatenate([np.zeros((1, rows.shape[1])), rows])

            def cosines_with(item: int) -> Callable[[np.ndarray], np.ndarray]:
                return lambda others: np.einsum("ij,j->i", padded[others], padded[item])

            nearest, values = self._nearest(lists, cosines_with, has=np.asarray(padded.any(1)))
            out = out.assign(nearest_by_content=nearest, content_cosine=values)
        return out

    def _nearest(
        self,
        lists: pd.DataFrame,
        similarities: Callable[[int], Callable[[np.ndarray], np.ndarray]],
        has: np.ndarray | None = None,
    ) -> tuple[list[str | None], list[float]]:
        """The user's training item with the largest similarity to each listed item.

        Args:
            similarities: from an item to the function that gives its similarities with others;
                called once per item, and one is kept at a time.
            has: bool [item_num], which items have any similarity; None: all.
        """
        users = self._ids(self._users, list(lists["user"]), "user")
        items = self._ids(self._items, list(lists["item"]), "item")
        train = self._saved.train
        nearest: list[str | None] = [None] * len(items)
        values = [np.nan] * len(items)
        with_item: Callable[[np.ndarray], np.ndarray] | None = None
        last = 0
        for row in np.argsort(items, kind="stable"):  # all rows of an item, one after the other
            user, item = users[row], items[row]
            own = train.indices[train.indptr[user] : train.indptr[user + 1]]
            own = own[own != item] if has is None else own[(own != item) & has[own] & has[item]]
            if not len(own):
                continue
            if with_item is None or item != last:
                with_item, last = similarities(item), item
            found = with_item(own)
            best = int(np.argmax(found))
            nearest[row] = self._tokens[own[best] - 1]
            values[row] = float(found[best])
        return nearest, values

    def tables(self) -> SavedModel:
        """The stored tables by internal ids, for export.

        Raises:
            SettingError: there are new items, which are no part of the stored model.
        """
        if self._new is not None:
            raise SettingError(
                "A model with new items is not exported.",
                found=f"{len(self._new.tokens):,} new items",
                expected="the model as load_model returns it",
                hint="export that one, and call with_items where it is used",
            )
        return self._saved

    def _excluded(self, exclude: str | None) -> sp.csr_matrix | None:
        if exclude == "run":
            exclude = "seen" if self.card.setting == "recbole" else "train"
        if exclude is None:
            return None
        if exclude == "train":
            return self._saved.train
        if exclude == "seen":
            return sp.csr_matrix(self._saved.train + self._saved.valid)
        raise SettingError(
            "exclude names nothing that can be excluded.",
            found=repr(exclude),
            expected="'run', 'train', 'seen' or None",
        )

    def _vectors(self, table: str, tokens: pd.Index) -> pd.DataFrame:
        if table not in self._saved.tables:
            raise self._no_vectors("vectors")
        values = (self._item_table if table == "items" else self._saved.tables[table])[1:]
        return pd.DataFrame(values, index=tokens.rename(table[:-1]), copy=True)

    def _no_vectors(self, what: str) -> SettingError:
        return SettingError(
            f"{self.card.model} has no {what}: it does not score by vectors of users and items.",
            found=f"a saved model of kind {self.card.kind}",
            expected="kind vectors" + (", or similarity" if what == "similar items" else ""),
            hint="recommend works with every kind",
        )

    def _ids(self, index: pd.Index, names: Sequence[str] | np.ndarray, what: str) -> np.ndarray:
        """Internal ids of tokens.

        Raises:
            UnknownNameError: with the number of unknown ones and an example.
        """
        found = index.get_indexer(pd.Index(names, dtype=object))
        unknown = np.flatnonzero(found < 0)
        if len(unknown):
            name = str(names[unknown[0]])
            near = suggest(name, index) if len(index) <= 100_000 else ""
            raise UnknownNameError(
                f"Unknown {what} {name!r}.{near}",
                found=f"{len(unknown):,} of {len(names):,} {what}s that were not in the data",
                expected=f"tokens of {self.card.dataset}, as they are written in the data",
                hint="a model knows the users and items of its training; with_items (--new-items) "
                "adds items by their features where a model can"
                if what == "item"
                else "a model knows the users of its training: train it again with the new ones",
            )
        return found.astype(np.int64) + 1

    def __repr__(self) -> str:
        card = self.card
        return (
            f"TrainedModel({card.model} on {card.dataset}, features {card.features}, "
            f"seed {card.seed}: {card.users:,} users, {card.items:,} items, {card.kind})"
        )

    def _repr_html_(self) -> str:
        card = self.card
        facts = {
            "data set": card.dataset,
            "features": card.features,
            "seed": card.seed,
            "users, items": f"{card.users:,}, {card.items:,}",
            "scores by": card.kind,
            **{name: f"{value:.4f}" for name, value in card.metrics.items() if "@20" in name},
        }
        return facts_table(card.model, facts)


def _check_length(k: Any) -> None:
    if not isinstance(k, (int, np.integer)) or isinstance(k, bool) or not 1 <= k <= MAX_LIST:
        raise SettingError("k is no number of items.", found=repr(k), expected=f"1 to {MAX_LIST:,}")


def _content_frames(content: pd.DataFrame | Sequence[pd.DataFrame]) -> list[pd.DataFrame]:
    """The tables of `explain`, one or several.

    Raises:
        FeatureError: there is none, or one cannot be used.
    """
    frames = [content] if isinstance(content, pd.DataFrame) else list(content)
    if not frames:
        raise FeatureError(
            "There are no features to explain by.",
            found=f"content={content!r}",
            expected="a data frame, or one per feature set",
        )
    return [numbers(frame, f"number {n}") for n, frame in enumerate(frames, 1)]


def _joined(parts: list[np.ndarray]) -> np.ndarray | list:
    return np.concatenate(parts) if parts else []


def tokens(given: Any) -> list[str]:
    """One token or several, as text.

    >>> tokens("u1"), tokens(7), tokens(["a", 3])
    (['u1'], ['7'], ['a', '3'])
    """
    several = [given] if isinstance(given, (str, int, np.integer)) else given
    try:
        found = list(several)
    except TypeError:
        found = [several]
    for token in found:
        if not isinstance(token, (str, int, np.integer)) or isinstance(token, bool):
            raise DataError(
                "A token is neither text nor a whole number.",
                found=f"{type(token).__name__} {token!r}",
                expected="ids as they are written in the data",
            )
    return [str(token) for token in found]


def load_model(source: RunRecord | str | os.PathLike[str]) -> TrainedModel:
    """Load a trained model.

    Args:
        source: a record of a run; the path of a record, of a saved model (`.safetensors` or the
            `.json` beside it), or of a folder that `export` has written or its file of either kind.

    Raises:
        RecordError: there is no model, or it is damaged or not the one that the record describes.
    """
    if isinstance(source, RunRecord):
        if source.path is None:
            raise RecordError(
                "The record does not say where it is stored.",
                found="a record made in memory",
                expected="one from run, load_records or read_record, or a path",
            )
        return _of_record(source, source.path)
    path = Path(source)
    folder = path.parent if _is_exported(path) else path
    if folder.is_dir():
        return TrainedModel(read_model(*(folder / name for name in FOLDER_NAMES)))
    if path.suffix == SUFFIX:
        return TrainedModel(read_model(path, path.with_suffix(CARD_SUFFIX)))
    if path.with_suffix(SUFFIX).exists():
        return TrainedModel(read_model(path.with_suffix(SUFFIX), path))
    return _of_record(read_record(path), path)


def _is_exported(path: Path) -> bool:
    """Whether it is one of the two files of an exported model, beside the other."""
    there = all((path.parent / name).is_file() for name in FOLDER_NAMES)
    return path.name in FOLDER_NAMES and there


def _of_record(record: RunRecord, record_path: Path) -> TrainedModel:
    path, card_path = model_paths(record, record_path)
    name = f"{record.model} on {record.dataset}, seed {record.seed}"
    if record.weights is None:
        raise RecordError(
            f"The run of {name} has kept no model.",
            found=f"no weights in the record {record_path.name}",
            expected="a run of protocol full that was made by this version without --no-save, and "
            "whose model scores by vectors or has a table within --save-limit",
            hint=f"{AGAIN}; if its table is too large, with --save-limit 2GB (save_limit)",
        )
    if not os.path.lexists(path):
        raise RecordError(
            f"The model of {name} is not beside its record.",
            found=f"nothing at {path}",
            expected=f"{path.name}, {record.weights['bytes']:,} bytes, and its card",
            hint=f"copy it there, or {AGAIN}",
        )
    saved = read_model(path, card_path)
    if saved.card.sha256 != record.weights["sha256"]:
        raise RecordError(
            f"{path.name} is not the model that the record of {name} describes.",
            found=f"SHA-256 {saved.card.sha256[:12]}…",
            expected=f"{record.weights['sha256'][:12]}…",
            hint=AGAIN,
        )
    return TrainedModel(saved)
