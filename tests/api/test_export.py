"""`recommend` and `export`: tables, vectors, an exact index, folders that load again."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from trials import check_refused, run_verb

from alignrec_recbole import (
    TrainedModel,
    export_features,
    export_model,
    load_features,
    load_model,
    save_features,
)
from alignrec_recbole.api import export
from alignrec_recbole.errors import ModelError, SettingError

from .conftest import Records


@pytest.fixture
def bpr(records: Records) -> TrainedModel:
    return load_model(records["BPR", "mmrec"])


def test_an_exported_folder_is_the_model(bpr: TrainedModel, tmp_path: Path) -> None:
    files = export_model(bpr, tmp_path / "out")
    assert {path.name for path in files} == {path.name for path in (tmp_path / "out").iterdir()}
    again = load_model(shutil.copytree(tmp_path / "out", tmp_path / "elsewhere"))
    for name in ("model.safetensors", "config.json"):
        assert load_model(tmp_path / "elsewhere" / name).card == again.card
    pd.testing.assert_frame_equal(again.recommend(k=9), bpr.recommend(k=9))
    for kind, vectors in (("users", bpr.user_vectors()), ("items", bpr.item_vectors())):
        matrix = np.load(tmp_path / "out" / f"{kind}.npy", allow_pickle=False)
        tokens = json.loads((tmp_path / "out" / f"{kind}.json").read_text("utf-8"))
        pd.testing.assert_frame_equal(
            pd.DataFrame(matrix, index=tokens), vectors.rename_axis(None), check_index_type=False
        )
        table = pd.read_parquet(tmp_path / "out" / f"{kind}.parquet")
        assert list(table[kind[:-1]]) == tokens
        assert np.array_equal(np.stack(list(table["vector"])), matrix)
    card = (tmp_path / "out" / "README.md").read_text("utf-8")
    assert "# BPR on small" in card
    assert f"| Recall@20 | {bpr.card.metrics['Recall@20']:.6f} |" in card
    with pytest.raises(SettingError, match="has such files already"):
        export_model(bpr, tmp_path / "out")


def test_a_model_without_vectors_is_exported_without_them(records: Records, tmp_path: Path) -> None:
    ease = load_model(records["EASE", "mmrec"])
    export_model(ease, tmp_path / "out")
    assert not list((tmp_path / "out").glob("*.npy"))
    pd.testing.assert_frame_equal(load_model(tmp_path / "out").recommend(k=9), ease.recommend(k=9))
    with pytest.raises(SettingError, match="EASE has no vectors"):
        export_model(ease, tmp_path / "index", index=True)
    assert not (tmp_path / "index").exists()


def test_the_index_gives_the_lists(bpr: TrainedModel, tmp_path: Path) -> None:
    faiss = pytest.importorskip("faiss")
    export_model(bpr, tmp_path, index=True)
    index = faiss.read_index(str(tmp_path / "items.faiss"))
    items = json.loads((tmp_path / "items.json").read_text("utf-8"))
    users = json.loads((tmp_path / "users.json").read_text("utf-8"))
    _, found = index.search(np.load(tmp_path / "users.npy"), 20)
    lists = bpr.recommend(users, 20, exclude=None).groupby("user", sort=False)["item"].agg(list)
    same = [
        [items[row] for row in rows] == lists[user] for user, rows in zip(users, found, strict=True)
    ]
    assert np.mean(same) > 0.98  # the others: scores that differ in the last bits


def test_a_wrong_index_would_be_seen(bpr: TrainedModel) -> None:
    faiss = pytest.importorskip("faiss")
    items = bpr.item_vectors().to_numpy()
    index = faiss.IndexFlatIP(items.shape[1])
    index.add(np.ascontiguousarray(items[::-1]))
    with pytest.raises(ModelError, match="gives other lists"):
        export._check_index(bpr, index)


def test_a_card_holds_no_markup_of_others(
    bpr: TrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hostile = bpr.card.model_copy(update={"dataset": "x<script>`\n# y", "features": "![a](b)"})
    monkeypatch.setattr(TrainedModel, "card", property(lambda self: hostile))
    text = export._model_card(bpr, ["README.md"])
    assert "<script>" not in text
    assert "![" not in text


def test_a_feature_file_with_its_card(tmp_path: Path) -> None:
    matrix = np.array([[0.1, 0.7], [0.4, 0.2], [0.0, 0.0]], dtype=np.float32)
    keywords = {"modality": "image", "encoder": "my network", "settings": {}, "source": "photos"}
    save_features(
        tmp_path / "mine.npy", matrix, name="mine", items=["a", "b", "c"], missing=["c"], **keywords
    )
    export_features(tmp_path / "mine.npy", tmp_path / "card")
    assert np.array_equal(load_features(tmp_path / "card" / "mine.npy").matrix, matrix)
    assert "1 items without it" in (tmp_path / "card" / "README.md").read_text("utf-8")
    (tmp_path / "mine.json").unlink()
    with pytest.raises(SettingError, match="no manifest"):
        export_features(tmp_path / "mine.npy", tmp_path / "card2")


# The verbs ---------------------------------------------------------------------------------------


def test_recommend_writes_every_kind_of_table(records: Records, tmp_path: Path) -> None:
    record = records["BPR", "mmrec"]
    (tmp_path / "users.txt").write_text("u 7\nu 1\n")
    expected = load_model(record).recommend(["u 7", "u 1"], k=4)
    readers = {
        "csv": lambda path: pd.read_csv(path, dtype={"item": str}),
        "tsv": lambda path: pd.read_csv(path, sep="\t", dtype={"item": str}),
        "json": lambda path: pd.DataFrame(json.loads(path.read_text("utf-8"))),
        "parquet": pd.read_parquet,
    }
    for kind, read in readers.items():
        file = tmp_path / f"lists.{kind}"
        given = ("--run", record.path, "--users", tmp_path / "users.txt", "-k", 4, "--to", file)
        answer = run_verb("recommend", *given)
        assert (answer.status, answer.errors) == (0, ""), answer
        pd.testing.assert_frame_equal(
            read(file).astype({"score": "float32"}), expected, check_dtype=False
        )
    answer = run_verb("recommend", "--run", record.path, "--users", "u 7,u 1", "-k", 4)
    shown = [re.split(r"\s\s+", line) for line in answer.output.splitlines()[2:]]
    assert [row[2] for row in shown] == list(expected["item"])


def test_recommend_explains_and_restricts(records: Records) -> None:
    given = ("--run", records["BPR", "mmrec"].path, "--users", "u 3", "--exclude", "none")
    answer = run_verb("recommend", *given, "--items", "0001,0002", "--explain")
    assert answer.status == 0, answer
    assert "nearest_training_item" in answer.output
    assert len(answer.output.splitlines()) == 4


def test_export_says_what_it_wrote(records: Records, tmp_path: Path) -> None:
    pytest.importorskip("faiss")
    given = ("--run", records["BPR", "mmrec"].path, "--to", tmp_path / "out")
    answer = run_verb("export", *given, "--index")
    assert (answer.status, answer.errors) == (0, ""), answer
    assert set(map(Path, answer.output.splitlines())) == set((tmp_path / "out").iterdir())
    answer = run_verb("recommend", "--run", tmp_path / "out", "--users", "u 3", "-k", 2)
    assert answer.status == 0, answer
    answer = run_verb("export", "--run", records["DMF", "mmrec"].path, "--to", tmp_path / "dmf")
    assert "no vectors: DMF scores by scores" in answer.output


def test_what_the_verbs_refuse(records: Records, tmp_path: Path) -> None:
    path = records["BPR", "mmrec"].path
    (tmp_path / "empty.txt").write_text("\n\n")
    check_refused(run_verb("recommend", "--run", tmp_path / "no.json"), "no.json")
    check_refused(run_verb("recommend", "--run", path, "--users", "me"), "Unknown user 'me'")
    check_refused(run_verb("recommend", "--run", path, "--users", ","), "--users names no id")
    check_refused(run_verb("recommend", "--run", path, "--users", tmp_path / "empty.txt"), "empty")
    check_refused(run_verb("recommend", "--run", path, "--to", tmp_path / "a.xls"), "'.xls'")
    check_refused(run_verb("export", "--to", tmp_path / "a"), "--run")
    check_refused(run_verb("export", "--run", path, "--feature-file", path, "--to", tmp_path), "")
