"""Rows for items without a modality: slow twins, numbering, and features by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from trials import run_verb
from two_blocks import write_two_blocks

from alignrec_recbole.errors import UnknownNameError
from alignrec_recbole.features.derived_names import FILLS, made_of, parse_filled
from alignrec_recbole.features.imputation import (
    NEIGHBOURS,
    STEPS,
    filled_features,
    imputed,
    neighbour_graph,
)
from alignrec_recbole.features.table import FeatureManifest, ItemFeatures, save_features
from alignrec_recbole.runs.prepare import prepare_data
from alignrec_recbole.runs.record import read_runs
from alignrec_recbole.runs.spec import DataSpec

ITEMS, USERS, WIDTH = 60, 40, 5


@pytest.fixture(scope="module")
def world() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Interactions [USERS, ITEMS], features and which items have any; row and column 0 are PAD."""
    rng = np.random.default_rng(3)
    seen = rng.random((USERS, ITEMS)) < 0.1
    seen[0] = seen[:, 0] = False
    seen[:, 5] = False  # an item that nobody has
    known = rng.random(ITEMS) < 0.5
    known[0] = known[5] = False
    values = rng.normal(size=(ITEMS, WIDTH)).astype(np.float32)
    values[~known] = 0
    return seen, values, known


def neighbours_slowly(seen: np.ndarray, place: np.ndarray) -> list[list[int]]:
    """Of each item the others with most users in common, at least one; of equals the first."""
    common = seen.T.astype(int) @ seen.astype(int)
    out = []
    for item in range(ITEMS):
        others = [j for j in range(ITEMS) if j != item and common[item, j]]
        out.append(sorted(others, key=lambda j: (-common[item, j], place[j]))[:NEIGHBOURS])
    return out


def test_neighbours_and_propagation_equal_their_slow_twins(world) -> None:
    seen, values, known = world
    place = np.random.default_rng(4).permutation(ITEMS)
    users, items = np.nonzero(seen)
    graph = neighbour_graph((items, users), (ITEMS, USERS), place)
    slow = neighbours_slowly(seen, place)
    assert [sorted(row.indices.tolist()) for row in graph] == [sorted(near) for near in slow]
    wanted = np.flatnonzero(~known)[1:]

    rows, found = imputed(values, known, wanted, "neighbours", lambda: graph)
    for item, row, has in zip(wanted, rows, found, strict=True):
        near = [j for j in slow[item] if known[j]]
        assert has == bool(near)
        assert row == pytest.approx(values[near].mean(0) if near else np.zeros(WIDTH), abs=1e-5)

    dense = np.zeros((ITEMS, ITEMS))
    for item, near in enumerate(slow):
        dense[item, near] = dense[near, item] = 1
    root = np.where(dense.any(1), dense.sum(1).clip(1) ** -0.5, 0)
    step = root[:, None] * dense * root
    x = values.astype(np.float64)
    for _ in range(STEPS):
        x = step @ x
        x[known] = values[known]
    rows, found = imputed(values, known, wanted, "propagation", lambda: graph)
    assert rows == pytest.approx(x[wanted], abs=1e-4)
    assert not found[wanted.tolist().index(5)]
    assert found.sum() == len(wanted) - 1


@pytest.mark.parametrize("fill", FILLS)
def test_rows_follow_the_items_not_their_numbers(world, fill: str) -> None:
    seen, values, known = world
    place = np.random.default_rng(4).permutation(ITEMS)
    new = np.r_[0, 1 + np.random.default_rng(6).permutation(ITEMS - 1)]  # of each item
    old = np.argsort(new)
    found = []
    for order in (np.arange(ITEMS), old):
        users, items = np.nonzero(seen[:, order])
        graph = neighbour_graph((items, users), (ITEMS, USERS), place[order])
        wanted = np.flatnonzero(~known[order])[1:]
        rows, has = imputed(values[order], known[order], wanted, fill, lambda g=graph: g)
        found.append(
            {order[i]: (*row.round(4), h) for i, row, h in zip(wanted, rows, has, strict=True)}
        )
    assert found[0].keys() == found[1].keys()
    for item, entry in found[0].items():
        assert found[1][item] == pytest.approx(entry, abs=2e-4)


def test_nothing_is_read_of_unknown_rows(world) -> None:
    seen, values, known = world
    users, items = np.nonzero(seen)
    graph = neighbour_graph((items, users), (ITEMS, USERS), np.arange(ITEMS))
    other = np.where(known[:, None], values, np.float32(1e6))
    wanted = np.flatnonzero(~known)[1:]
    for fill in FILLS:
        one, two = (imputed(each, known, wanted, fill, lambda: graph) for each in (values, other))
        assert np.array_equal(one[0], two[0])
        assert np.array_equal(one[1], two[1])


