"""A small data set and the order of a search on it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from two_blocks import write_two_blocks

from alignrec_recbole.runs.spec import RunSpec

SPACE = {
    "learning_rate": {"low": 1e-3, "high": 1e-1, "log": True},
    "reg_weight": {"low": 1e-4, "high": 1.0, "log": True},
}


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """Folder with the data set `two`."""
    folder = tmp_path / "data"
    folder.mkdir()
    write_two_blocks(folder)
    return folder


@pytest.fixture
def order_of(two: Path, tmp_path: Path) -> Callable[..., Any]:
    """Makes orders that differ in what is given."""
    pytest.importorskip("optuna", reason="the extra 'search' is not installed")
    from alignrec_recbole.search.tuning import Order

    def make(folder: str = "out", epochs: int = 2, **given: Any) -> Order:
        output = tmp_path / folder
        spec = RunSpec(
            "BPR",
            "two",
            data_path=two,
            output=output,
            epochs=epochs,
            seed=1,
            overrides={"valid_metric": "NDCG@5", "train_batch_size": 64},
            progress=False,
            save=False,
            device="cpu",
        )
        usual: dict[str, Any] = {
            "seeds": (1,),
            "space": SPACE,
            "study": "toy/BPR",
            "storage": f"sqlite:///{output / 'studies' / 'toy.db'}",
            "trials": 4,
        }
        return Order(spec, **{**usual, **given})

    return make
