"""`run`, `run_protocol`, `load_results` and `Dataset.from_frames`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from trials import trial

from alignrec_recbole import (
    Dataset,
    RunRecord,
    RunSpec,
    load_records,
    load_results,
    run,
    run_protocol,
)
from alignrec_recbole.data.items import read_item_table
from alignrec_recbole.errors import AlignRecError, DataError, SettingError, UnknownNameError
from alignrec_recbole.runs.lists import read_user_values
from alignrec_recbole.runs.record import Run

from .conftest import MODELS, Records, frames

VECTORS = pd.DataFrame(np.eye(30, 4, dtype=np.float32) + 1, index=[f"{n:04}" for n in range(30)])


def test_every_model_with_every_seed_in_order(tmp_path: Path) -> None:
    data = Dataset.from_frames(**frames())
    keywords: dict[str, Any] = {"dataset": data, "output": tmp_path, "progress": False}
    records = run(
        model=["BPR", "Pop"], seeds=range(2), epochs=1, learning_rate=0.01, save=False, **keywords
    )
    names = [(record.model, record.seed) for record in records]
    assert names == [("BPR", 0), ("BPR", 1), ("Pop", 0), ("Pop", 1)]
    assert {record.config["learning_rate"] for record in records[:2]} == {0.01}
    again = run(model="BPR,Pop", seeds=[0, 1], epochs=1, learning_rate=0.01, **keywords)
    assert again == records  # read, not run again
    assert [record.path for record in again] == [record.path for record in records]
    one = run(
        RunSpec(
            "BPR",
            data.name,
            data_path=data.folder.parent,
            output=tmp_path,
            epochs=1,
            seed=1,
            overrides={"learning_rate": 0.01},
            progress=False,
        )
    )
    assert isinstance(one, RunRecord)
    assert one == records[1]


def test_a_protocol(tmp_path: Path) -> None:
    data = Dataset.from_frames(**frames())
    (record,) = run_protocol("zero-shot", dataset=data, output=tmp_path, progress=False)
    assert record.features == "lsa"
    assert record.metrics["Recall@20"] > 2 * record.chance["Recall@20"]  # type: ignore[index]
    with pytest.raises(UnknownNameError, match="zero-shoot"):
        run_protocol("zero-shoot", dataset=data, output=tmp_path)


def test_protocol_full_gives_no_features_to_models_without(tmp_path: Path) -> None:
    data = Dataset.from_frames(**frames(20, 30), features={"image": VECTORS})
    keywords: dict[str, Any] = {
        "dataset": data, "features": "image", "output": tmp_path, "progress": False, "save": False,
    }  # fmt: skip
    records = run_protocol("full", models="Pop,ItemKNNCBF", **keywords)
    assert [record.features for record in records] == ["none", "image"]
    assert records == run(model="Pop,ItemKNNCBF", **keywords)
    assert [record.path for record in load_records(tmp_path)] == sorted(
        record.path for record in records if record.path
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"dataset": "ml-100k", "output": "x"}, "run needs model"),
        ({"model": "BPR", "dataset": "ml-100k"}, "run needs output"),
        ({"model": "BPRR", "dataset": "ml-100k", "output": "x"}, "BPRR"),
        ({"model": "BPR", "dataset": "ml-100k", "output": "x", "convention": "m"}, "convention"),
        ({"model": "BPR", "dataset": "ml-100k", "output": "x", "learnin_rate": 1}, "learnin_rate"),
        ({"model": "BPR", "dataset": "ml-100k", "output": "x", "seeds": [-1]}, "seed"),
        ({"model": "BPR", "dataset": "nowhere", "output": "x"}, "nowhere"),
        ({"model": [], "dataset": "ml-100k", "output": "x"}, "run needs a model"),
        ({"model": "Pop", "dataset": "ml-100k", "output": "x", "seed": 5}, "no argument seed"),
        ({"model": "Pop", "dataset": "ml-100k", "output": "x", "seeds": "5"}, "no whole numbers"),
        ({"model": "Pop", "dataset": "ml-100k", "output": "x", "seeds": []}, "no whole numbers"),
        (
            {"model": "Pop", "dataset": "ml-100k", "output": "x", "protocol": "zero-shot"},
            "no argument protocol",
        ),
    ],
)
def test_what_run_refuses(
    given: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AlignRecError, match=message):
        run(**given, **({"progress": False} if len(given) > 2 else {}))
    assert not list(tmp_path.rglob("*.json"))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"models": "Pop", "seed": 5}, "no argument seed"),
        ({"model": "Pop"}, "no argument model"),
        ({}, "full needs a model"),
        ({"models": "Pop", "seeds": True}, "no whole numbers"),
    ],
)
def test_what_run_protocol_refuses(given: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=message):
        run_protocol("full", dataset="ml-100k", output=tmp_path, progress=False, **given)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("protocol", "given", "name"),
    [
        ("zero-shot", {"epochs": 7}, "epochs"),
        ("long-tail", {"epochs": 7}, "epochs"),
        ("item-cf", {"track": "tensorboard"}, "track"),
        ("knock-out", {"models": "VBPR", "save": False}, "save"),
        ("cold-start", {"save_limit": "2GB"}, "save_limit"),
    ],
)
def test_arguments_that_a_protocol_does_not_use(
    protocol: str, given: dict[str, Any], name: str, tmp_path: Path
) -> None:
    """As on the command line."""
    with pytest.raises(SettingError, match=f"{protocol} does not use {name}\\."):
        run_protocol(protocol, dataset="ml-100k", output=tmp_path, progress=False, **given)
    assert not list(tmp_path.iterdir())


def test_epochs_where_mask_modality_trains_nothing(tmp_path: Path) -> None:
    for models in (None, "item-cf"):
        with pytest.raises(SettingError, match=r"uses epochs only where it trains a model\."):
            run_protocol(
                "mask-modality", dataset="ml-100k", output=tmp_path, models=models, epochs=7
            )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("function", [run, run_protocol])
def test_features_that_a_model_does_not_use(
    function: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = Dataset.from_frames(**frames(20, 30), features={"image": VECTORS})
    chosen: dict[str, Any] = {"model": "Pop"}
    if function is run_protocol:
        chosen = {"protocol": "full", "models": "Pop"}
    given: dict[str, Any] = {**chosen, "dataset": data, "output": tmp_path, "save": False}
    with pytest.raises(UnknownNameError, match=r"no features 'imagee'.*'image'"):
        function(**given, features="imagee")
    assert not list(tmp_path.iterdir())
    (record,) = function(**given, features="image")
    assert record.features == "none"
    note = "note: Pop does not use features\n"
    assert note in capsys.readouterr().err
    assert function(**given, features="image", progress=False) == [record]
    assert function(**given, features=None) == [record]
    assert note not in capsys.readouterr().err


def test_no_models_are_none(tmp_path: Path) -> None:
    data = Dataset.from_frames(**frames(20, 30), features={"image": VECTORS})
    given: dict[str, Any] = {"dataset": data, "output": tmp_path, "progress": False}
    records = run_protocol("zero-shot", models=None, features="image", **given)
    assert records == run_protocol("zero-shot", features="image", **given)
    with pytest.raises(SettingError, match="full needs a model"):
        run_protocol("full", models=None, **given)


def test_seeds_of_numpy(tmp_path: Path) -> None:
    data = Dataset.from_frames(**frames(20, 30))
    for seeds in (np.int64(3), np.arange(3, 4)):
        (record,) = run(
            model="Pop", dataset=data, output=tmp_path, seeds=seeds, progress=False, save=False
        )
        assert record.seed == 3
        assert type(record.seed) is int


@pytest.mark.parametrize("protocol", ["zero-shot", "nonsense", "mask-modality", "knock-out"])
def test_a_specification_of_a_protocol_that_is_no_run(protocol: str, tmp_path: Path) -> None:
    spec = RunSpec("Pop", "ml-100k", protocol=protocol, output=tmp_path, progress=False)
    with pytest.raises(SettingError, match="not of the protocol"):
        run(spec)
    assert not list(tmp_path.iterdir())


def test_a_specification_or_keywords() -> None:
    with pytest.raises(SettingError, match="either one RunSpec or keywords"):
        run(RunSpec("BPR", "ml-100k"), seeds=3)  # type: ignore[call-overload]


# Results -----------------------------------------------------------------------------------------


def test_one_row_per_run(records: Records, output: Path) -> None:
    table = load_results(output)
    assert len(table) == len(records) == len(load_records(output))
    assert set(table["model"]) == set(MODELS)
    for record in records.values():
        row = table[table["path"] == str(record.path)].iloc[0]
        assert row["Recall@20"] == record.metrics["Recall@20"]
        assert row["valid NDCG@10"] == record.valid_metrics["NDCG@10"]
        assert (row["seed"], row["convention"]) == (record.seed, record.setting)


def test_one_row_per_run_and_user(records: Records, output: Path) -> None:
    table = load_results(output, per_user=True)
    record = records["BPR", "mmrec"]
    assert record.path
    values = read_user_values(Run(record.path, record))
    assert values is not None
    ours = table[(table["model"] == "BPR") & (table["convention"] == "mmrec")]
    assert list(ours["user"]) == list(values.users)
    assert ours["Recall@20"].mean() == pytest.approx(record.metrics["Recall@20"])


def test_folders_without_results(tmp_path: Path) -> None:
    for per_user in (False, True):
        assert len(load_results(tmp_path, per_user=per_user)) == 0
    assert "model" in load_results(tmp_path).columns
    with pytest.raises(DataError, match="no output folder 'nowhere'"):
        load_results(tmp_path / "nowhere")


# Data frames -------------------------------------------------------------------------------------


def test_frames_become_a_data_set(tmp_path: Path) -> None:
    given = frames(20, 30)
    for name in ("a.png", "b.png"):
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    vectors = pd.DataFrame(np.eye(5, dtype=np.float32), index=[f"{n:04}" for n in range(5)])
    data = Dataset.from_frames(
        **given,
        images={"0001": tmp_path / "a.png", "0007": str(tmp_path / "b.png")},
        features={"image": vectors},
        name="mine",
        folder=tmp_path / "data",
    )
    folder = tmp_path / "data" / "mine"
    assert data.folder == folder
    lines = (folder / "mine.inter").read_text("utf-8").splitlines()
    assert lines[0].split("\t") == ["userID", "itemID", "timestamp", "x_label"]
    assert len(lines) == 1 + len(given["interactions"])
    items = pd.read_csv(folder / "items.tsv", sep="\t", dtype=str).set_index("item_id")
    assert items.loc["0001", "image"] == "0.png"
    assert (folder / "images" / "1.png").is_file()
    (record,) = run(
        model="VBPR", dataset=data, features="image", epochs=1, output=tmp_path / "out",
        progress=False,
    )  # fmt: skip
    assert record.feature_files["image"]["modality"] == "image"
    with pytest.raises(DataError, match="exists already"):
        Dataset.from_frames(**given, name="mine", folder=tmp_path / "data")
    assert (folder / "mine.inter").is_file()


def test_a_temporary_data_set_goes_with_its_object() -> None:
    data = Dataset.from_frames(frames()["interactions"])
    folder = data.folder
    assert folder.is_dir()
    assert "<table>" in data._repr_html_()
    del data
    assert not folder.exists()


def test_missing_values_add_nothing_to_a_text(tmp_path: Path) -> None:
    rows = frames(20, 30)["interactions"]
    items = pd.DataFrame(
        {"item": ["0001", "0002"], "title": ["a", None], "when": pd.to_datetime([None, None])}
    )
    data = Dataset.from_frames(rows, items, name="gaps", folder=tmp_path)
    assert read_item_table(data.folder / "items.tsv").texts == ["a", ""]


def test_times_may_be_dates_and_ids_numbers(tmp_path: Path) -> None:
    """Frames are read as `import` reads them."""
    when = pd.to_datetime(["2020-01-01", "2020-01-02", "2020-01-03"])
    rows = pd.DataFrame({"user": [1.0, 2.0, 2.0], "item": [np.int64(7), "07", "a b"], "time": when})
    data = Dataset.from_frames(rows.astype({"item": object}), name="dates", folder=tmp_path)
    assert (data.folder / "dates.inter").read_text("utf-8").splitlines() == [
        "userID\titemID\ttimestamp", "1\t7\t1577836800", "2\t07\t1577923200", "2\ta b\t1578009600",
    ]  # fmt: skip


def _changed(change: Callable[[pd.DataFrame], Any]) -> dict[str, Any]:
    table = frames()["interactions"].astype(object)
    changed = change(table)
    return {"interactions": table if changed is None else changed}


WRONG: dict[str, dict[str, Any]] = {
    "no frame": {"interactions": [("u", "i")]},
    "no user": _changed(lambda t: t.drop(columns="user")),
    "two users": _changed(lambda t: t.assign(user_id=1)),
    "a column that nothing reads": _changed(lambda t: t.assign(mood="good")),
    "no rows": _changed(lambda t: t.iloc[:0]),
    "the same pair twice": _changed(lambda t: pd.concat([t, t.iloc[:1]])),
    "another split": _changed(lambda t: t.__setitem__("split", "dev")),
    "no training rows": _changed(lambda t: t[t["split"] != "train"]),
    **{
        f"the token {value!r}": _changed(
            lambda t, value=value: t.__setitem__("item", [value, *t["item"][1:]])
        )
        for value in (None, "", " a", "a\tb", "a\nb", 'a"b', float("nan"), 1.5, True, [1], pd.NA)
    },
    "items without ids": {**frames(), "items": pd.DataFrame({"title": ["a"]})},
    "the same item twice": {
        **frames(),
        "items": pd.DataFrame({"item": ["0001", "0001"], "title": ["a", "b"]}),
        "features": None,
    },
    "images in a column and as files": {
        **frames(),
        "items": pd.DataFrame({"item": ["0001"], "image": ["a.png"]}),
        "images": {"0001": __file__},
    },
    "an image of nothing": {**frames(), "images": {"nothing": "a.png"}},
    "an image that is not there": {**frames(), "images": {"0001": "/no/where.png"}},
    "features of nothing": {**frames(), "features": {"image": pd.DataFrame([[1.0]], ["x"])}},
    "features twice": {**frames(), "features": {"image": pd.DataFrame([[1.0]] * 2, ["0001"] * 2)}},
    "features of words": {**frames(), "features": {"image": pd.DataFrame([["a"]], ["0001"])}},
    **{
        f"{what} in features": {**frames(), "features": {"image": table}}
        for what, table in {
            "no columns": pd.DataFrame(index=["0001", "0002"]),
            "a huge number": pd.DataFrame([[10**400]], ["0001"], dtype=object),
            "complex numbers": pd.DataFrame([[1j]], ["0001"]),
            "a complex number of numpy": pd.DataFrame([[np.complex64(1j)]], ["0001"], dtype=object),
        }.items()
    },
    "features that are no frame": {**frames(), "features": {"image": np.eye(3)}},
    "NaN in features": {**frames(), "features": {"image": pd.DataFrame([[np.nan]], ["0001"])}},
    **{
        f"features called {name!r}": {
            **frames(),
            "features": {name: pd.DataFrame([[1.0]], ["0001"])},
        }
        for name in ("random", "shuffled:image", "filled-mean:image", "mmrec", "a,b", "a+b", "a=b")
    },
    "two columns item": _changed(lambda t: pd.concat([t, t["item"]], axis=1)),
    **{
        f"items with columns {', '.join(names)}": {
            **frames(),
            "items": pd.DataFrame([["0001", "0002", "0003"]], columns=names),
        }
        for names in (
            ["item", "item_id", "title"],
            ["itemID", "item", "title"],
            ["item", "item", "title"],
            ["item", "title", "title"],
        )
    },
    "items with an index and a column of ids": {
        **frames(),
        "items": pd.DataFrame({"item_id": ["0002"]}, index=pd.Index(["0001"], name="item")),
    },
    **{
        f"items with a column {name} that nothing reads": {
            **frames(),
            "items": pd.DataFrame({"item": ["0001"], "title": ["a"], name: ["x"]}),
        }
        for name in ("id", "asin", "price:float")
    },
    "a name that leaves the folder": {**frames(), "name": "../x"},
    "features that leave the folder": {
        **frames(),
        "features": {"../x": pd.DataFrame([[1.0]], ["0001"])},
    },
}


@pytest.mark.parametrize("below", [".", "further/down"])
def test_a_file_is_no_folder_of_data_sets(below: str, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("a note")
    with pytest.raises(DataError, match="The folder for data set 'frames' is none"):
        Dataset.from_frames(**frames(), folder=tmp_path / "mine" / below)
    assert (tmp_path / "mine").read_text() == "a note"


@pytest.mark.parametrize("given", WRONG.values(), ids=WRONG)
def test_frames_that_are_refused(given: dict[str, Any], tmp_path: Path) -> None:
    folder = tmp_path / "data"
    with trial("data frames"), pytest.raises(AlignRecError):
        Dataset.from_frames(**given, folder=folder)
    assert not folder.exists() or not list(folder.iterdir())
    assert not (tmp_path / "x").exists()
