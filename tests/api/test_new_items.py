"""Items that were not in the training, by their features; explanations by content."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file, save_file

from alignrec_recbole import Dataset, RunRecord, TrainedModel, load_model, run, save_features
from alignrec_recbole.api.new_items import read_features
from alignrec_recbole.cli.main import main
from alignrec_recbole.errors import FeatureError, RecordError, SettingError
from alignrec_recbole.features import content_map
from alignrec_recbole.io.files import sha256_file
from alignrec_recbole.runs.saved_model import model_paths

ITEMS, COLD = [f"i{n:02}" for n in range(40)], ["i37", "i38", "i39"]
WIDTHS = {"image": 7, "text": 5}
MODELS = ("ContentRidge", "AddEASE", "ItemKNNCBF", "ItemKNNHybrid", "MILK")
SETTINGS = {"MILK": {"train_features": False}}  # whose items have the features of the training


def features() -> dict[str, pd.DataFrame]:
    """Of all items, in four groups; one item has no image."""
    random, out = np.random.default_rng(3), {}
    for name, width in WIDTHS.items():
        centres = random.normal(size=(4, width))
        rows = centres[np.arange(len(ITEMS)) % 4] + 0.4 * random.normal(size=(len(ITEMS), width))
        out[name] = pd.DataFrame(rows, index=ITEMS)
    out["image"] = out["image"].drop(index="i38")
    return out


def interactions(cold: list[str]) -> pd.DataFrame:
    """Users of a group; `cold` items are in the test split alone."""
    random, rows = np.random.default_rng(4), []
    warm = [n for n in range(len(ITEMS)) if ITEMS[n] not in COLD]
    for user in range(50):
        own = random.permutation([n for n in warm if n % 4 == user % 4 or n % 7 == user % 7])[:9]
        labels = [*["train"] * 7, "valid", "test"]
        rows += [(f"u{user}", ITEMS[n], label) for n, label in zip(own, labels, strict=True)]
        rows += [(f"u{user}", item, "test") for item in cold]
    return pd.DataFrame(rows, columns=["user", "item", "split"])


def trained(folder: Path, model: str, cold: list[str], **settings: Any) -> RunRecord:
    rows = interactions(cold)
    given = {name: frame[frame.index.isin(rows["item"])] for name, frame in features().items()}
    data = Dataset.from_frames(rows, features=given, name="few", folder=folder)
    (record,) = run(
        model=model, dataset=data, features=["image", "text"], output=folder / "out",
        progress=False, epochs=2, **settings,
    )  # fmt: skip
    return record


def scores(model: TrainedModel) -> pd.DataFrame:
    """Users × items."""
    lists = model.recommend(k=1000, exclude=None)
    return lists.pivot(index="user", columns="item", values="score")


def new(items: list[str], prefix: str = "") -> dict[str, pd.DataFrame]:
    found = {}
    for name, frame in features().items():
        part = frame[frame.index.isin(items)]
        found[name] = part.set_axis([prefix + item for item in part.index])
    return found


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> dict[str, RunRecord]:
    """Trained with the cold items in the data set and without an interaction in the training."""
    return {
        name: trained(tmp_path_factory.mktemp("few"), name, COLD, **SETTINGS.get(name, {}))
        for name in (*MODELS, "VBPR", "CEASE", "BPR", "EASE")
    }


@pytest.mark.parametrize("name", ["ContentRidge", "ItemKNNCBF", "MILK"])
def test_a_new_item_equals_one_without_interactions(
    name: str, records: dict[str, RunRecord]
) -> None:
    """Also where it has no image, and the scores of all other items stay what they were.

    AddEASE would count the new item beside its equal.
    """
    model = load_model(records[name])
    wider = model.with_items(new(COLD, "new "))
    before, after = scores(model), scores(wider)
    pd.testing.assert_frame_equal(after[before.columns], before, check_exact=True)
    for item in COLD:
        found = after[f"new {item}"].to_numpy()
        assert np.abs(found).max() > 0
        np.testing.assert_allclose(found, before[item], rtol=2e-5, atol=2e-6)


def test_vectors_of_new_items_are_those_of_items_without_interactions(
    records: dict[str, RunRecord],
) -> None:
    model = load_model(records["ContentRidge"])
    found = model.with_items(new(COLD, "new ")).item_vectors()
    assert np.array_equal(found.loc[[f"new {i}" for i in COLD]], model.item_vectors().loc[COLD])
    near = model.with_items(new(COLD, "new ")).similar_items("new i37", 1)
    assert near["similar"].tolist() == ["i37"]
    assert near["similarity"].tolist() == pytest.approx([1.0])


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("ContentRidge", {"centre": False}),
        ("AddEASE", {"centre": False}),
        ("AddEASE", {"centre": False, "content_reg_weight": 0.1}),
        ("ItemKNNCBF", {}),
        ("ItemKNNHybrid", {"centre": False}),
    ],
)
def test_a_new_item_equals_one_that_the_training_knows(
    name: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    """Trained without the item and given it, against trained with it in the data set.

    ContentRidge, which solves with all features, changes a little with one more item.
    """
    without = load_model(trained(tmp_path / "a", name, [], **settings))
    with_it = load_model(trained(tmp_path / "b", name, ["i39"], **settings))
    assert "i39" not in without.items
    wider = scores(without.with_items(new(["i39"])))
    expected = scores(with_it)
    exact = name != "ContentRidge"
    tolerance = {"rtol": 2e-5, "atol": 2e-6} if exact else {"atol": 0.3 * expected["i39"].std()}
    np.testing.assert_allclose(wider["i39"], expected["i39"], **tolerance)


def test_new_items_are_listed_and_may_be_the_only_ones(records: dict[str, RunRecord]) -> None:
    for name in ("ContentRidge", "ItemKNNCBF"):
        model = load_model(records[name]).with_items(new(["i37"], "a "))
        model = model.with_items(new(["i38"], "b ") | {"image": new(["i37"], "b ")["image"]})
        assert model.items[-3:] == ["a i37", "b i37", "b i38"]
        lists = model.recommend("u1", k=5, items=["a i37", "b i38"])
        assert set(lists["item"]) == {"a i37", "b i38"}
        assert len(model.recommend("u1", k=1000, exclude=None)) == len(model.items)
        assert len(model.similar_items(["a i37", "i00"], 1000)) == 2 * (len(model.items) - 1)
        assert model.explain(lists)["nearest_training_item"].isin(ITEMS).all()
        with pytest.raises(SettingError, match="with new items is not exported"):
            model.tables()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("BPR", "it knows items by their ids alone"),
        ("VBPR", "it learns a part of each item's vector"),
        ("CEASE", "it solves for the weights of all items together"),
        ("EASE", "do not say how"),
    ],
)
def test_other_models_say_why_not(name: str, reason: str, records: dict[str, RunRecord]) -> None:
    with pytest.raises(SettingError, match=f"{name} cannot score new items") as caught:
        load_model(records[name]).with_items(new(COLD, "new "))
    assert reason in str(caught.value)


def test_what_is_too_large_is_not_stored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = trained(tmp_path, "ContentRidge", COLD)
    (record,) = run(
        model="ContentRidge", dataset=Dataset(tmp_path / "few"), features=["image", "text"],
        output=tmp_path / "again", save_limit=10,
    )  # fmt: skip
    assert "new items will not be scored by this model" in capsys.readouterr().err
    model = load_model(record)
    assert len(model.recommend("u1"))
    with pytest.raises(SettingError, match=r"above the limit of 10 bytes \(--save-limit"):
        model.with_items(new(COLD, "new "))


BAD: dict[str, Any] = {
    "no mapping": new(COLD, "n ")["text"],
    "a set is absent": {"text": new(COLD, "n ")["text"]},
    "another set": {**new(COLD, "n "), "audio": new(COLD, "n ")["text"]},
    "columns": {**new(COLD, "n "), "text": new(COLD, "n ")["image"]},
    "known items": new(COLD),
    "no frame": {**new(COLD, "n "), "text": [[1.0]]},
    "words": {**new(COLD, "n "), "text": new(COLD, "n ")["text"].astype(str) + "x"},
    "NaN": {**new(COLD, "n "), "text": new(COLD, "n ")["text"] * np.nan},
    "twice": {**new(COLD, "n "), "text": pd.concat([new(COLD, "n ")["text"]] * 2)},
    "zeros": {name: 0 * frame for name, frame in new(COLD, "n ").items()},
    "empty": {name: frame[:0] for name, frame in new(COLD, "n ").items()},
}


@pytest.mark.parametrize("name", BAD)
def test_features_that_are_not_the_models(name: str, records: dict[str, RunRecord]) -> None:
    model = load_model(records["ContentRidge"])
    with pytest.raises(FeatureError):
        model.with_items(BAD[name])


@pytest.mark.parametrize("name", MODELS)
def test_damaged_rules_are_refused(
    name: str, records: dict[str, RunRecord], tmp_path: Path
) -> None:
    record = records[name]
    assert record.path
    path, card_path = model_paths(record, record.path)

    def changed(number: int, tensors: dict, card: dict) -> Path:
        file = tmp_path / f"{number}.safetensors"
        save_file(tensors, file)
        card = {**card, "sha256": sha256_file(file)}
        file.with_suffix(".json").write_text(json.dumps(card))
        return file

    whole, card = load_file(path), json.loads(card_path.read_text())
    names = [key for key in whole if key.startswith("content.")]
    assert names
    load_model(changed(0, whole, card)).with_items(new(COLD, "new "))
    content = card["content"]
    damaged = [
        *(({**whole, key: np.full_like(whole[key], np.nan)}, card) for key in names),
        *(({**whole, key: whole[key][:-1].copy()}, card) for key in names),
        *(({k: v for k, v in whole.items() if k != key}, card) for key in names),
        ({**whole, "content.more": np.zeros(3)}, card),
        (whole, {**card, "content": None}),
        *((whole, {**card, "content": {**content, **change}}) for change in (
            {"rule": "code"}, {"sets": {}}, {"sets": {"image": 7}},
            {"sets": {"image": -7, "text": 19}}, {"numbers": {}},
            {"numbers": {**content["numbers"], "more": 1}}, {"more": 1},
            {"rule": "rows" if content["rule"] != "rows" else "knn"},
        ) if change != {"numbers": content["numbers"]}),
    ]  # fmt: skip
    for number, (tensors, values) in enumerate(damaged, 1):
        file = changed(number, tensors, values)
        with pytest.raises(RecordError):
            load_model(file)


@pytest.mark.parametrize("name", ["AddEASE", "ItemKNNCBF", "ItemKNNHybrid"])
def test_blocks_of_new_items_have_the_same_scores(
    name: str, records: dict[str, RunRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    further = new(ITEMS, "new ")
    whole = scores(load_model(records[name]).with_items(further))
    monkeypatch.setattr(content_map, "BLOCK_NUMBERS", 7 * len(ITEMS))
    in_blocks = scores(load_model(records[name]).with_items(further))
    pd.testing.assert_frame_equal(in_blocks, whole, rtol=1e-6)


def test_new_items_need_no_dense_table(monkeypatch: pytest.MonkeyPatch) -> None:
    n, width = 3000, 8
    rows = np.random.default_rng(0).normal(size=(n, width)).astype(np.float32)
    tensors = {"mean": np.zeros(width), "rows": rows}
    numbers = {"centre": 0.0, "weight": 1.0, "k": 5}
    content = content_map.ContentMap("hybrid", {"text": width}, numbers, tensors)
    monkeypatch.setattr(content_map, "BLOCK_NUMBERS", 1 << 16)
    tracemalloc.start()
    try:
        columns = content.columns([rows])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert columns.shape == (n, n)
    assert peak < n * n, "a quarter of the dense scores"


# Explanations by content -------------------------------------------------------------------------


def test_explained_by_content(records: dict[str, RunRecord]) -> None:
    """The features decide alone, and the model's own reason stays beside it."""
    content = features()["text"]
    unit = content.div(np.linalg.norm(content, axis=1), axis=0)
    for name in ("BPR", "EASE"):
        model = load_model(records[name])
        lists = model.recommend(["u1", "u2"], k=4)
        found = model.explain(lists, content)
        assert list(found)[:6] == list(model.explain(lists))
        saved = model.tables()
        for user, item, near, value in found[
            ["user", "item", "nearest_by_content", "content_cosine"]
        ].itertuples(index=False):
            own = saved.items[saved.train[model.users.index(user) + 1].indices - 1]
            cosines = unit.loc[[each for each in own if each != item]] @ unit.loc[item]
            assert near == cosines.idxmax()
            assert value == pytest.approx(cosines.max())
    both = model.explain(lists, [features()["image"], content])
    assert both["content_cosine"].between(-1.001, 1.001).all()
    with pytest.raises(FeatureError, match="none of the model's items"):
        model.explain(lists, content.set_axis([f"x{n}" for n in range(len(content))]))
    with pytest.raises(FeatureError, match="no features to explain by"):
        model.explain(lists, [])


