"""Storages of studies."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

from alignrec_recbole.search.study import Storage


def test_workers_that_start_together_share_a_new_storage(tmp_path: Path) -> None:
    """Each finds no tables and begins to make them; all but one find them made by another."""
    workers = 4
    for attempt in range(3):
        url, barrier = f"sqlite:///{tmp_path / f'{attempt}.db'}", Barrier(workers)

        def open_storage(_: int, url: str = url, barrier: Barrier = barrier) -> int:
            barrier.wait()
            return len(Storage(url).optuna.get_all_studies())

        with ThreadPoolExecutor(workers) as pool:
            assert list(pool.map(open_storage, range(workers))) == [0] * workers
