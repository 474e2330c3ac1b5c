"""Broken inputs: each ends with its own error, exit status 2, no traceback, and nothing lost."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from records import read_records

from alignrec_recbole.cli.main import main
from alignrec_recbole.data.items import read_item_table
from alignrec_recbole.errors import DataError, FeatureError, WriteError
from alignrec_recbole.features.table import load_features, save_features
from alignrec_recbole.io.files import atomic_write, inside, sha256_file
from alignrec_recbole.testing.synthetic import make_blocks, world_settings
from alignrec_recbole.training.sampler import PairSampler

WORLD = make_blocks(users=6, items=6, cold=1)  # 24 users, 24 items of which 4 are cold
INTER = "block_world.inter"


@dataclass(frozen=True)
class Place:
    """Folders of one case."""

    data: Path  # the data set's own folder
    output: Path

    @property
    def root(self) -> Path:
        return self.output.parent


@dataclass(frozen=True)
class Bad:
    """A broken input and what its error must say."""

    name: str
    breaks: Callable[[Place], None]
    kind: str  # class of the error; usage: the command line refuses it
    says: tuple[str, ...]
    arguments: tuple[str, ...] = ()
    features: str = "image,text"
    model: str = "AlignRec"


# How to break things ----------------------------------------------------------------------------


def whole(place: Place) -> None:
    """Break nothing: the arguments are at fault."""


def content(name: str, change: Callable[[bytes], bytes]) -> Callable[[Place], None]:
    def breaks(place: Place) -> None:
        path = place.data / name
        path.write_bytes(change(path.read_bytes()))

    return breaks


def appended(line: str, name: str = INTER, encoding: str = "utf-8") -> Callable[[Place], None]:
    return content(name, lambda data: data + line.encode(encoding) + b"\n")


def manifest(**changes: object) -> Callable[[Place], None]:
    """Change entries of image.json; a function gets the old value."""

    def breaks(place: Place) -> None:
        path = place.data / "image.json"
        entries = json.loads(path.read_text())
        for key, change in changes.items():
            entries[key] = change(entries.get(key)) if callable(change) else change
        path.write_text(json.dumps(entries))

    return breaks


def matrix(change: Callable[[np.ndarray], np.ndarray], *, declared: bool = True):
    """Change image.npy; `declared`: the manifest describes the changed file."""

    def breaks(place: Place) -> None:
        path = place.data / "image.npy"
        np.save(path, change(np.load(path)))
        if declared:
            shape = list(np.load(path, allow_pickle=True).shape)
            manifest(shape=shape, sha256=sha256_file(path))(place)

    return breaks


def row(value: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(values: np.ndarray) -> np.ndarray:
        values[3] = value
        return values

    return change


def numbered(rows: int, last: str | None = None) -> Callable[[Place], None]:
    """MMRec's feature layout: item ids 0 … 19, no manifest, `rows` feature rows."""

    def breaks(place: Place) -> None:
        lines = (place.data / INTER).read_text().splitlines()
        cells = [line.split("\t") for line in lines[1:]]
        number = {item: str(i) for i, item in enumerate(sorted({c[1] for c in cells}))}
        if last is not None:
            number[max(number)] = last
        table = [f"{user}\t{number[item]}\t{label}" for user, item, label in cells]
        (place.data / INTER).write_text("\n".join([lines[0], *table]) + "\n")
        (place.data / "block_world.item").unlink()
        for path in place.data.glob("*.npy"):
            path.with_suffix(".json").unlink()
            np.save(path, np.load(path)[:rows])

    return breaks


def atomic(change: Callable[[bytes], bytes]) -> Callable[[Place], None]:
    """RecBole's layout in three files, the training file broken."""

    def breaks(place: Place) -> None:
        (place.data / INTER).unlink()
        WORLD.write(place.data.parent, "atomic")
        content("block_world.train.inter", change)(place)

    return breaks


ATOMIC = ("--set", "benchmark_filename=[train,valid,test]")


def record(change: Callable[[bytes], bytes]) -> Callable[[Place], None]:
    """Damage the record of a finished run."""

    def breaks(place: Place) -> None:
        (path,) = place.output.glob("runs/**/*.json")
        path.write_bytes(change(path.read_bytes()))

    return breaks


