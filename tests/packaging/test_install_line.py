"""The line that installs torch: the same everywhere; with its index, without it, and offline.

Its three situations are run with `pip download` and tiny wheels that stand in for torch's.
"""

from __future__ import annotations

import functools
import http.server
import os
import re
import shlex
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("pip")

ROOT = Path(__file__).resolve().parents[2]
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
LINE = f"pip install --no-deps --retries 1 --timeout 15 --extra-index-url {CPU_INDEX} torch==2.13.0"
PAGES = ("README.md", "docs/install.md", "CONTRIBUTING.md", ".github/workflows/ci.yml")


@pytest.mark.parametrize("page", PAGES)
def test_every_page_has_the_line(page: str) -> None:
    assert LINE in (ROOT / page).read_text("utf-8")


def test_the_image_has_the_line_and_the_pinned_version_is_the_constraint() -> None:
    text = (ROOT / "Dockerfile").read_text("utf-8")
    assert LINE in text.replace(" --no-cache-dir", "")
    assert "\ntorch==2.13.0\n" in (ROOT / "constraints.txt").read_text("utf-8")
    copied = re.findall(r"^COPY (.+) \S+$", text, re.MULTILINE)
    ignored = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    assert copied
    for name in (name for line in copied for name in line.split()):
        assert (ROOT / name).exists(), name
        assert f"!{name}" in ignored, name


def test_the_checks_install_what_the_readme_says_and_their_extras() -> None:
    """`.ci/run` reads README's first block; the lines of it that change the block are run here."""
    lines = (ROOT / ".ci" / "run").read_text("utf-8").splitlines()
    changes = [line for line in lines if line.startswith("install=")]
    script = "\n".join(["environment=/e", *changes, 'printf %s "$install"'])
    done = subprocess.run(["bash", "-euc", script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    first, torch, package, recbole = done.stdout.strip().split(" &&\n")
    assert first == "python3 -m venv /e && . /e/bin/activate"
    assert torch == LINE
    assert package == 'pip install -c constraints.txt -e ".[dev,parquet,beit3,docs]"'
    assert recbole == "pip install -c constraints.txt --no-deps recbole==1.2.1 thop"


def wheel(folder: Path, version: str) -> Path:
    """A wheel called torch of a few bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"torch-{version}-py3-none-any.whl"
    info = f"torch-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: torch\nVersion: {version}\n"
        )
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return path


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """Two indexes: pypi/ with torch 2.13.0, cpu/ with 2.13.0+cpu."""
    wheel(tmp_path / "indexes/pypi/torch", "2.13.0")
    wheel(tmp_path / "indexes/cpu/torch", "2.13.0+cpu")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(tmp_path / "indexes"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def downloaded(folder: Path, cpu_index: str, **variables: str) -> list[str]:
    """The wheels that the line finds with another address of its index."""
    options = shlex.split(LINE.replace(CPU_INDEX, cpu_index))[2:]
    environment = {k: v for k, v in os.environ.items() if not k.upper().startswith("PIP_")}
    environment |= {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_CACHE_DIR": "1", **variables}
    done = subprocess.run(
        [sys.executable, "-m", "pip", "download", "-d", str(folder), *options],
        capture_output=True,
        text=True,
        env=environment,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return sorted(path.name for path in folder.iterdir())


def test_with_its_index_the_cpu_build_is_taken(tmp_path: Path, address: str) -> None:
    found = downloaded(tmp_path / "out", f"{address}/cpu", PIP_INDEX_URL=f"{address}/pypi")
    assert found == ["torch-2.13.0+cpu-py3-none-any.whl"]


def test_without_its_index_what_pip_finds_is_taken_soon(tmp_path: Path, address: str) -> None:
    started = time.monotonic()
    found = downloaded(
        tmp_path / "out", "https://torch.invalid/whl/cpu", PIP_INDEX_URL=f"{address}/pypi"
    )
    assert found == ["torch-2.13.0-py3-none-any.whl"]
    assert time.monotonic() - started < 60


def test_offline_a_folder_of_wheels_is_taken(tmp_path: Path) -> None:
    wheel(tmp_path / "wheels", "2.13.0+cpu")
    found = downloaded(
        tmp_path / "out", CPU_INDEX, PIP_NO_INDEX="1", PIP_FIND_LINKS=str(tmp_path / "wheels")
    )
    assert found == ["torch-2.13.0+cpu-py3-none-any.whl"]
