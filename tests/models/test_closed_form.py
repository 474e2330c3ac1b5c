"""Models without training against dense references in float64 that follow the equations."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from alignrec_recbole.errors import NotEnoughMemoryError, SettingError
from alignrec_recbole.models import _closed_form as parts
from alignrec_recbole.models import addease
from alignrec_recbole.testing.testbed import Testbed
from alignrec_recbole.training import memory_estimate


def built(name, folder, **settings):
    """The model, X and F in float64; a quarter of the images and of the texts are missing."""
    world = Testbed(name, folder).world
    world = world.with_missing("image", 0.25).with_missing("text", 0.25, seed=2)
    testbed = Testbed(name, folder, world)
    config = testbed.config(world, 1, settings)
    splits = testbed.splits(config)
    model = testbed.under_test.model_class(config, splits[0])
    x = np.zeros((splits[0].user_num, splits[0].item_num))
    x[splits[0].pairs()] = 1
    return model, x, splits[0]


def scores(model, x):
    users = {model.USER_ID: torch.arange(len(x))}
    return model.full_sort_predict(users).detach().numpy()


def rows(dataset, centre=True):
    out = []
    for table in dataset.features.values():
        block = table.values.astype(np.float64).copy()
        here = np.flatnonzero(np.abs(block).sum(1))
        for step in range(2 if centre else 1):
            if step:
                block[here] = block[here] - block[here].sum(0) / len(here)
            for item in here:
                block[item] /= np.sqrt((block[item] ** 2).sum())
        out.append(block / np.sqrt(len(dataset.features)))
    return np.hstack(out)


def ease(matrix, weight):
    """Column by column, each item regressed on all others: no formula for the inverse is used."""
    items = matrix.shape[1]
    out = np.zeros((items, items))
    for j in range(items):
        others = np.delete(np.arange(items), j)
        left = matrix[:, others]
        gram = left.T @ left + weight * np.eye(items - 1)
        out[others, j] = np.linalg.solve(gram, left.T @ matrix[:, j])
    return out


@pytest.mark.parametrize("centre", [True, False])
@pytest.mark.parametrize("weight", [0.0, 7.0])
def test_cease_stacks_features_under_interactions(tmp_path, centre, weight):
    model, x, data = built("CEASE", tmp_path, reg_weight=20.0, content_weight=weight, centre=centre)
    stacked = np.vstack([x, np.sqrt(weight) * rows(data, centre).T])
    np.testing.assert_allclose(scores(model, x), x @ ease(stacked, 20.0), atol=2e-5)


@pytest.mark.parametrize("weight", [0.0, 0.4, 1.0])
def test_addease_adds_two_solutions(tmp_path, weight):
    model, x, data = built(
        "AddEASE", tmp_path, reg_weight=20.0, content_reg_weight=3.0, content_weight=weight
    )
    expected = (1 - weight) * ease(x, 20.0) + weight * ease(rows(data).T, 3.0)
    np.testing.assert_allclose(scores(model, x), x @ expected, atol=2e-5)


def test_cease_without_content_is_recboles_ease(tmp_path):
    model, x, _ = built("CEASE", tmp_path, reg_weight=250.0, content_weight=0.0)
    stock, _, _ = built("EASE", tmp_path / "stock", reg_weight=250.0)
    np.testing.assert_allclose(
        scores(model, x), scores(stock, x).reshape(x.shape), rtol=1e-3, atol=1e-6
    )


def test_ridge_is_each_users_regression(tmp_path):
    model, x, data = built("ContentRidge", tmp_path, reg_weight=2.0)
    content = rows(data)
    extended = np.vstack([content, np.sqrt(2.0) * np.eye(content.shape[1])])
    for user in range(len(x)):
        wanted = np.concatenate([x[user], np.zeros(content.shape[1])])
        weights = np.linalg.lstsq(extended, wanted, rcond=None)[0]
        np.testing.assert_allclose(scores(model, x)[user], content @ weights, atol=1e-5)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_hybrid_neighbours(tmp_path, share):
    model, x, data = built(
        "ItemKNNHybrid", tmp_path, knn_k=5, content_weight=share, shrink=4.0, knn_memory_mb=1
    )
    content, degree = rows(data), x.sum(0)
    norm = np.sqrt(np.outer(degree, degree)) + 4.0
    table = (1 - share) * (x.T @ x) / norm + share * np.maximum(content @ content.T, 0)
    np.fill_diagonal(table, 0)
    for item, row in enumerate(table):
        found = model.neighbours[:, [item]].toarray().ravel()  # what votes for this item
        assert (found > 0).sum() == min(5, (row > 1e-7).sum())
        np.testing.assert_allclose(np.sort(found)[-5:], np.sort(row)[-5:], atol=1e-5)
        np.testing.assert_allclose(found[found > 0], row[found > 0], atol=1e-5)


def test_graph_filter_with_every_entry(tmp_path):
    chosen = {"degree_power": 0.7, "power": 0.6, "text_weight": 3.0, "non_text_weight": 0.5}
    model, x, data = built("MMGF", tmp_path, knn_k=10_000, **chosen)

    def balanced(table):
        row, column = table.sum(1), table.sum(0)
        row[row == 0], column[column == 0] = 1, 1
        return table * row[:, None] ** -0.7 * column[None] ** -0.3

    left = balanced(x)
    expected = (left.T @ left) ** 0.6
    for table in data.features.values():
        here = table.present
        shown = table.values[here].astype(np.float64)
        low, middle, high = (np.quantile(shown, q, axis=0) for q in (0.25, 0.5, 0.75))
        robust = np.zeros(table.values.shape)
        robust[here] = (shown - middle) / (high - low)
        robust[here] -= robust[here].min()
        part = balanced(robust)
        weight = 3.0 if table.modality == "text" else 0.5
        expected += weight * (part @ part.T) ** 0.6
    np.testing.assert_allclose(scores(model, x), x @ expected, rtol=1e-4, atol=1e-4)


def test_graph_filter_leaves_out_the_smallest(tmp_path):
    every, _, _ = built("MMGF", tmp_path, knn_k=10_000, text_weight=1.0, non_text_weight=0.0)
    some, _, _ = built("MMGF", tmp_path / "some", knn_k=3, text_weight=1.0, non_text_weight=0.0)
    bare, _, _ = built("MMGF", tmp_path / "bare", knn_k=3, text_weight=0.0, non_text_weight=0.0)
    left = (every.neighbours - bare.neighbours).toarray()
    found = (some.neighbours - bare.neighbours).toarray()
    for row, kept in zip(left, found, strict=True):
        np.testing.assert_allclose(np.sort(kept)[-3:], np.sort(row)[-3:], atol=1e-5)


NAMES = ["CEASE", "AddEASE", "ContentRidge", "ItemKNNHybrid", "MMGF"]


@pytest.mark.parametrize("value", [0.0, 1.0, 0.1])
@pytest.mark.parametrize("name", NAMES)
def test_constant_features_say_nothing(tmp_path, name, value):
    """None at all, ones, and a constant whose mean over the items is rounded: all is finite."""
    testbed = Testbed(name, tmp_path)
    world = testbed.world
    if value:
        constant = {key: np.full_like(rows, value) for key, rows in world.features.items()}
        world = replace(world, features=constant)
    else:
        world = world.with_missing("image", 1.0).with_missing("text", 1.0)
    found = testbed.build(world).scores()[:, 1:]
    assert torch.isfinite(found).all()
    assert found.any() == (name != "ContentRidge")


def test_a_matrix_that_does_not_fit_is_refused(monkeypatch):
    monkeypatch.setattr(memory_estimate, "available_bytes", lambda device="cpu": 1000)
    with (
        pytest.raises(NotEnoughMemoryError, match="CEASE would need"),
        memory_estimate.bounded_tables("CEASE"),
    ):
        parts.gram_of(sp.csr_matrix((3, 40), dtype=np.float32))


def test_a_matrix_that_is_not_definite_is_refused():
    with pytest.raises(SettingError, match="reg_weight=1e-09"):
        parts.ease_weights(np.full((4, 4), -1.0, dtype=np.float32), 1e-9)


def test_many_blocks_give_one_matrix(tmp_path, monkeypatch):
    whole, x, _ = built("AddEASE", tmp_path, content_weight=0.5)
    monkeypatch.setattr(parts, "BLOCK_BYTES", 4 * x.shape[1] * 7)
    monkeypatch.setattr(addease, "BLOCK_BYTES", 4 * x.shape[1] * 5)
    blocks, _, _ = built("AddEASE", tmp_path / "blocks", content_weight=0.5)
    np.testing.assert_allclose(blocks.neighbours, whole.neighbours, atol=1e-6)
    np.testing.assert_array_equal(whole.neighbours[0], 0)
    np.testing.assert_array_equal(np.diag(whole.neighbours), 0)
