"""Saved models: lists equal to the evaluation's, vectors, refusals, files from anyone."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file, save_file

from alignrec_recbole import RunRecord, TrainedModel, load_model, load_records, run
from alignrec_recbole.cli.main import main
from alignrec_recbole.errors import DataError, RecordError, SettingError, UnknownNameError
from alignrec_recbole.features.item_order import TIE_SEED, tie_ranks
from alignrec_recbole.io.files import sha256_file
from alignrec_recbole.runs.lists import UserValues, read_user_values
from alignrec_recbole.runs.record import Run
from alignrec_recbole.runs.saved_model import model_paths

from .conftest import MODELS, RANKED_BOTH_WAYS, Records


def stored(record: RunRecord) -> UserValues:
    """The lists of the run's own test ranking."""
    assert record.path
    values = read_user_values(Run(record.path, record))
    assert values is not None
    return values


def rows(lists: pd.DataFrame) -> list[tuple]:
    return list(lists[["user", "rank", "item"]].itertuples(index=False, name=None))


def stored_rows(values: UserValues, k: int = 50) -> list[tuple]:
    return [
        (user, rank, values.items[item])
        for user, listed in zip(values.users, values.top, strict=True)
        for rank, item in enumerate(listed[:k], 1)
        if item >= 0
    ]


@pytest.fixture
def bpr(records: Records) -> TrainedModel:
    return load_model(records["BPR", "mmrec"])


@pytest.mark.parametrize(
    ("name", "convention"),
    [*((name, "mmrec") for name in MODELS), *((name, "recbole") for name in RANKED_BOTH_WAYS)],
)
def test_lists_are_those_of_the_run_item_by_item(
    name: str, convention: str, records: Records
) -> None:
    record = records[name, convention]
    model, values = load_model(record), stored(record)
    assert model.card.kind == MODELS[name]
    assert rows(model.recommend(values.users, k=50)) == stored_rows(values)
    assert rows(model.recommend(values.users, k=7)) == stored_rows(values, 7)
    some = values.users[[40, 3, 120]]  # another order and fewer users
    assert [row for row in rows(model.recommend(some)) if row[0] == some[1]] == [
        row for row in stored_rows(values, 20) if row[0] == some[1]
    ]


def test_the_lists_have_ties(records: Records) -> None:
    """Else the test above would say nothing on ties."""
    lists = load_model(records["Pop", "mmrec"]).recommend(k=50)
    scores = lists.groupby("user")["score"]
    assert (scores.nunique() < scores.size()).any()


@pytest.mark.parametrize("name", ["BPR", "Pop", "DMF"])
def test_longer_lists_begin_with_shorter_ones_and_end_in_all_items(
    name: str, records: Records
) -> None:
    model = load_model(records[name, "mmrec"])
    user = model.users[10]
    whole = model.recommend(user, k=10_000, exclude=None)
    assert sorted(whole["item"]) == sorted(model.items)
    assert whole["score"].is_monotonic_decreasing
    assert list(model.recommend(user, k=60, exclude=None)["item"]) == list(whole["item"][:60])


def test_a_model_stored_before_ties_had_an_order_still_ranks(
    records: Records, tmp_path: Path
) -> None:
    """Its lists are those of the search that its evaluation used; only equal scores differ."""
    record = records["Pop", "mmrec"]
    assert record.path
    path, card_path = model_paths(record, record.path)
    shutil.copy(path, tmp_path / path.name)
    card = json.loads(card_path.read_text())
    del card["tie_seed"]
    (tmp_path / card_path.name).write_text(json.dumps(card))
    old, new = load_model(tmp_path / path.name), load_model(record)
    users = new.users[:30]
    assert (old.card.tie_seed, new.card.tie_seed) == (None, TIE_SEED)
    lists = [model.recommend(users, k=50) for model in (old, new)]
    assert list(lists[0]["score"]) == list(lists[1]["score"])
    assert list(lists[0]["item"]) != list(lists[1]["item"])
    shorter = old.recommend(users, k=7)
    assert rows(shorter) == [row for row in rows(lists[0]) if row[1] <= 7]


def test_equal_scores_are_in_the_order_of_the_card(records: Records, tmp_path: Path) -> None:
    record = records["Pop", "mmrec"]
    assert record.path
    path, card_path = model_paths(record, record.path)
    shutil.copy(path, tmp_path / path.name)
    card = {**json.loads(card_path.read_text()), "tie_seed": 7}
    (tmp_path / card_path.name).write_text(json.dumps(card))
    model = load_model(tmp_path / path.name)
    place = dict(zip(model.items, tie_ranks(["[PAD]", *model.items], 7)[1:], strict=True))
    found = model.recommend(model.users[0], k=90)
    expected = sorted(
        zip(-found["score"], found["item"].map(place), found["item"], strict=True),
    )
    assert list(found["item"]) == [item for _, _, item in expected]
    assert list(found["item"]) != list(load_model(record).recommend(model.users[0], k=90)["item"])


