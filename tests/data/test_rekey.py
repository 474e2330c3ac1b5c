"""Re-keyed data sets: the same split, items and features, under numbers that say nothing."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from trials import check_refused, run_verb, trial

from alignrec_recbole.data.cards import split_sha256
from alignrec_recbole.data.interactions import read_interactions
from alignrec_recbole.data.items import read_item_table
from alignrec_recbole.data.rekey import (
    ITEMS,
    USERS,
    mapped_back,
    read_mapping_back,
    read_rows,
    rekey,
)
from alignrec_recbole.data.split_manifest import read_split_manifest, split_of_files
from alignrec_recbole.errors import AlignRecError, DataError, FeatureError, SettingError
from alignrec_recbole.features.mmrec import read_mapping
from alignrec_recbole.features.table import align, load_features, save_features
from alignrec_recbole.io.files import sha256_file

AREA = "re-keying"
ROOT = Path(__file__).resolve().parents[2]
N_USERS, N_ITEMS = 30, 20


def pairs(seed: int = 0) -> list[tuple[int, int, int]]:
    """User, item and label; every item in training but the last, which is in test alone."""
    draw = random.Random(seed)
    rows = []
    for user in range(N_USERS):
        items = draw.sample(range(N_ITEMS - 1), 6)
        rows += [(user, item, label) for item, label in zip(items, [0, 0, 0, 0, 1, 2], strict=True)]
    rows += [(user, item, 0) for item in range(N_ITEMS - 1) for user in (item,)]
    unique = {(user, item): label for user, item, label in reversed(rows)}
    return [(u, i, label) for (u, i), label in unique.items()] + [(3, N_ITEMS - 1, 2)]


def write_inter(path: Path, rows: list[tuple[int, int, int]], typed: bool = False) -> None:
    header = ["userID", "itemID", "note", "x_label"]
    if typed:
        header = ["user_id:token", "item_id:token", "note:token", "x_label:float"]
    lines = ["\t".join(header)]
    lines += [f'{u}\t{i}\t"n {u}×{i}\t{label}' for u, i, label in rows]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", "utf-8")


def whole(tmp_path: Path, name: str = "shop") -> Path:
    """A data set with an item table, images, and features with and without a manifest."""
    folder = tmp_path / "data" / name
    write_inter(folder / f"{name}.inter", pairs())
    (folder / "images").mkdir()
    lines = ["title\titemID\tasin\timage"]
    for item in range(N_ITEMS):
        image = "" if item % 3 == 0 else f"{item}.png"
        lines.append(f'thing {item} of 12" size\t{item}\tB{item:03}\t{image}')
        if image and item != 4:  # one is named and absent
            Image.new("RGB", (4, 4), (item * 9, 0, 0)).save(folder / "images" / image)
    (folder / "items.tsv").write_text("\n".join(lines) + "\n")
    values = np.random.default_rng(0).normal(size=(N_ITEMS, 5)).astype(np.float32)
    np.save(folder / "image_feat.npy", values.astype(np.float64))
    values[7] = 0
    save_features(
        folder / "features" / "fused.npy", values[::-1], name="fused", modality="fused",
        encoder="none", settings={"filled_with_mean": ["2", "1"]}, source="items.tsv",
        items=[str(i) for i in reversed(range(N_ITEMS))], missing=["7"], without_text=["3"],
        without_image=["5", "4"], notes=["a note"],
    )  # fmt: skip
    np.save(folder / "history.npy", np.zeros((2, 3, 4)))
    np.save(folder / "users.npy", np.ones((N_USERS, 3)))  # more rows than items
    return folder


def contents(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): sha256_file(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def as_set(rows) -> set[tuple[str, ...]]:
    return set(rows.cells.itertuples(index=False, name=None))


@pytest.mark.parametrize("typed", [False, True])
def test_mapped_back_it_is_the_original(tmp_path: Path, typed: bool) -> None:
    path = tmp_path / "data" / "shop" / "shop.inter"
    write_inter(path, pairs(), typed)
    made = rekey(path.parent, "shop", tmp_path / "data", 5)
    back = mapped_back(made.folder, "shop-rekeyed-5")
    assert back.header == read_rows(path).header
    assert as_set(back) == as_set(read_rows(path))
    new = read_rows(made.folder / "shop-rekeyed-5.inter")
    assert as_set(new) != as_set(back)
    for column, n in ((new.user, N_USERS), (new.item, N_ITEMS)):
        assert set(new.cells[column]) == {str(i) for i in range(n)}


@settings(max_examples=15, deadline=None)
@given(
    ids=st.lists(st.text("abc0é中", min_size=1, max_size=4), min_size=3, max_size=8, unique=True),
    order=st.randoms(use_true_random=False),
    seed=st.integers(0, 2**63 - 1),
)
def test_any_ids_come_back_and_the_order_of_rows_does_not_matter(
    tmp_path_factory: pytest.TempPathFactory, ids: list[str], order: random.Random, seed: int
) -> None:
    with trial(AREA, repr(ids)):
        root = tmp_path_factory.mktemp("any")
        rows = [(user, item, n % 3) for n, user in enumerate(ids) for item in ids[n:]]
        rows += [(ids[0] + "x", item, n % 3) for n, item in enumerate(ids)]
        found = []
        for _ in range(2):
            path = root / "a" / "a.inter"
            write_inter(path, rows)
            made = rekey(path.parent, "a", root / str(len(found)), seed)
            assert as_set(mapped_back(made.folder, made.manifest.dataset)) == as_set(
                read_rows(path)
            )
            found.append(contents(made.folder))
            order.shuffle(rows)
        for one in found:
            one.pop(f"a-rekeyed-{seed}.split.json")  # names the hash of the origin
        assert found[0] == found[1]


def test_seeds_and_kinds_have_numbers_of_their_own(tmp_path: Path) -> None:
    folder = whole(tmp_path)
    maps = [
        read_mapping_back(rekey(folder, "shop", tmp_path / "data", seed).folder / file)
        for seed in (1, 2)
        for file in (USERS, ITEMS)
    ]
    assert len({tuple(sorted(m.items())) for m in maps}) == 4
    square = tmp_path / "data" / "sq" / "sq.inter"
    write_inter(square, [(n, n, 0) for n in range(50)] + [(0, 1, 1), (0, 2, 2)])
    made = rekey(square.parent, "sq", tmp_path / "data", 0)
    users, items = (read_mapping_back(made.folder / file) for file in (USERS, ITEMS))
    assert sum(users[n] == items[n] for n in users) < 10, "equal numbers are not kept together"


def test_items_of_later_splits_are_not_ordered_by_their_users(tmp_path: Path) -> None:
    """RecBole numbers by first appearance: of cold items, that must not be the user's order."""
    rows = [(user, 0, 0) for user in range(60)] + [(0, 100, 1)]
    rows += [(user, 1 + user, 2) for user in range(60)]
    path = tmp_path / "data" / "cold" / "cold.inter"
    write_inter(path, rows)
    made = rekey(path.parent, "cold", tmp_path / "data", 3)
    table = read_interactions(made.folder / "cold-rekeyed-3.inter")
    later = table.labels == 2
    user, item = (ids[later].astype(int) for ids in (table.users, table.items))
    assert (np.diff(item) > 0).all()
    assert abs(np.corrcoef(user, np.arange(60))[0, 1]) < 0.4


