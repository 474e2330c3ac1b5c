"""Archives of a released split with its features: to `NAME.inter` and feature files.

`train.txt`, `valid.txt` and `test.txt` are tab-separated with the columns USER and ITEM, numbers
from 0; `visual_modality.pkl`, `textual_modality.pkl` and, of TikTok, `acoustic_modality.pkl` are
pickled torch tensors whose row is the item's number.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from alignrec_recbole.data.cards import split_sha256
from alignrec_recbole.data.interactions import read_interactions
from alignrec_recbole.errors import DataError, FeatureError
from alignrec_recbole.features.published import (
    CONTENT_KEY,
    GROUP_KEY,
    feature_path,
)
from alignrec_recbole.features.row_order import RowOrder, row_order
from alignrec_recbole.features.table import Modality, save_features
from alignrec_recbole.io.archives import Archive, open_archive
from alignrec_recbole.io.files import atomic_write, sha256_file
from alignrec_recbole.io.pickled_arrays import read_matrix

SPLITS = ("train.txt", "valid.txt", "test.txt")
FEATURES: dict[Modality, str] = {
    "image": "visual_modality.pkl",
    "text": "textual_modality.pkl",
    "audio": "acoustic_modality.pkl",
}
MAX_SPLIT = 1 << 30  # bytes
MAX_WIDTH = 1 << 14  # columns of a matrix; float64
OVERHEAD = 1 << 20  # bytes of a pickle besides its numbers


def convert(
    path: Path,
    folder: Path,
    dataset: str,
    group: str,
    *,
    expected: Mapping[str, Any],
    split_hash: str | None,
    content: Mapping[str, str],
    url: str,
) -> list[str]:
    """Write the interactions and the features of an archive; returns what was found, as sentences.

    An existing `NAME.inter` stays if it has the same rows. The features are checked for shape,
    finite values and, against the interactions, for the order of their rows.

    Args:
        path: of the archive.
        folder: of the data set.
        dataset: its name.
        group: name of the features: see features/published.py.
        expected: users, items and rows per split, as far as they are known.
        split_hash: `cards.split_sha256` of the released split, if it is known.
        content: modality → hash of the features, as far as they are known.
        url: where the archive is published.

    Raises:
        DataError: the archive is damaged or hostile, or has other counts.
        FeatureError: a pickle is no matrix, or does not fit the interactions.
        WriteError: the disk is full.
    """
    with open_archive(path, (*SPLITS, *FEATURES.values())) as archive:
        rows = _read_splits(archive)
        items = _check_counts(archive, rows, expected)
        _check_split(archive, rows, split_hash)
        said = [_write_interactions(rows, folder / f"{dataset}.inter")]
        if split_hash is not None:
            said[0] += "; row for row the released split (sha256)"
        train = rows[rows["label"] == 0]
        pairs = train["user"].to_numpy(), train["item"].to_numpy()
        digest = sha256_file(path)
        for modality, member in FEATURES.items():
            if member not in archive:
                continue
            matrix = _read_features(archive, member, items)
            order = row_order(matrix, *pairs)
            _check_order(archive, member, order)
            hashed = content_hash(matrix)
            _check_content(archive, member, hashed, content.get(modality))
            known = "the known content" if modality in content else "content pinned on first use"
            shape = " × ".join(map(str, matrix.shape))
            said.append(f"{modality}: {shape}, order of rows {_sure(order)}, {known}")
            zero = [str(row) for row in np.flatnonzero(~matrix.any(1))]
            save_features(
                feature_path(folder, group, modality),
                matrix,
                name=f"{group}-{modality}",
                modality=modality,
                encoder=f"published with {group}",
                settings={
                    GROUP_KEY: group,
                    CONTENT_KEY: hashed,
                    "content_is_known": modality in content,
                    "archive": path.name,
                    "archive_sha256": digest,
                    "url": url,
                    "row_order": order.as_dict(),
                },
                source=f"{path.name}/{member}",
                items=[str(item) for item in range(items)],
                missing=zero,
                notes=[] if order.is_confirmed else [f"order of rows {_sure(order)}"],
            )
        if len(said) == 1:
            raise DataError(
                f"The archive {path.name} has no features.",
                found=f"none of {', '.join(FEATURES.values())}",
                expected="at least one of them",
            )
    return said


def content_hash(matrix: np.ndarray) -> str:
    """SHA-256 of the float32 values row by row, whatever file they are from."""
    digest = hashlib.sha256(str(matrix.shape).encode())
    for start in range(0, len(matrix), 1024):
        rows = np.ascontiguousarray(matrix[start : start + 1024], dtype="<f4")
        digest.update(rows.tobytes())
    return digest.hexdigest()


def _read_splits(archive: Archive) -> pd.DataFrame:
    """Rows with user, item and label in the archive's order."""
    parts = []
    for label, name in enumerate(SPLITS):
        content = archive.read(name, MAX_SPLIT)
        _check_widths(archive, name, content)
        try:
            cells = pd.read_csv(
                io.BytesIO(content), sep="\t", dtype=str, keep_default_na=False, quoting=3,
                encoding="utf-8-sig", index_col=False,
            )  # fmt: skip
        except (ValueError, pd.errors.ParserError) as error:
            raise _bad_split(archive, name, str(error).splitlines()[0]) from error
        columns = [column.partition(":")[0].upper() for column in cells.columns]
        if "USER" not in columns or "ITEM" not in columns or len(set(columns)) < len(columns):
            raise _bad_split(archive, name, f"columns {', '.join(cells.columns):.200}")
        cells.columns = pd.Index(columns)
        part = {}
        for column in ("USER", "ITEM"):
            digits = cells[column].str.fullmatch(r"[0-9]{1,9}").to_numpy(bool)
            if not digits.all():
                row = int(np.flatnonzero(~digits)[0])
                raise _bad_split(
                    archive, name, f"{cells[column].iloc[row]!r} as {column} in line {row + 2}"
                )
            part[column.lower()] = cells[column].astype(np.int64).to_numpy()
        if not len(cells):
            raise _bad_split(archive, name, "no rows")
        parts.append(pd.DataFrame({**part, "label": label}))
    rows = pd.concat(parts, ignore_index=True)
    repeated = rows.duplicated(["user", "item"])
    if repeated.any():
        user, item, label = rows.loc[repeated, ["user", "item", "label"]].iloc[0]
        raise _bad_split(archive, SPLITS[label], f"user {user} and item {item} for the second time")
    return rows