def state(data: Callable[[Place], bytes]) -> Callable[[Place], None]:
    """As if the finished run had been stopped, with a damaged state."""

    def breaks(place: Place) -> None:
        (path,) = place.output.glob("runs/**/*.json")
        folder = place.output / "checkpoints" / path.parent.relative_to(place.output / "runs")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{path.stem}.state.pt").write_bytes(data(place))
        path.unlink()

    return breaks


class Evil:
    """Runs a command when it is un-pickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple:
        return os.system, (self.command,)


def evil_state(place: Place) -> bytes:
    path = place.root / "evil.pt"
    torch.save({"model": Evil(f"touch {place.root / 'pwned'}")}, path)
    return path.read_bytes()


def first_line(data: bytes) -> bytes:
    return data.split(b"\n")[1] + b"\n"


def set_to(value: str) -> tuple[str, ...]:
    return ("--set", value)


FEATURE_CASES = [
    Bad(
        "truncated .npy",
        content("image.npy", lambda b: b[:-100]),
        "FeatureError",
        ("image.npy", "3100 bytes", "complete"),
    ),
    Bad(
        "empty .npy", content("image.npy", lambda b: b""), "FeatureError", ("image.npy", "0 bytes")
    ),
    Bad(
        ".npy of pickled objects",
        matrix(lambda m: np.array([{"a": 1}], dtype=object), declared=False),
        "FeatureError",
        ("image.npy", "without pickle"),
    ),
    Bad(
        "a pickle called .npy",
        content("image.npy", lambda b: pickle.dumps([1.0])),
        "FeatureError",
        ("image.npy", "without pickle"),
    ),
    Bad(
        "changed since the manifest",
        matrix(lambda m: m + 1, declared=False),
        "FeatureError",
        ("image.npy has changed", "sha256"),
    ),
    Bad(
        "reordered ids",
        manifest(items=lambda items: items[::-1]),
        "FeatureError",
        ("image.json have changed", "24 items"),
    ),
    Bad(
        "a header that is no Python",
        content("image.npy", lambda b: b.replace(b"'descr'", b"'descr ")),
        "FeatureError",
        ("image.npy is not a readable .npy", "numpy.save"),
    ),
    Bad(
        "ids twice",
        manifest(items=lambda items: [items[0], *items[:-1]]),
        "FeatureError",
        ("image.json names an item twice", "1 repeated", "'i"),
    ),
    Bad(
        "other ids",
        manifest(items=lambda items: [f"x{i}" for i in items], items_sha256=None),
        "FeatureError",
        ("image.npy has no row for 24 of the data set's 24 items", "'i"),
    ),
    Bad(
        "too few ids",
        manifest(items=lambda items: items[:-1]),
        "FeatureError",
        ("image.json names the wrong number", "23 items", "24"),
    ),
    Bad(
        "missing items nobody knows",
        manifest(missing=["nobody"]),
        "FeatureError",
        ("image.json", "1 of them", "'nobody'"),
    ),
    Bad(
        "manifest cut off",
        content("image.json", lambda b: b[:60]),
        "FeatureError",
        ("image.json is not a feature manifest", "JSON"),
    ),
    Bad(
        "manifest with a misspelt key",
        manifest(encodr="x"),
        "FeatureError",
        ("image.json", "encodr"),
    ),
    Bad(
        "manifest of a later schema",
        manifest(schema_version=2),
        "FeatureError",
        ("image.json", "schema_version", "1"),
    ),
    Bad(
        "too few rows",
        matrix(lambda m: m[:-1]),
        "FeatureError",
        ("image.json", "24 items", "23"),
    ),
    Bad(
        "too many rows",
        matrix(lambda m: np.concatenate([m, m[:1]]), declared=False),
        "FeatureError",
        ("image.npy", "(25, 32)", "(24, 32)"),
    ),
    Bad(
        "another precision",
        matrix(lambda m: m.astype(np.float64)),
        "FeatureError",
        ("image.npy", "float64", "float32"),
    ),
    Bad(
        "one dimension",
        matrix(lambda m: m[:, 0], declared=False),
        "FeatureError",
        ("image.npy", "(24,)", "[items, width]"),
    ),
    Bad(
        "whole numbers",
        matrix(lambda m: m.astype(np.int64), declared=False),
        "FeatureError",
        ("image.npy", "int64", "float32"),
    ),
    Bad("NaN row", matrix(row(np.nan)), "FeatureError", ("image.npy", "1 rows", "'i", "finite")),
    Bad("Inf row", matrix(row(np.inf)), "FeatureError", ("image.npy", "1 rows", "'i", "finite")),
    Bad(
        "zero row, not declared missing",
        matrix(row(0)),
        "FeatureError",
        ("image.npy", "1 zero rows", "'i", "missing"),
    ),
    Bad(
        "values of a missing item",
        manifest(missing=lambda _: ["i07"]),
        "FeatureError",
        ("image.npy", "1 rows", "'i07'"),
    ),
    Bad(
        "no manifest, ids are names",
        lambda place: (place.data / "image.json").unlink(),
        "FeatureError",
        ("image.npy has no manifest", "'i", "image.json"),
    ),
    Bad(
        "no manifest, a row too few",
        numbered(19),
        "FeatureError",
        (".npy does not have one row an item", "19 rows", "20"),
    ),
    Bad(
        "no manifest, a row too many",
        numbered(21),
        "FeatureError",
        (".npy does not have one row an item", "21 rows", "20"),
    ),
    Bad(
        "ids that overflow",
        numbered(20, last="99999999999999999999999"),
        "FeatureError",
        ("has no manifest", "'99999999999999999999999'"),
    ),
    Bad(
        "ids with leading zeros",
        numbered(20, last="07"),
        "FeatureError",
        ("has no manifest", "'07'"),
    ),
    Bad(
        "features nobody knows",
        whole,
        "UnknownNameError",
        ("'imag'", "Did you mean 'image'?", "--features-path"),
        features="imag",
    ),
    Bad(
        "features outside their folder",
        whole,
        "DataError",
        ("'../image.npy' leads out of its folder",),
        features="../image",
    ),
    Bad(
        "features path nowhere",
        whole,
        "FeatureError",
        ("nowhere", "--features-path"),
        ("--features-path", "{root}/nowhere"),
    ),
]

INTERACTION_CASES = [
    Bad(
        "missing column",
        content(INTER, lambda b: b.replace(b"itemID", b"thing", 1)),
        "DataError",
        (INTER, "no column itemID or item_id", "thing"),
    ),
    Bad(
        "column twice",
        content(INTER, lambda b: b.replace(b"x_label", b"userID", 1)),
        "DataError",
        (INTER, "'userID' twice"),
    ),
    Bad(
        "wrong delimiter",
        content(INTER, lambda b: b.replace(b"\t", b",")),
        "DataError",
        (INTER, "one column", "delimiter"),
    ),
    Bad(
        "duplicate interaction",
        content(INTER, lambda b: b + first_line(b)),
        "DataError",
        (INTER, "same interaction twice", "1 repeated", "user 'u", "item 'i", "line 122"),
    ),
    Bad(
        "interaction in two splits",
        content(INTER, lambda b: b + first_line(b).rsplit(b"\t", 1)[0] + b"\t2\n"),
        "DataError",
        (INTER, "same interaction twice", "two splits"),
    ),
    Bad("empty user", appended("\ti01\t0"), "DataError", (INTER, "'userID'", "1 of them", "121")),
    Bad("blank item", appended("u00\t  \t0"), "DataError", (INTER, "'itemID'", "1 of them")),
    Bad(
        "not UTF-8",
        appended("ü\ti01\t0", encoding="latin-1"),
        "DataError",
        (INTER, "not UTF-8", "0xfc", "iconv"),
    ),
    Bad(
        "UTF-16",
        content(INTER, lambda b: b.decode().encode("utf-16")),
        "DataError",
        (INTER, "not UTF-8", "position 0"),
    ),
    Bad("label outside 0, 1, 2", appended("u00\ti99\t3"), "DataError", (INTER, "'3'", "line 122")),
    Bad(
        "labels as decimals",
        content(INTER, lambda b: b.replace(b"\t0\n", b"\t0.0\n")),
        "DataError",
        (INTER, "72 rows", "'0.0'"),
    ),
    Bad("short line", appended("u00\ti99"), "DataError", (INTER, "line 122", "2 cells", "3")),
    Bad("long line", appended("u00\ti99\t0\tx"), "DataError", (INTER, "line 122", "4 cells", "3")),
    Bad(
        "all lines long",
        content(INTER, lambda b: b.replace(b"\n", b"\t1\n").replace(b"\t1\n", b"\n", 1)),
        "DataError",
        (INTER, "120 lines", "4 cells"),
    ),
    Bad(
        "cut in the last line",
        content(INTER, lambda b: b[:-3]),
        "DataError",
        (INTER, "line 121", "2 cells"),
    ),
    Bad("empty file", content(INTER, lambda b: b""), "DataError", (INTER, "is empty")),
    Bad(
        "header only",
        content(INTER, lambda b: b.split(b"\n")[0] + b"\n"),
        "DataError",
        (INTER, "no rows"),
    ),
    Bad(
        "no training rows",
        content(INTER, lambda b: b.replace(b"\t0\n", b"\t1\n")),
        "DataError",
        (INTER, "no training rows", "x_label = 0"),
    ),
    Bad(
        "no test rows",
        content(INTER, lambda b: b.replace(b"\t2\n", b"\t1\n")),
        "DataError",
        (INTER, "no test rows"),
    ),
    Bad(
        "atomic: column without a type",
        atomic(lambda b: b.replace(b"item_id:token", b"item_id")),
        "DataError",
        ("block_world.train.inter", "'item_id'", "item_id:token"),
        ATOMIC,
    ),
    Bad(
        "atomic: unknown type",
        atomic(lambda b: b.replace(b"item_id:token", b"item_id:tokn")),
        "DataError",
        ("block_world.train.inter", "'item_id:tokn'"),
        ATOMIC,
    ),
    Bad(
        "atomic: missing column",
        atomic(lambda b: b.replace(b"item_id:token", b"thing:token")),
        "DataError",
        ("block_world.train.inter", "no column 'item_id'", "ITEM_ID_FIELD"),
        ATOMIC,
    ),
    Bad(
        "atomic: short line",
        atomic(lambda b: b + b"u00\n"),
        "DataError",
        ("block_world.train.inter", "line 74", "1 cells"),
        ATOMIC,
    ),
    Bad(
        "atomic: not UTF-8",
        atomic(lambda b: b + b"\xfc\ti01\n"),
        "DataError",
        ("block_world.train.inter", "0xfc"),
        ATOMIC,
    ),
    Bad(
        "atomic: duplicate interaction",
        atomic(lambda b: b + first_line(b)),
        "DataError",
        ("same interaction twice", "rm_dup_inter"),
        ATOMIC,
    ),
    Bad(
        "atomic: a split is not there",
        whole,
        "DataError",
        ("block_world.train.inter", "--data-path"),
        ATOMIC,
    ),
    Bad(
        "item table of RecBole empty",
        content("block_world.item", lambda b: b""),
        "DataError",
        ("block_world.item is empty",),
    ),
    Bad(
        "item table without ids",
        content("items.tsv", lambda b: b.replace(b"item_id", b"thing", 1)),
        "DataError",
        ("items.tsv has no id column", "thing"),
        features="lsa",
    ),
    Bad(
        "item table names an item twice",
        content("items.tsv", lambda b: b + first_line(b)),
        "DataError",
        ("items.tsv names an item twice", "1 repeated"),
        features="lsa",
    ),
    Bad(
        "item table without an item",
        content("items.tsv", lambda b: b"\n".join(b.split(b"\n")[:-2]) + b"\n"),
        "FeatureError",
        ("no row for 1 of the data set's 24 items", "item 'i"),
        features="lsa",
    ),
]

NAME_AND_SETTING_CASES = [
    Bad(
        "unknown model",
        whole,
        "UnknownNameError",
        ("'AlignRecc'", "Did you mean 'AlignRec'?", "LightGCN"),
        model="AlignRecc",
    ),
    Bad(
        "model in the wrong case",
        whole,
        "UnknownNameError",
        ("'lightgcn'", "Did you mean 'LightGCN'?"),
        model="lightgcn",
    ),
    Bad(
        "unknown data set",
        whole,
        "UnknownNameError",
        ("'blok_world'", "Did you mean 'block_world'?", "--data-path"),
        ("--dataset", "blok_world"),
    ),
    Bad(
        "data set outside its folder",
        whole,
        "DataError",
        ("'../data/block_world' leads out of its folder",),
        ("--dataset", "../data/block_world"),
    ),
    Bad("absolute data set", whole, "DataError", ("'/etc' leads out",), ("--dataset", "/etc")),
    Bad(
        "unknown key",
        whole,
        "SettingError",
        ("'learning_rat'", "Did you mean 'learning_rate'?"),
        set_to("learning_rat=0.1"),
    ),
    Bad(
        "value of the wrong kind",
        whole,
        "SettingError",
        ("embedding_size = 'big'", "AlignRec.yaml"),
        set_to("embedding_size=big"),
    ),
    Bad(
        "value out of range",
        whole,
        "SettingError",
        ("embedding_size = -1", "greater than 0"),
        set_to("embedding_size=-1"),
    ),
    Bad(
        "word for a learning rate",
        whole,
        "SettingError",
        ("learning_rate = 'fast'", "overall.yaml"),
        set_to("learning_rate=fast"),
    ),
    Bad(
        "learning rate that explodes",
        whole,
        "DivergedError",
        ("NaN", "lower learning_rate"),
        ("--set", "learning_rate=1e38", "--epochs", "9"),
    ),
    Bad("no batch", whole, "SettingError", ("train_batch_size = 0",), set_to("train_batch_size=0")),
    Bad("list length 0", whole, "SettingError", ("topk", "0"), set_to("topk=[0]")),
    Bad("lists without 20", whole, "SettingError", ("topk", "20"), set_to("topk=[5, 10]")),
    Bad("no Recall", whole, "SettingError", ("Recall@20",), set_to("metrics=[NDCG]")),
    Bad(
        "sampled ranking",
        whole,
        "SettingError",
        ("full ranking", "uni100"),
        set_to("eval_args.mode=uni100"),
    ),
    Bad(
        "a filter on released splits",
        whole,
        "SettingError",
        ("user_inter_num_interval", "without splits"),
        set_to('user_inter_num_interval="[2,inf)"'),
    ),
    Bad("unknown metric", whole, "SettingError", ("'Recal'", "NDCG"), set_to("metrics=[Recal]")),
    Bad(
        "selection by what is not computed",
        whole,
        "SettingError",
        ("Recall@7", "Recall@20"),
        set_to("valid_metric=Recall@7"),
    ),
    Bad("half a decay", whole, "SettingError", ("lr_decay",), set_to("lr_decay=[0.5]")),
    Bad("unknown learner", whole, "SettingError", ("'adm'", "adam"), set_to("learner=adm")),
    Bad(
        "code as a value",
        whole,
        "SettingError",
        ("learner",),
        set_to("learner=__import__('os').system('touch {root}/pwned')"),
    ),
    Bad("unknown setting", whole, "SettingError", ("'mrec'", "mmrec"), set_to("setting=mrec")),
    Bad("a key with an option", whole, "SettingError", ("'seed'", "--seeds"), set_to("seed=1")),
    Bad("seed too large", whole, "SettingError", ("seed = 4294967296",), ("--seeds", "4294967296")),
    Bad("negative epochs", whole, "SettingError", ("epochs = -1",), ("--epochs", "-1")),
    Bad("unknown device", whole, "SettingError", ("tpu", "cpu"), ("--device", "tpu")),
    Bad("odd device", whole, "SettingError", ("cudaXYZ", "cpu"), ("--device", "cudaXYZ")),
    Bad("absent device", whole, "SettingError", ("cuda:99", "cpu"), ("--device", "cuda:99")),
    Bad(
        "a grid without evaluation",
        whole,
        "SettingError",
        ("validation score", "--epochs"),
        ("--epochs", "0", "--grid", "learning_rate=0.1,0.2"),
    ),
    Bad(
        "a model with another training",
        whole,
        "UnknownNameError",
        ("RecVAE", "in RecBole itself"),
        ("--model", "RecVAE"),
    ),
    Bad(
        "a modality that the record does not have",
        manifest(modality="audio"),
        "RecordError",
        ("modality audio, in the record image", "--overwrite"),
    ),
    Bad("seed as a word", whole, "usage", ("'1,x'", "999,1000"), ("--seeds", "1,x")),
    Bad("--set without a value", whole, "usage", ("'topk' is not key=value",), set_to("topk")),
    Bad("--set without YAML", whole, "usage", ("'[1' is not a YAML value",), set_to("topk=[1")),
    Bad("no feature name", whole, "usage", ("contains no name",), features=","),
]

OUTPUT_CASES = [
    Bad(
        "record cut off",
        record(lambda b: b[:100]),
        "RecordError",
        (".json is not a run record", "delete it and run again"),
    ),
    Bad(
        "record of a later schema",
        record(
            lambda b: b.replace(b'"schema_version": 1', b'"schema_version": 9').replace(
                b'"schema_version":1', b'"schema_version":9'
            )
        ),
        "RecordError",
        (".json is not a run record", "schema version 1"),
    ),
    Bad(
        "state is garbage",
        state(lambda place: b"garbage"),
        "RecordError",
        (".state.pt cannot be resumed", "--overwrite"),
    ),
    Bad(
        "state runs code",
        state(evil_state),
        "RecordError",
        (".state.pt cannot be resumed", "--overwrite"),
    ),
    Bad(
        "output is a file",
        whole,
        "DataError",
        ("Results cannot be written", "--output"),
        ("--output", "{data}/block_world.inter"),
    ),
    Bad(
        "output below a file",
        whole,
        "DataError",
        ("Results cannot be written", "--output"),
        ("--output", "{data}/block_world.inter/results"),
    ),
]

CASES = FEATURE_CASES + INTERACTION_CASES + NAME_AND_SETTING_CASES + OUTPUT_CASES


# The table --------------------------------------------------------------------------------------


def arguments(place: Place, case: Bad | None = None) -> list[str]:
    """A command line that runs when nothing is broken; later options win."""
    out = ["--model", case.model if case else "AlignRec", "--dataset", "block_world"]
    out += ["--features", case.features if case else "image,text"]
    out += ["--data-path", str(place.data.parent), "--output", str(place.output)]
    out += ["--quiet", "--epochs", "1", "--device", "cpu"]
    for key, value in world_settings().items():
        out += ["--set", f"{key}={json.dumps(value)}"]
    given = case.arguments if case else ()
    return out + [
        a.replace("{root}", str(place.root)).replace("{data}", str(place.data)) for a in given
    ]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Output of a run on the whole data: what must not be lost."""
    root = tmp_path_factory.mktemp("finished")
    place = Place(WORLD.write(root / "data"), root / "output")
    assert main(arguments(place)) == 0
    return place.output