def test_content_goes_with_its_item(tmp_path: Path) -> None:
    folder = whole(tmp_path)
    made = rekey(folder, "shop", tmp_path / "data", 1)
    back = read_mapping_back(made.folder / ITEMS)
    old, new = read_item_table(folder / "items.tsv"), read_item_table(made.folder / "items.tsv")
    assert new.ids == [str(n) for n in range(N_ITEMS)]
    texts, images = (
        dict(zip(old.ids, old.texts, strict=True)),
        dict(zip(old.ids, old.images, strict=True)),
    )
    for item, text, image in zip(new.ids, new.texts, new.images, strict=True):
        before = images[back[item]]
        assert text == texts[back[item]]
        assert (image is None) == (before is None)
        if image is not None and before is not None:
            assert image.name == f"{item}.png"
            assert image.exists() == before.exists()
            assert not image.exists() or image.read_bytes() == before.read_bytes()
    assert "history.npy, users.npy" in " ".join(made.said)
    assert not (made.folder / "history.npy").exists()
    assert not (made.folder / "users.npy").exists()


def test_features_go_with_their_items(tmp_path: Path) -> None:
    folder = whole(tmp_path)
    made = rekey(folder, "shop", tmp_path / "data", 1)
    back = read_mapping_back(made.folder / ITEMS)
    tokens = ["[PAD]", *(str(n) for n in range(N_ITEMS))]
    old_tokens = ["[PAD]", *(back[token] for token in tokens[1:])]
    for place in ("image_feat.npy", "features/fused.npy"):
        old, new = load_features(folder / place), load_features(made.folder / place)
        before, after = align(old, old_tokens), align(new, tokens)
        np.testing.assert_array_equal(before.values, after.values)
        np.testing.assert_array_equal(before.present, after.present)
        assert old.matrix.dtype == new.matrix.dtype
    old_m = load_features(folder / "features" / "fused.npy").manifest
    new_m = load_features(made.folder / "features" / "fused.npy").manifest
    assert new_m.items == tokens[1:]
    for key in ("missing", "without_text", "without_image"):
        assert {back[t] for t in getattr(new_m, key)} == set(getattr(old_m, key))
    assert {back[t] for t in new_m.settings["filled_with_mean"]} == {"1", "2"}
    assert new_m.notes == ["a note"]


