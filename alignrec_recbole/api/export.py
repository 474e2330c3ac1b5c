"""A trained model, or a feature file, as a folder for other programs and for the Hugging Face Hub.

`model.safetensors` and `config.json` are the model, which `load_model` reads from the folder.
`users.npy` and `items.npy` have a row per token of `users.json` and `items.json`, in that order;
the `.parquet` files have both in one table. `items.faiss` is an exact index of inner products whose
id n is row n of `items.npy`.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from alignrec_recbole.api.tables import can_write_parquet, write_table
from alignrec_recbole.api.trained_model import TrainedModel
from alignrec_recbole.errors import MissingDependencyError, ModelError, SettingError
from alignrec_recbole.features.table import load_features
from alignrec_recbole.io.files import atomic_write
from alignrec_recbole.runs.saved_model import FOLDER_NAMES, write_model

CHECKED_USERS = 1000  # whose lists an index must give
CHECKED_ITEMS = 50
ROUNDING = 1e-5  # of the largest score; float32 sums in another order differ by less


def export_model(
    model: TrainedModel, folder: str | os.PathLike[str], *, index: bool = False
) -> list[Path]:
    """Write a model to a folder; returns the files.

    Vectors are written of models that score by an inner product, Parquet where pyarrow is
    installed.

    Args:
        model: from `load_model`.
        folder: is made; existing files of these names are not overwritten.
        index: also write a FAISS index of the items, checked against the full ranking of inner
            products for up to 1,000 users.

    Raises:
        SettingError: the files exist, or an index is asked of a model without vectors.
        MissingDependencyError: an index without the extra `ann`.
        ModelError: the index gives other lists than the ranking.
    """
    place = Path(folder)
    saved = model.tables()
    has_vectors = saved.card.kind == "vectors"
    names = ["README.md", *FOLDER_NAMES]
    if has_vectors:
        names += ["users.npy", "users.json", "items.npy", "items.json"]
        names += ["users.parquet", "items.parquet"] if can_write_parquet() else []
    if index:
        if not has_vectors:
            model.item_vectors()  # the error says why there are none
        names.append("items.faiss")
        _faiss()
    _check_free(place, names)
    write_model(place / FOLDER_NAMES[0], place / FOLDER_NAMES[1], saved)
    if has_vectors:
        for kind, vectors in (("users", model.user_vectors()), ("items", model.item_vectors())):
            _write_vectors(place, kind, vectors)
    if index:
        _write_index(model, place / "items.faiss")
    _write_text(place / "README.md", _model_card(model, names))
    return [place / name for name in names]


def export_features(path: str | os.PathLike[str], folder: str | os.PathLike[str]) -> list[Path]:
    """Copy a feature file and its manifest to a folder with a card; returns the files.

    Raises:
        FeatureError: the file cannot be used.
        SettingError: it has no manifest, or the files exist.
    """
    source, place = Path(path), Path(folder)
    table = load_features(source)
    manifest = source.with_suffix(".json")
    if not manifest.is_file():
        raise SettingError(
            f"The feature file {source.name} has no manifest, so a card could say nothing.",
            found=f"nothing at {manifest}",
            expected="features written by prepare, or by save_features",
        )
    names = ["README.md", source.name, manifest.name]
    _check_free(place, names)
    place.mkdir(parents=True, exist_ok=True)
    for file in (source, manifest):
        with open(file, "rb") as reader, atomic_write(place / file.name) as writer:
            shutil.copyfileobj(reader, writer)
    _write_text(place / "README.md", _feature_card(source.name, table.manifest.model_dump()))
    return [place / name for name in names]


def _check_free(place: Path, names: Iterable[str]) -> None:
    taken = [name for name in names if os.path.lexists(place / name)]
    if taken:
        raise SettingError(
            f"The folder {place.name!r} has such files already.",
            found=f"{', '.join(taken)} in {place}",
            expected="a new folder; nothing is overwritten",
        )


def _write_vectors(place: Path, kind: str, vectors: pd.DataFrame) -> None:
    with atomic_write(place / f"{kind}.npy") as handle:
        np.save(handle, np.ascontiguousarray(vectors.to_numpy()), allow_pickle=False)
    _write_text(place / f"{kind}.json", json.dumps(list(vectors.index), ensure_ascii=False) + "\n")
    if can_write_parquet():
        lists = pd.Series(list(vectors.to_numpy()), name="vector")
        token = pd.Series(vectors.index.astype(str), name=kind[:-1])
        write_table(pd.concat([token, lists], axis=1), place / f"{kind}.parquet")


def _write_text(path: Path, text: str) -> None:
    with atomic_write(path, "w") as handle:
        handle.write(text)


# The index ---------------------------------------------------------------------------------------


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise MissingDependencyError.of_extra("An index needs FAISS.", "ann", str(error)) from error
    return faiss


def _write_index(model: TrainedModel, path: Path) -> None:
    faiss = _faiss()
    items = np.ascontiguousarray(model.item_vectors().to_numpy())
    index = faiss.IndexFlatIP(items.shape[1])
    index.add(items)
    _check_index(model, index)
    with atomic_write(path) as handle:
        handle.write(faiss.serialize_index(index).tobytes())


def _check_index(model: TrainedModel, index: Any) -> None:
    """Refuse an index whose lists are not those of the full ranking, but for equal scores.

    Scores are equal if they differ by less than float32 sums in another order may.
    """
    saved = model.tables()
    count = len(saved.users)
    chosen = np.unique(np.linspace(0, count - 1, min(CHECKED_USERS, count)).astype(int))
    length = min(CHECKED_ITEMS, len(saved.items))
    vectors = np.ascontiguousarray(saved.tables["users"][1:][chosen])
    _, found = index.search(vectors, length)
    lists = model.recommend(saved.users[chosen], length, exclude=None)
    expected = lists["score"].to_numpy().reshape(len(chosen), length)
    items = saved.tables["items"][1:]
    scores = np.einsum("ud,ukd->uk", vectors, items[found])
    margin = ROUNDING * max(1e-30, float(np.abs(expected).max()))
    if (np.abs(scores - expected) > margin).any() or (np.diff(np.sort(found)) == 0).any():
        wrong = int((np.abs(scores - expected) > margin).any(axis=1).sum())
        raise ModelError(
            f"The index of {model.card.model} gives other lists than the full ranking.",
            found=f"{wrong:,} of {len(chosen):,} users",
            expected=f"the same scores at every rank, within {ROUNDING:g} of the largest",
        )


# Cards -------------------------------------------------------------------------------------------


def _model_card(model: TrainedModel, names: Iterable[str]) -> str:
    card = model.card
    metrics = "\n".join(f"| {name} | {value:.6f} |" for name, value in card.metrics.items())
    what = {
        "vectors": "the inner product of the user's and the item's vector",
        "similarity": "the sum of the similarities of an item with the user's training items",
        "scores": "a stored table of all scores",
    }[card.kind]
    return f"""---
