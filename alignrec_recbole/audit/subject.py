"""What is audited: the rows of a data set with their splits, its items, features and a model."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from alignrec_recbole.audit.ranking import Numbered, nearest, recall_and_ndcg
from alignrec_recbole.audit.rows import TEST, TRAIN, VALID, Rows, read_rows
from alignrec_recbole.data.cards import split_sha256
from alignrec_recbole.data.dataset_paths import (
    dataset_defaults,
    find_dataset,
    interaction_files,
)
from alignrec_recbole.data.items import ItemTable, find_item_table
from alignrec_recbole.data.split_manifest import split_of_files
from alignrec_recbole.errors import DataError, SettingError
from alignrec_recbole.features.published import expanded
from alignrec_recbole.io.files import sha256_file
from alignrec_recbole.runs.spec import DataSpec

if TYPE_CHECKING:
    from alignrec_recbole.runs.prepared import PreparedData


@dataclass(frozen=True, eq=False)
class Subject:
    """What the checks read; the expensive parts are made at first use and kept.

    Attributes:
        spec: data set, features and settings.
        rows: every interaction in the order of the files, with its label; `rows.labels` is set.
        folder: of the data set; None where it is in memory.
        model: name of the model that is audited.
        table: the items' content, where it is in memory.
        seeds: of the draws that controls are made of.
        progress: whether bars are shown.
    """

    spec: DataSpec
    rows: Rows
    folder: Path | None = None
    model: str | None = None
    table: ItemTable | None = None
    seeds: tuple[int, ...] = tuple(range(10))
    progress: bool = False
    data: Mapping[str, Any] = field(default_factory=dict)

    @property
    def labels(self) -> np.ndarray:
        """Split of each row: 0 train, 1 validation, 2 test."""
        assert self.rows.labels is not None
        return self.rows.labels

    def pairs(self, label: int) -> tuple[np.ndarray, np.ndarray]:
        """(users, items) of a split, numbered as in `rows`, in the order of the rows."""
        chosen = self.labels == label
        return self.rows.users[chosen], self.rows.items[chosen]

    @functools.cached_property
    def kind_of_numbers(self) -> str:
        """What the number of a user or item is."""
        whole = all(
            re.fullmatch(r"[0-9]{1,18}", str(token))
            for tokens in (self.rows.user_tokens, self.rows.item_tokens)
            for token in tokens
        )
        return "ids in the file" if whole else "first appearance"

    def numbered(self, numbers: Literal["number", "appearance"], label: int) -> Numbered:
        """Training rows and those of a split, under one of the two numberings."""
        known = self._splits.get((numbers, label))
        if known is None:
            user, item = self._numbers(numbers)
            train, later = (
                (user[users], item[items])
                for users, items in (self.pairs(TRAIN), self.pairs(label))
            )
            known = Numbered(train, later, self.rows.user_num, self.rows.item_num)
            self._splits[numbers, label] = known
        return known

    def _numbers(self, numbers: str) -> tuple[np.ndarray, np.ndarray]:
        """The number of each user and item of `rows`, from 0 without gaps."""
        counts = self.rows.user_num, self.rows.item_num
        if numbers == "appearance" or self.kind_of_numbers == "first appearance":
            return np.arange(counts[0]), np.arange(counts[1])
        found = []
        for tokens in (self.rows.user_tokens, self.rows.item_tokens):
            place = np.empty(len(tokens), dtype=np.int64)
            place[np.argsort(tokens.astype(np.int64), kind="stable")] = np.arange(len(tokens))
            found.append(place)
        return found[0], found[1]

    @property
    def numbers_of_items(self) -> np.ndarray:
        """The number of each item of `rows`, from 0 without gaps."""
        return self._numbers("number")[1]

    @functools.cached_property
    def _splits(self) -> dict[tuple[str, int], Numbered]:
        return {}

    @functools.cached_property
    def popularity(self) -> float:
        """Recall@20 on the test rows of the items with most training users; a yardstick."""
        split = self.numbered("appearance", TEST)
        count = np.bincount(split.train_keys % split.item_num, minlength=split.item_num)
        lists = nearest(split, np.zeros(split.user_num), (count.max() - count).astype(np.float64))
        return float(recall_and_ndcg(split, lists)[0].mean()) if len(lists) else 0.0

    @functools.cached_property
    def items(self) -> ItemTable | None:
        """The items' content; None where the data set has no item table."""
        if self.table is not None or self.folder is None:
            return self.table
        try:
            return find_item_table(self.folder, self.spec.dataset)
        except DataError as error:
            if "has no item table" in error.problem:
                return None
            raise

    @functools.cached_property
    def prepared(self) -> PreparedData:
        """The data set as runs read it, without features: RecBole's view, with internal ids.

        Raises:
            AlignRecError: runs refuse this data set.
        """
        return prepared_data(self.spec)

    def open_features(self, name: str) -> Any:
        """A feature set as runs read it: `ItemFeatures` in the order of `prepared`'s items."""
        return self.prepared.splits[0].open_features(name)


