"""Per-user values and top-K lists beside a record: one writer, one reader."""

from __future__ import annotations

import math
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from alignrec_recbole.errors import RecordError
from alignrec_recbole.io.files import atomic_write, sha256_file, sha256_of
from alignrec_recbole.io.opening import open_input
from alignrec_recbole.runs.record import Run
from alignrec_recbole.runs.record_fields import LARGEST

if TYPE_CHECKING:
    from alignrec_recbole.evaluation.ranking import Ranking
    from alignrec_recbole.runs.prepared import PreparedRun

MAX_BYTES = 8 << 30  # of all arrays; 10 million users with lists of 50 have 4 GiB
LIST_LENGTH = 50  # items per user in stored lists; more where a metric needs them


@dataclass(frozen=True)
class UserValues:
    """The contents of a `.users.npz`.

    Attributes:
        users: tokens of the ranked users [n].
        items: tokens of the ranked columns, PAD first.
        top: [n, K], positions in `items`, best first; −1 where a list ends.
        values: metric → one value per user [n].
    """

    users: np.ndarray
    items: np.ndarray
    top: np.ndarray
    values: dict[str, np.ndarray]


def write_user_values(
    prepared: PreparedRun,
    ranking: Ranking,
    values: dict[str, np.ndarray],
    columns: np.ndarray | slice = slice(None),
) -> dict[str, str]:
    """Write per-user values and top-K lists beside the record; returns file name and SHA-256.

    Args:
        columns: internal ids of the ranked columns; default: all items.
    """
    dataset = prepared.splits[0]
    path = prepared.path("runs", ".users.npz")
    with atomic_write(path) as handle:
        np.savez_compressed(
            handle,
            users=dataset.field2id_token[dataset.uid_field][ranking.users].astype(str),
            items=dataset.field2id_token[dataset.iid_field][columns].astype(str),
            top=ranking.items.astype(np.int32, copy=False),
            targets=ranking.targets.astype(np.int32),
            **values,  # type: ignore[arg-type]
        )
    return {"file": path.name, "sha256": sha256_file(path)}


def user_values_path(run: Run) -> Path | None:
    """Path of a record's per-user values, or None if they are not stored beside it."""
    described = run.record.per_user  # a name of its own: see read_record
    path = run.path.parent / described["file"] if described else None
    return path if path is not None and os.path.lexists(path) else None


def read_user_values(run: Run) -> UserValues | None:
    """Per-user values and lists of a record, or None if they are not stored beside it.

    Raises:
        RecordError: the file is damaged or is not the one that the record describes.
    """
    path = user_values_path(run)
    if path is None:
        return None
    assert run.record.per_user is not None
    expected = str(run.record.per_user.get("sha256"))
    with open_input(path, what="per-user values", error=RecordError) as handle:
        found = sha256_of(handle)
    if found != expected:
        raise RecordError(
            f"{path.name} is not the file that its record describes.",
            found=f"SHA-256 {found[:12]}…",
            expected=f"{expected[:12]}…",
            hint=f"run the model again with --overwrite, or delete {path}",
        )
    try:
        with open_input(path, what="per-user values", error=RecordError) as handle:
            _check_sizes(handle)
            with np.load(handle, allow_pickle=False) as stored:
                values = UserValues(
                    users=stored["users"],
                    items=stored["items"] if "items" in stored else np.empty(0, dtype=str),
                    top=stored["top"] if "top" in stored else np.empty((0, 0), dtype=np.int32),
                    values={name: stored[name] for name in stored.files if "@" in name},
                )
        _check_shapes(values)
    except RecordError:
        raise
    except Exception as error:  # zipfile, zlib, NumPy and missing names each have their own
        raise RecordError(
            f"{path.name} has no usable per-user values.",
            found=f"{type(error).__name__}: {error}",
            expected="arrays 'users', 'items', 'top' and one per metric",
            hint=f"run the model again with --overwrite, or delete {path}",
        ) from error
    return values


def _check_sizes(handle: BinaryIO) -> None:
    """Refuse arrays that are larger than their part of the file before they are allocated.

    Raises:
        ValueError: with the name of the array.
    """
    with zipfile.ZipFile(handle) as archive:
        parts = archive.infolist()
        if sum(part.file_size for part in parts) > MAX_BYTES:
            raise ValueError(f"more than {MAX_BYTES:,} bytes")
        for part in parts:
            with archive.open(part) as member:
                version = np.lib.format.read_magic(member)
                read = np.lib.format.read_array_header_1_0
                if version != (1, 0):
                    read = np.lib.format.read_array_header_2_0
                shape, _, dtype = read(member)
                if not dtype.itemsize:
                    raise ValueError(f"{part.filename} has values of no size")
                if math.prod(shape) * dtype.itemsize != part.file_size - member.tell():
                    raise ValueError(f"{part.filename} has another size than its header says")
    handle.seek(0)


def _check_shapes(values: UserValues) -> None:
    """Refuse arrays that do not belong together.

    Raises:
        ValueError: with the name of the array.
    """
    rows = len(values.users)
    for name, tokens in (("users", values.users), ("items", values.items)):
        if tokens.ndim != 1 or tokens.dtype.kind != "U":
            raise ValueError(f"{name} is no list of tokens")
    if len(np.unique(values.users)) != rows:
        raise ValueError("users repeat")
    for name, column in values.values.items():
        if column.shape != (rows,) or column.dtype.kind != "f" or not np.isfinite(column).all():
            raise ValueError(f"{name} is not one finite number per user")
        if np.abs(column).max(initial=0) > LARGEST:
            raise ValueError(f"{name} has numbers above {LARGEST:g}")
    top = values.top
    if top.size == 0:
        return
    if top.ndim != 2 or len(top) != rows or top.dtype.kind != "i":
        raise ValueError("top is not one list per user")
    if top.min() < -1 or top.max() >= len(values.items):
        raise ValueError("top has positions outside of items")
