"""A data set made from data frames: written as the files that every other door reads."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from alignrec_recbole.api.new_items import numbers
from alignrec_recbole.data.formats.table import from_frame
from alignrec_recbole.data.interactions import LABEL_COLUMN, read_interactions
from alignrec_recbole.data.items import is_content, read_item_table
from alignrec_recbole.data.source import ITEM, RATING, SPLIT, TIME, USER
from alignrec_recbole.errors import DataError, FeatureError, SettingError
from alignrec_recbole.features.derived_names import is_control, is_filled
from alignrec_recbole.features.published import GROUPS
from alignrec_recbole.features.table import save_features
from alignrec_recbole.io.files import atomic_write, inside
from alignrec_recbole.io.html import facts_table
from alignrec_recbole.io.names import check_name

NAMES = {  # role → accepted columns of a frame
    USER: ("user", "user_id", "userID"),
    ITEM: ("item", "item_id", "itemID"),
    RATING: ("rating",),
    TIME: ("time", "timestamp"),
    SPLIT: ("split", LABEL_COLUMN),
}
WRITTEN = {  # role → column of the file
    USER: "userID", ITEM: "itemID", RATING: "rating", TIME: "timestamp", SPLIT: LABEL_COLUMN,
}  # fmt: skip
ITEM_NAMES = ("item", "item_id", "itemID")
MODALITIES = ("text", "image", "audio", "fused")


class Dataset:
    """A data set in a folder: `run(dataset=…)` and `run_protocol(dataset=…)` take it.

    Attributes:
        folder: with `NAME.inter`, and `items.tsv`, `images/` and feature files where given.
        features: names of the feature sets that were given.
    """

    def __init__(self, folder: str | os.PathLike[str], features: tuple[str, ...] = ()) -> None:
        self.folder = Path(os.path.abspath(folder))
        self.features = features

    @property
    def name(self) -> str:
        """Name of the data set: that of its folder."""
        return self.folder.name

    @classmethod
    def from_frames(
        cls,
        interactions: pd.DataFrame,
        items: pd.DataFrame | None = None,
        images: Mapping[Any, str | os.PathLike[str]] | None = None,
        features: Mapping[str, pd.DataFrame] | None = None,
        *,
        name: str = "frames",
        folder: str | os.PathLike[str] | None = None,
    ) -> Dataset:
        """Write data frames as a data set and check them as files are checked.

        Args:
            interactions: columns `user` and `item`, one row per pair; optionally `split` (train,
                valid, test, or 0, 1, 2), `time` (numbers or dates) and `rating`. Names as in files
                (`user_id`, `userID`, `x_label`, …) are accepted too. Without `split`, runs split
                8:1:1 per user at random.
            items: a column `item` (or that name as index) and text columns, which are joined.
                Columns that would not be read, such as a second one of ids, are refused.
            images: token → image file; the files are copied.
            features: name → vectors, indexed by item token. A name that is a modality (text,
                image, audio, fused) is of that modality, any other is fused. Items without a row
                are missing.
            name: of the data set.
            folder: gets a subfolder `name`; default: a temporary folder, which is deleted with the
                object or at the end of the process.

        Raises:
            DataError, FeatureError, SettingError: a column is missing, a value cannot be used, or
                the folder exists already.
        """
        check_name(name, "data set", DataError)
        keeper: weakref.finalize | None = None
        if folder is None:
            parent = Path(tempfile.mkdtemp(prefix="alignrec-"))
            place = parent / name
        else:
            parent, place = Path(folder), inside(Path(folder), name)
            if os.path.lexists(place):
                raise DataError(
                    f"The folder of data set {name!r} exists already.",
                    found=f"{place}",
                    expected="a name that is not taken; nothing is overwritten",
                    hint="delete it, or choose another name or folder",
                )
        try:
            _make(place)
            _write(place, interactions, items, images or {}, features or {})
        except BaseException:
            shutil.rmtree(parent if folder is None else place, ignore_errors=True)
            raise
        made = cls(place, tuple(features or ()))
        if folder is None:
            keeper = weakref.finalize(made, shutil.rmtree, parent, ignore_errors=True)
        made._keeper = keeper
        return made

    _keeper: weakref.finalize | None = None

    def __repr__(self) -> str:
        return f"Dataset({self.name!r} in {str(self.folder.parent)!r})"

    def _repr_html_(self) -> str:
        return facts_table(
            self.name,
            {"folder": self.folder, "features": ", ".join(self.features) or "none given"},
        )


def _make(place: Path) -> None:
    try:
        place.mkdir(parents=True)
    except NotADirectoryError as error:
        raise DataError(
            f"The folder for data set {place.name!r} is none.",
            found=f"a file in {place.parent}",
            expected="a folder, or one that can be made",
        ) from error


def _write(
    place: Path,
    interactions: pd.DataFrame,
    items: pd.DataFrame | None,
    images: Mapping[Any, str | os.PathLike[str]],
    features: Mapping[str, pd.DataFrame],
) -> None:
    path = place / f"{place.name}.inter"
    _write_tabs(path, _interactions(interactions))
    known = pd.Index(pd.unique(read_interactions(path).items))
    names = {_token(item, "images"): Path(file) for item, file in images.items()}
    if items is not None or names:
        _write_items(place, items, names, known)
    for name, frame in features.items():
        _write_features(place, name, frame, known)


def _interactions(frame: pd.DataFrame) -> pd.DataFrame:
    if not isinstance(frame, pd.DataFrame):
        raise DataError(
            "The interactions are no data frame.",
            found=type(frame).__name__,
            expected="a pandas DataFrame with columns user and item",
        )
    roles: dict[str, str] = {}
    for role, accepted in NAMES.items():
        found = [name for name in frame.columns if name in accepted]
        if len(found) > 1 or (not found and role in (USER, ITEM)):
            raise DataError(
                f"The interactions have {'several columns' if found else 'no column'} for "
                f"{accepted[0]}.",
                found=f"columns {', '.join(map(str, frame.columns))}",
                expected=f"one of {', '.join(accepted)}",
            )
        if found:
            roles[role] = found[0]
    if unknown := [str(name) for name in frame.columns if name not in roles.values()]:
        raise DataError(
            f"The interactions have a column {unknown[0]!r} that nothing reads.",
            found=f"columns {', '.join(map(str, frame.columns))}",
            expected="user, item, and optionally split, time and rating",
            hint="drop it: interactions.drop(columns=[…])",
        )
    for column in (roles[USER], roles[ITEM]):
        odd = (v for v in frame[column].tolist() if isinstance(v, str) and _is_odd(v))
        for value in odd:
            raise _bad(value, column)
    rows = from_frame(frame, roles).interactions
    return pd.DataFrame({WRITTEN[role]: [str(v) for v in rows[role].tolist()] for role in roles})


def _is_odd(text: str) -> bool:
    """Whether a token would not be read back from a tab-separated file as it is."""
    return not text or text != text.strip() or any(c in text for c in '\t\r\n"') or text == "nan"


def _token(value: Any, column: str) -> str:
    """A cell as text that a tab-separated file can hold.

    Raises:
        DataError: it is empty, missing, a truth value, or has a tab or a line break in it.
    """
    if isinstance(value, float):
        if not value.is_integer():
            raise _bad(value, column)
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, (str, int, np.integer)):
        raise _bad(value, column)
    text = str(value)
    if _is_odd(text):
        raise _bad(value, column)
    return text


def _bad(value: Any, column: str) -> DataError:
    return DataError(
        f"The column {column!r} has a value that cannot be used.",
        found=repr(value),
        expected="text or numbers, not empty, without tabs, quotes and line breaks",
    )


def _write_tabs(path: Path, frame: pd.DataFrame) -> None:
    with atomic_write(path, "w") as handle:
        handle.write("\t".join(frame.columns) + "\n")
        for row in frame.itertuples(index=False, name=None):
            handle.write("\t".join(row) + "\n")


def _write_items(
    place: Path, items: pd.DataFrame | None, images: Mapping[str, Path], known: pd.Index
) -> None:
    table = pd.DataFrame(index=pd.Index([], dtype=object)) if items is None else items
    column = None if items is None else _id_column(table)
    ids = table.index if column is None else table[column]
    texts = table if column is None else table.drop(columns=[column])
    if unread := [str(name) for name in texts.columns if not is_content(str(name))]:
        raise DataError(
            f"The items have a column {unread[0]!r} that nothing reads.",
            found=f"columns {', '.join(map(str, table.columns))}",
            expected="a column of ids, text, and optionally image",
            hint="rename it, or drop it: items.drop(columns=[…])",
        )
    out = pd.DataFrame({"item_id": [_token(value, "item") for value in ids]}, dtype=object)
    for name in texts.columns:
        out[str(name)] = [_text(value) for value in texts[name]]
    there = set(out["item_id"])
    further = [item for item in images if item not in there]
    out = pd.concat([out, pd.DataFrame({"item_id": further})], ignore_index=True).fillna("")
    if unknown := sorted(set(images) - set(known)):
        raise DataError(
            f"There is an image of an item without interactions: {unknown[0]!r}.",
            found=f"{len(unknown):,} such items",
            expected="tokens of the interactions",
        )
    if images and "image" in out.columns:
        raise DataError(
            "The items have a column 'image', and images are given as well.",
            found=f"{len(images):,} images and a column 'image'",
            expected="one of the two",
        )
    if images:
        (place / "images").mkdir()
        files = {}
        for number, (item, source) in enumerate(images.items()):
            files[item] = f"{number}{source.suffix.lower()}"
            _copy(source, place / "images" / files[item], item)
        out["image"] = [files.get(item, "") for item in out["item_id"]]
    _write_tabs(place / "items.tsv", out)
    read_item_table(place / "items.tsv")


def _id_column(items: pd.DataFrame) -> str | None:
    """The column of the items' tokens; None if they are the index.

    Raises:
        DataError: there are no tokens or several columns of them, or a text column is there twice.
    """
    names = list(map(str, items.columns))
    found = [name for name in names if name in ITEM_NAMES]
    indexed = items.index.name in ITEM_NAMES
    if len(found) + indexed != 1:
        raise DataError(
            f"The items have {'several columns' if found else 'no column'} for item.",
            found=f"columns {', '.join(names)}"
            + (f", and the index {items.index.name}" if indexed else ""),
            expected=f"one of {', '.join(ITEM_NAMES)}, as a column or as the index",
        )
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise DataError(
            f"The items have several columns {twice[0]!r}.",
            found=f"columns {', '.join(names)}",
            expected="every column once",
        )
    return found[0] if found else None


def _copy(source: Path, target: Path, item: str) -> None:
    if not source.is_file():
        raise DataError(
            f"The image of item {item!r} is no file.",
            found=f"{source}",
            expected="the path of an image",
        )
    shutil.copyfile(source, target)


def _text(value: Any) -> str:
    """A text cell: missing values are empty, white space is one blank."""
    if pd.api.types.is_scalar(value) and pd.isna(value):
        return ""
    return " ".join(str(value).replace('"', "'").split())


def _check_readable(name: str) -> None:
    """Refuse the name of a feature set that would be read as that of another, or as several."""
    of_others = is_control(name) or is_filled(name) or name in GROUPS
    if of_others or any(mark in name for mark in ",+="):
        raise SettingError(
            f"The name of the features {name!r} means something else.",
            found="a control, a filled set or a group" if of_others else "one of , + =",
            expected="another name, without , + and =",
        )


def _write_features(place: Path, name: str, frame: pd.DataFrame, known: pd.Index) -> None:
    check_name(name, "feature set", SettingError)
    _check_readable(name)
    values = numbers(frame, name).to_numpy()
    index = pd.Index([_token(value, f"index of features {name}") for value in frame.index])
    if index.has_duplicates or not known.isin(index).any():
        raise FeatureError(
            f"The index of the features {name!r} is not made of the items.",
            found=f"{int(index.duplicated().sum()):,} tokens repeat; first {index[:1].tolist()}",
            expected="one row per item token of the interactions",
        )
    place_of = index.get_indexer(known)
    rows = np.where((place_of >= 0)[:, None], values[place_of], np.float32(0))
    missing = known[(place_of < 0) | ~rows.any(axis=1)]
    save_features(
        place / f"{name}.npy",
        rows,
        name=name,
        modality=name if name in MODALITIES else "fused",  # type: ignore[arg-type]
        encoder="a data frame",
        settings={},
        source=place.name,
        items=known.tolist(),
        missing=missing.tolist(),
    )
