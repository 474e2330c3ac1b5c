"""From an empty folder to the table with --download."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from filelock import FileLock
from published_files import ARCHIVES, World, all_files, facts_of
from scripted_server import ScriptedServer, scripted_server

from alignrec_recbole.cli.main import main
from alignrec_recbole.data import dataset_paths
from alignrec_recbole.errors import UnknownNameError
from alignrec_recbole.features.published import default_features, expanded

WORLD = World()
FILES = all_files(WORLD)


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with scripted_server() as running:
        running.serves(FILES)
        yield running


@pytest.fixture(autouse=True)
def _facts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = facts_of(WORLD, tmp_path / "properties")
    monkeypatch.setattr(dataset_paths, "properties_dir", lambda: folder)
    monkeypatch.delenv("ALIGNREC_MIRROR", raising=False)


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


def test_the_split_alone_is_enough_for_models_without_features(
    server: ScriptedServer, tmp_path: Path
) -> None:
    mirror = server.url.rpartition("/")[0]
    given = arguments(tmp_path, "sports", "--download", "--mirror", mirror)
    assert main([word.replace("AlignRec", "LightGCN") for word in given]) == 0
    assert [path for path, _ in server.asked] == ["/sports.inter"]


def test_without_the_flag_the_error_gives_the_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = arguments(tmp_path, "sports")
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
    given = ("lsa", "mmrec", "mmrec-text", "shuffled:mmrec@3")
    assert expanded(given, folder) == (
        "lsa", "mmrec-image", "mmrec-text", "shuffled:mmrec-image@3", "shuffled:mmrec-text@3",
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
