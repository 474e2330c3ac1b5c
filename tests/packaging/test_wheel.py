"""The built wheel, installed outside the checkout, does what the checkout does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from alignrec_recbole.io.yaml_loader import properties_dir

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout, built without an index."""
    if not (ROOT / "pyproject.toml").is_file():
        pytest.skip("this is not a checkout: there is nothing to build")
    pytest.importorskip("build", reason="the extra 'dev' is not installed")
    pytest.importorskip("hatchling", reason="the extra 'dev' is not installed")
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT]
    done = run(build, folder)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the commands of a fresh environment that holds the wheel.

    What the wheel needs comes from the environment of these tests by a .pth file; that one's own
    copy of this package comes later on the path and must not be the one that is imported.
    """
    folder = tmp_path_factory.mktemp("fresh")
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    scripts = folder / ("Scripts" if os.name == "nt" else "bin")
    python = scripts / "python"
    subprocess.run(
        [str(python), "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", str(wheel)],
        check=True,
    )
    paths = {"base": str(folder), "platbase": str(folder)}
    site = Path(sysconfig.get_path("purelib", vars=paths))
    (site / "zz_dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return scripts


def run(
    command: Sequence[str | Path], folder: Path, **variables: str
) -> subprocess.CompletedProcess[str]:
    """A command outside the checkout, with nothing of the caller's Python path."""
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env={**kept, "OMP_NUM_THREADS": "1", **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_wheel_carries_the_defaults_and_nothing_that_is_not_for_use(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    ours = {
        f"alignrec_recbole/properties/{path.relative_to(properties_dir()).as_posix()}"
        for path in properties_dir().rglob("*.yaml")
    }
    assert len(ours) > 5
    assert ours <= names
    top = {name.split("/")[0] for name in names}
    assert {name for name in top if not name.endswith(".dist-info")} == {"alignrec_recbole"}
    assert "alignrec_recbole/py.typed" in names


def test_the_wheel_is_what_is_imported_and_brings_no_other_package(
    environment: Path, tmp_path: Path
) -> None:
    code = "import alignrec_recbole; print(alignrec_recbole.__file__)"
    done = run([environment / "python", "-W", "ignore", "-c", code], tmp_path)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.splitlines()[-1]).is_relative_to(environment.parent)
    done = run([environment / "python", "-c", "import benchmarks"], tmp_path)
    assert done.returncode == 1
    assert "No module named 'benchmarks'" in done.stderr


def test_the_console_command_explains_itself(environment: Path, tmp_path: Path) -> None:
    for arguments, words in ((["--help"], "import-amazon"), (["run", "--help"], "--data-path")):
        done = run([environment / "alignrec-bench", *arguments], tmp_path)
        assert done.returncode == 0, done.stderr
        assert words in done.stdout


def test_the_console_command_does_the_main_job(environment: Path, tmp_path: Path) -> None:
    options = "--model AlignRec --dataset ml-100k --epochs 1 --device cpu --quiet"
    done = run([environment / "alignrec-bench", *options.split()], tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = (tmp_path / "results" / "runs").rglob("*.json")
    record = json.loads(path.read_text("utf-8"))
    assert (record["model"], record["dataset"], record["epochs"]) == ("AlignRec", "ml-100k", 1)
    assert 0 < record["metrics"]["Recall@20"] < 1
    assert "AlignRec" in done.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results"]


def test_an_unknown_model_is_refused_in_the_words_of_the_package(
    environment: Path, tmp_path: Path
) -> None:
    done = run(
        [environment / "alignrec-bench", "--model", "AlignRek", "--dataset", "ml-100k"], tmp_path
    )
    assert done.returncode == 2
    assert "AlignRec" in done.stderr
    assert "Traceback" not in done.stderr
