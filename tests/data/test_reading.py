"""Data sets as runs read them: times, split labels, columns and numbered features."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from trials import check_answered, check_refused, run_verb

from alignrec_recbole.data.made_dataset import write_dataset
from alignrec_recbole.data.split_names import parse_split
from alignrec_recbole.dataset import MultimodalDataset
from alignrec_recbole.errors import AlignRecError, DataError, FeatureError, SettingError
from alignrec_recbole.runs import effective_config
from alignrec_recbole.runs.prepare import prepare_data
from alignrec_recbole.runs.prepared import PreparedData
from alignrec_recbole.runs.spec import DataSpec

TIME_ORDER = {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user", "mode": "full"}
TYPED = "user_id:token\titem_id:token"
PAIRS = [(u, (7 * u + 3 * k) % 11) for u in range(8) for k in range(6)]
LABELS = [0, 0, 0, 0, 1, 2]


def write(folder: Path, header: str, row: Callable[[int, int, int], str], name: str = "x") -> None:
    (folder / "data" / "x").mkdir(parents=True, exist_ok=True)
    lines = [row(n, u, i) for n, (u, i) in enumerate(PAIRS)]
    (folder / "data" / "x" / f"{name}.inter").write_text("\n".join([header, *lines]) + "\n")


def read(folder: Path, features: tuple[str, ...] = (), **overrides: Any) -> PreparedData:
    return prepare_data(
        DataSpec(dataset="x", data_path=folder / "data", output=folder / "output",
                 features=features, overrides=overrides)
    )  # fmt: skip


def pairs(split: Any) -> set[tuple[str, str]]:
    columns = [
        split.id2token(field, split.inter_feat[field])
        for field in (split.uid_field, split.iid_field)
    ]
    return set(zip(*columns, strict=True))


def time_of(n: int) -> int:
    return (17 * n) % 48


@pytest.mark.parametrize("start", [0, 1_500_000_000, 1_500_000_000_000, -62_135_593_800, 1 << 60])
@pytest.mark.parametrize("header", [f"{TYPED}\ttimestamp:float", "userID\titemID\ttimestamp"])
def test_the_newest_rows_are_tested(tmp_path: Path, start: int, header: str) -> None:
    write(tmp_path, header, lambda n, u, i: f"u{u}\ti{i}\t{start + time_of(n)}")
    prepared = read(tmp_path, eval_args=TIME_ORDER)
    newest = [max(range(6 * u, 6 * u + 6), key=time_of) for u in range(8)]
    assert pairs(prepared.splits[2]) == {
        (f"u{u}", f"i{i}") for u, i in map(PAIRS.__getitem__, newest)
    }
    held = np.concatenate([split.inter_feat["timestamp"].numpy() for split in prepared.splits])
    assert sorted(map(int, held)) == [start + time for time in range(48)]


def test_a_split_by_time_is_at_the_exact_time(tmp_path: Path) -> None:
    write(tmp_path, f"{TYPED}\ttimestamp:float",
          lambda n, u, i: f"u{u}\ti{i}\t{1_500_000_000 + time_of(n)}")  # fmt: skip
    split = {**TIME_ORDER, "split": {"TS": [0.5, 0.25, 0.25]}}
    last = read(tmp_path, eval_args=split).splits[2].inter_feat["timestamp"].tolist()
    assert sorted(int(time) - 1_500_000_000 for time in last) == list(range(36, 48))


@pytest.mark.parametrize("kind", ["float", "token"])
@pytest.mark.parametrize("bom", ["", "\ufeff"])
def test_labels_of_a_typed_file_are_its_split(tmp_path: Path, kind: str, bom: str) -> None:
    point = ".0" if kind == "float" else ""
    write(tmp_path, f"{bom}{TYPED}\tx_label:{kind}",
          lambda n, u, i: f"u{u}\ti{i}\t{LABELS[n % 6]}{point}")  # fmt: skip
    prepared = read(tmp_path)
    for label, split in enumerate(prepared.splits):
        expected = {(f"u{u}", f"i{i}") for n, (u, i) in enumerate(PAIRS) if LABELS[n % 6] == label}
        assert pairs(split) == expected
    assert prepared.data["split"]["kind"] == "released"


@pytest.mark.parametrize(
    "given",
    [{"eval_args": TIME_ORDER}, {"rm_dup_inter": "first"}, {"user_inter_num_interval": "[1,inf)"}],
    ids=str,
)
def test_a_released_split_is_not_made_again(tmp_path: Path, given: dict) -> None:
    write(tmp_path, "userID\titemID\tx_label\ttimestamp",
          lambda n, u, i: f"u{u}\ti{i}\t{LABELS[n % 6]}\t{n}")  # fmt: skip
    with pytest.raises(SettingError, match="comes with its splits"):
        read(tmp_path, **given)


def made(folder: Path, split: str) -> Path:
    """A data set that was made here: user 7 is later than all others."""
    rows = [(f"u{u}", f"i{i}", 10 * (n % 6) + 100 * (u == 7)) for n, (u, i) in enumerate(PAIRS)]
    path = folder / "data" / "x" / "x.inter"
    frame = pd.DataFrame(rows, columns=["user", "item", "time"])
    write_dataset(frame, path, parse_split(split, 3), numbering="none", source={})
    return path


def test_a_drawn_split_is_named_in_the_record(tmp_path: Path) -> None:
    path = made(tmp_path, "global-time:40,50")
    prepared = read(tmp_path)
    assert prepared.data["split"] == {"kind": "drawn", "split": "global-time:40,50", "seed": 3}
    assert prepared.data["interactions"] == [28, 7, 7]
    assert prepared.notes == [
        "users without a training interaction are not ranked: 1, with 6 later interactions"
    ]
    path.write_text(path.read_text() + "u1\ti999\t9\t2\n")
    with pytest.raises(DataError, match=r"x\.inter is not the file that x\.split\.json describes"):
        read(tmp_path)
    (path.parent / "x.split.json").unlink()
    assert read(tmp_path).data["split"]["kind"] == "released"


def test_without_a_split_recboles_is_drawn(tmp_path: Path) -> None:
    made(tmp_path, "none")
    prepared = read(tmp_path)
    assert prepared.data["split"]["kind"] == "ratio"
    assert prepared.notes == []


def test_other_names_of_the_id_columns(tmp_path: Path) -> None:
    write(tmp_path, "userID:token\titemID:token", lambda n, u, i: f"u{u}\ti{i}")
    with pytest.raises(DataError, match="set USER_ID_FIELD and ITEM_ID_FIELD"):
        read(tmp_path)
    prepared = read(tmp_path, USER_ID_FIELD="userID", ITEM_ID_FIELD="itemID")
    assert sum(prepared.data["interactions"]) == len(PAIRS)


@pytest.mark.parametrize(
    ("cell", "says"),
    [
        ("2015-01-01", "'2015-01-01' in line 8"),
        ("", "'' in line 8"),
        ("inf", "'inf' in line 8"),
        ("1_000", "'1_000' in line 8"),
    ],
)
def test_times_that_are_none_are_named(tmp_path: Path, cell: str, says: str) -> None:
    write(tmp_path, f"{TYPED}\ttimestamp:float",
          lambda n, u, i: f"u{u}\ti{i}\t{cell if n == 6 else n}")  # fmt: skip
    with pytest.raises(DataError) as caught:
        read(tmp_path, eval_args=TIME_ORDER)
    assert "'timestamp'" in str(caught.value)
    assert says in str(caught.value)
    assert sum(read(tmp_path).data["interactions"]) == len(PAIRS)  # the column is not needed


def test_a_column_that_load_col_misspells(tmp_path: Path) -> None:
    write(tmp_path, f"{TYPED}\ttimestamp:float", lambda n, u, i: f"u{u}\ti{i}\t{n}")
    with pytest.raises(DataError, match="no column 'timestmp'"):
        read(tmp_path, load_col={"inter": ["user_id", "item_id", "timestmp"]})


def numbered(folder: Path, rows: int, first: int = 0, cold: bool = False) -> None:
    """Items 0 … 10 from `first` on; `cold`: item 11 is only in a user's rows without training."""
    write(folder, "userID\titemID\tx_label",
          lambda n, u, i: f"{u}\t{first + i}\t{LABELS[n % 6]}")  # fmt: skip
    if cold:
        with open(folder / "data" / "x" / "x.inter", "a") as handle:
            handle.write(f"new\t{first + 11}\t2\n")
    matrix = np.arange(rows, dtype=np.float32)[:, None] + np.ones(3, np.float32)
    np.save(folder / "data" / "x" / "f.npy", matrix)


