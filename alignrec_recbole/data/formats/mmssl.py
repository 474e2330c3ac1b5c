"""The form of MMSSL and LATTICE: a user's items per split as JSON, features by item number.

    5-core/train.json, val.json, test.json    {user: [items]}
    image_feat.npy, text_feat.npy             row = item; optional

Without the folder 5-core/ the JSON files are searched in the folder itself.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from alignrec_recbole.data.formats.collecting import Rows
from alignrec_recbole.data.source import SPLIT, Source, token_problem
from alignrec_recbole.errors import DataError, SettingError
from alignrec_recbole.io.opening import is_regular_file, read_text

PARTS = ("train", "val", "test")
FEATURES = {"image": "image_feat.npy", "text": "text_feat.npy", "audio": "audio_feat.npy"}
MAX_BYTES = 1 << 30  # of a JSON file: the largest published ones have some ten million


def read(folder: Path, bad: Counter[str] | None = None) -> Source:
    """The released split, and the paths of features where the folder has them.

    Raises:
        DataError: a file is missing, is no JSON object of lists, or an id cannot be used.
        SettingError: lines are to be skipped, which such files do not have.
    """
    if bad is not None:
        raise SettingError(
            "Files of the format mmssl have no lines that could be skipped.",
            found="--on-bad-line skip",
            expected="one JSON object per file, read whole or not at all",
        )
    folder = Path(folder)
    inner = folder / "5-core"
    place = inner if inner.is_dir() else folder
    rows = Rows()
    for label, part in enumerate(PARTS):
        path = place / f"{part}.json"
        users, items = _pairs(path, _parsed(path, part))
        labels = np.full(len(users), label, dtype=np.int8)
        rows.add(path, range(1, len(users) + 1), users, items, **{SPLIT: labels})
    features = {
        modality: path
        for modality, name in FEATURES.items()
        if is_regular_file(path := folder / name)
    }
    return Source(
        folder.name,
        rows.frame(place / "train.json"),
        tuple(place / f"{part}.json" for part in PARTS),
        features=features,
        notes={"feature files": ", ".join(features) or "none"},
    )


def _parsed(path: Path, part: str) -> Any:
    text = read_text(path, what=f"{part} split", max_bytes=MAX_BYTES)
    try:
        return json.loads(text, object_pairs_hook=lambda pairs: _each_once(path, pairs))
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"The {part} split {path.name} is not valid JSON.",
            found=f"{error}",
            expected="a JSON object with a list of item numbers per user",
            hint="download the file again",
        ) from error


def _each_once(path: Path, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in pairs:
        if key in out:
            raise DataError(
                f"{path.name} has the user {key!r} twice.",
                expected="one list per user",
            )
        out[key] = value
    return out


def _pairs(path: Path, content: Any) -> tuple[list[str], list[str]]:
    if not isinstance(content, dict):
        raise _not_lists(path, "", content)
    users: list[str] = []
    items: list[str] = []
    for user, history in content.items():
        if not isinstance(history, list):
            raise _not_lists(path, user, history)
        for item in history:
            if type(item) not in (int, str) or token_problem(str(item).strip()):
                raise _not_lists(path, user, item)
        if problem := token_problem(user.strip()):
            raise _not_lists(path, user, f"the id: {problem}")
        users += [user] * len(history)
        items += map(str, history)
    if not users:
        raise _not_lists(path, "", content)
    return users, items


def _not_lists(path: Path, user: str, value: Any) -> DataError:
    return DataError(
        f"{path.name} is no table of the items of users.",
        found=f"{repr(value)[:80]}" + (f" for user {user!r}" if user else ""),
        expected="a JSON object with a list of item numbers per user",
    )
