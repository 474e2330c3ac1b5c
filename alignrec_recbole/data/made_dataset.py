"""Data sets that are made here: `NAME.inter` with its split, and the manifest beside it.

The manifest `NAME.split.json` says how users and items are numbered and how the interactions are
split, with seed, counts and hashes, so that others can do it again and see that it is the same.

Rows are written in an order that says nothing of the test set either, since RecBole numbers by it:
the training interactions by user, then the others by item; ids that are text in an order that is
drawn from the seed, whatever they say.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from alignrec_recbole._version import __version__
from alignrec_recbole.data.interactions import LABEL_COLUMN
from alignrec_recbole.data.numbering import number_ids
from alignrec_recbole.data.source import ITEM, RATING, TIME, USER
from alignrec_recbole.data.split_names import Split
from alignrec_recbole.data.splits import TRAIN, Labels, draw_labels, parts_of
from alignrec_recbole.errors import DataError, printable
from alignrec_recbole.io.files import atomic_write, sha256_file
from alignrec_recbole.io.opening import is_regular_file, read_bytes

SUFFIX = ".split.json"
MAX_MANIFEST_BYTES = 1 << 20
Numbers = Literal["random", "appearance", "released", "none"]
Text = Annotated[str, Field(max_length=1000)]
Count = Annotated[int, Field(ge=0, lt=2**63)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class SplitManifest(BaseModel):
    """How a data set was made.

    Attributes:
        source: files that it was made from, with their SHA-256.
        numbering: random, appearance, released, or none where ids are those of the source.
        split: as it is written after `--split`.
        seed: of the numbers and of the split.
        interactions: of training, validation and test, or of all where there is no split.
        cuts: the times of the split `global-time`: training < V ≤ validation < T ≤ test.
        only_later: users and items without a training interaction, and their interactions.
        inter_sha256: of `NAME.inter`.
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    schema_version: Literal[1] = 1
    dataset: Text
    source: dict[Text, Sha256]
    numbering: Numbers
    split: Text
    seed: int
    users: Count
    items: Count
    interactions: Annotated[list[Count], Field(min_length=1, max_length=3)]
    cuts: tuple[float | int, float | int] | None = None
    only_later: dict[Text, Count]
    inter_sha256: Sha256
    made_by: Text = f"alignrec-recbole {__version__}"


def write_dataset(
    frame: pd.DataFrame,
    path: Path,
    split: Split,
    *,
    numbering: Numbers,
    source: dict[str, str],
) -> SplitManifest:
    """Split interactions and write them; the manifest first, so that no split is without one.

    Args:
        frame: interactions in the common form (`source.py`), every pair once, with the tokens that
            are written.
        path: `NAME.inter`.
        split: how to split.
        numbering: how the tokens came about, for the manifest; not applied here.
        source: name → SHA-256 of the files that the interactions are from.

    Raises:
        DataError: the split cannot be drawn, or a token cannot be a cell of a table.
    """
    _check_tokens(frame, path.name)
    drawn = draw_labels(frame, split)
    table = _table(frame, drawn, split.seed)
    manifest_path = path.with_name(path.stem + SUFFIX)
    with atomic_write(path, "w") as handle:
        table.to_csv(handle, sep="\t", index=False, lineterminator="\n", quoting=csv.QUOTE_NONE)
        handle.flush()
        manifest = SplitManifest(
            dataset=path.stem,
            source=source,
            numbering=numbering,
            split=split.text,
            seed=split.seed,
            users=frame[USER].nunique(),
            items=frame[ITEM].nunique(),
            interactions=parts_of(drawn.labels, len(frame)),
            cuts=drawn.cuts,
            only_later=drawn.only_later,
            inter_sha256=sha256_file(Path(handle.name)),
        )
        with atomic_write(manifest_path, "w") as other:
            other.write(manifest.model_dump_json(indent=2) + "\n")
    return manifest


def read_split_manifest(folder: Path, name: str) -> SplitManifest | None:
    """The manifest of a data set's folder; None if it has none.

    Raises:
        DataError: it is damaged.
    """
    path = folder / f"{name}{SUFFIX}"
    if not is_regular_file(path):
        return None
    data = read_bytes(path, what="manifest of a split", max_bytes=MAX_MANIFEST_BYTES)
    try:
        return SplitManifest.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        raise DataError(
            f"{path.name} is not the manifest of a split.",
            found=printable(f"{'.'.join(map(str, first['loc']))}: {first['msg']}", 200),
            expected="the file that was written with the interactions",
            hint=f"restore it, or delete it: {name}.inter is then read as a released split",
        ) from error


def summary(manifest: SplitManifest) -> list[list[object]]:
    """Rows for a terminal: the numbering, the split, and what it leaves without training."""
    later = manifest.only_later
    rows: list[list[object]] = [
        ["numbers", manifest.numbering],
        ["split", manifest.split],
        ["seed", manifest.seed],
        ["training, validation, test" if len(manifest.interactions) > 1 else "interactions",
         ", ".join(map(str, manifest.interactions))],
    ]  # fmt: skip
    if manifest.cuts is not None:
        rows.append(["cut points in time", ", ".join(map(str, manifest.cuts))])
    for kind in ("user", "item"):
        if later[f"{kind}s"]:
            rows.append(
                [
                    f"{kind}s without a training interaction",
                    f"{later[f'{kind}s']}, with {later[f'{kind}_interactions']} later interactions",
                ]
            )
    return rows


def _table(frame: pd.DataFrame, drawn: Labels, seed: int) -> pd.DataFrame:
    """The columns of MMRec's layout; `seed` of the order of ids that are no numbers."""
    columns = {"userID": frame[USER], "itemID": frame[ITEM]}
    for name, column in ((RATING, "rating"), (TIME, "timestamp")):
        if name in frame:
            columns[column] = frame[name]
    table = pd.DataFrame(columns)
    labels = np.full(len(frame), TRAIN) if drawn.labels is None else drawn.labels
    if drawn.labels is not None:
        table[LABEL_COLUMN] = labels
    user, item = _places(frame[USER], seed), _places(frame[ITEM], seed)
    later = labels != TRAIN
    order = np.lexsort((np.where(later, user, item), np.where(later, item, user), later))
    return table.iloc[order]


def _places(tokens: pd.Series, seed: int) -> np.ndarray:
    """Where each row's token is: its number, or for text a number drawn from the seed."""
    if tokens.dtype.kind == "i":
        return tokens.to_numpy()
    codes, names = pd.factorize(tokens)
    numbers = number_ids([str(name) for name in names], "random", seed)
    return np.array([numbers[str(name)] for name in names])[codes]


def _check_tokens(frame: pd.DataFrame, name: str) -> None:
    """Refuse ids that would be read back as others."""
    for column in (USER, ITEM):
        for token in pd.unique(frame[column]):
            text = str(token)
            if not text or text != text.strip() or any(c in text for c in "\t\r\n\0"):
                raise DataError(
                    f"An id of the column {column!r} cannot be written to {name}.",
                    found=repr(text),
                    expected="text without tabs, line ends and white space at its ends",
                )