@pytest.mark.parametrize(("rows", "first", "cold"), [(11, 0, False), (12, 0, True), (12, 1, False)])
def test_row_n_is_of_item_n(tmp_path: Path, rows: int, first: int, cold: bool) -> None:
    numbered(tmp_path, rows, first, cold)
    train = read(tmp_path, ("f",)).splits[0]
    tokens = train.field2id_token["itemID" if "itemID" in train.field2id_token else "item_id"][1:]
    assert sorted(map(int, tokens)) == [first + i for i in range(11)]
    values = train.features["f"].values[1:, 0]
    assert values.tolist() == [int(token) + 1 for token in tokens]


def test_numbers_that_start_at_1(tmp_path: Path) -> None:
    numbered(tmp_path, 11, first=1)
    with pytest.raises(FeatureError, match=r"(?s)ids start at 1.*row 0 is unused"):
        read(tmp_path, ("f",))


@pytest.mark.parametrize(("written", "in_table"), [("4.0", "4"), ("007", "7"), ('"a"', "a")])
def test_ids_that_only_look_alike_are_both_shown(
    tmp_path: Path, written: str, in_table: str
) -> None:
    write(tmp_path, "userID\titemID", lambda n, u, i: f"u{u}\t{written if i == 4 else f'i{i}'}")
    rows = [f"{in_table if i == 4 else f'i{i}'}\tred bike {i}" for i in range(11)]
    (tmp_path / "data" / "x" / "items.tsv").write_text("\n".join(["id\ttitle", *rows]) + "\n")
    with pytest.raises(FeatureError) as caught:
        read(tmp_path, ("lsa",))
    assert f"{in_table!r} of items.tsv looks like {written!r}" in str(caught.value)