def test_what_is_excluded(records: Records) -> None:
    model = load_model(records["BPR", "recbole"])
    saved, user = model.tables(), model.users[0]
    train, valid = (
        set(saved.items[matrix[1].indices - 1]) for matrix in (saved.train, saved.valid)
    )
    assert train
    assert valid
    every = set(model.items)
    for exclude, left in (
        (None, every),
        ("train", every - train),
        ("seen", every - train - valid),
        ("run", every - train - valid),
    ):
        assert set(model.recommend(user, 10_000, exclude)["item"]) == left
    with pytest.raises(SettingError, match="exclude"):
        model.recommend(user, exclude="test")  # type: ignore[arg-type]


def test_only_some_items(bpr: TrainedModel) -> None:
    some = bpr.items[5:25]
    found = bpr.recommend(bpr.users[:3], items=some, exclude=None)
    whole = bpr.recommend(bpr.users[:3], k=10_000, exclude=None)
    assert rows(found.drop(columns="rank").assign(rank=0)) == rows(
        whole[whole["item"].isin(some)].drop(columns="rank").assign(rank=0)
    )
    assert set(found["rank"]) == set(range(1, 21))


def test_scores_are_products_of_the_vectors(bpr: TrainedModel) -> None:
    users, items = bpr.user_vectors(), bpr.item_vectors()
    assert (len(users), len(items)) == (150, 90)
    found = bpr.recommend(["u 1", "u 7"], k=5)
    for user, _, item, score in found.itertuples(index=False):
        assert users.loc[user] @ items.loc[item] == pytest.approx(score, rel=1e-5)


def test_similar_items_by_cosine(bpr: TrainedModel) -> None:
    found = bpr.similar_items(["0050", "0001"], k=5)
    vectors = bpr.item_vectors()
    unit = vectors.div(np.linalg.norm(vectors, axis=1), axis=0)
    expected = (unit @ unit.loc["0050"]).drop("0050").nlargest(5)
    first = found[found["item"] == "0050"]
    assert list(first["similar"]) == list(expected.index)
    np.testing.assert_allclose(first["similarity"], expected, rtol=1e-4)
    assert list(first["rank"]) == [1, 2, 3, 4, 5]


def test_explanations_name_training_items(bpr: TrainedModel, records: Records) -> None:
    for model in (bpr, load_model(records["EASE", "mmrec"])):
        lists = model.recommend(["u 1", "u 2"], k=4)
        found = model.explain(lists)
        saved = model.tables()
        for user, item, near, value in found[
            ["user", "item", "nearest_training_item", "similarity"]
        ].itertuples(index=False):
            own = set(saved.items[saved.train[model.users.index(user) + 1].indices - 1])
            assert near in own - {item}
            best = max(
                model.similarities(model.items.index(item) + 1)[model.items.index(other) + 1]
                for other in own - {item}
            )
            assert value == best


def test_explanations_keep_the_similarities_of_one_item(bpr: TrainedModel) -> None:
    lists = bpr.recommend(k=10)
    asked: list[weakref.ref[np.ndarray]] = []
    alive = []

    class Counted(TrainedModel):
        def similarities(self, item: int) -> np.ndarray:
            alive.append(sum(reference() is not None for reference in asked))
            found = super().similarities(item)
            asked.append(weakref.ref(found))
            return found

    counted = Counted(bpr.tables()).explain(lists)
    assert len(asked) == lists["item"].nunique()
    assert max(alive) <= 1
    pd.testing.assert_frame_equal(counted, bpr.explain(lists))
    shuffled = lists.sample(frac=1, random_state=0)
    pd.testing.assert_frame_equal(bpr.explain(shuffled).sort_index(), counted)


def test_a_model_without_vectors_says_so(records: Records) -> None:
    ease = load_model(records["EASE", "mmrec"])
    assert len(ease.similar_items("0050", 3)) == 3
    with pytest.raises(SettingError, match="EASE has no vectors"):
        ease.user_vectors()
    dmf = load_model(records["DMF", "mmrec"])
    with pytest.raises(SettingError, match="DMF has no similar items"):
        dmf.similar_items("0050")


