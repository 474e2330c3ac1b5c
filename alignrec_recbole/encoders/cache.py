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
from alignrec_recbole.io.opening import is_regular_file
from alignrec_recbole.runtime import progress

MAX_STEM = 40  # characters of up to four bytes; file systems allow 255 bytes in all

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
    path, mark = _cached_path(name, source, items.with_files(source.media), folder)
    if cached := _read_cached(path, name, items, mark):
        return cached
    progress.announce(f"encoding {len(items.ids)} items with {name}; the result is cached")
    encoded = encode_items(name, items, progress=progress.bars_wanted())
    if not encoded.present.any():
        raise FeatureError(
            f"Encoder {name!r} found nothing to encode in data set {dataset!r}.",
            found=f"{len(items.ids)} items, none with {encoded.modality}",
            expected=f"an item table with {encoded.modality}",
        )
    return save_encoded(path, encoded, items, name, cached_as=mark)


def _read_cached(path: Path, name: str, items: ItemTable, mark: str) -> FeatureTable | None:
    """The cached features; None, with a warning, if they are damaged or of other items."""
    if not (is_regular_file(path) and is_regular_file(path.with_suffix(".json"))):
        return None
    try:
        table = load_features(path)
    except FeatureError as error:
        logger.warning("%s cannot be used; the items are encoded again: %s", path, error.problem)
        return None
    manifest = table.manifest
    # rows cached by earlier versions have no mark
    if (manifest.name, manifest.items) == (name, items.ids) and manifest.settings.get(
        "cached_as", mark
    ) == mark:
        return table
    logger.warning("%s belongs to other items or another encoder; they are encoded again", path)
    return None


def _cached_path(
    name: str, entry: EncoderEntry, items: ItemTable, folder: Path
) -> tuple[Path, str]:
    """Where the encoder's rows of these items are cached, and the mark of items and encoder.

    Earlier versions named files by a hash of the images' names and sizes. Such a file is used if
    the encoder reads no images; otherwise the items are encoded again.
    """
    identity = json.dumps(encoder_identity(name, items), sort_keys=True, default=str)
    digest = hashlib.sha256(identity.encode()).hexdigest()
    reads_files = entry.modality == "audio" or entry.reads_images(name)
    now, before = items.content_hash(images=reads_files), items.name_and_size_hash()
    path, earlier = (
        folder / f"{_file_stem(name)}-{items_hash[:12]}-{digest[:8]}.npy"
        for items_hash in (now, before)
    )
    mark = f"{now} {digest}"
    may_be_earlier = entry.name == "hf" and not is_regular_file(path)
    if may_be_earlier and (found := _cached_as_mean(name, entry, items, folder)):
        return found
    if is_regular_file(path) or not is_regular_file(earlier.with_suffix(".json")):
        return path, mark
    if not reads_files and is_regular_file(earlier):
        return earlier, mark
    logger.warning(
        "%s was cached by an earlier version, which did not check the images' content; "
        "the items are encoded again",
        earlier,
    )
    return path, mark


def _cached_as_mean(
    name: str, entry: EncoderEntry, items: ItemTable, folder: Path
) -> tuple[Path, str] | None:
    """The rows that an earlier version cached for hf:MODEL and their mark, if they are today's."""
    identity, same = entry.load().earlier_identity(name)
    text = json.dumps(identity, sort_keys=True, default=str)
    digest = hashlib.sha256(text.encode()).hexdigest()
    now = items.content_hash(images=False)
    for items_hash in (now, items.name_and_size_hash()):
        path = folder / f"{_file_stem(name)}-{items_hash[:12]}-{digest[:8]}.npy"
        if not is_regular_file(path):
            continue
        if same:
            return path, f"{now} {digest}"
        logger.warning(
            "%s was cached by an earlier version, which took the mean over the tokens whatever "
            "the model's files say; the items are encoded again",
            path,
        )
    return None


def _file_stem(name: str) -> str:
    """The name with other characters replaced, of bounded length; the hashes tell names apart."""
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in name)[:MAX_STEM]