library_name: alignrec-recbole
tags: [recommendation, {json.dumps(card.model)}]
---

# {_cell(card.model)} on {_cell(card.dataset)}

Features: {_cell(card.features)}. Seed: {card.seed}. {card.users:,} users, {card.items:,} items.
A score is {what}.
Made by alignrec-recbole {_cell(card.package_version)}; the settings are in `config.json`.

```python
from alignrec_recbole import load_model

model = load_model("this folder")
model.recommend(model.users[:3], k=20)
```

## Test metrics

Full ranking, evaluation convention {card.setting}, means over users.

| metric | value |
|---|---|
{metrics}

## Limits

The model knows the users and items it was trained with and no others. The files contain the tokens
of users and items and the pairs of the training and validation split: check the licence of the data
before you publish them.

Files: {", ".join(f"`{name}`" for name in names)}.
"""


def _feature_card(file: str, manifest: dict[str, Any]) -> str:
    rows, width = manifest["shape"]
    missing = len(manifest["missing"])
    notes = "".join(f"\n- {_cell(note)}" for note in manifest["notes"])
    return f"""---
library_name: alignrec-recbole
tags: [recommendation, features]
---

# Item features {_cell(manifest["name"])}

{rows:,} items, {width:,} columns, {manifest["dtype"]}; modality {manifest["modality"]};
{missing:,} items without it. Encoder: {_cell(manifest["encoder"])}.
Source: {_cell(manifest["source"])}. SHA-256 of `{_cell(file)}`:
`{_cell(manifest["sha256"])}`. The tokens of the rows and the encoder's settings are in the `.json`.
{notes}

```python
from alignrec_recbole import load_features

table = load_features({json.dumps(file)})
```

Check the licence of the content that was encoded before you publish its features.
"""


def _cell(text: object) -> str:
    """Text from outside as plain words of a Markdown page."""
    return "".join(c if c.isalnum() or c in " .,:;_+-@()/%'" else " " for c in str(text))[:200]
