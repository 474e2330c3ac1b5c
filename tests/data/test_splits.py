"""Splits and numbers by hand-worked examples, by properties, and by a ranker of numbers alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from alignrec_recbole.data.made_dataset import write_dataset
from alignrec_recbole.data.numbering import number_ids
from alignrec_recbole.data.split_manifest import read_split_manifest
from alignrec_recbole.data.split_names import METHODS, parse_split
from alignrec_recbole.data.splits import draw_labels
from alignrec_recbole.errors import DataError, SettingError
from alignrec_recbole.io.files import sha256_file

Row = tuple[str, str, float]


def table(rows: list[Row]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["user", "item", "time"])


def parts(rows: list[Row], split: str, seed: int = 0) -> list[list[tuple[str, str]]]:
    """Pairs of training, validation and test."""
    labels = draw_labels(table(rows), parse_split(split, seed)).labels
    assert labels is not None
    return [
        sorted((u, i) for (u, i, _), label in zip(rows, labels, strict=True) if label == part)
        for part in range(3)
    ]


# Global time --------------------------------------------------------------------------------------

TEN: list[Row] = [
    ("ann", "cup", 1), ("ann", "pan", 2), ("bob", "cup", 3), ("bob", "pot", 4), ("cid", "pan", 5),
    ("cid", "pot", 6), ("ann", "lid", 7), ("dan", "cup", 7), ("dan", "jug", 9), ("ann", "pot", 10),
]  # fmt: skip


def test_global_time_by_hand() -> None:
    """The 8th of ten in time has time 7, so 7 is V and the other row of time 7 follows it."""
    drawn = draw_labels(table(TEN), parse_split("global-time:0.7,0.9"))
    assert drawn.labels is not None
    assert drawn.cuts == (7, 10)
    assert drawn.labels.tolist() == [0, 0, 0, 0, 0, 0, 1, 1, 1, 2]
    assert drawn.only_later == {
        "users": 1, "user_interactions": 2,  # dan, at 7 and 9
        "items": 2, "item_interactions": 2,  # lid and jug
    }  # fmt: skip


@pytest.mark.parametrize(
    ("cuts", "sizes"),
    [("5,8", [4, 4, 2]), ("7,7.5", [6, 2, 2]), ("6.5,10", [6, 3, 1]), ("2,3", [1, 1, 8])],
)
def test_cut_points_in_the_unit_of_the_data(cuts: str, sizes: list[int]) -> None:
    assert [len(part) for part in parts(TEN, f"global-time:{cuts}")] == sizes


@pytest.mark.parametrize("cuts", ["1,5", "5,11", "7.1,8", "20,30", "-5,-1"])
def test_an_empty_part_is_refused_with_the_times(cuts: str) -> None:
    with pytest.raises(DataError, match="leaves a part empty") as caught:
        parts(TEN, f"global-time:{cuts}")
    assert "times from 1 to 10" in str(caught.value)


def test_a_part_of_users_without_training_interactions_is_refused() -> None:
    with pytest.raises(DataError, match="of users with a training interaction 1 and 0"):
        parts([("a", "x", 1), ("a", "y", 2), ("b", "x", 3)], "global-time:2,3")


def test_one_time_for_all_cannot_be_cut() -> None:
    with pytest.raises(DataError, match="leaves a part empty"):
        parts([(user, item, 5) for user, item, _ in TEN], "global-time")


def test_times_beyond_the_precision_of_float64_are_compared_exactly() -> None:
    start = 1_628_643_414_042_000_000
    rows = [("u", f"i{n}", start + n) for n in range(10)]
    found = parts(rows, f"global-time:{start + 5},{start + 7}")
    assert [len(part) for part in found] == [5, 2, 3]


TIMES = st.lists(st.integers(0, 30) | st.integers(2**62, 2**62 + 9), min_size=3, max_size=60)


@settings(deadline=None, max_examples=300)
@given(TIMES, st.floats(0.05, 0.9), st.floats(0.05, 0.9), st.randoms())
def test_nothing_is_trained_on_that_is_later_than_what_is_tested(times, first, second, random):
    assume(first < second)
    rows = [(f"u{random.randrange(9)}", f"i{n}", time) for n, time in enumerate(times)]
    frame, split = table(rows), parse_split(f"global-time:{first},{second}")
    try:
        drawn = draw_labels(frame, split)
    except DataError:  # a part would be empty
        return
    assert drawn.labels is not None
    assert drawn.cuts is not None
    train, valid, test = (frame["time"][drawn.labels == part] for part in range(3))
    assert train.max() < drawn.cuts[0] <= valid.min()
    assert valid.max() < drawn.cuts[1] <= test.min()
    assert len(train) + len(valid) + len(test) == len(rows), "no row is lost"
    late = set(frame["user"]) - set(frame["user"][drawn.labels == 0])
    assert drawn.only_later["users"] == len(late)
    assert drawn.only_later["user_interactions"] == sum(user in late for user in frame["user"])


# Per user -----------------------------------------------------------------------------------------


def test_leave_last_out_by_hand() -> None:
    train, valid, test = parts(TEN, "leave-last-out")
    assert test == [("ann", "pot"), ("bob", "pot"), ("cid", "pot"), ("dan", "jug")]
    assert valid == [("ann", "lid")], "the others have two interactions: training keeps one"
    assert train == [
        ("ann", "cup"), ("ann", "pan"), ("bob", "cup"), ("cid", "pan"), ("dan", "cup"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("count", "sizes"),
    [(1, [1, 0, 0]), (2, [1, 0, 1]), (3, [1, 1, 1]), (9, [7, 1, 1]), (20, [16, 2, 2]),
     (39, [33, 3, 3])],
)  # fmt: skip
@pytest.mark.parametrize("method", ["user-random", "user-time"])
def test_shares_of_a_user(method: str, count: int, sizes: list[int]) -> None:
    """Rounded down, but at least one, as RecBole does."""
    others = [("other", f"i{n}", n) for n in range(10)]
    rows = [("user", f"i{n}", 100 - n) for n in range(count)]
    found = parts([*others, *rows], method)
    assert [sum(user == "user" for user, _ in part) for part in found] == sizes
    if method == "user-time" and count > 2:
        assert ("user", "i0") in found[2], "the latest"


@pytest.mark.parametrize(
    "split",
    ["user-random:0.71,0.29,0", "user-random:0.5,0.5", "user-random:a,b,c", "user-rnadom", "",
     "user-time:", "user-time:nan,1,1", "leave-last-out:1", "released:1", "none:",
     "global-time:1", "global-time:0.9,0.8", "global-time:0.5,7", "global-time:1,1e999"],
)  # fmt: skip
def test_a_split_that_is_none(split: str) -> None:
    with pytest.raises(SettingError):
        parse_split(split)


@pytest.mark.parametrize(
    "text",
    ["user-random:0.7,0.1,0.2", "global-time:1628643414042,1658002729837", "global-time:0.5,0.75",
     "user-time:0.8,0.1,0.1", "leave-last-out", "none", "released"],
)  # fmt: skip
def test_a_split_is_written_as_it_is_read(text: str) -> None:
    assert parse_split(text).text == text


ROWS = st.lists(
    st.tuples(st.integers(0, 6), st.integers(0, 12), st.integers(0, 4)),
    min_size=12,
    max_size=60,
    unique_by=lambda row: row[:2],
)


@settings(deadline=None, max_examples=200)
@given(ROWS, st.sampled_from(["user-random", "user-time", "leave-last-out"]), st.randoms())
def test_a_split_is_the_same_in_any_order_of_the_rows(numbers, method, random) -> None:
    rows = [(f"u{u}", f"i{i}", t) for u, i, t in numbers]
    try:
        found = parts(rows, method, 7)
    except DataError:
        return
    random.shuffle(rows)
    assert parts(rows, method, 7) == found
    if method != "user-random":
        when = {(u, i): t for u, i, t in rows}
        for user in {u for u, _ in found[2]}:
            earlier, test = (
                [when[pair] for pair in part if pair[0] == user] for part in (found[0], found[2])
            )
            assert max(earlier) <= min(test)


def test_seeds_draw_other_splits_and_other_orders_of_equal_times() -> None:
    rows = [(f"u{u}", f"i{i}", 5) for u in range(20) for i in range(10)]
    for method in ("user-random", "user-time", "leave-last-out"):
        assert parts(rows, method, 1) == parts(rows, method, 1)
        assert parts(rows, method, 1) != parts(rows, method, 2)


@pytest.mark.parametrize("method", ["user-time", "leave-last-out", "global-time"])
def test_times_are_needed(method: str) -> None:
    split = parse_split(method)
    with pytest.raises(DataError, match="needs times"):
        draw_labels(table(TEN).drop(columns="time"), split)
    frame = table(TEN).astype({"time": float})
    frame.loc[3, "time"] = np.nan
    with pytest.raises(DataError, match="a time for every interaction"):
        draw_labels(frame, split)
    with pytest.raises(DataError, match="a time for every interaction"):
        draw_labels(table(TEN).astype({"time": str}), split)


def test_released_labels_are_used_or_missed() -> None:
    frame = table(TEN).assign(split=[0, 0, 0, 1, 1, 2, 0, 0, 2, 2])
    labels = draw_labels(frame, parse_split("released")).labels
    assert labels is not None
    assert labels.tolist() == frame["split"].tolist()
    with pytest.raises(DataError, match="needs labels"):
        draw_labels(table(TEN), parse_split("released"))


# Numbers ------------------------------------------------------------------------------------------


def leaky_rows(seed: int = 1) -> list[Row]:
    """300 users with 8 of 400 items each, in the order of the items as in the raw files."""
    rng = np.random.default_rng(seed)
    names = rng.permutation(1000)[:300]
    rows = [(f"i{item:03d}", f"u{name}") for name in names
            for item in rng.choice(400, 8, replace=False)]  # fmt: skip
    return [(user, item, n) for n, (item, user) in enumerate(sorted(rows))]


def recall_of_numbers(path: Path) -> float:
    """Recall@20 of a ranker that reads the training rows and the numbers of users and items alone.

    RecBole numbers by appearance, training rows first. For user u the ranker takes the smallest
    item of the users from u on, and lists the items nearest to it.
    """
    frame = pd.read_csv(path, sep="\t")
    users, items = (frame[column].to_numpy() for column in ("userID", "itemID"))
    train = frame["x_label"].to_numpy() == 0
    smallest = np.full(users.max() + 1, items.max() + 1)
    np.minimum.at(smallest, users[train], items[train])
    bound = np.minimum.accumulate(smallest[::-1])[::-1]
    found = total = 0
    test = frame["x_label"].to_numpy() == 2
    for user in np.unique(users[test]):
        order = np.argsort(np.abs(np.arange(items.max() + 1) - bound[user]), kind="stable")
        seen = set(items[train & (users == user)])
        listed = [item for item in order if item not in seen][:20]
        wanted = items[test & (users == user)]
        found, total = found + np.isin(wanted, listed).sum(), total + len(wanted)
    return found / total


def test_numbers_drawn_at_random_do_not_tell_of_the_test_set(tmp_path: Path) -> None:
    recalls = {}
    for numbering in ("appearance", "random"):
        frame = table(leaky_rows())
        for column in ("user", "item"):
            numbers = number_ids(list(pd.unique(frame[column])), numbering, 3)
            frame[column] = frame[column].map(numbers)
        path = tmp_path / f"{numbering}.inter"
        write_dataset(frame, path, parse_split("user-random", 3), numbering=numbering, source={})
        recalls[numbering] = recall_of_numbers(path)
    chance = 20 / 400
    assert recalls["appearance"] > 2.5 * chance
    assert recalls["random"] < 1.6 * chance


@pytest.mark.parametrize("numbered", [True, False])
def test_the_order_of_the_rows_does_not_tell_of_the_test_set(tmp_path, numbered: bool) -> None:
    """The numbers that RecBole gives do not change with the items that are tested."""
    orders = []
    for swap in (False, True):
        frame = table(leaky_rows())
        labels = draw_labels(frame, parse_split("user-random", 3)).labels
        frame["split"] = labels
        if swap:  # test items of the users change places
            test = np.flatnonzero(labels == 2)
            frame.loc[test, "item"] = np.roll(frame["item"].to_numpy()[test], 1)
            frame = frame[~frame.duplicated(["user", "item"])]
        if numbered:
            for column in ("user", "item"):
                frame[column] = frame[column].map(
                    number_ids(list(pd.unique(frame[column])), seed=3)
                )
        path = tmp_path / "x.inter"
        write_dataset(frame, path, parse_split("released", 3), numbering="none", source={})
        written = pd.read_csv(path, sep="\t")
        written = written.iloc[np.argsort(written["x_label"].to_numpy(), kind="stable")]
        train = written[written["x_label"] == 0]
        orders.append(
            [list(pd.unique(written[c]))[: train[c].nunique()] for c in written.columns[:2]]
        )
    assert orders[0] == orders[1]


@pytest.mark.parametrize("numbered", [True, False])
def test_the_order_of_new_items_does_not_tell_who_tests_them(tmp_path, numbered: bool) -> None:
    orders = []
    for step in (1, 3):
        rows = [(user, item, part) for user in range(10) for item, part in
                ((0, 0), (1, 0), (2, 1), (3 + step * user % 10, 2))]  # fmt: skip
        frame = pd.DataFrame(rows, columns=["user", "item", "split"])
        if not numbered:
            frame = frame.astype({"user": str, "item": str})
        path = tmp_path / "x.inter"
        write_dataset(frame, path, parse_split("released", 3), numbering="none", source={})
        written = pd.read_csv(path, sep="\t").sort_values("x_label", kind="stable")
        orders.append(list(pd.unique(written["itemID"])))
    assert orders[0] == orders[1]


@settings(deadline=None, max_examples=60)
@given(st.lists(st.text(max_size=4), unique=True, max_size=30), st.integers(0, 2**63 - 1))
def test_numbers_are_a_permutation_that_depends_on_ids_and_seed(ids, seed) -> None:
    numbers = number_ids(ids, "random", seed)
    assert list(numbers.values()) == list(range(len(ids)))
    assert set(numbers) == set(ids)
    assert number_ids(ids[::-1], "random", seed) == numbers


# Files --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", [method for method in METHODS if method != "released"])
def test_a_written_split_can_be_drawn_again_from_its_files(tmp_path: Path, split: str) -> None:
    path = tmp_path / "shop.inter"
    frame = table(leaky_rows()).astype({"user": "category", "item": "category"})
    made = write_dataset(
        frame, path, parse_split(split, 5), numbering="none", source={"a.csv": "0" * 64}
    )
    assert read_split_manifest(tmp_path, "shop") == made
    assert made.inter_sha256 == sha256_file(path)
    assert sum(made.interactions) == 2400
    assert (made.users, made.items) == (300, frame["item"].nunique())
    stored = pd.read_csv(path, sep="\t").rename(
        columns={"userID": "user", "itemID": "item", "timestamp": "time"}
    )
    again = draw_labels(stored, parse_split(made.split, made.seed)).labels
    if split == "none":
        assert again is None
        assert "x_label" not in stored
    else:
        assert stored["x_label"].tolist() == again.tolist()
    other = tmp_path / "other"
    write_dataset(
        frame[::-1], other / "shop.inter", parse_split(split, 5), numbering="none", source={}
    )
    assert sha256_file(other / "shop.inter") == made.inter_sha256, "rows in another order"


@pytest.mark.parametrize(
    "change",
    [{"split": 5}, {"seed": None}, {"users": -1}, {"interactions": []}, {"inter_sha256": "x"},
     {"cuts": [1]}, {"unknown": 1}, {"numbering": "other"}, {"only_later": {"users": -1}}],
)  # fmt: skip
def test_a_damaged_manifest_is_refused(tmp_path: Path, change: dict) -> None:
    path = tmp_path / "shop.inter"
    write_dataset(table(TEN), path, parse_split("leave-last-out"), numbering="none", source={})
    manifest = tmp_path / "shop.split.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), **change}))
    with pytest.raises(DataError, match=r"shop\.split\.json is not the manifest of a split"):
        read_split_manifest(tmp_path, "shop")


@pytest.mark.parametrize("token", ["a\tb", "a\n", "", " a", "\0"])
def test_ids_that_would_be_read_as_others_are_not_written(tmp_path: Path, token: str) -> None:
    rows = [*TEN, (token, "cup", 3)]
    with pytest.raises(DataError, match="cannot be written"):
        write_dataset(
            table(rows), tmp_path / "x.inter", parse_split("none"), numbering="none", source={}
        )
    assert list(tmp_path.iterdir()) == []
