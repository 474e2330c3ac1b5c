"""Models on users, items and features that are written down in a test."""

from __future__ import annotations

import types
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from alignrec_recbole.registry.components import components
from benchmarks.reference.checkout import NoneDict


def build(
    name: str,
    sets: Mapping[str, Any],
    pairs: Sequence[tuple[int, int]],
    *,
    missing: Mapping[str, Collection[int]] | None = None,
    **settings: Any,
) -> Any:
    """A model on users 1 … and items 1 …; `sets`: modality → rows, PAD's among them.

    `missing`: modality → items that do not have it.
    """
    users, items = (np.array(ids) for ids in zip(*pairs, strict=True))
    count = len(next(iter(sets.values())))
    without = missing or {}
    dataset = types.SimpleNamespace(
        num=lambda field: {"u": users.max() + 1, "i": count}[field],
        features={
            kind: types.SimpleNamespace(
                modality=kind,
                values=np.array(rows, dtype=np.float32),
                present=~np.isin(np.arange(count), [0, *without.get(kind, ())]),
            )
            for kind, rows in sets.items()
        },
        pairs=lambda: (users, items),
        uid_field="u",
        iid_field="i",
        field2id_token={
            field: ["[PAD]", *map(str, range(1, size))]
            for field, size in (("u", users.max() + 1), ("i", count))
        },
    )
    names = {"USER_ID_FIELD": "u", "ITEM_ID_FIELD": "i", "NEG_PREFIX": "neg_", "device": "cpu"}
    parts = components(name)
    config = NoneDict({**parts.defaults, **settings, **names})
    return parts.model_class(config, dataset)
