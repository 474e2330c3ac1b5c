"""Kept neighbour lists are those of the same features, or none."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from alignrec_recbole.graphs import item_item, knn_cache


@pytest.fixture
def features() -> torch.Tensor:
    values = torch.randn(60, 8, generator=torch.Generator().manual_seed(0))
    values[0] = 0
    return values


@pytest.fixture
def searches(monkeypatch) -> list[int]:
    """Grows by k with every search that is really made."""
    made: list[int] = []
    search = item_item._search

    def counted(features, k, memory_bytes, place=None):
        made.append(k)
        return search(features, k, memory_bytes, place)

    monkeypatch.setattr(item_item, "_search", counted)
    return made


def test_the_second_search_is_read_and_equal(features, searches, tmp_path: Path) -> None:
    with knn_cache.use_cache_folder(tmp_path):
        first, second = (item_item.nearest_neighbours(features, 5) for _ in range(2))
    assert searches == [5]
    made = item_item._search(features, 5, 1 << 20)
    for lists in zip(first, second, made, strict=True):
        assert torch.equal(lists[0], lists[1])
        assert torch.equal(lists[0], lists[2])


def test_other_values_types_shapes_and_k_have_lists_of_their_own(
    features, searches, tmp_path: Path
) -> None:
    changed = features.clone()
    changed[7, 3] += 1e-6
    with knn_cache.use_cache_folder(tmp_path):
        for table, k in [
            (features, 5), (features, 6), (changed, 5), (features.double(), 5),
            (features.view(120, 4), 5),
        ]:  # fmt: skip
            values, indices = item_item.nearest_neighbours(table, k)
            assert values.dtype == table.dtype
            assert indices.shape == (len(table), k)
    assert len(searches) == len(list(tmp_path.iterdir())) == 5


def test_nothing_is_kept_unless_asked(features, searches, tmp_path: Path) -> None:
    with knn_cache.use_cache_folder(None):
        item_item.nearest_neighbours(features, 5)
    item_item.nearest_neighbours(features, 5)
    assert searches == [5, 5]


@pytest.mark.parametrize("damage", ["truncated", "empty", "another table's", "wild indices"])
def test_a_damaged_file_is_searched_again(
    features, searches, damage, tmp_path: Path, caplog
) -> None:
    from safetensors.torch import save

    with knn_cache.use_cache_folder(tmp_path):
        expected = item_item.nearest_neighbours(features, 5)
        (path,) = tmp_path.iterdir()
        path.write_bytes(
            {
                "truncated": path.read_bytes()[:-40],
                "empty": b"",
                "another table's": save(
                    {"values": torch.ones(3, 5), "indices": torch.zeros(3, 5, dtype=torch.int64)}
                ),
                "wild indices": save(
                    {"values": torch.ones(60, 5), "indices": torch.full((60, 5), 60)}
                ),
            }[damage]
        )
        with caplog.at_level(logging.WARNING):
            again = item_item.nearest_neighbours(features, 5)
        assert "damaged" in caplog.text
        assert torch.equal(expected[1], again[1])
        item_item.nearest_neighbours(features, 5)
    assert searches == [5, 5]  # the third call reads what the second wrote


@pytest.mark.parametrize("index", [-2, 6])
def test_indices_of_no_row_are_searched_again(tmp_path, index):
    """In a file whose digest fits its lists."""
    features = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    with knn_cache.use_cache_folder(tmp_path):
        values, indices = item_item.nearest_neighbours(features, 2)
        (path,) = tmp_path.iterdir()
        digest, forged = knn_cache._digest(features, 2), indices.clone()
        forged[0, 0] = index
        lists = values.contiguous(), forged
        noted = {"digest": knn_cache._with_lists(digest, lists)}
        save_file({"values": lists[0], "indices": forged}, path, metadata=noted)
        assert item_item.nearest_neighbours(features, 2)[1].equal(indices)


def test_the_order_of_equals_tells_lists_apart(searches, tmp_path: Path) -> None:
    features = torch.ones(6, 2)
    with knn_cache.use_cache_folder(tmp_path):
        for place in (None, np.arange(6), np.arange(6)[::-1], np.arange(6)):
            item_item.nearest_neighbours(features, 2, place=place)
    assert len(searches) == len(list(tmp_path.iterdir())) == 3
