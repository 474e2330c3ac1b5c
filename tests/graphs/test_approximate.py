"""Approximate item graphs: their lists, recall, cache, device and place in records and hashes."""

import logging
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from two_blocks import write_two_blocks

from alignrec_recbole.errors import MissingDependencyError, SettingError
from alignrec_recbole.graphs import hnsw, item_item, knn_cache, searches
from alignrec_recbole.runs import config_hash
from alignrec_recbole.runs.record import read_record
from alignrec_recbole.runs.run import run_one
from alignrec_recbole.runs.spec import RunSpec


@pytest.fixture
def faiss():
    return pytest.importorskip("faiss", reason="the extra 'ann' is not installed")


def clusters(n: int = 600, width: int = 16) -> torch.Tensor:
    """Rows around 30 centres; PAD and row 9 are zero."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(30, width, generator=generator)
    rows = centres[torch.arange(n) % 30] + 0.3 * torch.randn(n, width, generator=generator)
    rows[[0, 9]] = 0
    return rows


@pytest.mark.usefixtures("faiss")
@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e25])
def test_lists_are_nearly_the_exact_ones(scale: float) -> None:
    features = clusters() * scale
    exact = item_item.nearest_neighbours(features, 10)
    with searches.searching_on("cpu") as made:
        values, indices = item_item.nearest_neighbours(features, 10, method="approximate")
    assert values.shape == indices.shape == exact[0].shape
    shared = sum(
        len(set(a) & set(b)) for a, b in zip(indices.tolist(), exact[1].tolist(), strict=True)
    )
    assert shared >= 0.98 * indices.numel()
    assert indices[[0, 9]].eq(-1).all()
    assert values[[0, 9]].eq(0).all()
    assert not torch.isin(indices, torch.tensor([0, 9])).any()
    assert (values[:, 1:] <= values[:, :-1]).all()
    (noted,) = made.approximate
    assert (noted.rows, noted.k, noted.sample) == (598, 10, 598)
    assert noted.recall == pytest.approx(shared / (598 * 10 + 2 * 10), abs=0.01)
    same = indices == exact[1]
    torch.testing.assert_close(values[same], exact[0][same])


@pytest.mark.usefixtures("faiss")
def test_recall_counts_what_is_missing(monkeypatch) -> None:
    """Lists whose last two of five are far away have a recall of three fifths."""
    features = clusters()
    exact_values, exact_indices = item_item.nearest_neighbours(features, 5)
    values = exact_values.clone()
    values[:, 3:] -= 0.5
    norms = features.norm(dim=1)
    rows = torch.nonzero(norms).ravel()
    inverse = norms.clamp(min=1e-30).reciprocal()
    found = hnsw._recall(features, inverse, rows, values, exact_indices, 1 << 20)
    assert found == pytest.approx(0.6)
    monkeypatch.setattr(hnsw, "SAMPLE", 7)
    assert hnsw._recall(features, inverse, rows, exact_values, exact_indices, 1) == 1.0


@pytest.mark.usefixtures("faiss")
def test_two_searches_by_one_thread_are_equal() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        one, other = (hnsw.search(clusters(), 10, 1 << 14) for _ in range(2))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(one[0], other[0])
    assert torch.equal(one[1], other[1])
    assert one[2] == other[2]


@pytest.mark.usefixtures("faiss")
def test_too_few_rows_and_none() -> None:
    few = clusters()[:5]
    _, indices = item_item.nearest_neighbours(few, 10, method="approximate")
    assert indices.shape == (5, 4)
    assert sorted(indices[1].tolist()) == [1, 2, 3, 4]
    assert item_item.nearest_neighbours(few * 0, 10, method="approximate")[1].shape == (5, 0)
    assert not item_item.item_graph(few, 10, method="approximate")[0].nnz


@pytest.mark.usefixtures("faiss")
def test_the_cache_tells_methods_parameters_and_versions_apart(monkeypatch, tmp_path: Path) -> None:
    features, made = clusters(200), []
    search = hnsw.search
    monkeypatch.setattr(hnsw, "search", lambda *given: made.append(1) or search(*given))
    with knn_cache.use_cache_folder(tmp_path):
        item_item.nearest_neighbours(features, 5)
        with searches.searching_on("cpu") as first:
            lists = item_item.nearest_neighbours(features, 5, method="approximate")
        with searches.searching_on("cpu") as second:
            again = item_item.nearest_neighbours(features, 5, method="approximate")
        assert len(made) == 1
        assert first.approximate == second.approximate != []
        assert torch.equal(lists[1], again[1])
        monkeypatch.setattr(hnsw, "LINKS", 8)
        item_item.nearest_neighbours(features, 5, method="approximate")
        description = hnsw.description
        monkeypatch.setattr(hnsw, "description", lambda k: description(k) + "0")
        item_item.nearest_neighbours(features, 5, method="approximate")
    assert len(made) == 3
    assert len(list(tmp_path.iterdir())) == 4


@pytest.mark.usefixtures("faiss")
def test_a_changed_recall_in_the_cache_is_not_believed(tmp_path: Path, caplog) -> None:
    from safetensors import safe_open
    from safetensors.torch import save_file

    features = clusters(200)
    with knn_cache.use_cache_folder(tmp_path):
        item_item.nearest_neighbours(features, 5, method="approximate")
        (path,) = tmp_path.iterdir()
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in ("values", "indices")}
            metadata = dict(file.metadata())
        save_file(tensors, path, {**metadata, "recall": "0.5"})
        with searches.searching_on("cpu") as made:
            item_item.nearest_neighbours(features, 5, method="approximate")
    assert "is damaged" in caplog.text
    assert made.approximate[0].recall > 0.9


@pytest.mark.usefixtures("faiss")
def test_a_low_recall_is_a_warning(monkeypatch, caplog) -> None:
    found = hnsw.search(clusters(), 5, 1 << 20)
    monkeypatch.setattr(hnsw, "search", lambda *given: (*found[:2], 0.9401))
    with caplog.at_level(logging.WARNING):
        item_item.nearest_neighbours(clusters(), 5, method="approximate")
    assert "94.0 % of the exact one's neighbours" in caplog.text


def test_searches_are_made_on_the_runs_device(monkeypatch) -> None:
    seen = []
    found = item_item._search(clusters(), 5, 1 << 20)
    monkeypatch.setattr(item_item, "_search", lambda rows, *_: seen.append(rows.device) or found)
    with searches.searching_on("meta"):
        lists = item_item.nearest_neighbours(clusters(), 5)
    item_item.nearest_neighbours(clusters(), 5)
    assert [device.type for device in seen] == ["meta", "cpu"]
    assert lists[0].device.type == "cpu"


def test_auto_is_exact_where_that_is_as_fast() -> None:
    assert not item_item.is_approximate("auto", item_item.AUTO_ROWS - 1, "cpu")
    assert item_item.is_approximate("auto", item_item.AUTO_ROWS, "cpu")
    assert not item_item.is_approximate("auto", 10 * item_item.AUTO_ROWS, "cuda")
    assert not item_item.is_approximate("exact", 10 * item_item.AUTO_ROWS, "cpu")


def test_without_faiss_the_error_names_the_extra(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(MissingDependencyError, match=r"alignrec-recbole\[ann\]"):
        item_item.nearest_neighbours(clusters(), 5, method="approximate")


def test_only_another_method_changes_the_hash() -> None:
    def hashed(**config):
        given = {"data": {"split": {}, "files": {}}, "feature_files": {}}
        return config_hash.config_hashes(
            model="M", dataset="d", protocol="full", config={"epochs": 1, **config}, **given
        )[0]

    assert hashed() == hashed(knn="exact") == hashed(valid_users=None)
    assert len({hashed(), hashed(knn="auto"), hashed(knn="approximate")}) == 3


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    """Two blocks of users and items, with features."""
    folder = tmp_path_factory.mktemp("data")
    rng = write_two_blocks(folder)
    np.save(folder / "two" / "vectors.npy", rng.normal(size=(24, 6)).astype(np.float32))
    return folder


def spec(model: str, world: Path, output: Path, **settings: str) -> RunSpec:
    return RunSpec(
        model,
        "two",
        () if model == "LightGCN" else ("vectors",),
        data_path=world,
        output=output,
        epochs=1,
        overrides=settings,
        progress=False,
        save=False,
    )


@pytest.mark.usefixtures("faiss")
@pytest.mark.parametrize("model", ["AlignRec", "FREEDOM", "MGCN", "SMORE", "DRAGON", "PGL", "GUME"])
def test_the_record_has_method_and_recall(model: str, world: Path, tmp_path: Path) -> None:
    exact = run_one(spec(model, world, tmp_path))
    record = run_one(spec(model, world, tmp_path, knn="approximate"))
    assert exact.item_searches is None
    assert record.item_searches
    assert all(search["recall"] > 0.9 for search in record.item_searches)
    assert record.item_searches[0]["method"].startswith("HNSW, M 16")
    assert record.config_sha256 != exact.config_sha256
    assert read_record(record.path) == record


@pytest.mark.parametrize("model", ["LATTICE", "ItemKNNCBF", "LightGCN"])
def test_models_without_a_graph_searched_once_refuse_it(
    model: str, world: Path, tmp_path: Path
) -> None:
    with pytest.raises(SettingError, match="Unknown setting 'knn'"):
        run_one(spec(model, world, tmp_path, knn="approximate"))
