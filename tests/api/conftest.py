"""Small trained models of every kind of score, made once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from alignrec_recbole import Dataset, RunRecord, run

Records = dict[tuple[str, str], RunRecord]  # (model, convention) → record

MODELS = {  # name → what its score is computed from
    "BPR": "vectors",
    "AlignRec": "vectors",
    "Pop": "vectors",
    "EASE": "similarity",
    "ItemKNN": "similarity",
    "ItemKNNCBF": "similarity",
    "CEASE": "similarity",
    "ContentRidge": "vectors",
    "DMF": "scores",
}


RANKED_BOTH_WAYS = ("BPR", "Pop")


def frames(users: int = 150, items: int = 90) -> dict[str, pd.DataFrame]:
    """Interactions with a split and times, and texts; tokens are words, numbers and blanks."""
    random = np.random.default_rng(5)
    rows = []
    for user in range(users):
        liked = random.permutation(np.arange(user % 3, items, 3))[:10]
        labels = ["train"] * 6 + ["valid"] * 2 + ["test"] * 2
        rows += [
            (f"u {user}", f"{item:04}", label, 10.0 * place)
            for place, (item, label) in enumerate(zip(liked, labels, strict=True))
        ]
    kinds = ("red running shoes", "green herbal tea", "a quiet novel")
    texts = [(f"{item:04}", f"{kinds[item % 3]} number {item}") for item in range(items)]
    return {
        "interactions": pd.DataFrame(rows, columns=["user", "item", "split", "time"]),
        "items": pd.DataFrame(texts, columns=["item", "title"]),
    }


@pytest.fixture(scope="session")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of their records."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="session")
def records(output: Path, tmp_path_factory: pytest.TempPathFactory) -> Records:
    """(model, convention) → record."""
    data = Dataset.from_frames(**frames(), name="small", folder=tmp_path_factory.mktemp("data"))
    return {
        (name, convention): run(
            model=name,
            dataset=data,
            output=output,
            epochs=2,
            convention=convention,
            progress=False,
        )[0]
        for name in MODELS
        for convention in (("mmrec", "recbole") if name in RANKED_BOTH_WAYS else ("mmrec",))
    }
