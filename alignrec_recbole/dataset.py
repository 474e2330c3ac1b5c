"""RecBole's Dataset with item features beside it, aligned by item token."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from recbole.data.dataset import Dataset
from recbole.utils import FeatureSource, FeatureType

from alignrec_recbole.compat import atomic_files
from alignrec_recbole.data.interactions import check_atomic_file, is_typed, read_interactions
from alignrec_recbole.encoders.cache import find_or_encode
from alignrec_recbole.errors import DataError, SettingError
from alignrec_recbole.features.control_names import is_control
from alignrec_recbole.features.controls import control_features
from alignrec_recbole.features.masking import FeatureMask, mask_features
from alignrec_recbole.features.table import ItemFeatures, align
from alignrec_recbole.runtime import random_state

SPLITS = ("train", "valid", "test")
FILTERS = ("user_inter_num_interval", "item_inter_num_interval", "val_interval")


class MultimodalDataset(Dataset):
    """RecBole's Dataset plus named item-feature matrices in internal id order.

    Reads RecBole's atomic files and MMRec's layout (`x.inter` with `x_label`, then the released
    split is used). A ratio split is drawn from `split_seed`, so that runs with different training
    seeds share it.

    Configuration keys: `features` (names), `features_path` (extra folder), `features_cache` (folder
    for encoded features), `zero_rows_missing`, `split_seed`, `feature_mask` (a FeatureMask as a
    mapping, or absent).
    """

    benchmark_filename_list: list[str] | None
    file_size_list: list[int]

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
                loaded = mask_features(loaded, FeatureMask(**mask), tokens, self.open_features)
            self._features.update(loaded)
        return self._features

    def release_features(self) -> None:
        """Free the features of the data set and all its splits; the next use loads them again."""
        self._features.clear()

    def open_features(self, name: str) -> ItemFeatures:
        """One feature set by name, unmasked: a file, an encoder's or a control set.

        An encoder that runs here draws nothing from the generators that initialise the model.
        """
        tokens = self.field2id_token[self.iid_field]
        if is_control(name):
            return control_features(name, tokens, self.open_features)
        with random_state.kept():
            table = find_or_encode(
                name,
                dataset_dir=Path(self.dataset_path),
                dataset=self.dataset_name,
                features_path=self.config["features_path"],
                cache=self.config["features_cache"],
            )
        return align(table, tokens, zero_rows_missing=bool(self.config["zero_rows_missing"]))

    def pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """Internal (user, item) ids of this split's interactions."""
        return (
            self.inter_feat[self.uid_field].numpy(),
            self.inter_feat[self.iid_field].numpy(),
        )

    def build(self) -> list[MultimodalDataset]:
        """Training, validation and test splits."""
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
        return splits

    def _load_data(self, token: str, dataset_path: str) -> None:
        folder = Path(dataset_path)
        parts = self.benchmark_filename_list or []
        wanted = [f"{token}.{part}.inter" for part in parts] or [f"{token}.inter"]
        absent = [name for name in wanted if not (folder / name).is_file()]
        if absent:
            raise DataError(
                f"The interactions of data set {token!r} were not found.",
                found=f"no {', '.join(absent)} in {folder}",
                expected=f"{folder}/{token}.inter, in RecBole's or MMRec's layout",
                hint="pass --data-path with the folder that holds the data set's folder",
            )
        super()._load_data(token, dataset_path)

    def _load_inter_feat(self, token: str, dataset_path: str) -> None:
        path = Path(dataset_path) / f"{token}.inter"
        if self.benchmark_filename_list is not None or is_typed(path):
            parts = self.benchmark_filename_list or []
            for name in [f"{token}.{part}.inter" for part in parts] or [path.name]:
                check_atomic_file(
                    path.with_name(name),
                    [self.uid_field, self.iid_field],
                    self.config["field_separator"],
                )
            super()._load_inter_feat(token, dataset_path)
            self._check_pairs(path)
            return
        table = read_interactions(path)
        users, items, labels = table.users, table.items, table.labels
        if labels is not None:
            user, _ = pd.factorize(users)  # isin on strings would take a second on Sports
            known = np.bincount(user, labels == 0)[user] > 0  # as MMRec: cold users leave
            users, items, labels = users[known], items[known], labels[known]
            order = np.argsort(labels, kind="stable")
            users, items = users[order], items[order]
            self.file_size_list = np.bincount(labels, minlength=3).tolist()
            self.benchmark_filename_list = list(SPLITS)
        self.inter_feat = pd.DataFrame({self.uid_field: users, self.iid_field: items})
        for column in (self.uid_field, self.iid_field):
            self.set_field_property(column, FeatureType.TOKEN, FeatureSource.INTERACTION, 1)

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
        super()._data_processing()

    def _load_feat(self, filepath: str, source: Any) -> Any:
        with atomic_files.read_cells_verbatim():
            return super()._load_feat(filepath, source)

    def _load_user_or_item_feat(
        self, token: str, dataset_path: str, source: Any, field_name: str
    ) -> Any:
        path = Path(dataset_path) / f"{token}.{source.value}"
        wanted, _ = self._get_load_and_unload_col(source)
        if path.is_file() and (wanted is None or wanted):
            column = getattr(self, field_name)
            check_atomic_file(path, [column], self.config["field_separator"])
        return super()._load_user_or_item_feat(token, dataset_path, source, field_name)

    def _check_pairs(self, path: Path) -> None:
        columns = [self.uid_field, self.iid_field]
        repeated = self.inter_feat.duplicated(columns)
        if repeated.any() and not self.config["rm_dup_inter"]:
            row = self.inter_feat[repeated].iloc[0]
            raise DataError(
                f"{path.name} holds the same interaction twice.",
                found=f"{int(repeated.sum())} repeated rows, for example user "
                f"{row[columns[0]]!r} and item {row[columns[1]]!r}",
                expected="every user-item pair once",
                hint="pass --set rm_dup_inter=first to keep the first of each",
            )


def split_description(dataset: MultimodalDataset, config: Any) -> dict[str, Any]:
    """How the three splits came about, for the run record."""
    if dataset.benchmark_filename_list is not None:
        return {"kind": "released", "labels": "x_label"}
    return {
        "kind": "ratio",
        "eval_args": {k: config["eval_args"][k] for k in ("split", "order", "group_by")},
        "split_seed": config["split_seed"],
    }
