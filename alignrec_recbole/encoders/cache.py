"""Features by name: a feature file, or an encoder's rows, made once and cached."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path

from alignrec_recbole.data.items import ItemTable, find_item_table
from alignrec_recbole.encoders.encode import encode_items, encoder_identity, save_encoded
from alignrec_recbole.encoders.lookup import find_source
from alignrec_recbole.encoders.registry import EncoderEntry
from alignrec_recbole.errors import FeatureError
from alignrec_recbole.features.table import FeatureTable, load_features

logger = logging.getLogger(__name__)


def find_or_encode(
    name: str,
    *,
    dataset_dir: Path,
    dataset: str,
    features_path: str | None = None,
    cache: str | None = None,
) -> FeatureTable:
    """Open the features called `name` of a data set.

    A name is the stem of a .npy in `features_path`, `dataset_dir` or `dataset_dir/features`, in
    this order; else an encoder, which then encodes the data set's item table. Its rows are cached
    in `cache` (default `dataset_dir/features`) under a name that contains the hashes of the items
    and of the encoder's identity: a changed table or other weights are encoded again.

    Raises:
        UnknownNameError: neither a file nor an encoder has this name.
        FeatureError: the file cannot be used, `features_path` is not a folder, or the encoder's
            weights have to be chosen in `prepare`.
    """
    source = find_source(name, dataset_dir, dataset, features_path)
    if isinstance(source, Path):
        return load_features(source)
    items = find_item_table(dataset_dir, dataset)
    folder = Path(cache) if cache else dataset_dir / "features"
    path = _cached_path(name, source, items, folder)
    if path.is_file() and path.with_suffix(".json").is_file():
        return load_features(path)
    encoded = encode_items(name, items)
    if not encoded.present.any():
        raise FeatureError(
            f"Encoder {name!r} found nothing to encode in data set {dataset!r}.",
            found=f"{len(items.ids)} items, none with {encoded.modality}",
            expected=f"an item table with {encoded.modality}",
        )
    return save_encoded(path, encoded, items, name)


def _cached_path(name: str, entry: EncoderEntry, items: ItemTable, folder: Path) -> Path:
    """Where the encoder's rows of these items are cached.

    Earlier versions named files by a hash of the images' names and sizes. Such a file is used if
    the encoder reads no images; otherwise the items are encoded again.
    """
    identity = json.dumps(encoder_identity(name), sort_keys=True, default=str)
    mark = hashlib.sha256(identity.encode()).hexdigest()[:8]
    path, earlier = (
        folder / f"{_file_stem(name)}-{items_hash[:12]}-{mark}.npy"
        for items_hash in (
            items.content_hash(images=entry.reads_images),
            items.name_and_size_hash(),
        )
    )
    if path.is_file() or not (earlier.is_file() and earlier.with_suffix(".json").is_file()):
        return path
    if not entry.reads_images:
        return earlier
    logger.warning(
        "%s was cached by an earlier version, which did not check the images' content; "
        "the items are encoded again",
        earlier,
    )
    return path


def _file_stem(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in name)