def test_an_item_that_no_known_row_reaches_stays_missing() -> None:
    """Neighbours of cup and pan are each other; pot has none."""
    values = np.float32([[0, 0], [3, 1], [0, 0], [0, 0]])
    real = ItemFeatures(values, values.any(1), FeatureManifest(
        name="half", modality="text", encoder="hand", source="hand", items=["cup", "pan", "pot"],
        missing=["pan", "pot"], shape=(3, 2), dtype="float32", sha256="0" * 64,
    ))  # fmt: skip
    pair = sp.csr_matrix((np.ones(2, np.float32), ([1, 2], [2, 1])), shape=(4, 4))
    tokens = ["[PAD]", "cup", "pan", "pot"]
    found = filled_features("filled-neighbours:half", tokens, lambda _: real, lambda: pair)
    assert found.values.tolist() == [[0, 0], [3, 1], [3, 1], [0, 0]]
    assert found.present.tolist() == [False, True, True, False]
    assert found.manifest.missing == ["pot"]
    assert found.manifest.settings["rows_filled"] == 1
    assert found.manifest.settings["of_sha256"] == "0" * 64


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """The data set `two`, whose features `half` every third item lacks."""
    folder = tmp_path / "data"
    folder.mkdir()
    rng = write_two_blocks(folder)
    rows = np.arange(24)[:, None] // 12 * 2 - 1 + 0.2 * rng.uniform(-1, 1, (24, 3))
    rows = rows.astype(np.float32)
    rows[::3] = 0
    tokens = [str(i) for i in range(24)]
    save_features(folder / "two" / "half.npy", rows, name="half", modality="text", encoder="hand",
                  settings={}, source="hand", items=tokens, missing=tokens[::3])  # fmt: skip
    return folder


@pytest.mark.parametrize("fill", ["neighbours", "propagation"])
def test_filled_features_by_name(two: Path, tmp_path: Path, fill: str) -> None:
    name = f"filled-{fill}:half"
    data = prepare_data(DataSpec("two", (name, "half"), data_path=two, output=tmp_path))
    filled, half = data.splits[0].features.values()
    assert (half.present.sum(), filled.present.sum()) == (16, 24)
    dataset = data.splits[0]
    item = np.array([int(t) for t in dataset.field2id_token[dataset.iid_field][1:]])
    assert (np.sign(filled.values[1:, 0]) == np.where(item < 12, -1, 1)).all(), "a block's own sign"
    assert np.array_equal(filled.values[half.present], half.values[half.present])
    assert filled.manifest.settings["rows_filled"] == 8
    assert any("8 rows filled" in note for note in data.notes)
    assert filled.manifest.sha256 != half.manifest.sha256


def test_masked_rows_are_filled_in_trained_runs_and_in_rankers(two: Path, tmp_path: Path) -> None:
    where = ("--data-path", two, "--output", tmp_path / "out", "--quiet")
    for fill in ("zero", "neighbours", "propagation"):
        common = ("--protocol", "mask-modality", "--dataset", "two", "--features", "half", *where)
        answer = run_verb(*common, "--set", f"fill={fill}")
        assert answer.status == 0, answer.errors
        model = ("--model", "VBPR", "--epochs", "1", "--seeds", "999", "--no-save")
        answer = run_verb(*common, *model, "--set", f"fill={fill}", "ratios=[0,0.5]")
        assert answer.status == 0, answer.errors
    records = [run.record for run in read_runs(tmp_path / "out" / "runs")]
    curves = {r.config["protocol"]["fill"]: r.curve for r in records if r.model == "item-cf"}
    assert len(curves) == 3
    assert curves["zero"] != curves["neighbours"]
    assert curves["zero"] != curves["propagation"]
    masks = {r.config["feature_mask"]["fill"] for r in records if r.model == "VBPR" and
             r.protocol == "mask-modality" and r.config["feature_mask"]["ratio"]}  # fmt: skip
    assert masks == {"zero", "neighbours", "propagation"}


def test_names() -> None:
    assert parse_filled("filled-mean:shuffled:lsa@2") == ("mean", "shuffled:lsa@2")
    for name in ("filled-median:lsa", "filled-mean:", "filled-:lsa"):
        with pytest.raises(UnknownNameError, match="filled"):
            parse_filled(name)
    with pytest.raises(UnknownNameError, match="too many times"):
        made_of("filled-mean:" * 20 + "lsa")