def prepared_data(spec: DataSpec) -> PreparedData:
    """A data set as runs read it, without features."""
    from alignrec_recbole.runs.prepare import prepare_data  # imports RecBole

    return prepare_data(replace(spec, features=()))


def open_subject(
    spec: DataSpec, *, model: str | None = None, seeds: tuple[int, ...], progress: bool = True
) -> Subject:
    """Read what is audited; a split that the files do not have is drawn as runs draw it.

    Raises:
        DataError, SettingError, UnknownNameError: see their texts.
    """
    folder = find_dataset(spec.dataset, spec.data_path)
    spec = replace(spec, features=expanded(spec.features, folder))
    settings = {**dataset_defaults(spec.dataset), **spec.overrides}
    if spec.overrides:
        from alignrec_recbole.runs.effective_config import data_settings  # imports RecBole

        data_settings(spec, folder)  # refuses what is unknown
    rows = read_rows(folder, spec.dataset, settings)
    parts = settings.get("benchmark_filename")
    files = {
        path.name: sha256_file(path) for path in interaction_files(folder, spec.dataset, parts)
    }
    if rows.labels is None:
        prepared = prepared_data(spec)
        rows = _drawn(rows, prepared)
        split = prepared.data["split"]
    else:
        split = split_of_files(folder, spec.dataset, files)
    return Subject(
        spec=spec,
        rows=rows,
        folder=folder,
        model=model,
        seeds=seeds,
        progress=progress,
        data={**counts(rows), "split": split, "files": files},
    )


def counts(rows: Rows) -> dict[str, Any]:
    """Users, items and interactions per split, for a report."""
    assert rows.labels is not None
    return {
        "users": rows.user_num,
        "items": rows.item_num,
        "interactions": np.bincount(rows.labels, minlength=3).tolist(),
    }


def hash_of_split(rows: Rows) -> str:
    """SHA-256 of the split, the same for any order of rows."""
    assert rows.labels is not None
    users, items = rows.user_tokens[rows.users], rows.item_tokens[rows.items]
    return split_sha256(zip(users, items, rows.labels, strict=True))


def _drawn(rows: Rows, prepared: PreparedData) -> Rows:
    """The rows with the labels of a split that RecBole draws; rows that it filters are left out."""
    places = pd.MultiIndex.from_arrays([rows.user_tokens[rows.users], rows.item_tokens[rows.items]])
    labels = np.full(len(rows), -1, dtype=np.int64)
    for label, split in zip((TRAIN, VALID, TEST), prepared.splits, strict=True):
        users, items = split.pairs()
        tokens = [
            split.field2id_token[split.uid_field][users],
            split.field2id_token[split.iid_field][items],
        ]
        known = pd.MultiIndex.from_arrays([part.astype(object) for part in tokens])
        labels[places.isin(known)] = label
    kept = (labels >= 0) & _without_duplicates(rows, prepared)
    if not kept.any():
        raise SettingError(
            "No interaction of the file is left after the settings of the data set.",
            found=f"{len(rows):,} rows",
            expected="rows that the settings of the data set do not filter",
        )
    return Rows.of(
        rows.user_tokens[rows.users[kept]],
        rows.item_tokens[rows.items[kept]],
        labels[kept],
        None if rows.times is None else rows.times[kept],
        rows.time_column,
    )


def _without_duplicates(rows: Rows, prepared: PreparedData) -> np.ndarray:
    """The row of each pair that RecBole keeps under `rm_dup_inter`, bool [rows]."""
    dataset = prepared.splits[0]
    keep = dataset.config["rm_dup_inter"]
    if keep is None:
        return np.ones(len(rows), dtype=bool)
    order = np.arange(len(rows))
    timed = rows.time_column == dataset.time_field in dataset.inter_feat.columns
    if rows.times is not None and timed:  # RecBole sorts the rows by time first
        order = np.argsort(rows.times, kind="stable")
    pairs = pd.DataFrame({"user": rows.users, "item": rows.items}).iloc[order]
    kept = np.zeros(len(rows), dtype=bool)
    kept[pairs.drop_duplicates(keep=keep).index] = True
    return kept