def _check_widths(archive: Archive, name: str, content: bytes) -> None:
    """Refuse lines with another number of cells than the header: a reader would shift them."""
    lines = content.splitlines()
    widths = [(number, line.count(b"\t") + 1) for number, line in enumerate(lines, 1) if line]
    if odd := next((each for each in widths if each[1] != widths[0][1]), None):
        number, cells = odd
        found = f"{cells} cells in line {number}, {widths[0][1]} in the header"
        raise _bad_split(archive, name, found)


def _bad_split(archive: Archive, name: str, found: str) -> DataError:
    return DataError(
        f"{name} of {archive.path.name} is not a split.",
        found=found,
        expected="a header with USER and ITEM, tab-separated, then numbers from 0, each pair once",
    )


def _check_counts(archive: Archive, rows: pd.DataFrame, expected: Mapping[str, Any]) -> int:
    """The number of items; users and items are numbered without gaps, as many as are known."""
    found: dict[str, Any] = {"interactions": np.bincount(rows["label"], minlength=3).tolist()}
    for column, name in (("user", "users"), ("item", "items")):
        found[name] = int(rows[column].max()) + 1
        used = rows[column].nunique()
        if used != found[name]:
            raise DataError(
                f"The {name} of {archive.path.name} are not numbered without gaps.",
                found=f"{used:,} {name}, numbers up to {found[name] - 1:,}",
                expected="every number from 0 on",
            )
    wrong = {name: value for name, value in expected.items() if found.get(name, value) != value}
    if wrong:
        raise DataError(
            f"{archive.path.name} is not the released split.",
            found="; ".join(f"{found[name]} {name}" for name in wrong),
            expected="; ".join(f"{value} {name}" for name, value in wrong.items()),
            hint=f"delete {archive.path} and try again later, or from another address",
        )
    return int(found["items"])


def _check_split(archive: Archive, rows: pd.DataFrame, known: str | None) -> None:
    """Compare the rows with the released split, if its hash is known."""
    if known is None:
        return
    found = split_sha256(rows.itertuples(index=False, name=None))
    if found != known:
        raise DataError(
            f"{archive.path.name} is not the released split.",
            found=f"sha256 {found} of its rows",
            expected=f"sha256 {known}",
            hint=f"delete {archive.path} and try again later, or from another address",
        )


def _write_interactions(rows: pd.DataFrame, path: Path) -> str:
    """Write `NAME.inter`, or compare it with an existing one."""
    counts = "/".join(f"{count:,}" for count in np.bincount(rows["label"]))
    if not os.path.lexists(path):
        table = rows.set_axis(["userID", "itemID", "x_label"], axis=1)
        with atomic_write(path, "w") as handle:
            table.to_csv(handle, sep="\t", index=False, lineterminator="\n")
        return f"interactions: {counts}"
    there = read_interactions(path)
    if there.labels is None:
        same = False
    else:
        own = set(
            zip(rows["user"].astype(str), rows["item"].astype(str), rows["label"], strict=True)
        )
        same = own == set(zip(there.users, there.items, there.labels.tolist(), strict=True))
    if not same:
        raise DataError(
            f"The existing {path.name} has other interactions than the archive.",
            found=f"{len(there.users):,} rows in {path}",
            expected=f"the {len(rows):,} rows of the archive with the same split",
            hint="move the existing file away, or choose another --data-path",
        )
    return f"interactions: {counts}, the same as in the {path.name} that was there"


def _read_features(archive: Archive, member: str, items: int) -> np.ndarray:
    content = archive.read(member, 8 * items * MAX_WIDTH + OVERHEAD)
    matrix = read_matrix(content, member)
    if len(matrix) != items:
        raise FeatureError(
            f"{member} of {archive.path.name} does not have one row per item.",
            found=f"{len(matrix):,} rows",
            expected=f"{items:,} rows",
        )
    return matrix


def _check_order(archive: Archive, member: str, order: RowOrder) -> None:
    if order.is_contradicted:
        raise FeatureError(
            f"The rows of {member} in {archive.path.name} are in another order than the items.",
            found=f"the rows fit the interactions {order.shift:+d} rows away "
            f"({order.errors_at_shift:.0f} standard errors), in place {order.errors:.0f}",
            expected="row = item number",
        )


def _check_content(archive: Archive, member: str, found: str, known: str | None) -> None:
    if known is not None and known != found:
        raise FeatureError(
            f"{member} of {archive.path.name} does not have the published features.",
            found=f"content {found}",
            expected=f"content {known}",
        )


def _sure(order: RowOrder) -> str:
    """How sure the order of the rows is."""
    if order.is_confirmed:
        return (
            f"confirmed by the interactions ({order.errors:.0f} standard errors over random pairs, "
            f"{order.pairs:,} pairs)"
        )
    return (
        f"not confirmed by the interactions ({order.errors:.1f} standard errors over random pairs)"
    )
