"""A `--cache` of results by name, which several processes may add to at the same time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock

from alignrec_recbole.io.files import atomic_write


def read_results(cache: Path | None) -> dict[str, Any]:
    """What a cache has; nothing if there is none."""
    if cache is None or not cache.exists():
        return {}
    found: dict[str, Any] = json.loads(cache.read_text())
    return found


@contextmanager
def changed_results(cache: Path | None, known: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What a cache has now, written back after the block has changed it; `known` without a cache.

    One process at a time is in the block, so no result of another one is lost.
    """
    if cache is None:
        yield known
        return
    with FileLock(cache.with_name(f".{cache.name}.lock")):
        found = read_results(cache)
        yield found
        with atomic_write(cache, "w") as handle:
            json.dump(found, handle, indent=1)