def test_unknown_tokens_and_odd_arguments(bpr: TrainedModel) -> None:
    with pytest.raises(UnknownNameError, match="Unknown user 'nobody'"):
        bpr.recommend(["u 1", "nobody"])
    with pytest.raises(UnknownNameError, match="Unknown item"):
        bpr.similar_items("new")
    for users in ([1.5], [None], 2.0, [True], [["1"]]):
        with pytest.raises(DataError, match="token"):
            bpr.recommend(users)
    for k in (0, -1, 2.5, True, "20", 10**9):
        with pytest.raises(SettingError, match="k is no number"):
            bpr.recommend("u 1", k=k)  # type: ignore[arg-type]
    assert len(bpr.recommend([])) == 0
    assert len(bpr.recommend("u 1", k=3)) == 3


def test_it_is_loaded_from_its_two_files_alone(records: Records, tmp_path: Path) -> None:
    record = records["AlignRec", "mmrec"]
    assert record.path
    for path in model_paths(record, record.path):
        shutil.copy(path, tmp_path)
    (file,) = tmp_path.glob("*.safetensors")
    expected = rows(load_model(record).recommend(k=5))
    assert rows(load_model(file).recommend(k=5)) == expected
    assert rows(load_model(file.with_suffix(".json")).recommend(k=5)) == expected
    assert rows(load_model(str(record.path)).recommend(k=5)) == expected


def test_it_shows_itself(bpr: TrainedModel, records: Records) -> None:
    assert "BPR on small" in repr(bpr)
    assert "<td>150, 90</td>" in bpr._repr_html_()
    assert "<th>Recall@20</th>" in records["BPR", "mmrec"]._repr_html_()


# What is not kept --------------------------------------------------------------------------------


def test_a_run_may_keep_no_model(tmp_path: Path) -> None:
    (kept,) = run(model="Pop", dataset="ml-100k", output=tmp_path, progress=False)
    assert kept.path
    assert kept.weights
    path, card = model_paths(kept, kept.path)
    assert path.stat().st_size == kept.weights["bytes"]
    (record,) = run(
        model="Pop", dataset="ml-100k", output=tmp_path, progress=False, save=False, overwrite=True
    )
    assert record.weights is None
    assert not path.exists()
    assert not card.exists()
    with pytest.raises(RecordError, match=r"kept no model[^!]*--overwrite"):
        load_model(record)


def test_what_is_no_file_is_not_replaced(tmp_path: Path) -> None:
    keywords = {"model": "Pop", "dataset": "ml-100k", "output": tmp_path, "progress": False}
    (record,) = run(**keywords)
    assert record.path
    path, _ = model_paths(record, record.path)
    path.unlink()
    path.mkdir()
    with pytest.raises(RecordError, match=r"cannot be written[^!]*--no-save"):
        run(**keywords, overwrite=True)
    assert path.is_dir()
    assert run(**keywords, overwrite=True, save=False)[0].weights is None
    assert path.is_dir()


def test_a_record_of_an_earlier_version_says_how_to_get_a_model() -> None:
    shipped = Path(__file__).resolve().parents[2] / "results" / "shipped"
    record = load_records(shipped)[0]
    with pytest.raises(RecordError, match=r"kept no model[^!]*--overwrite"):
        load_model(record)


def test_a_table_above_the_limit_is_not_stored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The size is said, and the option that stores it; its lists are then the evaluation's."""
    keywords = {"dataset": "ml-100k", "output": tmp_path}
    (record,) = run(model="EASE", **keywords, save_limit="4MB")
    assert record.weights is None
    assert not (tmp_path / "models").exists()
    said = capsys.readouterr().err
    assert "its scores need 6.4 MB, and the limit is 4.0 MB" in said
    size = re.search(r"`run` with --overwrite and --save-limit (\S+)", said)
    assert size
    (record,) = run(model="Pop", **keywords, save_limit=0, progress=False)
    assert record.weights is not None, "vectors have no limit"
    line = ["--model", "EASE", "--dataset", "ml-100k", "--output", str(tmp_path), "--quiet"]
    assert main([*line, "--overwrite", "--save-limit", size[1]]) == 0
    record = next(each for each in load_records(tmp_path) if each.model == "EASE")
    values = stored(record)
    assert rows(load_model(record).recommend(values.users, k=50)) == stored_rows(values)


@pytest.mark.parametrize("limit", ["much", "-1", -1, True, None, 2.5, "2TB", "1e9"])
def test_a_limit_that_is_no_size_is_refused(limit: object, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="save_limit is no size"):
        run(model="Pop", dataset="ml-100k", output=tmp_path, save_limit=limit)  # type: ignore
    assert not list(tmp_path.iterdir())


# Files from anyone -------------------------------------------------------------------------------

Damage = Callable[[Path, Path], None]


def _tensors(change: Callable[[dict[str, np.ndarray]], object]) -> Damage:
    """Change tensors and give the card the new hash, as an attacker would."""

    def damage(path: Path, card: Path) -> None:
        tensors = {name: value.copy() for name, value in load_file(path).items()}
        change(tensors)
        save_file(tensors, path)
        _card(lambda values: values.update(sha256=sha256_file(path)))(path, card)

    return damage


