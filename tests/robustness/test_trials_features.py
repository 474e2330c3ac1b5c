"""Generated trials: feature files, manifests, shards, unfinished features and caches.

Right is: what a plain reading by numpy gives, or an error of this package that names the file.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import string
from collections.abc import Sequence
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from bad_input import WORLD
from damage import NO_FILES, edited, replace_by, result_or_refusal, with_values
from hypothesis import given, settings
from hypothesis import strategies as st
from trials import run_verb, trial

from alignrec_recbole.data.items import ItemTable, find_item_table
from alignrec_recbole.encoders.base import ImageInput, ItemEncoder
from alignrec_recbole.encoders.cache import find_or_encode
from alignrec_recbole.encoders.extraction import ExtractionSpec, extract, merge_shards
from alignrec_recbole.encoders.feature_writer import FeatureWriter
from alignrec_recbole.encoders.lookup import check_feature_name
from alignrec_recbole.errors import AlignRecError, printable
from alignrec_recbole.features.mmrec import read_mapping
from alignrec_recbole.features.table import align, load_features, save_features
from alignrec_recbole.graphs import item_item, knn_cache
from alignrec_recbole.io.files import sha256_file
from alignrec_recbole.ops.neighbours import neighbour_sums
from alignrec_recbole.testing.synthetic import world_settings

TOKENS = ["[PAD]", *(f"i{n}" for n in range(6))]
NUMBERS = ["[PAD]", *map(str, range(6))]
ROWS = np.random.default_rng(0).standard_normal((6, 3)).astype(np.float32)
ORDER = [3, 0, 5, 1, 4, 2]  # of the items in the file


def write(folder: Path) -> Path:
    """Six items in another order than the data set's, one of them missing."""
    rows = ROWS[ORDER].copy()
    rows[2] = 0
    items = [TOKENS[1 + n] for n in ORDER]
    save_features(
        folder / "f.npy", rows, name="f", modality="text", encoder="e", settings={"a": 1},
        source="s", items=items, missing=[items[2]], notes=["n"],
    )  # fmt: skip
    return folder / "f.npy"


def plain(path: Path) -> np.ndarray:
    """The rows by internal id, as numpy and json read them."""
    matrix, manifest = np.load(path), path.with_suffix(".json")
    items = json.loads(manifest.read_text())["items"] if manifest.is_file() else NUMBERS[1:]
    tokens = TOKENS if manifest.is_file() and items is not None else NUMBERS
    place = {item: n for n, item in enumerate(items or NUMBERS[1:])}
    return np.stack([np.zeros(matrix.shape[1]), *(matrix[place[t]] for t in tokens[1:])])


def check(path: Path, name: str, tokens: Sequence[str] = TOKENS) -> None:
    """The file is read as numpy reads it, or refused by a sentence that names it."""
    with trial("features", name):
        features = result_or_refusal(lambda: align(load_features(path), tokens), path.stem)
        if features is None:
            return
        assert np.array_equal(features.values, plain(path).astype(np.float32))
        assert features.values.any(1).tolist() == features.present.tolist()


def declare(path: Path, **entries: object) -> None:
    """Let the manifest describe the file that is there."""
    manifest = path.with_suffix(".json")
    entries = {"sha256": sha256_file(path), **entries}
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), **entries}))


@pytest.mark.parametrize("manifest", ["true", "updated", "none"])
def test_edited_bytes(tmp_path: Path, manifest: str) -> None:
    path = write(tmp_path)
    whole, about = path.read_bytes(), path.with_suffix(".json").read_bytes()
    for seed in range(40):
        path.write_bytes(edited(whole, Random(seed)))
        path.with_suffix(".json").write_bytes(about)
        if manifest == "updated":
            declare(path)
        elif manifest == "none":
            path.with_suffix(".json").unlink()
        check(path, f"bytes {seed}, manifest {manifest}", TOKENS if manifest != "none" else NUMBERS)


DTYPES = ("<f4", ">f4", "<f2", "<f8", "<f16", "<i4", "|b1", "<c8", "|O", "|S4", "<M8[s]", "|V4",
          "(2,)<f4", "[('a','<f4')]", "zz")  # fmt: skip
