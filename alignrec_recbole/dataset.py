"""RecBole's Dataset with item features beside it, aligned by item token."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from recbole.data.dataset import Dataset
from recbole.data.interaction import Interaction
from recbole.utils import FeatureSource, FeatureType

from alignrec_recbole.compat.frames import RowLengthFrame
from alignrec_recbole.data.atomic import numbers, read_atomic_file, read_types
from alignrec_recbole.data.dataset_paths import interaction_files, split_files
from alignrec_recbole.data.interactions import (
    LABEL_COLUMN,
    check_columns,
    check_pairs,
    is_typed,
    read_interactions,
    split_labels,
    stripped,
)
from alignrec_recbole.data.split_manifest import split_of_files
from alignrec_recbole.encoders.cache import find_or_encode
from alignrec_recbole.errors import DataError, FeatureError, SettingError
from alignrec_recbole.features.controls import control_features
from alignrec_recbole.features.derived_names import is_control, is_filled
from alignrec_recbole.features.imputation import filled_features, neighbour_graph
from alignrec_recbole.features.item_order import tie_ranks
from alignrec_recbole.features.masking import FeatureMask, mask_features
from alignrec_recbole.features.table import ItemFeatures, align
from alignrec_recbole.io.names import check_name
from alignrec_recbole.io.tsv import read_cells
from alignrec_recbole.runtime import random_state
from alignrec_recbole.settings import shown

SPLITS = ("train", "valid", "test")
FILTERS = ("user_inter_num_interval", "item_inter_num_interval", "val_interval", "rm_dup_inter")
SPLIT_BY_US = {"split": {"RS": [0.8, 0.1, 0.1]}, "order": "RO", "group_by": "user"}  # RecBole's
DEFAULT_IDS = {"user_id", "item_id"}  # in RecBole's default load_col, whatever the fields' names


class MultimodalDataset(Dataset):
    """RecBole's Dataset plus named item-feature matrices in internal id order.

    Reads RecBole's atomic files and MMRec's layout. A file with `x_label` comes with its split,
    which is used in either layout. A ratio split is drawn from `split_seed`, so that runs with
    different training seeds share it. Times are float64, or int64 where float64 would round them.

    Configuration keys: `features` (names), `features_path` (extra folder), `features_cache` (folder
    for encoded features), `zero_rows_missing`, `split_seed`, `feature_mask` (a FeatureMask as a
    mapping, or absent).
    """

    benchmark_filename_list: list[str] | None
    file_size_list: list[int]
    inter_feat: Any
    file_items: np.ndarray  # ids of the items in the files, before rows are filtered
    users_without_training = 0  # of a split of the files; they and their rows are not ranked
    rows_without_training = 0
    popularity: np.ndarray | None = None  # training interactions by internal item id; see build()
    training_pairs: tuple[np.ndarray, np.ndarray] | None = None  # users and items; see build()

    def __init__(self, config: Any) -> None:
        self._features: dict[str, ItemFeatures] = {}  # one dict for this data set and its splits
        super().__init__(config)

    @property
    def features(self) -> dict[str, ItemFeatures]:
        """Feature sets by name, in the order of the configuration.

        They are loaded at first use, once for the data set and all its splits.
        """
        if not self._features:
            names = self.config["features"] or []
            loaded = {
                name: self.open_features(name)
                for name in ([names] if isinstance(names, str) else names)
            }
            if mask := self.config["feature_mask"]:
                tokens = self.field2id_token[self.iid_field]
                loaded = mask_features(
                    loaded, FeatureMask(**mask), tokens, self.open_features, self.item_neighbours
                )
            self._features.update(loaded)
        return self._features

    def release_features(self) -> None:
        """Free the features of the data set and all its splits; the next use loads them again."""
        self._features.clear()

    def open_features(self, name: str) -> ItemFeatures:
        """One feature set by name, unmasked: a file, an encoder's, a control or a filled set.

        An encoder that runs here draws nothing from the generators that initialise the model.
        """
        tokens = self.field2id_token[self.iid_field]
        if is_control(name):
            return control_features(name, tokens, self.open_features, self.popularity)
        if is_filled(name):
            return filled_features(name, tokens, self.open_features, self.item_neighbours)
        with random_state.kept():
            table = find_or_encode(
                name,
                dataset_dir=Path(self.dataset_path),
                dataset=self.dataset_name,
                features_path=self.config["features_path"],
                cache=self.config["features_cache"],
            )
        return align(
            table,
            tokens,
            zero_rows_missing=bool(self.config["zero_rows_missing"]),
            catalogue=self.file_items,
        )

    def item_neighbours(self) -> Any:
        """Items with most training users in common, of which missing rows are filled.

        Raises:
            FeatureError: the data set is not split yet.
        """
        if self.training_pairs is None:
            raise FeatureError(
                "Features filled from an item's neighbours need the training split.",
                found="a data set that is not split yet",
                expected="features that are asked for after the data set's build()",
            )
        users, items = self.training_pairs
        place = tie_ranks(self.field2id_token[self.iid_field])
        return neighbour_graph((items, users), (self.item_num, self.user_num), place)

    def pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """Internal (user, item) ids of this split's interactions."""
        return (
            self.inter_feat[self.uid_field].numpy(),
            self.inter_feat[self.iid_field].numpy(),
        )

    def build(self) -> list[MultimodalDataset]:
        """Training, validation and test splits.

        Features that follow the popularity of items can be asked for from then on.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.config["split_seed"] or 0)
            splits = super().build()
        for name, split in zip(SPLITS, splits, strict=False):
            if len(split.inter_feat) == 0:
                raise DataError(
                    f"The {name} split of {self.dataset_name!r} is empty.",
                    found=f"{self.inter_num} interactions in all",
                    expected="interactions in every split",
                    hint="use a larger data set or another eval_args.split",
                )
        training = splits[0].pairs()
        popularity = np.bincount(training[1], minlength=self.item_num)
        for each in (self, *splits):
            each.popularity, each.training_pairs = popularity, training
        return splits

    def _load_data(self, token: str, dataset_path: str) -> None:
        folder = Path(dataset_path)
        parts = self.benchmark_filename_list
        if parts is not None and len(parts) != len(SPLITS):
            raise SettingError(
                "benchmark_filename does not name three splits.",
                found=f"benchmark_filename = {parts!r}",
                expected="the training, the validation and the test split, in this order",
            )
        for part in parts or []:
            check_name(part, "split")
        absent = [
            path.name
            for path in interaction_files(folder, token, parts)
            if not os.path.lexists(path)
        ]
        if absent:
            splits = [] if parts else split_files(folder, token)
            found = [path.name[len(token) + 1 : -len(".inter")] for path in splits]
            names = ",".join(sorted(found, key=lambda part: (_place(part), part)))
            raise DataError(
                f"The interactions of data set {token!r} were not found.",
                found=f"no {', '.join(absent)} in {folder}"
                + (f"; there are {', '.join(path.name for path in splits)}" if splits else ""),
                expected=f"{folder}/{token}.inter, in RecBole's or MMRec's layout",
                hint=f"for splits in files of their own, pass --set benchmark_filename=[{names}], "
                "the training split first"
                if splits
                else "pass --data-path with the folder that holds the data set's folder",
            )
        self._check_sources(folder, token)
        super()._load_data(token, dataset_path)

    def _check_sources(self, folder: Path, token: str) -> None:
        """Refuse columns of a .user or .item file that is not there; RecBole passes over them."""
        ids = {self.uid_field, self.iid_field, *DEFAULT_IDS}
        for key in ("load_col", "unload_col"):
            for source in ("user", "item"):
                names = (self.config[key] or {}).get(source) or []
                path = folder / f"{token}.{source}"
                if names != "*" and set(names) - ids and not os.path.lexists(path):
                    raise DataError(
                        f"Data set {token!r} has no file {path.name}, of which {key} names "
                        "columns.",
                        found=f"{key} = {self.config[key]!r}; nothing at {path}",
                        expected=f"the file, or no {source} in {key}",
                    )

    def _load_inter_feat(self, token: str, dataset_path: str) -> None:
        (path, *_) = interaction_files(Path(dataset_path), token, self.benchmark_filename_list)
        labels = None
        if self.benchmark_filename_list is not None:
            super()._load_inter_feat(token, dataset_path)
            check_pairs(path, self.inter_feat, self.uid_field, self.iid_field, several_files=True)
        elif is_typed(path):
            self.inter_feat = self._load_feat(str(path), FeatureSource.INTERACTION)
            labels = self._labels(path)
            if labels is not None or not self.config["rm_dup_inter"]:
                check_pairs(
                    path,
                    self.inter_feat,
                    self.uid_field,
                    self.iid_field,
                    hint=""
                    if labels is not None
                    else "pass --set rm_dup_inter=first to keep the first of each",
                )
        else:
            labels = self._load_untyped(path)
        self.file_items = np.asarray(pd.unique(self.inter_feat[self.iid_field]), dtype=object)
        if labels is not None:
            self._use_labels(labels)

    def _load_untyped(self, path: Path) -> np.ndarray | None:
        """Set `inter_feat` from a file in MMRec's layout; returns its labels."""
        wanted, _ = self._get_load_and_unload_col(FeatureSource.INTERACTION)
        ids = {self.uid_field, self.iid_field, *DEFAULT_IDS}
        extra = sorted((wanted or set()) - ids - {LABEL_COLUMN})
        table = read_interactions(path, extra)
        columns: dict[str, Any] = {
            self.uid_field: table.user_ids,
            self.iid_field: table.item_ids,
        }
        for column in (self.uid_field, self.iid_field):
            self.set_field_property(column, FeatureType.TOKEN, FeatureSource.INTERACTION, 1)
        measures = {self.time_field, self.config["RATING_FIELD"], *(self.config["threshold"] or {})}
        for name, cells in table.extra.items():
            if name in measures:
                columns[name] = numbers(path, name, pd.Series(cells), complete=True)
            else:
                columns[name] = cells
            kind = FeatureType.FLOAT if name in measures else FeatureType.TOKEN
            self.set_field_property(name, kind, FeatureSource.INTERACTION, 1)
        self.inter_feat = pd.DataFrame(columns, copy=False)
        return table.labels

    def _labels(self, path: Path) -> np.ndarray | None:
        """The released split of a typed file; None if it has none."""
        types = read_types(path, (), self.config["field_separator"])
        if LABEL_COLUMN not in types:
            return None
        separator, name = self.config["field_separator"], LABEL_COLUMN
        cells = read_cells(path, list(types), [name], separator, coded=[name])[name]
        return split_labels(
            path, pd.Series(stripped(cells.array)), as_numbers=types[name] == "float"
        )

    def _use_labels(self, labels: np.ndarray) -> None:
        """Order the rows by their split; users without training rows leave, as in MMRec."""
        user, _ = pd.factorize(self.inter_feat[self.uid_field])
        known = np.bincount(user, labels == 0)[user] > 0
        self.users_without_training = len(np.unique(user[~known]))
        self.rows_without_training = int((~known).sum())
        order = np.flatnonzero(known)[np.argsort(labels[known], kind="stable")]
        self.inter_feat = self.inter_feat.iloc[order].reset_index(drop=True)
        self.file_size_list = np.bincount(labels[known], minlength=3).tolist()
        self.benchmark_filename_list = list(SPLITS)

    def _get_load_and_unload_col(self, source: Any) -> tuple[set[str] | None, set[str] | None]:
        """As RecBole's, with the ids, and with the columns that other settings need."""
        load, unload = super()._get_load_and_unload_col(source)
        if not load:
            return load, unload
        if source == FeatureSource.INTERACTION:
            load |= {self.uid_field, self.iid_field, *(self.config["threshold"] or {})}
            arguments = self.config["eval_args"]
            if arguments["order"] == "TO" or "TS" in arguments["split"]:
                load.add(self.time_field)
        if source == FeatureSource.USER:
            load.add(self.uid_field)
        if source == FeatureSource.ITEM:
            load.add(self.iid_field)
        return load, unload

    def _load_feat(self, filepath: str, source: Any) -> Any:
        """RecBole's reading of an atomic file, with every cell checked; see data/atomic.py."""
        load, unload = self._get_load_and_unload_col(source)
        if load == set():
            return None
        path, separator = Path(filepath), self.config["field_separator"]
        kind = source.value if isinstance(source, FeatureSource) else source
        ids = {"inter": [self.uid_field, self.iid_field], "user": [self.uid_field]}
        named = ids.get(kind, [self.iid_field] if kind == "item" else [])
        types = read_types(path, named, separator)
        check_columns(path, types, sorted((load or set()) - DEFAULT_IDS - set(named)))
        check_columns(path, types, sorted(unload or set()))
        columns = [
            name
            for name in types
            if (load is None or name in load) and name not in (unload or set())
        ]
        for name in named:
            if name not in columns:
                raise SettingError(
                    f"The column {name!r} of {path.name} must be loaded.",
                    found=f"unload_col = {self.config['unload_col']!r}",
                    expected="the ids of users and items",
                )
        frame = read_atomic_file(
            path,
            types,
            columns,
            ids=named,
            complete=kind == "inter",
            separator=separator,
            seq_separator=self.config["seq_separator"],
        )
        for name in columns if source != "link" else []:
            self.field2source[name] = source
            self.field2type[name] = FeatureType(types[name])
            if not types[name].endswith("_seq"):
                self.field2seqlen[name] = 1
            if types[name].startswith("float"):
                self.field2bucketnum[name] = 2
        for name in columns:
            if types[name].endswith("_seq"):
                longest = int(frame[name].map(len).max())
                length = min((self.config["seq_len"] or {}).get(name, longest), longest)
                frame[name] = [row[:length] for row in frame[name]]
                self.field2seqlen[name] = length
        return RowLengthFrame(frame)

    def _remap(self, remap_list: Any) -> None:
        """As RecBole's, which numbers tokens in order of first appearance; by categories' codes."""
        if not remap_list or not _are_tokens(remap_list):
            for feat, field, _ in remap_list:
                if isinstance(feat[field].dtype, pd.CategoricalDtype):
                    feat[field] = feat[field].astype(object)
            return super()._remap(remap_list)
        (first, name, _), *others = remap_list
        codes, used = pd.factorize(np.asarray(first[name].cat.codes))
        names = np.asarray(first[name].cat.categories[used], dtype=object)
        first[name] = codes + 1
        for feat, field, _ in others:
            tokens = np.asarray(feat[field], dtype=object)
            places = pd.Index(names, dtype=object).get_indexer(tokens)
            new = np.flatnonzero(places < 0)
            codes, more = pd.factorize(tokens[new])
            places[new] = np.where(codes < 0, -1, len(names) + codes)
            names = np.concatenate([names, more])
            feat[field] = places + 1
        tokens = np.array(["[PAD]", *names])
        numbers_of = TokenNumbers(tokens)
        for field in {field for _, field, _ in remap_list} - self.field2id_token.keys():
            self.field2id_token[field] = tokens
            self.field2token_id[field] = numbers_of
        return None

    def split_by_ratio(self, ratios: Any, group_by: str | None = None) -> list[Any]:
        """As RecBole's, row by row the same, without a list of numbers per group."""
        if group_by is None:
            return super().split_by_ratio(ratios, group_by)
        shares = [ratio / sum(ratios) for ratio in ratios]
        group, _ = pd.factorize(self.inter_feat[group_by].numpy())
        order = np.argsort(group, kind="stable")
        sizes = np.bincount(group)
        ends = {
            size: self._calcu_split_ids(tot=size, ratios=shares) for size in set(sizes.tolist())
        }
        bounds = np.array([ends[size] for size in sizes.tolist()])  # [groups, parts − 1]
        of_row = group[order]
        rank = np.arange(len(order)) - (np.cumsum(sizes) - sizes)[of_row]
        part = (rank[:, None] >= bounds[of_row]).sum(1)
        self._drop_unused_col()
        columns = self.inter_feat.interaction
        chosen = [torch.from_numpy(order[part == number]) for number in range(len(ratios))]
        return [
            self.copy(Interaction({name: values[rows] for name, values in columns.items()}))
            for rows in chosen
        ]

    def _dataframe_to_interaction(self, data: Any) -> Any:
        """RecBole's, whose floats are float32, with the times as they were read."""
        name = self.time_field
        if name not in data or data[name].dtype.kind not in "fi":
            return super()._dataframe_to_interaction(data)
        times = torch.from_numpy(data[name].to_numpy(copy=True))
        out = super()._dataframe_to_interaction(data.astype({name: np.float64}))
        out.interaction[name] = times
        return out

    def _data_processing(self) -> None:
        if self.benchmark_filename_list is not None:  # RecBole passes over filters then
            for key in FILTERS:
                if self.config[key] not in (None, "[0,inf)"):
                    raise SettingError(
                        f"{self.dataset_name!r} comes with its splits: they are not filtered.",
                        found=f"{key} = {self.config[key]!r}",
                        expected=f"no {key}, or interactions without splits",
                        hint="leave the setting out, or filter the file itself",
                    )
            asked = self.config["eval_args"]
            changed = {key: asked[key] for key, usual in SPLIT_BY_US.items() if asked[key] != usual}
            refuse_splitting(self, changed)
        super()._data_processing()


