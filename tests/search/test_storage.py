"""Storages of studies."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from alignrec_recbole.errors import AlignRecError
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


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("mssql://me:secret@host/studies", "mssql://me:***@host/studies"),
        ("mssql://host/studies?user=me&password=secret", "mssql://host/studies"),
        ("redis://host/0?password=secret", "redis://host/0"),
        ("sqlite://?password=secret", "sqlite://"),
        ("mysql://me:secret@host:port/studies", "mysql://…"),
    ],
)
def test_errors_show_addresses_without_passwords(url: str, shown: str) -> None:
    with pytest.raises(AlignRecError) as refused:
        Storage(url)
    assert shown in str(refused.value)
    assert "secret" not in str(refused.value)