SHAPES = ("(6, 3)", "(3, 6)", "(18,)", "(6, 3, 1)", "(0, 3)", "(6, -3)", "()", "(10**18, 3)",
          "(6, 2)", "(6.0, 3)", "'x'")  # fmt: skip


@pytest.mark.parametrize("declared", [True, False])
def test_headers_that_lie(tmp_path: Path, declared: bool) -> None:
    path = write(tmp_path)
    about = path.with_suffix(".json").read_bytes()
    data = np.load(path).tobytes()
    for dtype, shape, fortran in itertools.product(DTYPES, SHAPES, (False, True)):
        quoted = dtype if dtype.startswith("[") else repr(dtype)
        header = f"{{'descr': {quoted}, 'fortran_order': {fortran}, 'shape': {shape}, }}"
        padded = header.encode().ljust(117) + b"\n"
        path.write_bytes(b"\x93NUMPY\x01\x00" + len(padded).to_bytes(2, "little") + padded + data)
        path.with_suffix(".json").write_bytes(about)
        if declared:
            declare(path)
        else:
            path.with_suffix(".json").unlink()
        tokens = TOKENS if declared else NUMBERS
        check(path, f"header {dtype} {shape} {fortran} {declared}", tokens)


@pytest.mark.parametrize("dtype", [">f4", "<f2", "<f8", "<f16"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_other_layouts_are_read(tmp_path: Path, dtype: str, order: str) -> None:
    with trial("features", f"{dtype} {order}"):
        path = tmp_path / "f.npy"
        np.save(path, np.asarray(ROWS.astype(dtype), order=order))
        features = align(load_features(path), NUMBERS)
        assert np.array_equal(features.values[1:], ROWS.astype(dtype).astype(np.float32))


def test_changed_manifests(tmp_path: Path) -> None:
    path = write(tmp_path)
    manifest = path.with_suffix(".json")
    about = json.loads(manifest.read_text())
    for name, changed in with_values(about):
        manifest.write_text(json.dumps(changed))
        if "items" in changed and changed["items"] is None:
            check(path, name, NUMBERS)
        else:
            check(path, name)


def test_edited_manifests(tmp_path: Path) -> None:
    path = write(tmp_path)
    whole = path.with_suffix(".json").read_bytes()
    for seed in range(60):
        path.with_suffix(".json").write_bytes(edited(whole, Random(seed)))
        check(path, f"manifest bytes {seed}")
    for content in (b"", b"\xff\xfe", b"[" * 100_000, b"null", b'"x"', b"\0" * 99):
        path.with_suffix(".json").write_bytes(content)
        check(path, f"manifest {content[:9]!r}")


@pytest.mark.parametrize("kind", NO_FILES)
@pytest.mark.parametrize("name", ["f.npy", "f.json"])
def test_what_is_no_file(tmp_path: Path, name: str, kind: str) -> None:
    path = write(tmp_path)
    replace_by(tmp_path / name, kind)
    with trial("features", f"{name} is {kind}"), pytest.raises(AlignRecError, match=r"f\.(npy|j)"):
        load_features(path)


BAD_TOKENS = ([*TOKENS, "i9"], [*TOKENS[:-1], "i5 "], [*TOKENS[:-1], "\x1b[31m"], NUMBERS)


@pytest.mark.parametrize("tokens", BAD_TOKENS)
def test_items_that_have_no_row(tmp_path: Path, tokens: list[str]) -> None:
    with trial("features", "tokens"), pytest.raises(AlignRecError, match=r"f\.npy has no row"):
        align(load_features(write(tmp_path)), tokens)


def test_rows_beyond_the_first_block_are_those_of_their_items(tmp_path: Path) -> None:
    """More rows than are read at once, in another order than the data set's."""
    n = 5000
    rows = np.arange(1, n + 1, dtype=np.float32)[:, None] * [1, 2]
    order = np.random.default_rng(0).permutation(n)
    items = [f"i{k}" for k in order]
    save_features(tmp_path / "f.npy", rows[order], name="f", modality="text", encoder="e",
                  settings={}, source="s", items=items)  # fmt: skip
    with trial("features", "several blocks"):
        features = align(load_features(tmp_path / "f.npy"), ["[PAD]", *(f"i{k}" for k in range(n))])
        assert np.array_equal(features.values[1:], rows)


@pytest.mark.parametrize("row", [0, 3000])
@pytest.mark.parametrize("value", [np.nan, np.inf, 0])
def test_zero_and_other_rows_without_numbers_are_refused(tmp_path, row: int, value: float) -> None:
    rows = np.ones((4000, 2), dtype=np.float32)
    rows[row] = value
    np.save(tmp_path / "f.npy", rows)
    with (
        trial("features", f"row {row} {value}"),
        pytest.raises(AlignRecError, match=f"item '{row}'"),
    ):
        align(load_features(tmp_path / "f.npy"), ["[PAD]", *map(str, range(4000))])


# Names of features -------------------------------------------------------------------------------

NAMES = st.text(max_size=40) | st.builds(
    lambda start, rest: start + rest,
    st.sampled_from(["random@", "shuffled:", "shuffled:" * 500, "hf:", "clip:", "../", "lsa", "["]),
    st.text(string.printable, max_size=9) | st.sampled_from(["9" * 5000, "x" * 300, "*", "\x1b["]),
)


@settings(deadline=None, max_examples=100)
@given(NAMES)
def test_names_of_features(name: str) -> None:
    with trial("feature names", printable(name, 30)):
        result_or_refusal(lambda: check_feature_name(name, Path("nowhere"), "shop"))


# Id mappings -------------------------------------------------------------------------------------

MAPPING = "id\titemID\nA\t0\nB\t1\nC\t2\n"


def test_mappings(tmp_path: Path) -> None:
    path = tmp_path / "map.csv"
    more = [b"", b"\xff", b"id\titemID\nA\t" + b"9" * 5000, b"id,itemID\n" + b"x" * 200_000 + b",0",
            b'id,itemID\n"A,0\n', b"id\titemID\nA\t0\nA\t1\n",
            MAPPING.encode("utf-8-sig")]  # fmt: skip
    for seed, content in enumerate([edited(MAPPING.encode(), Random(s)) for s in range(40)] + more):
        path.write_bytes(content)
        with trial("mappings", f"{seed}"):
            found = result_or_refusal(lambda: read_mapping(path), "map.csv")
            assert found is None or sorted(found.values()) == list(range(len(found)))


# Unfinished features, shards, caches -------------------------------------------------------------


class Lengths(ItemEncoder):
    """The length of the text; may stop."""

    name, modality, width, settings = "lengths", "text", 2, {"version": 1}

    def __init__(self, stop_after: int | None = None) -> None:
        self.given, self.stop_after = 0, stop_after

    def rows(self, texts: Sequence[str], images: Sequence[ImageInput]) -> np.ndarray:
        if self.stop_after is not None and self.given >= self.stop_after:
            raise KeyboardInterrupt
        self.given += len(texts)
        return np.array([[len(text), 1] for text in texts], dtype=np.float32)


TEXTS = ["x" * (n + 1) for n in range(12)]
ITEMS = ItemTable([f"i{n}" for n in range(12)], TEXTS, [None] * 12, "items.tsv", ["title"])


def spec(folder: Path, **other: object) -> ExtractionSpec:
    return ExtractionSpec(folder, "f", batch_size=2, progress=False, **other)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture(scope="module")
def unfinished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with features of which eight of twelve items are done."""
    folder = tmp_path_factory.mktemp("unfinished")
    with pytest.raises(KeyboardInterrupt):
        extract(Lengths(stop_after=8), ITEMS, spec(folder))
    return folder


def finish(unfinished: Path, folder: Path, name: str, damage) -> None:
    """Features whose unfinished part was damaged end equal to those made at once, or refused."""
    shutil.copytree(unfinished, folder)
    (part,) = folder.glob(".f-*.part")
    damage(part)
    with trial("unfinished features", name):
        table = result_or_refusal(lambda: extract(Lengths(), ITEMS, spec(folder)), part.name)
        if table is None:
            return
        assert np.array_equal(table.matrix[:, 0], np.arange(1, 13))
        assert not part.exists() or "new.npy" in name  # what is not ours stays


@pytest.mark.parametrize("name", ["rows.npy", "journal"])
def test_damaged_parts(unfinished: Path, tmp_path: Path, name: str) -> None:
    for seed in range(15):

        def damage(part: Path, seed: int = seed) -> None:
            (part / name).write_bytes(edited((part / name).read_bytes(), Random(seed)))

        finish(unfinished, tmp_path / str(seed), f"{name} {seed}", damage)


JOURNALS = {
    "garbage": b"\x97\xff\n" * 9,
    "nested": b"[" * 100_000,
    "empty": b"",
    "numbers": b"1\n2\n",
    "a block before the first": b'{"batch": -1, "crc": 0, "text": "", "image": ""}\n',
}


@pytest.mark.parametrize("name", JOURNALS)
def test_other_journals(unfinished: Path, tmp_path: Path, name: str) -> None:
    finish(unfinished, tmp_path / "f", name, lambda part: (part / "journal").write_bytes(
        JOURNALS[name]))  # fmt: skip


def test_a_line_that_is_there_twice_counts_once(tmp_path: Path) -> None:
    opened = {"n": 2, "f": 1, "dtype": "float32", "identity": "a"}
    part, blocks, has = tmp_path / ".x.part", [np.array([0]), np.array([1])], np.array([True])
    with trial("features", "a line twice"):
        with FeatureWriter.open(part, blocks, **opened) as writer:
            writer.add(0, np.ones((1, 1)), has, has, ["broken"])
        journal = part / "journal"
        journal.write_bytes(journal.read_bytes() * 2)
        with FeatureWriter.open(part, blocks, **opened) as writer:
            assert writer.done == {0}
            assert writer.reasons == {"broken": 1}
        assert journal.read_bytes().count(b"\n") == 1


ARRAYS = {
    "objects": np.array([{}], dtype=object),
    "another shape": np.ones((2, 128), dtype=np.float32),
    "another type": np.ones((12, 2), dtype=np.float64),
    "no rows": np.ones((0, 2), dtype=np.float32),
    "other values": np.full((12, 2), 7, dtype=np.float32),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_other_rows(unfinished: Path, tmp_path: Path, name: str) -> None:
    finish(unfinished, tmp_path / "f", name, lambda part: np.save(part / "rows.npy", ARRAYS[name]))


@pytest.mark.parametrize("kind", NO_FILES)
@pytest.mark.parametrize("name", ["rows.npy", "journal", "new.npy"])
def test_parts_that_are_no_files(unfinished: Path, tmp_path: Path, name: str, kind: str) -> None:
    finish(unfinished, tmp_path / "f", f"{name} is {kind}", lambda p: replace_by(p / name, kind))


def test_the_work_of_another_run_is_not_continued(unfinished: Path, tmp_path: Path) -> None:
    """Rows and journal of other settings under this run's name."""
    shutil.copytree(unfinished, tmp_path / "f")
    (part,) = (tmp_path / "f").glob(".f-*.part")
    foreign = Lengths(stop_after=8)
    foreign.settings = {"version": 2}
    with pytest.raises(KeyboardInterrupt):
        extract(foreign, ITEMS, spec(tmp_path / "g"))
    (theirs,) = (tmp_path / "g").glob(".f-*.part")
    for name in ("rows.npy", "journal"):
        shutil.copy(theirs / name, part / name)
    encoder = Lengths()
    with trial("unfinished features", "of another run"):
        extract(encoder, ITEMS, spec(tmp_path / "f"))
        assert encoder.given == 12


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    for number in (1, 2):
        extract(Lengths(), ITEMS, spec(folder, shard=(number, 2)))
    return folder


def test_shards_with_changed_manifests(shards: Path, tmp_path: Path) -> None:
    shutil.copytree(shards, tmp_path / "s")
    path = tmp_path / "s" / "f.shard-2-of-2.json"
    about = json.loads(path.read_text())
    settings_only = ((n, c) for n, c in with_values(about["settings"]))
    for name, changed in [*settings_only, ("none", {}), ("list", [1])]:
        path.write_text(json.dumps({**about, "settings": changed}))
        with trial("shards", name):
            table = result_or_refusal(
                lambda: merge_shards(tmp_path / "s", "f", ITEMS, overwrite=True), "shard"
            )
            assert table is None or np.array_equal(table.matrix[:, 0], np.arange(1, 13))


@pytest.mark.parametrize("name", ["f[1]", "f *", "f.shard-1-of-2", "a b é 中"])
def test_names_of_shards(tmp_path: Path, name: str) -> None:
    for number in (1, 2):
        job = ExtractionSpec(tmp_path, name, batch_size=2, progress=False, shard=(number, 2))
        extract(Lengths(), ITEMS, job)
    digits = "9" * 120
    (tmp_path / f"{name}.shard-1-of-{digits}.npy").write_bytes(b"")
    with trial("shards", name):
        assert len(merge_shards(tmp_path, name, ITEMS).matrix) == 12


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shop")
    words = ["red bike", "blue tent", "green lamp", "red lamp", "blue bike", "old tent"]
    rows = [f"i{n}\t{text}" for n, text in enumerate(words)]
    (folder / "items.tsv").write_text("id\ttitle\n" + "\n".join(rows) + "\n")
    return folder


@pytest.mark.parametrize("suffix", [".npy", ".json"])
def test_damaged_caches_are_made_again(shop: Path, tmp_path: Path, suffix: str) -> None:
    folder = tmp_path / "cache"
    first = find_or_encode("lsa", dataset_dir=shop, dataset="shop", cache=str(folder))
    rows, path = np.array(first.matrix), first.path.with_suffix(suffix)
    whole = path.read_bytes()
    for seed in range(15):
        path.write_bytes(edited(whole, Random(seed)))
        with trial("caches", f"features {suffix} {seed}"):
            table = find_or_encode("lsa", dataset_dir=shop, dataset="shop", cache=str(folder))
            assert np.array_equal(table.matrix, rows)
            assert table.manifest.items == find_item_table(shop, "shop").ids


def test_a_cache_of_other_items_in_its_place_is_made_again(shop: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    text = (shop / "items.tsv").read_text()
    (other / "items.tsv").write_text(text.replace("red bike", "tall tree").replace("lamp", "sea"))
    with trial("caches", "of other items"):
        a = find_or_encode("lsa", dataset_dir=shop, dataset="shop", cache=str(tmp_path / "a"))
        b = find_or_encode("lsa", dataset_dir=other, dataset="shop", cache=str(tmp_path / "b"))
        rows = np.array(a.matrix)
        assert not np.array_equal(rows, b.matrix)
        for suffix in (".npy", ".json"):
            shutil.copy(b.path.with_suffix(suffix), a.path.with_suffix(suffix))
        again = find_or_encode("lsa", dataset_dir=shop, dataset="shop", cache=str(tmp_path / "a"))
        assert np.array_equal(again.matrix, rows)


@pytest.mark.parametrize("changed", ["items", "name"])
def test_a_cache_of_earlier_versions_is_known_by_its_items_and_name(
    shop: Path, tmp_path: Path, changed: str
) -> None:
    """They stored no hash of the items and the encoder in the manifest."""
    with trial("caches", f"of earlier versions, another {changed}"):
        made = find_or_encode("lsa", dataset_dir=shop, dataset="shop", cache=str(tmp_path))
        rows, about = np.array(made.matrix), made.manifest
        items = list(about.items or [])
        foreign = save_features(
            made.path,
            rows[::-1],
            name="minilm" if changed == "name" else "lsa",
            modality="text",
            encoder=about.encoder,
            settings={},
            source=about.source,
            items=items[::-1] if changed == "items" else items,
        )
        assert "cached_as" not in foreign.settings
        again = find_or_encode("lsa", dataset_dir=shop, dataset="shop", cache=str(tmp_path))
        assert np.array_equal(again.matrix, rows)
        assert again.manifest.items == items


def test_damaged_neighbours_are_searched_again(tmp_path: Path) -> None:
    features = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
    with knn_cache.use_cache_folder(tmp_path):
        values, indices = item_item.nearest_neighbours(features, 5)
        (path,) = tmp_path.iterdir()
        whole = path.read_bytes()
        other = item_item.nearest_neighbours(features.flip(1), 4)
        (foreign,) = set(tmp_path.iterdir()) - {path}
        damages = [edited(whole, Random(seed)) for seed in range(25)] + [foreign.read_bytes(), b""]
        for number, content in enumerate(damages):
            path.write_bytes(content)
            with trial("caches", f"neighbours {number}"):
                again = item_item.nearest_neighbours(features, 5)
                assert torch.equal(again[1], indices)
                assert torch.equal(again[0], values)
        assert len(other[1]) == 30


@pytest.mark.parametrize("kind", NO_FILES)
def test_neighbours_without_a_file(tmp_path: Path, kind: str) -> None:
    features = torch.eye(4)
    with knn_cache.use_cache_folder(tmp_path), trial("caches", f"neighbours are {kind}"):
        expected = item_item.nearest_neighbours(features, 2)
        (path,) = tmp_path.iterdir()
        replace_by(path, kind)
        assert torch.equal(item_item.nearest_neighbours(features, 2)[1], expected[1])


@pytest.mark.parametrize("scale", [0, 1e-30, 1e30, 1e38])
def test_graphs_of_extreme_features(scale: float) -> None:
    """No neighbour at all, or the same ones as at a common scale."""
    rows = torch.randn(20, 4, generator=torch.Generator().manual_seed(0)).clamp(-2, 2)
    with trial("graphs", f"{scale}"):
        values, indices = item_item.nearest_neighbours(rows * scale, 3)
        if scale:
            assert torch.equal(indices, item_item.nearest_neighbours(rows, 3)[1])
        else:
            assert (values.shape, indices.shape) == ((20, 0), (20, 0))
        graph = item_item.item_graph(rows * scale, 3)
        assert np.isfinite(graph.data).all()
        assert np.isfinite(item_item.item_knn(rows.clamp(0, 0) + scale * 0, 3, 10.0).data).all()


def test_sums_over_no_neighbours_are_zero() -> None:
    weights, x = torch.zeros(3, 0, requires_grad=True), torch.ones(3, 2, requires_grad=True)
    with trial("graphs", "no neighbours"):
        sums = neighbour_sums(weights, torch.zeros(3, 0, dtype=torch.int64), x)
        assert torch.equal(sums, torch.zeros(3, 2))
        sums.sum().backward()
        assert x.grad is not None
        assert not x.grad.any()


@pytest.mark.parametrize("features", ["zero", "1e30"])
def test_a_model_that_learns_a_graph_of_features_without_content(tmp_path, features: str) -> None:
    """Zero rows have no neighbours, huge ones those of their direction."""
    data = WORLD.write(tmp_path / "data")
    table = load_features(data / "image.npy")
    rows = np.zeros_like(table.matrix) if features == "zero" else table.matrix * np.float32(1e30)
    for path in (data / "image.npy", data / "image.json"):
        path.unlink()
    items = table.manifest.items or []
    save_features(data / "image.npy", rows, name="image", modality="image", encoder="e",
                  settings={}, source="s", items=items,
                  missing=items if features == "zero" else [])  # fmt: skip
    with trial("graphs", f"LATTICE, {features}"):
        answer = run_verb(
            "--model", "LATTICE", "--dataset", "block_world", "--features", "image",
            "--epochs", "1", "--data-path", data.parent, "--output", tmp_path / "o", "--quiet",
            *(a for k, v in world_settings().items() for a in ("--set", f"{k}={json.dumps(v)}")),
        )  # fmt: skip
        assert answer.status == 0, answer.errors