class TokenNumbers(Mapping[str, int]):
    """Token → internal id; the index is made at first use, since few runs need one."""

    def __init__(self, tokens: np.ndarray) -> None:
        self._tokens = tokens
        self._numbers: dict[str, int] | None = None

    @property
    def _index(self) -> dict[str, int]:
        if self._numbers is None:
            self._numbers = {token: number for number, token in enumerate(self._tokens.tolist())}
        return self._numbers

    def __getitem__(self, token: str) -> int:
        return self._index[token]

    def __iter__(self) -> Iterator[str]:
        return iter(self._index)

    def __len__(self) -> int:
        return len(self._tokens)


def _are_tokens(remap_list: Any) -> bool:
    """Whether all columns are of tokens, the first of them coded."""
    feat, field, _ = remap_list[0]
    return isinstance(feat[field].dtype, pd.CategoricalDtype) and all(
        kind == FeatureType.TOKEN for _, _, kind in remap_list
    )


def refuse_splitting(dataset: Any, given: Mapping[str, Any]) -> None:
    """Refuse settings of a split, keys of `eval_args`, on data that come with their splits.

    Raises:
        SettingError: there is one.
    """
    unused = [key for key in SPLIT_BY_US if key in given]
    if dataset.benchmark_filename_list is not None and unused:
        raise SettingError(
            f"{dataset.dataset_name!r} comes with its splits: it is not split again.",
            found=", ".join(f"eval_args.{key} = {shown(given[key])}" for key in unused),
            expected=f"no eval_args.{unused[0]}, or interactions without splits",
            hint=f"leave the setting out, or remove the column {LABEL_COLUMN}",
        )


def _place(part: str) -> int:
    """Where a split of this name belongs in `benchmark_filename`: training, validation, test."""
    starts = ("tr", "va", "te")
    return starts.index(part[:2].lower()) if part[:2].lower() in starts else 1


def split_description(
    dataset: MultimodalDataset, config: Any, files: dict[str, str]
) -> dict[str, Any]:
    """How the three splits came about, for the run record; `files`: name → SHA-256.

    Raises:
        DataError: the manifest of a split is damaged, or describes other interactions.
    """
    if dataset.benchmark_filename_list is not None:
        return split_of_files(Path(dataset.dataset_path), dataset.dataset_name, files)
    return {
        "kind": "ratio",
        "eval_args": {k: config["eval_args"][k] for k in ("split", "order", "group_by")},
        "split_seed": config["split_seed"],
    }
