"""Feature files with their manifests, and their rows in the order of a data set's items.

`NAME.npy` has one row per item; `NAME.json` beside it, the manifest, says which item each row
belongs to. A file without a manifest has MMRec's layout: row = itemID, ids 0 … n−1.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import mmap
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import PydanticSerializationError

from alignrec_recbole.errors import FeatureError, first_repeated
from alignrec_recbole.features.given import as_matrix, as_tokens
from alignrec_recbole.io.files import atomic_write, sha256_file
from alignrec_recbole.io.mapped_arrays import open_array
from alignrec_recbole.io.opening import read_text

BLOCK = 1 << 11  # rows that are read and checked together
MAX_MANIFEST_BYTES = 1 << 30

Modality = Literal["text", "image", "audio", "fused"]


class FeatureManifest(BaseModel):
    """What a feature file is; stored as JSON beside it."""

    model_config = ConfigDict(extra="forbid")

    schema_version: Literal[1] = 1
    name: str
    modality: Modality
    encoder: str
    settings: dict[str, Any] = {}  # of the encoder, enough to compute the rows again
    source: str  # item table, or whatever the encoder read
    items: list[str] | None  # token of each row; None: row = itemID
    missing: list[str] = []  # items without the modality; their rows are zero
    without_text: list[str] = []  # of fused rows: items encoded from the image alone
    without_image: list[str] = []  # of fused rows: items encoded from the text alone
    notes: list[str] = []  # shown next to results computed from these rows
    shape: tuple[int, int]
    dtype: Literal["float32", "float16"]
    sha256: str
    items_sha256: str | None = None  # of `items`, to detect a changed order


@dataclass(frozen=True)
class FeatureTable:
    """A feature file: its manifest, and its rows [n, f] memory-mapped in the file's order."""

    manifest: FeatureManifest
    matrix: np.ndarray
    path: Path


@dataclass(frozen=True)
class ItemFeatures:
    """Features of a data set's items by internal id; the rows of PAD and of missing items are zero.

    Attributes:
        values: float32 [item_num, f].
        present: bool [item_num]; False for PAD and for items without the modality.
        manifest: of the file, encoder or control the rows came from.
    """

    values: np.ndarray
    present: np.ndarray
    manifest: FeatureManifest = field(repr=False)

    @property
    def name(self) -> str:
        """Name of the feature set."""
        return self.manifest.name

    @property
    def modality(self) -> str:
        """text, image, audio or fused."""
        return self.manifest.modality


