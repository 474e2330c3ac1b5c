"""Figures of a trained model's views against loops over pairs, and the script that follows them."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from alignrec_recbole.errors import RecordError
from alignrec_recbole.protocols import diagnostics
from alignrec_recbole.protocols.diagnostics import geometry, nearest, shared
from benchmarks import geometry as script


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def closest(rows: np.ndarray, k: int) -> list[set[int]]:
    similar = unit(rows) @ unit(rows).T
    np.fill_diagonal(similar, -9)
    return [set(np.argsort(-row)[:k].tolist()) for row in similar]


def test_figures_equal_their_slow_twins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnostics, "NEIGHBOURS", 3)
    monkeypatch.setattr(diagnostics, "BLOCK_BYTES", 4 * 12 * 5)  # several blocks
    rng = np.random.default_rng(0)
    users, items = rng.normal(size=(9, 4)), rng.normal(size=(12, 4))
    other = rng.normal(size=(9, 4)), rng.normal(size=(12, 4))
    features = rng.normal(size=(12, 6))
    features[[2, 5]] = 0
    pairs = rng.integers(0, 9, 30), rng.integers(0, 12, 30)
    views = {
        name: tuple(torch.from_numpy(part).float() for part in parts)
        for name, parts in (("id", (users, items)), ("mm", other))
    }
    found = geometry(views, pairs, torch.from_numpy(features).float())

    distances = [
        ((unit(users)[u] - unit(items)[i]) ** 2).sum() for u, i in zip(*pairs, strict=True)
    ]
    assert found["id alignment"] == pytest.approx(np.mean(distances), abs=1e-5)
    for side, rows in (("users", users), ("items", items)):
        one = unit(rows)
        kernel = [
            math.exp(-2 * ((one[a] - one[b]) ** 2).sum())
            for a in range(len(one))
            for b in range(len(one))
            if a != b
        ]
        expected = math.log(sum(kernel) / len(kernel))
        assert found[f"id uniformity {side}"] == pytest.approx(expected, abs=1e-5)
        share = np.linalg.svd(one, compute_uv=False)
        share = share / share.sum()
        rank = math.exp(-(share * np.log(share)).sum())
        assert found[f"id rank {side}"] == pytest.approx(rank, abs=1e-4)
    assert found["id norm items"] == pytest.approx(np.linalg.norm(items, axis=1).mean(), abs=1e-5)
    here = features.any(1)
    by_content = closest(features[here], 3)
    in_view = {"id": closest(items[here], 3), "mm": closest(other[1][here], 3)}
    for name, lists in in_view.items():
        common = [len(a & b) / 3 for a, b in zip(by_content, lists, strict=True)]
        assert found[f"{name} neighbours@3"] == pytest.approx(np.mean(common), abs=1e-6)
    both = [len(a & b) / 3 for a, b in zip(*in_view.values(), strict=True)]
    assert found["id | mm neighbours@3"] == pytest.approx(np.mean(both), abs=1e-6)
    apart = ((unit(items) - unit(other[1])) ** 2).sum(1).mean()
    assert found["id | mm distance"] == pytest.approx(apart, abs=1e-5)


def test_extremes() -> None:
    same = torch.ones(6, 3)
    found = geometry({"one": (same, same)}, (np.arange(6), np.arange(6)), torch.eye(6))
    assert found["one alignment"] == pytest.approx(0, abs=1e-6)
    assert found["one uniformity items"] == pytest.approx(0, abs=1e-5)
    assert found["one rank items"] == pytest.approx(1, abs=1e-3)
    assert found["one neighbours@20"] == 1  # fewer items than neighbours: all are neighbours
    assert nearest(torch.eye(3), 9).shape == (3, 2)
    assert shared(torch.tensor([[0, 1]]), torch.tensor([[2, 3]])) == 0


def test_the_script_makes_each_run_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [
        "--dataset=ml-100k", "--epochs=1", "--seeds=1", "--forms=none",
        f"--folder={tmp_path / 'geometry'}", f"--output={tmp_path}",
    ]  # fmt: skip
    assert script.main(command) == 0
    (path,) = (tmp_path / "geometry").glob("*.csv")
    table = pd.read_csv(path)
    assert list(table["epoch"]) == [-1, 0]
    assert np.isnan(table["valid"][0])
    assert table["valid"][1] > 0.1
    assert not table.drop(columns="valid").isna().any().any()
    before = path.stat().st_mtime_ns
    assert script.main(command) == 0
    assert path.stat().st_mtime_ns == before
    with pytest.raises(RecordError, match="of another run"):
        script.main([*command, "--features=lsa,other"])
    path.with_suffix(".json").unlink()  # as earlier versions left it
    assert script.main(command) == 0
    for wrong in ("--forms=foo", "--seeds=a"):
        with pytest.raises(SystemExit):
            script.main([*command, wrong])
    capsys.readouterr()
    assert script.main([*command, "--summary"]) == 0
    assert "mm neighbours@20" in capsys.readouterr().out
