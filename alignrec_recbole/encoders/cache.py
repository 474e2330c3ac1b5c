"""From a feature name to a feature file: look for the file, else encode the items and keep them."""

from __future__ import annotations

import difflib
import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignrec_recbole.errors import FeatureError, UnknownNameError
from alignrec_recbole.features.table import FeatureTable, load_features, save_features
from alignrec_recbole.io.files import inside

if TYPE_CHECKING:
    from alignrec_recbole.data.items import ItemTable
    from alignrec_recbole.encoders import EncodedItems


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
    this order; else an encoder, which then encodes the data set's item table. Encoded features are
    kept in `cache` (default `dataset_dir/features`) under a name that holds the hashes of the items
    and of the encoder's identity, so that a changed table or other weights are encoded again.

    Raises:
        UnknownNameError: neither a file nor an encoder has this name.
        FeatureError: the file cannot be used, or `features_path` is not a folder.
    """
    if features_path and not Path(features_path).is_dir():
        raise FeatureError(
            "The folder of features is not there.",
            found=str(features_path),
            expected="an existing folder",
            hint="correct --features-path, or leave it out",
        )
    if file := find_file(name, dataset_dir, features_path):
        return load_features(file)
    from alignrec_recbole.encoders import ENCODERS, encode_items, encoder_identity

    if name.split(":")[0] not in ENCODERS:
        folders = _folders(dataset_dir, features_path)
        files = {p.stem for f in folders for p in f.glob("*.npy") if p.is_file()}
        known = sorted({*ENCODERS, *files})
        near = difflib.get_close_matches(name, known, n=1)
        raise UnknownNameError(
            f"There are no features {name!r} for data set {dataset!r}."
            + (f" Did you mean {near[0]!r}?" if near else ""),
            found=f"no {name}.npy in {', '.join(str(f) for f in folders)}, and no such encoder",
            expected=f"one of {', '.join(known)}, or hf:MODEL",
            hint="put the .npy there, name its folder with --features-path, or make it: "
            "run_benchmark.py prepare --help",
        )
    from alignrec_recbole.data.items import find_item_table

    items = find_item_table(dataset_dir, dataset)
    identity = json.dumps(encoder_identity(name), sort_keys=True, default=str)
    mark = hashlib.sha256(identity.encode()).hexdigest()
    stem = f"{_file_stem(name)}-{items.content_hash()[:12]}-{mark[:8]}"
    path = (Path(cache) if cache else dataset_dir / "features") / f"{stem}.npy"
    if path.is_file() and path.with_suffix(".json").is_file():
        return load_features(path)
    encoded = encode_items(name, items)
    if not encoded.present.any():
        raise FeatureError(
            f"Encoder {name!r} found nothing to encode in data set {dataset!r}.",
            found=f"{len(items.ids)} items, none with {encoded.modality}",
            expected=f"an item table with {encoded.modality}",
        )
    return keep_encoded(path, encoded, items, name)


def keep_encoded(
    path: Path, encoded: EncodedItems, items: ItemTable, name: str, **settings: Any
) -> FeatureTable:
    """Write what an encoder made of an item table, and open it; `settings` go into the manifest."""
    save_features(
        path,
        encoded.matrix,
        name=name,
        modality=encoded.modality,
        encoder=encoded.encoder,
        settings={**json.loads(json.dumps(encoded.settings, default=str)), **settings},
        source=items.source,
        items=items.ids,
        missing=[i for i, there in zip(items.ids, encoded.present, strict=True) if not there],
    )
    return load_features(path)


def find_file(name: str, dataset_dir: Path, features_path: str | Path | None = None) -> Path | None:
    """The .npy of the features called `name`, or None where they have to be encoded."""
    if ":" in name:
        return None
    paths = [inside(folder, f"{name}.npy") for folder in _folders(dataset_dir, features_path)]
    return next((path for path in paths if path.is_file()), None)


def _folders(dataset_dir: Path, features_path: str | Path | None) -> list[Path]:
    first = [Path(features_path)] if features_path else []
    return [*first, dataset_dir, dataset_dir / "features"]


def _file_stem(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in name)
