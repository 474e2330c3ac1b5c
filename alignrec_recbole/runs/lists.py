"""Per-user values and top-K lists beside a record."""

from __future__ import annotations

import numpy as np

from alignrec_recbole.evaluation.ranking import Ranking
from alignrec_recbole.io.files import atomic_write, sha256_file
from alignrec_recbole.runs.prepare import Prepared

LIST_LENGTH = 50  # items a user kept in top-K lists, more where a metric asks for them


def save_lists(
    prepared: Prepared,
    ranking: Ranking,
    values: dict[str, np.ndarray],
    columns: np.ndarray | slice = slice(None),
) -> dict[str, str]:
    """Per-user values and top-K lists beside the record; `top` counts in `items`, PAD first.

    Args:
        columns: internal ids of the columns that were ranked; default all items.
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