def test_the_manifest_names_origin_seed_and_hashes(tmp_path: Path) -> None:
    folder = whole(tmp_path)
    made = rekey(folder, "shop", tmp_path / "data", 1)
    manifest = read_split_manifest(made.folder, "shop-rekeyed-1")
    assert manifest is not None
    assert manifest == made.manifest
    assert manifest.source == {"shop.inter": sha256_file(folder / "shop.inter")}
    assert manifest.rekeyed is not None
    assert (manifest.rekeyed.dataset, manifest.rekeyed.seed) == ("shop", 1)
    assert manifest.rekeyed.split_sha256 == split_sha256(pairs())
    assert manifest.rekeyed.items_sha256 == sha256_file(made.folder / ITEMS)
    table = read_interactions(made.folder / "shop-rekeyed-1.inter")
    assert manifest.split_sha256 == split_sha256(
        zip(table.users, table.items, table.labels, strict=True)
    )


@pytest.mark.parametrize("split", ["leave-last-out", "global-time:250.5,500"])
def test_an_imported_data_set_keeps_its_split_and_the_ids_of_its_source(
    tmp_path: Path, split: str
) -> None:
    lines = ["user,item,when"]
    lines += [f"u{u},i{i},{100 * i + u}" for u in range(12) for i in range(u % 4, u % 4 + 6)]
    (tmp_path / "log.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "things.csv").write_text(
        "item,title\n" + "".join(f"i{n},thing {n}\n" for n in range(9))
    )
    data = tmp_path / "data"
    answer = run_verb(
        "import", tmp_path / "log.csv", "--dataset", "x", "--data-path", data, "--format", "table",
        "--columns", "user=user,item=item,time=when", "--items", tmp_path / "things.csv",
        "--split", split, "--seed", 4, "--no-progress",
    )  # fmt: skip
    assert answer.status == 0, answer.errors
    answer = run_verb("prepare", "--dataset", "x", "--data-path", data, "--rekey", 8)
    assert answer.status == 0, answer.errors
    folder, new = data / "x", data / "x-rekeyed-8"
    assert as_set(mapped_back(new, "x-rekeyed-8")) == as_set(read_rows(folder / "x.inter"))
    before, after = read_split_manifest(folder, "x"), read_split_manifest(new, "x-rekeyed-8")
    assert before is not None
    assert after is not None
    for key in ("split", "seed", "users", "items", "interactions", "only_later", "cuts"):
        assert getattr(before, key) == getattr(after, key)
    assert after.cuts == (None if split == "leave-last-out" else (250.5, 500))
    assert split_of_files(new, after.dataset, {"x-rekeyed-8.inter": after.inter_sha256}) == {
        "kind": "drawn", "split": split, "seed": 4, "rekeyed": {"dataset": "x", "seed": 8},
    }  # fmt: skip
    for file, mapping in (("u_id_mapping.csv", USERS), ("i_id_mapping.csv", ITEMS)):
        back, old = read_mapping_back(new / mapping), read_mapping(folder / file)
        assert {k: back[str(v)] for k, v in read_mapping(new / file).items()} == {
            k: str(v) for k, v in old.items()
        }
    shown = run_verb("list", "datasets", "--data-path", data).output
    assert f"{split}, of x, re-keyed with seed 8" in shown