@pytest.fixture
def place(tmp_path: Path, finished: Path) -> Place:
    """A fresh data set, and the output of an earlier run."""
    shutil.copytree(finished, tmp_path / "output")
    return Place(WORLD.write(tmp_path / "data"), tmp_path / "output")


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_broken_input(place: Place, case: Bad, capsys: pytest.CaptureFixture[str]) -> None:
    case.breaks(place)
    before = files(place.root)
    capsys.readouterr()
    status = main(arguments(place, case))
    said = capsys.readouterr().err
    assert status == 2
    start = "Usage:" if case.kind == "usage" else f"{case.kind}: "
    assert said.startswith(start), said
    for words in case.says:
        assert words in said, said
    assert len(said) < 2000, "an error is to be read"
    after = files(place.root)
    assert {name: after.get(name) for name in before} == before, "a file was lost or changed"
    kept = {name for name in after if name not in before}
    assert all("/features/" in name for name in kept), f"left behind: {kept}"
    assert not (place.root / "pwned").exists(), "code from the input was run"


def test_the_table_is_long_enough_and_its_base_is_whole(place: Place) -> None:
    assert len(CASES) >= 25
    assert len({case.name for case in CASES}) == len(CASES)
    assert main(arguments(place)) == 0


HARMLESS = {
    "byte order mark": content(INTER, lambda b: b"\xef\xbb\xbf" + b),
    "Windows line ends": content(INTER, lambda b: b.replace(b"\n", b"\r\n")),
    "blank lines": content(INTER, lambda b: b.replace(b"\n", b"\n\n")),
    "no line end at the end": content(INTER, lambda b: b[:-1]),
    "zero row, declared missing": lambda place: declare_missing(place),
}