def save_features(
    path: Path,
    matrix: Any,
    *,
    name: str,
    modality: Modality,
    encoder: str,
    settings: dict[str, Any],
    source: str,
    items: Sequence[str],
    missing: Sequence[str] = (),
    without_text: Sequence[str] = (),
    without_image: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> FeatureManifest:
    """Write `path` (.npy) and its manifest, both atomically.

    Args:
        matrix: real, finite numbers [n, f]: an array, tensor, data frame or list of rows; float16
            is written as it is, everything else as float32.
        items: token of each row; whole numbers are written in digits.
        missing: tokens of items without the modality; their rows must be zero.
        without_text: tokens of items whose fused row was encoded from the image alone.
        without_image: tokens of items whose fused row was encoded from the text alone.
        notes: shown next to results computed from the rows.

    Raises:
        FeatureError: the matrix is none of numbers, does not fit the items or is not finite, an
            item is named twice, a list names one that is not among the items, the manifest would
            not be valid, or a file of something else has its name.
    """
    path = Path(path)
    check_manifest_name(path)
    tokens = as_tokens(name, "items", items)
    lists: dict[str, Any] = {
        "missing": as_tokens(name, "missing items", missing),
        "without_text": as_tokens(name, "items without text", without_text),
        "without_image": as_tokens(name, "items without image", without_image),
    }
    rows = as_matrix(name, matrix, tokens)
    _check_values(path, rows, tokens, set(lists["missing"]))
    _check_tokens(path.name, tokens, lists)
    with atomic_write(path) as handle:
        np.save(handle, rows, allow_pickle=False)
        handle.flush()
        try:
            manifest = FeatureManifest(
                name=name,
                modality=modality,
                encoder=encoder,
                settings=settings,
                source=source,
                items=tokens,
                **lists,
                notes=list(notes),
                shape=(len(rows), rows.shape[1]),
                dtype=rows.dtype.name,  # type: ignore[arg-type]
                sha256=sha256_file(Path(handle.name)),
                items_sha256=_items_hash(tokens),
            )
            text = manifest.model_dump_json(indent=1)
        except (ValidationError, PydanticSerializationError) as error:
            reason = _first_error(error) if isinstance(error, ValidationError) else str(error)
            raise FeatureError(
                f"The manifest of features {name!r} would not be valid.",
                found=reason,
                expected="modality text, image, audio or fused; names as text; settings that JSON "
                "can hold",
            ) from error
        with atomic_write(path.with_suffix(".json"), "w") as json_file:
            json_file.write(text)  # before the rows are renamed
    return manifest


def check_manifest_name(path: Path) -> None:
    """Refuse a feature file whose manifest would replace a JSON file of something else.

    A manifest that is damaged or of another version, beside its feature file, may be replaced.

    Raises:
        FeatureError: the JSON file beside `path` is no manifest of features.
    """
    place = path.with_suffix(".json")
    if not os.path.lexists(place):
        return
    kind = None
    try:
        text = read_text(place, what="manifest", error=FeatureError, max_bytes=MAX_MANIFEST_BYTES)
        FeatureManifest.model_validate_json(text)
        return
    except ValidationError:
        with contextlib.suppress(ValueError, RecursionError):
            found = json.loads(text)
            kind = found.get("kind") if isinstance(found, dict) else None
    except FeatureError:  # not readable as text
        pass
    if kind is None and os.path.lexists(path):
        return
    raise FeatureError(
        f"{place.name} is there, and no manifest of features.",
        found=f"{f'a manifest of {kind}' if kind else 'another file'}, in {place.parent}",
        expected=f"no file of this name, or the manifest of {path.name}",
        hint="choose another name, or move the file",
    )


def load_features(path: Path) -> FeatureTable:
    """Open a feature file memory-mapped and check it against its manifest.

    Raises:
        FeatureError: the file is missing, truncated, pickled, not a 2-d float array, or not the
            file that the manifest describes. Values are not read: `align` checks that those of a
            data set's items are finite.
    """
    path = Path(path)
    matrix = open_array(path, what="feature file", error=FeatureError)
    if matrix.ndim != 2 or 0 in matrix.shape:
        raise FeatureError(
            f"{path.name} has the wrong shape.", found=str(matrix.shape), expected="[items, width]"
        )
    if matrix.dtype.kind != "f":
        raise FeatureError(
            f"{path.name} does not hold floating-point numbers.",
            found=f"dtype {matrix.dtype}",
            expected="float32 or float16",
        )
    manifest_path = path.with_suffix(".json")
    if not os.path.lexists(manifest_path):
        manifest = FeatureManifest(
            name=path.stem,
            modality=_guess_modality(path.stem),
            encoder="unknown (no manifest)",
            source=path.name,
            items=None,
            shape=(matrix.shape[0], matrix.shape[1]),
            dtype="float16" if matrix.dtype == np.float16 else "float32",
            sha256=sha256_file(path),
        )
        return FeatureTable(manifest, matrix, path)
    manifest = _read_manifest(manifest_path)
    if (manifest.shape, manifest.dtype) != (matrix.shape, matrix.dtype.name):
        raise FeatureError(
            f"{path.name} and its manifest disagree.",
            found=f"an array of {matrix.dtype.name} and shape {matrix.shape}",
            expected=f"{manifest.dtype} and {manifest.shape}, as {manifest_path.name} says",
            hint="encode the items again, or put back the file that the manifest describes",
        )
    digest = sha256_file(path)
    if digest != manifest.sha256:
        raise FeatureError(
            f"{path.name} has changed since its manifest was written.",
            found=f"sha256 {digest[:12]}…",
            expected=f"sha256 {manifest.sha256[:12]}…, as {manifest_path.name} says",
            hint="encode the items again, or put back the file that the manifest describes",
        )
    return FeatureTable(manifest, matrix, path)


def _read_manifest(path: Path) -> FeatureManifest:
    text = read_text(path, what="manifest", error=FeatureError, max_bytes=MAX_MANIFEST_BYTES)
    try:
        manifest = FeatureManifest.model_validate_json(text)
    except ValidationError as error:
        raise FeatureError(
            f"{path.name} is not a feature manifest.",
            found=_first_error(error),
            expected="JSON of schema_version 1, as save_features writes it",
            hint=f"write the features again, or delete {path.name} if row n belongs to item n",
        ) from error
    items = manifest.items
    if items is not None:
        if len(items) != manifest.shape[0]:
            raise FeatureError(
                f"{path.name} names the wrong number of items.",
                found=f"{len(items)} items",
                expected=f"{manifest.shape[0]}, one per row",
            )
        lists = ("missing", "without_text", "without_image")
        _check_tokens(path.name, items, {key: getattr(manifest, key) for key in lists})
        if manifest.items_sha256 not in (None, _items_hash(items)):
            raise FeatureError(
                f"The items in {path.name} have changed since it was written.",
                found=f"{len(items)} items, the first {items[:1]}, with another sha256",
                expected="the items in the order of the rows",
                hint="encode the items again, or put back the manifest",
            )
    return manifest


def _check_tokens(name: str, items: Sequence[str], lists: Mapping[str, Sequence[str]]) -> None:
    """Refuse items that are named twice, and lists with such or with others than the items.

    Args:
        name: of the file, for errors.
        lists: missing, without_text and without_image.
    """
    known = set(items)
    repeats = len(items) - len(known)
    if repeats:
        raise FeatureError(
            f"{name} names an item twice.",
            found=f"item {first_repeated(items)!r}; {repeats} repeated names in all",
            expected="every item once",
        )
    for key, names in lists.items():
        unknown = set(names) - known
        if unknown or len(set(names)) != len(names):
            raise FeatureError(
                f"{name} has unknown or repeated items in the list {key!r}.",
                found=f"{len(unknown)} of them unknown, for example {min(unknown)!r}"
                if unknown
                else f"{len(names) - len(set(names))} repeated names",
                expected=f"{key!r} to be a part of 'items'",
            )


def _first_error(error: ValidationError) -> str:
    first = error.errors()[0]
    place = ".".join(map(str, first["loc"]))
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return f"{place + ': ' if place else ''}{first['msg']}{more}"


def _items_hash(items: Sequence[str]) -> str:
    return hashlib.sha256("\x1f".join(items).encode()).hexdigest()


def _guess_modality(stem: str) -> Modality:
    lowered = stem.lower()
    for word, modality in _MODALITY_WORDS.items():
        if word in lowered:
            return modality
    return "fused"


_MODALITY_WORDS: dict[str, Modality] = {
    "text": "text",
    "minilm": "text",
    "lsa": "text",
    "image": "image",
    "efficientnet": "image",
    "audio": "audio",
    "vggish": "audio",
    "whisper": "audio",
}


def align(
    table: FeatureTable,
    tokens: Sequence[str],
    *,
    zero_rows_missing: bool = False,
    catalogue: Collection[str] = (),
) -> ItemFeatures:
    """The rows of a feature file in the order of `tokens`.

    Args:
        table: the file.
        tokens: item token by internal id; tokens[0] is PAD.
        zero_rows_missing: treat undeclared zero rows as items without the modality.
        catalogue: item tokens of the interaction files, those included that no split has; a file
            without a manifest has rows for them.

    Raises:
        FeatureError: an item has no row, the number of rows is wrong, or values are not finite.
    """
    manifest = table.manifest
    wanted = [str(token) for token in tokens[1:]]
    if manifest.items is None:
        row = _rows_by_number(table, wanted, catalogue)
    else:
        place = {token: i for i, token in enumerate(manifest.items)}
        absent = [token for token in wanted if token not in place]
        if absent:
            raise _absent_items(table, absent, len(wanted))
        row = np.fromiter((place[token] for token in wanted), np.int64, len(wanted))
    missing = set(manifest.missing)
    values = np.zeros((len(tokens), table.matrix.shape[1]), dtype=np.float32)
    for start in range(0, len(row), BLOCK):
        with np.errstate(over="ignore"):  # infinities of float64 are found below
            values[1 + start : 1 + start + BLOCK] = table.matrix[row[start : start + BLOCK]]
        _drop_pages(table.matrix)
    present = np.ones(len(tokens), dtype=bool)
    present[0] = False
    if missing:
        present[1:] = [token not in missing for token in wanted]
    if zero_rows_missing:
        present &= values.any(1)
    missing_now = {wanted[i] for i in np.flatnonzero(~present[1:])}
    _check_values(table.path, values[1:], wanted, missing_now)
    return ItemFeatures(values, present, manifest)


def _drop_pages(matrix: np.ndarray) -> None:
    """Remove the pages read of a memory-mapped matrix from this process's memory."""
    if isinstance(matrix.base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        matrix.base.madvise(mmap.MADV_DONTNEED)


def _absent_items(table: FeatureTable, absent: list[str], items: int) -> FeatureError:
    """The error that items have no row; names a row whose token only looks different."""
    manifest = table.manifest
    alike = {_bare(token): token for token in manifest.items or []}
    pairs = [(token, alike[_bare(token)]) for token in absent if _bare(token) in alike]
    found = f"{len(manifest.items or [])} rows; missing for example item {absent[0]!r}"
    expected = "a row for every item; items without the modality listed under 'missing'"
    hint = "encode the data set's own item table again"
    if pairs:
        found += f"; {pairs[0][1]!r} of {manifest.source} looks like {pairs[0][0]!r}"
        hint = f"write the ids of {manifest.source} and of the interactions alike"
    return FeatureError(
        f"{table.path.name} has no row for {len(absent)} of the data set's {items} items.",
        found=found,
        expected=expected,
        hint=hint,
    )


def _bare(token: str) -> str:
    """A token without what programs that take ids for numbers or text add or remove.

    >>> {_bare(token) for token in ("7", "7.0", " 007 ", "\ufeff7")}
    {'7'}
    """
    bare = token.strip().strip("\ufeff\"'").casefold()
    whole, point, decimals = bare.partition(".")
    if point and whole.isdigit() and not decimals.strip("0"):
        bare = whole
    return bare.lstrip("0") or bare[:1]


def _rows_by_number(
    table: FeatureTable, wanted: list[str], catalogue: Collection[str]
) -> np.ndarray:
    every = [*wanted, *map(str, catalogue)]
    other = next((token for token in every if not is_row_number(token)), None)
    if other is not None:
        raise FeatureError(
            f"{table.path.name} has no manifest, and item tokens are not row numbers.",
            found=f"item {other!r}",
            expected=f"a manifest {table.path.stem}.json naming the item of each row",
            hint="write the features with alignrec_recbole.features.table.save_features",
        )
    numbers = np.array([int(token) for token in every], dtype=np.int64)
    rows, first, last = len(table.matrix), numbers.min(), numbers.max()
    if last + 1 != rows and first == 1 and last == rows:
        raise FeatureError(
            f"The item ids start at 1, and {table.path.name} has no row 0.",
            found=f"{rows} rows; item ids run from 1 to {last}",
            expected=f"{last + 1} rows: row n belongs to item n, and row 0 is unused",
            hint="put a row in front of the others, or number the items from 0",
        )
    if last + 1 != rows:
        raise FeatureError(
            f"{table.path.name} does not have one row per item.",
            found=f"{rows} rows",
            expected=f"{last + 1}: item ids run from {first} to {last}",
            hint="use the file of this data set, or add a manifest that names the rows",
        )
    return numbers[: len(wanted)]


def is_row_number(token: str) -> bool:
    """Decimal digits without leading zeros, few enough for an array's length."""
    return token.isascii() and token.isdigit() and len(token) < 16 and str(int(token)) == token


def _check_values(path: Path, matrix: np.ndarray, tokens: list[str], missing: set[str]) -> None:
    finite = _by_rows(matrix, lambda rows: np.isfinite(rows).all(1))
    if not finite.all():
        bad = np.flatnonzero(~finite)
        raise FeatureError(
            f"{path.name} holds values that are not finite.",
            found=f"NaN or infinity in {len(bad)} rows, for example item {tokens[bad[0]]!r}",
            expected="finite numbers within float32; a zero row listed under 'missing' where there "
            "is nothing",
            hint="encode these items again",
        )
    zero = ~_by_rows(matrix, lambda rows: rows.any(1))
    undeclared = [i for i in np.flatnonzero(zero) if tokens[i] not in missing]
    if undeclared:
        raise FeatureError(
            f"{path.name} has zero rows that are not declared missing.",
            found=f"{len(undeclared)} zero rows, for example item {tokens[undeclared[0]]!r}",
            expected="items without the modality listed under 'missing' in the manifest",
            hint="declare them, or pass --set zero_rows_missing=true",
        )
    filled = [i for i in np.flatnonzero(~zero) if tokens[i] in missing]
    if filled:
        raise FeatureError(
            f"{path.name} has values for items that are declared missing.",
            found=f"{len(filled)} rows, for example item {tokens[filled[0]]!r}",
            expected="zero rows for missing items",
            hint="correct the list 'missing' in the manifest",
        )


def _by_rows(matrix: np.ndarray, test: Callable[[np.ndarray], Any]) -> np.ndarray:
    """bool [n] of a test in blocks of rows, since the matrix may be memory-mapped."""
    starts = range(0, max(1, len(matrix)), BLOCK)
    blocks = (matrix[start : start + BLOCK] for start in starts)
    return np.concatenate([test(block) for block in blocks])


def manifest_summary(manifest: FeatureManifest) -> dict[str, Any]:
    """The manifest without its long lists, for run records."""
    lists = ("missing", "without_text", "without_image")
    summary = json.loads(manifest.model_dump_json(exclude={"items", *lists}))
    return {**summary, **{name: len(getattr(manifest, name)) for name in lists}}