def test_recbole_tables_go_along(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "shop"
    write_inter(folder / "shop.inter", pairs(), typed=True)
    items = ["item_id:token\tname:token_seq", *(f'{n}\tthe "{n}' for n in range(N_ITEMS))]
    (folder / "shop.item").write_text("\n".join(items) + "\n")
    users = ["age:float\tuser_id:token", *(f"{20 + n}\t{n}" for n in range(N_USERS))]
    (folder / "shop.user").write_text("\n".join(users) + "\n")
    made = rekey(folder, "shop", tmp_path / "data", 1)
    for kind, mapping, column in (("item", ITEMS, 0), ("user", USERS, 1)):
        back = read_mapping_back(made.folder / mapping)
        lines = (made.folder / f"shop-rekeyed-1.{kind}").read_text().splitlines()
        rows = [line.split("\t") for line in lines[1:]]
        assert [row[column] for row in rows] == [str(n) for n in range(len(rows))]
        for row in rows:
            row[column] = back[row[column]]
        assert sorted("\t".join(row) for row in rows) == sorted((items, users)[column][1:])


def test_a_mapping_that_lacks_an_item_of_the_table_stays_behind(tmp_path: Path) -> None:
    """It covers all interactions, and has ids that no other file has."""
    folder = tmp_path / "data" / "shop"
    write_inter(folder / "shop.inter", pairs())
    ids = [*range(N_ITEMS), 99]
    (folder / "items.tsv").write_text("itemID\ttitle\n" + "".join(f"{i}\tt{i}\n" for i in ids))
    mapping = "".join(f"A{i}\t{i}\n" for i in range(N_ITEMS + 3))
    (folder / "i_id_mapping.csv").write_text("asin\titemID\n" + mapping)
    made = rekey(folder, "shop", tmp_path / "data", 1)
    assert set(read_mapping_back(made.folder / ITEMS).values()) == set(map(str, ids))
    assert not (made.folder / "i_id_mapping.csv").exists()


def test_a_parquet_table_goes_along(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="the extra `parquet` is not installed")
    folder = tmp_path / "data" / "shop"
    write_inter(folder / "shop.inter", pairs())
    frame = pd.DataFrame({"itemID": range(N_ITEMS), "title": [f"t{n}" for n in range(N_ITEMS)]})
    frame.to_parquet(folder / "items.parquet")
    made = rekey(folder, "shop", tmp_path / "data", 1)
    back, table = (
        read_mapping_back(made.folder / ITEMS),
        read_item_table(made.folder / "items.parquet"),
    )
    assert [f"t{back[item]}" for item in table.ids] == table.texts


@pytest.mark.parametrize("file", ["items.tsv", "shop.item", "items.parquet"])
def test_audio_files_go_with_their_items(tmp_path: Path, file: str) -> None:
    if file.endswith("parquet"):
        pytest.importorskip("pyarrow", reason="the extra `parquet` is not installed")
    folder = tmp_path / "data" / "shop"
    write_inter(folder / "shop.inter", pairs())
    (folder / "audio").mkdir()
    sounds = ["" if n % 3 == 0 else f"{n}.wav" for n in range(N_ITEMS)]
    for n, sound in enumerate(sounds):
        if sound and n != 4:  # one is named and absent
            (folder / "audio" / sound).write_bytes(b"sound %d" % n)
    texts = [f"thing {n}" for n in range(N_ITEMS)]
    frame = pd.DataFrame({"itemID": range(N_ITEMS), "title": texts, "audio": sounds})
    if file.endswith("parquet"):
        frame.to_parquet(folder / file)
    else:
        typed = {"itemID": "item_id:token", "title": "title:token_seq", "audio": "audio:token"}
        frame = frame.rename(columns=typed) if file == "shop.item" else frame
        frame.to_csv(folder / file, sep="\t", index=False)
    made = rekey(folder, "shop", tmp_path / "data", 1)
    back = read_mapping_back(made.folder / ITEMS)
    table = read_item_table(made.folder / file.replace("shop.", "shop-rekeyed-1."))
    assert [f"thing {back[item]}" for item in table.ids] == table.texts
    for item, sound in zip(table.ids, table.audio, strict=True):
        number = int(back[item])
        assert (sound.name if sound else "") == (f"{item}.wav" if sounds[number] else "")
        if sound and number != 4:
            assert sound.read_bytes() == b"sound %d" % number
    assert "13 audio files" in " ".join(made.said)


def test_new_images_of_an_item_table_that_does_not_name_them(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "shop"
    write_inter(folder / "shop.inter", pairs())
    rows = [f"{n}\tthing {n}" for n in range(N_ITEMS)]
    (folder / "items.tsv").write_text("\n".join(["itemID\ttitle", *rows]) + "\n")
    made = rekey(folder, "shop", tmp_path / "data", 1)
    first = contents(made.folder)
    rows = [f"{row}\t7.png" for row in rows]
    (folder / "items.tsv").write_text("\n".join(["itemID\ttitle\timage", *rows]) + "\n")
    (folder / "images").mkdir()
    (folder / "images" / "7.png").write_bytes(b"image")
    with pytest.raises(DataError, match="does not name the files"):
        rekey(folder, "shop", tmp_path / "data", 1)
    assert contents(made.folder) == first


def test_a_table_with_line_ends_in_cells(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "shop"
    write_inter(folder / "shop.inter", pairs())
    rows = "".join(f'{n}\t"two\nlines of ""{n}"""\n' for n in range(N_ITEMS))
    (folder / "items.tsv").write_text("itemID\ttitle\n" + rows)
    made = rekey(folder, "shop", tmp_path / "data", 1)
    back, table = read_mapping_back(made.folder / ITEMS), read_item_table(made.folder / "items.tsv")
    assert [f'two\nlines of "{back[item]}"' for item in table.ids] == table.texts


def test_again_adds_what_is_new_and_changes_nothing(tmp_path: Path) -> None:
    folder = whole(tmp_path)
    made = rekey(folder, "shop", tmp_path / "data", 1)
    first = contents(made.folder)
    again = rekey(folder, "shop", tmp_path / "data", 1)
    assert "so was everything else" in again.said[0]
    assert contents(made.folder) == first
    values = np.arange(N_ITEMS, dtype=np.float32)[:, None] + 1
    np.save(folder / "text_feat.npy", values)
    third = rekey(folder, "shop", tmp_path / "data", 1)
    assert "new: 1 files" in third.said[0]
    after = contents(made.folder)
    after.pop("text_feat.npy")
    assert after == first
    assert not [path for path in (tmp_path / "data").iterdir() if path.name.startswith(".")]


# Refusals ----------------------------------------------------------------------------------------


def no_label(folder: Path) -> None:
    lines = (folder / "shop.inter").read_text().splitlines()
    (folder / "shop.inter").write_text("\n".join(line.rpartition("\t")[0] for line in lines))


def repeated(folder: Path) -> None:
    with open(folder / "shop.inter", "a") as handle:
        handle.write("3\t19\tx\t0\n")


def bad_label(folder: Path) -> None:
    with open(folder / "shop.inter", "a") as handle:
        handle.write("3\t18\tx\t7\n")


def ragged(folder: Path) -> None:
    with open(folder / "shop.inter", "a") as handle:
        handle.write("3\t18\n")


def fifo(folder: Path) -> None:
    (folder / "shop.inter").unlink()
    os.mkfifo(folder / "shop.inter")


def image_outside(folder: Path) -> None:
    text = (folder / "items.tsv").read_text()
    (folder / "items.tsv").write_text(text.replace("\t1.png", "\t../../../secret.png"))


def twice_in_table(folder: Path) -> None:
    with open(folder / "items.tsv", "a") as handle:
        handle.write("x\t1\tB1\t\n")


def changed_features(folder: Path) -> None:
    values = np.load(folder / "features" / "fused.npy")
    np.save(folder / "features" / "fused.npy", values + 1)


def pickled(folder: Path) -> None:
    np.save(folder / "image_feat.npy", np.array([{}], dtype=object), allow_pickle=True)


def other_manifest(folder: Path) -> None:
    (folder / "shop.split.json").write_text("{}")


def damaged_mapping(folder: Path) -> None:
    (folder / "i_id_mapping.csv").write_text("asin\titemID\nB1\tone\n")


def too_many_items(folder: Path) -> None:
    with open(folder / "items.tsv", "a") as handle:
        handle.write("another\t99\tB99\t\n")


@pytest.mark.parametrize(
    ("damage", "word"),
    [
        (no_label, "no split"),
        (repeated, "twice"),
        (bad_label, "unknown split labels"),
        (ragged, "not a regular table"),
        (fifo, "FIFO"),
        (image_outside, "leads out"),
        (twice_in_table, "names an item twice"),
        (changed_features, "has changed"),
        (pickled, "image_feat.npy"),
        (other_manifest, "not the manifest"),
        (damaged_mapping, "not an id mapping"),
        (too_many_items, "no row for some items"),
    ],
)
def test_what_cannot_be_re_keyed_leaves_nothing(tmp_path: Path, damage, word: str) -> None:
    folder = whole(tmp_path)
    damage(folder)
    with trial(AREA, damage.__name__):
        with pytest.raises(AlignRecError, match=word):
            rekey(folder, "shop", tmp_path / "data", 1)
        assert [path.name for path in (tmp_path / "data").iterdir()] == ["shop"]


def test_names_and_seeds_that_are_refused(tmp_path: Path) -> None:
    folder, data = whole(tmp_path), tmp_path / "data"
    for seed in (-1, 2**63):
        with trial(AREA, f"seed {seed}"), pytest.raises(SettingError, match="out of range"):
            rekey(folder, "shop", data, seed)
    made = rekey(folder, "shop", data, 1)
    with trial(AREA, "twice"), pytest.raises(DataError, match="re-keyed already"):
        rekey(made.folder, "shop-rekeyed-1", data, 1)
    for place, make in (
        ("shop-rekeyed-2", lambda path: path.write_text("x")),
        ("shop-rekeyed-3", lambda path: (path.mkdir(), (path / "mine").write_text("x"))),
    ):
        make(data / place)
        with trial(AREA, place), pytest.raises(DataError, match="another shop-rekeyed"):
            rekey(folder, "shop", data, int(place[-1]))
    assert (data / "shop-rekeyed-2").read_text() == "x"
    assert contents(data / "shop-rekeyed-3").keys() == {"mine"}
    write_inter(folder / "shop.inter", pairs(1))
    with trial(AREA, "other rows"), pytest.raises(DataError, match="another shop-rekeyed-1"):
        rekey(folder, "shop", data, 1)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--rekey", "-1"), ("rekey",)),
        (("--rekey", "x"), ("rekey",)),
        (("--rekey", 9223372036854775808), ("rekey",)),
        (("--rekey", 1, "--encoder", "lsa"), ("encodes nothing", "--encoder")),
        (("--rekey", 1, "--mask-seed", 0), ("encodes nothing", "--mask-seed")),
        (("--rekey", 1, "--dataset", "../shop"), ("../shop",)),
        (("--rekey", 1, "--dataset", "none"), ("unknown",)),
    ],
)
def test_command_lines_that_are_refused(tmp_path: Path, arguments: tuple, words: tuple) -> None:
    whole(tmp_path)
    data = tmp_path / "data"
    with trial(AREA, str(arguments)):
        answer = run_verb("prepare", "--dataset", "shop", "--data-path", data, *arguments)
        check_refused(answer, *words)
        assert [path.name for path in data.iterdir()] == ["shop"]


def test_a_changed_file_is_not_run(tmp_path: Path) -> None:
    rekey(whole(tmp_path), "shop", tmp_path / "data", 1)
    path = tmp_path / "data" / "shop-rekeyed-1" / "shop-rekeyed-1.inter"
    path.write_text("\n".join(path.read_text().splitlines()[:-1]) + "\n")
    answer = run_verb(
        "--model", "Pop", "--dataset", "shop-rekeyed-1", "--data-path", tmp_path / "data",
        "--output", tmp_path / "out", "--quiet", "--eval-convention", "mmrec",
    )  # fmt: skip
    check_refused(answer, "not the file that")


# Runs --------------------------------------------------------------------------------------------


def test_a_run_re_keys_and_its_record_and_table_say_so(tmp_path: Path) -> None:
    whole(tmp_path)
    where = ("--data-path", tmp_path / "data", "--output", tmp_path / "out", "--quiet")
    common = ("--model", "EASE,ItemKNNCBF", "--features", "fused", "--eval-convention", "mmrec")
    plain = run_verb(*common, "--dataset", "shop", *where)
    new = run_verb(*common, "--dataset", "shop", "--rekey", 6, *where)
    assert (plain.status, new.status) == (0, 0), new.errors
    assert "shop re-keyed (seed 6), full, mmrec" in new.output
    for model in ("EASE", "ItemKNNCBF"):
        found = []
        for name in ("shop", "shop-rekeyed-6"):
            (path,) = (tmp_path / "out" / "runs" / name / model).glob("*.json")
            found.append(json.loads(path.read_text()))
        before, after = found
        assert after["metrics"] == pytest.approx(before["metrics"], abs=2e-3)  # ties
        assert after["data"]["split"] == {
            **before["data"]["split"],
            "rekeyed": {"dataset": "shop", "seed": 6},
        }


def test_a_run_without_the_origin_gives_the_command(tmp_path: Path) -> None:
    answer = run_verb(
        "--model", "Pop", "--dataset", "shop", "--rekey", 6, "--data-path", tmp_path,
        "--output", tmp_path / "out", "--quiet",
    )  # fmt: skip
    check_refused(answer, "prepare --dataset shop --rekey 6")


# Kills -------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.long
def test_killed_at_random_moments(tmp_path: Path) -> None:
    """The new folder is whole or absent; the next call removes what is left and makes the same."""
    folder = whole(tmp_path)
    draw = random.Random(3)
    rows = {(draw.randrange(3000), draw.randrange(N_ITEMS - 1)) for _ in range(40_000)}
    write_inter(
        folder / "shop.inter", [(u, i, (u + i) % 3) for u, i in rows] + [(0, N_ITEMS - 1, 0)]
    )
    calm = rekey(folder, "shop", tmp_path / "calm", 1)
    data = tmp_path / "killed"
    program = (
        "import sys; from pathlib import Path; from alignrec_recbole.data.rekey import rekey; "
        "print('go', flush=True); rekey(Path(sys.argv[1]), 'shop', Path(sys.argv[2]), 1)"
    )
    start = time.perf_counter()
    rekey(folder, "shop", tmp_path / "timed", 1)
    seconds = time.perf_counter() - start
    target, seen = data / "shop-rekeyed-1", 0
    for n in range(12):
        with trial(AREA, f"kill {n}"):
            run = subprocess.Popen(
                [sys.executable, "-c", program, str(folder), str(data)],
                cwd=ROOT, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)},
            )  # fmt: skip
            assert run.stdout is not None
            run.stdout.readline()
            time.sleep(draw.uniform(0, 1.2 * seconds))
            run.send_signal(signal.SIGKILL)
            run.wait()
            if target.exists():
                assert contents(target) == contents(calm.folder)
                seen += 1
                for path in sorted(target.rglob("*"), reverse=True):
                    path.unlink() if path.is_file() else path.rmdir()
                target.rmdir()
    assert seen < 12, "some kills fell into the work"
    rekey(folder, "shop", data, 1)
    assert contents(target) == contents(calm.folder)
    assert [path.name for path in data.iterdir()] == ["shop-rekeyed-1"]


def test_features_of_other_items_are_refused(tmp_path: Path) -> None:
    folder = whole(tmp_path)
    manifest = json.loads((folder / "features" / "fused.json").read_text())
    manifest["items"][0] = manifest["items"][1]
    (folder / "features" / "fused.json").write_text(json.dumps(manifest))
    with pytest.raises(FeatureError, match="twice"):
        rekey(folder, "shop", tmp_path / "data", 1)