def declare_missing(place: Place) -> None:
    table = load_features(place.data / "image.npy")
    matrix(row(0))(place)
    manifest(missing=[table.manifest.items[3]])(place)


@pytest.mark.parametrize("name", HARMLESS)
def test_harmless_oddities_are_read(place: Place, name: str) -> None:
    HARMLESS[name](place)
    assert main(arguments(place)) == 0


def test_quotation_marks_are_characters(place: Place) -> None:
    """A quoting reader would take the lines between two marks for one cell."""
    lines = (place.data / INTER).read_text().splitlines()
    users = {f'"{u}' if u in ("u00", "u01") else u: None for u in WORLD.users}
    quoted = [f'"{line}' if line.split("\t")[0] in ("u00", "u01") else line for line in lines[1:]]
    (place.data / INTER).write_text("\n".join([lines[0], *quoted]) + "\n")
    assert main([*arguments(place), "--overwrite"]) == 0
    found = max(read_records(place.output / "runs"), key=lambda r: r.started_utc)
    assert found.data["users"] == len(users)
    assert sum(found.data["interactions"]) == len(lines) - 1


def test_recboles_layout_is_read_as_it_is(place: Place) -> None:
    """pandas takes NA for absent, and what stands between two marks for one cell."""
    atomic(lambda b: b)(place)
    names = {"u00": '"u00', "u01": '"u01', "u02": "NA", "u03": "null"}
    for path in place.data.glob("block_world.*.inter"):
        lines = [line.split("\t") for line in path.read_text().splitlines()]
        rows = ["\t".join([names.get(cells[0], cells[0]), *cells[1:]]) for cells in lines]
        path.write_text("\n".join(rows) + "\n")
    assert main([*arguments(place), *ATOMIC, "--overwrite"]) == 0
    found = max(read_records(place.output / "runs"), key=lambda r: r.started_utc)
    assert found.data["users"] == len(WORLD.users)