def _card(change: Callable[[dict], object]) -> Damage:
    def damage(path: Path, card: Path) -> None:
        values = json.loads(card.read_text())
        change(values)
        card.write_text(json.dumps(values))

    return damage


def _set(name: str, place: object, value: object) -> Callable[[dict[str, np.ndarray]], object]:
    return lambda tensors: tensors[name].__setitem__(place, value)


DAMAGES: dict[str, Damage] = {
    "a byte of the tensors": lambda path, _: path.write_bytes(
        path.read_bytes()[:-1] + bytes([path.read_bytes()[-1] ^ 1])
    ),
    "half a file": lambda path, _: path.write_bytes(path.read_bytes()[:5000]),
    "no tensors": lambda path, _: path.unlink(),
    "no card": lambda _, card: card.unlink(),
    "a folder": lambda path, _: (path.unlink(), path.mkdir()),
    "a pickle": _card(lambda values: values.update(sha256="0" * 64)),
    "an unknown key": _card(lambda values: values.update(code="import os")),
    "another format": _card(lambda values: values.update(format=2)),
    "another kind": _card(lambda values: values.update(kind="scores")),
    "more users": _card(lambda values: values.update(users=151)),
    "a seed of no order": _card(lambda values: values.update(tie_seed=-1)),
    "negative items": _card(lambda values: values.update(items=-1)),
    "huge counts": _card(lambda values: values.update(items=2**62)),
    "no JSON": lambda _, card: card.write_text("{"),
    "NaN": _tensors(_set("table.items", (3, 3), np.nan)),
    "infinity": _tensors(_set("table.users", (0, 0), np.inf)),
    "an item outside": _tensors(_set("train.items", 0, 5000)),
    "a negative item": _tensors(_set("valid.items", 0, -5)),
    "ends that fall": _tensors(_set("train.ends", 5, 10**9)),
    "token ends outside": _tensors(_set("items.ends", -1, 10**9)),
    "token ends that fall": _tensors(_set("users.ends", 4, 0)),
    "no UTF-8": _tensors(_set("items.tokens", 0, 255)),
    "ranked users outside": _tensors(_set("ranked", -1, 10**6)),
    "ranked users twice": _tensors(lambda t: t["ranked"].__setitem__(1, t["ranked"][0])),
    "another tensor": _tensors(lambda tensors: tensors.update(more=np.zeros(3))),
    "a missing tensor": _tensors(lambda tensors: tensors.pop("ranked")),
    "another type": _tensors(lambda t: t.update({"table.items": t["table.items"].astype(float)})),
    "other sizes": _tensors(lambda t: t.update({"table.items": t["table.items"][:, :3].copy()})),
    "repeated tokens": _tensors(lambda t: t["items.tokens"].__setitem__(slice(0, 8), 49)),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_file_is_refused(damage: Damage, records: Records, tmp_path: Path) -> None:
    record = records["BPR", "mmrec"]
    assert record.path
    for path in model_paths(record, record.path):
        shutil.copy(path, tmp_path)
    (file,) = tmp_path.glob("*.safetensors")
    load_model(file)  # whole
    damage(file, file.with_suffix(".json"))
    with pytest.raises(RecordError) as caught:
        load_model(file)
    assert file.stem in str(caught.value)


def test_the_model_of_another_run_is_refused(
    records: Records, output: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "out"
    shutil.copytree(output, copy)
    record = next(each for each in load_records(copy) if each.model == "BPR")
    other = next(each for each in load_records(copy) if each.model == "Pop")
    assert record.path
    assert other.path
    for target, source in zip(
        model_paths(record, record.path), model_paths(other, other.path), strict=True
    ):
        shutil.copy(source, target)
    with pytest.raises(RecordError, match="is not the model that the record"):
        load_model(record)


def test_it_needs_neither_recbole_nor_the_data(records: Records, tmp_path: Path) -> None:
    record = records["AlignRec", "mmrec"]
    assert record.path
    for path in model_paths(record, record.path):
        shutil.copy(path, tmp_path)
    (file,) = tmp_path.glob("*.safetensors")
    code = f"""
import sys
import weakref
import alignrec_recbole
sys.modules["recbole"] = None  # an import of it fails from here
from alignrec_recbole import load_model
model = load_model({str(file)!r})
print(*model.recommend("u 3", k=5)["item"], *model.similar_items("0003", 2)["similar"])
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
        timeout=120,
    )
    model = load_model(record)
    expected = [*model.recommend("u 3", k=5)["item"], *model.similar_items("0003", 2)["similar"]]
    assert done.stdout.split() == expected, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [file.name, file.with_suffix(".json").name]
    )
