"""How many cells run at once follows the largest cell, the free cores and the memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from alignrec_recbole.runtime import threads
from alignrec_recbole.suites.job_count import choose_jobs
from alignrec_recbole.suites.schema import Cell
from alignrec_recbole.training import memory_estimate


def cells(*models: str, features: str = "", dataset: str = "ml-100k") -> list[Cell]:
    """One cell per model."""
    own = [f"--features={features}"] if features else []
    return [
        Cell(arguments=[f"--model={model}", *own], dataset=dataset, protocol="full")
        for model in models
    ]


@pytest.mark.parametrize(
    ("given", "per_thread", "expected"),
    [
        (cells("BPR", "LightGCN", "BPR", "BPR", "BPR"), 1 << 19, 5),
        (cells("BPR"), 1 << 19, 1),
        (cells("BPR", "LightGCN", "BPR"), 60_000, 2),  # three threads each
        (cells("BPR", "AlignRec", "BPR"), 200_000, 2),  # the features count: three threads
        (cells("BPR", "LightGCN", "BPR", features="lsa"), 200_000, 3),  # they read none
        (cells("BPR", "nobody", dataset="nowhere"), 1 << 19, 2),
    ],
)
def test_as_many_as_the_largest_cell_lets(
    given: list[Cell],
    per_thread: int,
    expected: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(threads, "free_cores", lambda: 6)
    monkeypatch.setattr(threads, "NUMBERS_PER_THREAD", per_thread)
    monkeypatch.setattr(memory_estimate, "available_bytes", lambda *_: 64 << 30)

    def count() -> int:
        return choose_jobs(given, data_path=None, features_path=None, output=tmp_path, device="cpu")

    assert count() == expected
    monkeypatch.setattr(memory_estimate, "available_bytes", lambda *_: 1 << 30)
    assert count() == 1


def test_features_that_are_no_matrix_do_not_end_the_suite(tmp_path: Path) -> None:
    np.save(tmp_path / "flat.npy", np.zeros(5, dtype=np.float32))
    jobs = choose_jobs(
        cells("VBPR", "BPR", features="flat"), data_path=None, features_path=tmp_path,
        output=tmp_path / "out", device="cpu",
    )  # fmt: skip
    assert jobs >= 1
