"""What save_features takes: the usual forms of a matrix, and a sentence for everything else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch

from alignrec_recbole import load_features, save_features
from alignrec_recbole.errors import FeatureError

ROWS = [[0.5, 1.0], [2.0, -1.0]]
IDS = ["a", "b"]


def save(path: Path, matrix: Any, items: Any = IDS, **changed: Any) -> np.ndarray:
    about = {"name": "f", "modality": "text", "encoder": "e", "settings": {}, "source": "s"}
    save_features(path / "f.npy", matrix, **{**about, "items": items, **changed})
    return np.asarray(load_features(path / "f.npy").matrix)


@pytest.mark.parametrize(
    "matrix",
    [
        ROWS,
        tuple(map(tuple, ROWS)),
        np.array(ROWS),
        np.asfortranarray(np.array(ROWS, dtype=np.float32)),
        torch.tensor(ROWS, requires_grad=True),
        torch.tensor(ROWS, dtype=torch.bfloat16),
        pd.DataFrame(ROWS),
        pd.DataFrame(ROWS, index=IDS, columns=["x", "y"]),
    ],
    ids=["list", "tuples", "float64", "fortran", "tensor", "bfloat16", "frame", "indexed"],
)
def test_the_usual_forms_are_written_alike(tmp_path: Path, matrix: Any) -> None:
    written = save(tmp_path, matrix)
    assert written.dtype == np.float32
    assert written.tolist() == ROWS


def test_half_precision_stays_and_whole_ids_become_text(tmp_path: Path) -> None:
    written = save(tmp_path, torch.tensor(ROWS).half(), items=np.array([7, 8]))
    assert written.dtype == np.float16
    assert load_features(tmp_path / "f.npy").manifest.items == ["7", "8"]


def test_the_default_index_of_a_frame_names_no_items(tmp_path: Path) -> None:
    """Numbers of the rows, whose set is that of the items by chance."""
    frame = pd.DataFrame({"item": [2, 0, 1], "x": [0.25, 0.5, 0.75]})
    written = save(tmp_path, frame[["x"]], items=frame["item"])
    assert load_features(tmp_path / "f.npy").manifest.items == ["2", "0", "1"]
    assert written[:, 0].tolist() == [0.25, 0.5, 0.75]


def test_a_frame_indexed_by_items_in_another_order_is_refused(tmp_path: Path) -> None:
    frame = pd.DataFrame({"x": [0.25, 0.5, 0.75]}, index=pd.Index([2, 0, 1]))
    with pytest.raises(FeatureError, match=r"another order[^$]*to_numpy\(\)"):
        save(tmp_path, frame, items=[0, 1, 2])
    named = pd.DataFrame({"x": [0.25, 0.5]}, index=pd.RangeIndex(2, name="item"))
    with pytest.raises(FeatureError, match="another order"):
        save(tmp_path, named, items=[1, 0])


@pytest.mark.parametrize(
    ("matrix", "changed", "words"),
    [
        ([[1.0], [2.0, 3.0]], {}, ("not a matrix of numbers", "list")),
        (pd.DataFrame({"id": IDS, "x": [1.0, 2.0]}), {}, ("not a matrix of numbers", "object")),
        ([["a"], ["b"]], {}, ("not a matrix of numbers", "<U1")),
        (None, {}, ("not a matrix of numbers", "NoneType")),
        (sp.csr_matrix(np.array(ROWS)), {}, ("not a matrix of numbers", "csr_matrix")),
        (np.array(ROWS) * 1j, {}, ("not a matrix of numbers", "complex")),
        (torch.eye(2).to_sparse(), {}, ("not a matrix of numbers", "Tensor")),
        ([1.0, 2.0], {}, ("do not fit their items", "(2,)")),
        ([[1e300], [1.0]], {}, ("not finite", "'a'")),
        (pd.DataFrame(ROWS, index=IDS[::-1]), {}, ("another order", "row 1 is item 'b'")),
        (ROWS, {"items": "ab"}, ("no list of ids", "str 'ab'")),
        (ROWS, {"items": ["a", 1.5]}, ("no list of ids", "float 1.5")),
        (ROWS, {"missing": "a"}, ("no list of ids", "missing items")),
        (ROWS, {"modality": "words"}, ("would not be valid", "modality")),
        (ROWS, {"settings": {"net": object()}}, ("would not be valid", "object")),
    ],
    ids=[
        "ragged", "ids", "words", "nothing", "sparse", "complex", "sparse-tensor", "vector",
        "too-large", "order", "one-text", "fraction", "missing-text", "modality", "settings",
    ],
)  # fmt: skip
def test_everything_else_is_refused_in_a_sentence_and_nothing_is_written(
    tmp_path: Path, matrix: Any, changed: dict[str, Any], words: tuple[str, ...]
) -> None:
    with pytest.raises(FeatureError) as caught:
        save(tmp_path, matrix, **changed)
    for word in words:
        assert word in str(caught.value)
    assert list(tmp_path.iterdir()) == []
