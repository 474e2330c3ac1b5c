"""Per-user values and top-K lists beside a record: one writer, one reader."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from alignrec_recbole.errors import RecordError
from alignrec_recbole.io.files import atomic_write, sha256_file
from alignrec_recbole.runs.record import Run

if TYPE_CHECKING:
    from alignrec_recbole.evaluation.ranking import Ranking
    from alignrec_recbole.runs.prepare import PreparedRun

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
            top=ranking.items.astype(np.int32),
            targets=ranking.targets.astype(np.int32),
            **values,  # type: ignore[arg-type]
        )
    return {"file": path.name, "sha256": sha256_file(path)}


def user_values_path(run: Run) -> Path | None:
    """Path of a record's per-user values, or None if they are not stored beside it."""
    described = run.record.per_user
    path = run.path.parent / described["file"] if described else None
    return path if path is not None and path.is_file() else None


def read_user_values(run: Run) -> UserValues | None:
    """Per-user values and lists of a record, or None if they are not stored beside it.

    Raises:
        RecordError: the file is damaged or is not the one that the record describes.
    """
    path = user_values_path(run)
    if path is None:
        return None
    assert run.record.per_user is not None
    expected = run.record.per_user["sha256"]
    if (found := sha256_file(path)) != expected:
        raise RecordError(
            f"{path.name} is not the file that its record describes.",
            found=f"SHA-256 {found[:12]}…",
            expected=f"{expected[:12]}…",
            hint="run the model again with --overwrite, or delete the file",
        )
    try:
        with np.load(path, allow_pickle=False) as stored:
            return UserValues(
                users=stored["users"],
                items=stored["items"] if "items" in stored else np.empty(0, dtype=str),
                top=stored["top"] if "top" in stored else np.empty((0, 0), dtype=np.int32),
                values={name: stored[name] for name in stored.files if "@" in name},
            )
    except (KeyError, ValueError, zipfile.BadZipFile) as error:
        raise RecordError(
            f"{path.name} has no usable per-user values.",
            found=str(error),
            expected="arrays 'users', 'items', 'top' and one per metric",
            hint="run the model again with --overwrite",
        ) from error