def test_splits_in_files_of_their_own_are_named(tmp_path: Path) -> None:
    for part in ("test", "train", "valid"):
        write(tmp_path, TYPED, lambda n, u, i: f"u{u}\ti{i}", f"x.{part}")
    with pytest.raises(DataError, match=r"benchmark_filename=\[train,valid,test\]"):
        read(tmp_path)
    with pytest.raises(SettingError, match="benchmark_filename"):
        read(tmp_path, benchmark_filename=["train", "test"])
    with pytest.raises(AlignRecError, match=r"benchmark_filename|file name"):
        read(tmp_path, benchmark_filename=["train", "valid", "../x"])
    with pytest.raises(DataError, match=r"(?s)same interaction twice.*96 repeated"):
        read(tmp_path, benchmark_filename=["train", "valid", "test"])


def shop(folder: Path, name: str) -> Path:
    place = folder / "data" / name
    place.mkdir(parents=True)
    rows = [f"u{u}\ti{i}\t{LABELS[n % 6]}" for n, (u, i) in enumerate(PAIRS)]
    (place / f"{name}.inter").write_text("\n".join(["userID\titemID\tx_label", *rows]) + "\n")
    return place


def bpr(folder: Path, name: str, *more: str) -> Any:
    given = ["--model", "BPR", "--dataset", name, "--data-path", folder / "data"]
    given += ["--output", folder / "output", "--epochs", "1", "--quiet", "--device", "cpu"]
    return run_verb(*given, *more)


def test_a_name_with_blanks_and_brackets_and_odd_siblings(tmp_path: Path) -> None:
    name = "block [1] world"
    place = shop(tmp_path, name)
    (place / f"{name}.x.inter").symlink_to("/dev/zero")
    (place / f"{name}.y.inter").mkdir()
    answer = bpr(tmp_path, name)
    check_answered(answer)
    assert answer.status == 0, answer.errors
    check_refused(bpr(tmp_path, f"./{name}"), "path separator")
    assert len(list((tmp_path / "output" / "runs").rglob("*.json"))) == 1


def test_a_user_who_has_everything_is_named_by_the_id(tmp_path: Path) -> None:
    place = shop(tmp_path, "x")
    with open(place / "x.inter", "a") as handle:
        handle.writelines(f"greedy\ti{i}\t0\n" for i in range(11))
    check_refused(bpr(tmp_path, "x"), "user 'greedy' with 11 items", kind="DataError")


@pytest.mark.parametrize(("longest", "width"), [(None, 3), (2, 2), (9, 3)])
def test_stock_recbole_bounds_the_length_of_sequences(
    tmp_path: Path, longest: int | None, width: int
) -> None:
    write(tmp_path, TYPED, lambda n, u, i: f"u{u}\ti{i}")
    names = sorted({f"i{i}" for _, i in PAIRS})
    tags = "".join(f"{name}\ta b{' c' if n else ''}\n" for n, name in enumerate(names))
    folder = tmp_path / "data" / "x"
    (folder / "x.item").write_text(f"item_id:token\ttags:token_seq\n{tags}")
    data = DataSpec("x", data_path=folder.parent, output=tmp_path / "output")
    given = effective_config.data_settings(data, folder)
    given |= {"load_col": None, "seq_len": longest and {"tags": longest}}
    dataset = MultimodalDataset(
        effective_config.make_config(effective_config.no_model(), "x", given)
    )
    assert dataset.build()[0].item_feat["tags"].shape[1] == width