# Disks, kills and paths -------------------------------------------------------------------------


def test_a_full_disk_loses_nothing(place: Place) -> None:
    """A limit on the size of files stands for a full disk: writes fail half-way, for real."""
    before = files(place.output)
    program = f"""
import resource, signal, sys
import numpy as np, torch
from pathlib import Path
from alignrec_recbole.errors import WriteError
from alignrec_recbole.io.files import atomic_write
from alignrec_recbole.cli.main import main
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2048, 2048))
folder = Path({str(place.root / "small")!r})
writers = dict(
    torch=lambda handle: torch.save(torch.ones(9999), handle),
    numpy=lambda handle: np.save(handle, np.ones(9999)),
    plain=lambda handle: handle.write(bytes(99999)),
)
for name, write in writers.items():
    try:
        with atomic_write(folder / name) as handle:
            write(handle)
    except WriteError as error:
        assert "File too large" in str(error) and name in str(error), error
    else:
        raise SystemExit(f"{{name}} was written")
assert list(folder.iterdir()) == []
sys.exit(main({[*arguments(place), "--seeds", "5"]!r}))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 2, done.stderr[-2000:]
    assert "WriteError: " in done.stderr
    assert "could not be written" in done.stderr
    assert files(place.output) == before


def test_a_kill_in_mid_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    path.write_text("old")
    program = f"""