def test_items_without_features_have_no_reason(records: dict[str, RunRecord]) -> None:
    model = load_model(records["BPR"])
    lists = model.recommend("u1", k=1000, exclude=None)
    found = model.explain(lists, features()["image"]).set_index("item")
    assert list(found.index[found["nearest_by_content"].isna()]) == ["i38"]
    assert np.isnan(found["content_cosine"]["i38"])


# The verb ----------------------------------------------------------------------------------------


def file_of(frame: pd.DataFrame, path: Path, encoder: str = "huggingface:some") -> Path:
    save_features(
        path, frame.to_numpy(np.float32), name=path.stem, modality="text", encoder=encoder,
        settings={}, source="items.tsv", items=list(frame.index),
    )  # fmt: skip
    return path


def test_the_verb(
    records: dict[str, RunRecord], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = records["ContentRidge"]
    files = {name: file_of(f, tmp_path / f"{name}.npy") for name, f in new(COLD, "new ").items()}
    named = ",".join(f"{name}={path}" for name, path in files.items())
    line = ["recommend", "--run", str(record.path), "--users", "u1", "--exclude", "none"]
    assert main([*line, "--new-items", named, "-k", "50", "--to", str(tmp_path / "l.csv")]) == 0
    found = pd.read_csv(tmp_path / "l.csv")
    assert {f"new {item}" for item in COLD} < set(found["item"])
    whole = file_of(features()["text"], tmp_path / "all.npy")
    assert main([*line, "--explain", "--explain-by", str(whole)]) == 0
    assert "nearest_by_content" in capsys.readouterr().out
    lsa = file_of(new(COLD, "new ")["text"], tmp_path / "lsa.npy", "lsa")
    for more, words in (
        (["--new-items", str(lsa)], "whose columns depend on all items of a table"),
        (["--new-items", str(files["text"])], "are not those of the model"),
        (["--new-items", f"a={lsa},b"], "not named clearly"),
        (["--new-items", str(tmp_path / "absent.npy")], "absent.npy"),
        (["--explain-by", str(whole)], "Option --explain-by needs --explain"),
    ):
        assert main([*line, *more]) == 2
        assert words in capsys.readouterr().err


def test_items_that_a_file_calls_missing_are_not_in_its_frame(tmp_path: Path) -> None:
    rows = np.array([[1.0, 2.0], [0.0, 0.0], [3.0, 4.0]], dtype=np.float32)
    save_features(
        tmp_path / "f.npy", rows, name="f", modality="text", encoder="mine", settings={},
        source="drawn", items=["a", "b", "c"], missing=["b"],
    )  # fmt: skip
    frame = read_features(tmp_path / "f.npy")
    assert list(frame.index) == ["a", "c"]
    assert frame.loc["c"].tolist() == [3.0, 4.0]
