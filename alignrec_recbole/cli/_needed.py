"""Which published source has what a command needs and the data folder does not have."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from alignrec_recbole.data.dataset_paths import data_folders, item_table_names, locate_dataset
from alignrec_recbole.data.published import RAW, SPLIT, PublishedSource, raw_folder, sources_of
from alignrec_recbole.encoders.lookup import find_file
from alignrec_recbole.encoders.registry import ENCODERS
from alignrec_recbole.features.derived_names import made_of
from alignrec_recbole.features.published import GROUPS, present_features
from alignrec_recbole.io.opening import is_regular_file
from alignrec_recbole.protocols import READ_LISTS

if TYPE_CHECKING:
    from alignrec_recbole.cli._option_values import RunOptions


def needed_source(options: RunOptions) -> str | None:
    """The source that has what the data folder does not; None if nothing is absent or known."""
    sources = sources_of(options.dataset)
    folder = locate_dataset(options.dataset, data_folders(options.data_path))
    named = [made_of(name) for name in options.features]
    for group in GROUPS:
        asked = any(name.partition("-")[0] == group for name in named)
        if asked and group in sources and not (folder and present_features(folder, group)):
            return group
    texts = any(name.partition(":")[0] in ENCODERS for name in named)
    if texts and not (folder and _has_item_table(folder, options.dataset)):
        return RAW if RAW in sources else None  # an archive would not help: it has no texts
    if folder and RAW in sources and reads_images(options) and _lacks_images(folder):
        return RAW
    there = folder is not None and has_features(folder, options.dataset)
    if not named and not there and _reads_features(options):
        first = next((group for group in GROUPS if group in sources), None)
        if first is not None:
            return first
    if folder is not None and options.download:
        return _not_pinned(options.dataset, sources, folder)
    if folder is not None or not sources:
        return None
    return SPLIT if SPLIT in sources else next(iter(sources))


def _not_pinned(dataset: str, sources: dict[str, PublishedSource], folder: Path) -> str | None:
    """The source whose files were fetched by a process that ended before it pinned them."""
    from alignrec_recbole.io.pins import read_pins

    pins, below = read_pins(folder.parent), raw_folder(folder)
    for name, source in sources.items():
        there = [entry.file for entry in source.entries if (below / entry.file).is_file()]
        if any(f"{dataset}/{below.name}/{file}" not in pins for file in there):
            return name
    return None


def reads_images(options: RunOptions) -> bool:
    """Whether an encoder that is named reads images, by its model's files where these decide."""
    for name in map(made_of, options.features):
        kind, _, model = name.partition(":")
        entry = ENCODERS.get(kind)
        if entry and entry.takes_model == bool(model) and entry.reads_images(name):
            return True
    return False


def _lacks_images(folder: Path) -> bool:
    """Whether the item table was made here from raw files whose images were not asked for."""
    from alignrec_recbole.data.amazon import texts as amazon_texts

    made_here = any(raw_folder(folder).glob("meta_*.json.gz"))
    return (
        made_here
        and is_regular_file(folder / "items.tsv")
        and not amazon_texts.images_asked(folder)
    )


def _reads_features(options: RunOptions) -> bool:
    from alignrec_recbole.registry.models import resolve

    protocols = set(options.protocol) - {"full", *READ_LISTS}
    return bool(protocols) or any(resolve(name).needs_features for name in options.model)


def has_features(folder: Path, dataset: str) -> bool:
    """Whether a run that names no features finds some: published ones, or items to encode."""
    published = any(present_features(folder, group) for group in GROUPS)
    return published or _has_item_table(folder, dataset)


def _has_item_table(folder: Path, dataset: str) -> bool:
    return any(os.path.lexists(folder / name) for name in item_table_names(dataset))


def has_named_features(options: RunOptions, folder: Path) -> bool:
    """Whether a data set has the features that are named, or items for the encoders named."""
    for name in filter(None, map(made_of, options.features)):  # "" of random
        if name.partition("-")[0] in GROUPS:
            if not present_features(folder, name.partition("-")[0]):
                return False
        elif find_file(name, folder, options.features_path) is None:
            encoder = name.partition(":")[0] in ENCODERS
            if not (encoder and _has_item_table(folder, options.dataset)):
                return False
    if reads_images(options) and not (folder / "images").is_dir():
        return False
    return (
        bool(options.features)
        or not _reads_features(options)
        or has_features(folder, options.dataset)
    )