import os, signal
from pathlib import Path
from alignrec_recbole.io.files import atomic_write
with atomic_write(Path({str(path)!r}), "w") as handle:
    handle.write("half of the n")
    handle.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL
    assert path.read_text() == "old"
    left = [p.name for p in tmp_path.iterdir() if p != path]
    assert len(left) == 1
    assert left[0].endswith(".part")
    assert not list(
        tmp_path.glob("*.json.part")
    )  # hidden: no reader takes it for a file of its own
    with atomic_write(path, "w") as handle:
        handle.write("new")
    assert path.read_text() == "new"


def test_a_killed_run_goes_on_as_if_nothing_had_happened(place: Place) -> None:
    """Killed in the middle of writing its sixth state, then started by the same command."""
    line = [*arguments(place), "--model", "BPR", "--epochs", "12"]
    before = files(place.output)
    program = f"""
import os, signal, torch
from alignrec_recbole.training import trainer
from alignrec_recbole.cli.main import main
whole, written = torch.save, []
def save(state, handle):
    written.append(1)
    if len(written) == 6:
        handle.write(b"half a state")
        handle.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    whole(state, handle)
torch.save, trainer.SAVE_EVERY_SECONDS = save, 0.0
main({line!r})
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]
    assert {name: files(place.output).get(name) for name in before} == before
    (kept,) = (place.output / "checkpoints").rglob("*.state.pt")
    begun = torch.load(kept, weights_only=True)
    assert json.loads(begun["plain"])["next_epoch"] == 5

    assert main(line) == 0
    assert main([*line, "--output", str(place.root / "fresh")]) == 0
    resumed, fresh = (
        next(r for r in read_records(out / "runs") if r.model == "BPR")
        for out in (place.output, place.root / "fresh")
    )
    assert resumed.metrics == fresh.metrics
    assert [e["losses"] for e in resumed.history] == [e["losses"] for e in fresh.history]


@contextmanager
def not_root() -> Iterator[None]:
    """Permissions bind: root may write anywhere, so it steps back for a moment."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_read_only_folder_is_named(tmp_path: Path) -> None:
    from alignrec_recbole.runs.run import _check_writable

    folder = tmp_path / "results"
    folder.mkdir()
    (folder / "old.json").write_text("old")
    folder.chmod(0o555)
    try:
        with not_root():
            with pytest.raises(DataError, match="Results cannot be written to") as refused:
                _check_writable(folder)
            with (
                pytest.raises(WriteError, match=r"new\.json could not be written"),
                atomic_write(folder / "new.json"),
            ):
                pass
    finally:
        folder.chmod(0o755)
    assert "Permission denied" in str(refused.value)
    assert [path.name for path in folder.iterdir()] == ["old.json"]


