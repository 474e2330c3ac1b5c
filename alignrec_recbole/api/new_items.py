"""Features of items that a model does not have, as it asks for them; content as an explanation."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pandas as pd

from alignrec_recbole.errors import FeatureError, SettingError
from alignrec_recbole.features.content_rows import unit
from alignrec_recbole.features.table import load_features

Features: TypeAlias = pd.DataFrame | Mapping[str, pd.DataFrame]
WHOLE_TABLE = "lsa"  # encoders whose rows depend on all items of their table


def matrices(given: Features, sets: Mapping[str, int]) -> tuple[list[str], list[np.ndarray]]:
    """Tokens of new items, and their features [n, f_m] per set of a model; zero: missing.

    Args:
        given: a data frame indexed by item per feature set; of a model with one set, the frame.
        sets: name → columns.

    Raises:
        FeatureError: sets, columns or values are not those of the model, or items repeat.
    """
    if isinstance(given, pd.DataFrame):
        frames = {next(iter(sets)) if len(sets) == 1 else "one table": given}
    else:
        frames = dict(given)
    if set(frames) != set(sets):
        raise FeatureError(
            "The features of the new items are not those of the model.",
            found=", ".join(map(str, frames)) or "none",
            expected=", ".join(f"{name} with {width} columns" for name, width in sets.items()),
        )
    tables = {name: numbers(frames[name], name, width) for name, width in sets.items()}
    names = list(dict.fromkeys(token for table in tables.values() for token in table.index))
    out = []
    for table in tables.values():
        place = table.index.get_indexer(pd.Index(names))
        values = table.to_numpy()
        out.append(np.where((place >= 0)[:, None], values[place], np.float32(0)))
    if empty := [names[n] for n in np.flatnonzero(~np.any([m.any(1) for m in out], axis=0))]:
        raise FeatureError(
            f"The new item {empty[0]!r} has no features.",
            found=f"{len(empty):,} items whose rows are zero",
            expected="a row with another number for each new item",
        )
    return names, out


def numbers(frame: pd.DataFrame, name: str, width: int | None = None) -> pd.DataFrame:
    """A data frame of features as float32, indexed by tokens.

    Raises:
        FeatureError: it is no such frame, is empty, has other columns, repeats an item, or has
            values that are not finite real numbers.
    """
    is_frame = isinstance(frame, pd.DataFrame)
    if not is_frame or 0 in frame.shape:
        raise FeatureError(
            f"The features {name!r} are no table.",
            found=f"shape {frame.shape}" if is_frame else type(frame).__name__,
            expected="a pandas DataFrame of numbers, a row per item, indexed by item",
        )
    if width is not None and frame.shape[1] != width:
        raise FeatureError(
            f"The features {name!r} have another number of columns than in the training.",
            found=f"{frame.shape[1]:,} columns",
            expected=f"{width:,} columns",
        )
    index = pd.Index([str(token) for token in frame.index])
    if index.has_duplicates or (index == "").any():
        raise FeatureError(
            f"The index of the features {name!r} does not name each item once.",
            found=f"{int(index.duplicated().sum()):,} tokens repeat",
            expected="one row per item token",
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", np.exceptions.ComplexWarning)
            values = frame.to_numpy(dtype=np.float32)
    except (ValueError, TypeError, OverflowError, np.exceptions.ComplexWarning) as error:
        raise FeatureError(
            f"The features {name!r} are not numbers.", found=str(error), expected="float columns"
        ) from error
    if not np.isfinite(values).all():
        raise FeatureError(
            f"The features {name!r} have values that are not finite.",
            found=f"NaN or infinity in {int((~np.isfinite(values)).any(1).sum()):,} rows",
            expected="finite numbers; leave out items without features",
        )
    return pd.DataFrame(values, index=index)


def read_features(path: Path, *, further_items: bool = False) -> pd.DataFrame:
    """A feature file as a data frame indexed by item.

    Args:
        path: `.npy` with its manifest, as `prepare` writes it.
        further_items: refuse rows of an encoder that looks at all items at once, which no row of
            another table can be compared with.

    Raises:
        FeatureError: the file cannot be used, or does not name its items.
    """
    table = load_features(path)
    if further_items and table.manifest.encoder.partition(":")[0] == WHOLE_TABLE:
        raise FeatureError(
            f"{path.name} cannot be compared with the features of the training.",
            found=f"encoder {table.manifest.encoder}, whose columns depend on all items of a table",
            expected="an encoder of single items, such as minilm, clip or beit3",
        )
    if table.manifest.items is None:
        raise FeatureError(
            f"{path.name} does not name its items.",
            found="no manifest with item tokens beside it",
            expected=f"{path.with_suffix('.json').name}, as `prepare` writes it",
        )
    frame = pd.DataFrame(
        np.asarray(table.matrix, dtype=np.float32), index=pd.Index(table.manifest.items)
    )
    return frame.drop(index=table.manifest.missing)


def files_of(text: str) -> dict[str, Path]:
    """Feature files of an option: FILE, or NAME=FILE for each feature set.

    Raises:
        SettingError: a part is neither.
    """
    found: dict[str, Path] = {}
    for part in filter(None, text.split(",")):
        name, equals, file = part.rpartition("=")
        if name in found or bool(equals) != bool(name):
            raise SettingError(
                "Feature files are not named clearly.",
                found=text[:200],
                expected="FILE, or NAME=FILE[,NAME=FILE…]",
            )
        found[name] = Path(file)
    if not found or ("" in found and len(found) > 1):
        raise SettingError(
            "Feature files are not named clearly.",
            found=text[:200],
            expected="FILE, or NAME=FILE[,NAME=FILE…]",
        )
    return found


def unit_rows(frames: list[pd.DataFrame], items: pd.Index) -> np.ndarray:
    """Rows of items [n, Σ f_m] in their order: each set divided by its norm, then the whole."""
    parts = []
    for frame in frames:
        place = frame.index.get_indexer(items)
        rows = np.where((place >= 0)[:, None], frame.to_numpy(np.float64)[place], 0.0)
        parts.append(unit(rows))
    return unit(np.concatenate(parts, axis=1))