@pytest.mark.parametrize("name", ["../x", "/x", "a/../../x", "link/x"])
def test_paths_stay_in_their_folder(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path)
    with pytest.raises(DataError, match="leads out of its folder"):
        inside(folder, name)


def test_an_image_outside_its_folder_is_refused(tmp_path: Path) -> None:
    table = tmp_path / "items.tsv"
    table.write_text("id\ttitle\timage\na\tA\t../secret.jpg\n")
    with pytest.raises(DataError, match=r"'\.\./secret\.jpg' leads out of its folder"):
        read_item_table(table)


# Called as a library ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "items", "missing", "says"),
    [
        (np.ones((3, 2)), ["a", "b"], [], r"do not fit their items.*\(3, 2\)"),
        (np.ones(3), ["a", "b", "c"], [], r"do not fit their items.*\(3,\)"),
        (np.array([[1.0], [np.nan]]), ["a", "b"], [], "1 rows, for example item 'b'"),
        (np.array([[1.0], [0.0]]), ["a", "b"], [], "1 zero rows, for example item 'b'"),
        (np.array([[1.0], [2.0]]), ["a", "b"], ["b"], "declared missing.*item 'b'"),
    ],
)
def test_features_that_cannot_be_saved(tmp_path: Path, values, items, missing, says) -> None:
    path = tmp_path / "x.npy"
    with pytest.raises(FeatureError, match=f"(?s){says}"):
        save_features(
            path,
            values,
            name="x",
            modality="text",
            encoder="test",
            settings={},
            source="test",
            items=items,
            missing=missing,
        )
    assert list(tmp_path.iterdir()) == []


def test_a_user_who_has_everything_is_named() -> None:
    with pytest.raises(DataError, match=r"(?s)every training item.*user id 1 with 2 items"):
        PairSampler(np.array([1, 1, 2]), np.array([1, 2, 1]))
