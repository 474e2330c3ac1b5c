"""README and docs: every example runs, every link leads somewhere, the README stays short."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import yaml
from PIL import Image

from alignrec_recbole.cli.main import program
from alignrec_recbole.encoders.registry import ENCODERS
from alignrec_recbole.errors import SettingError
from alignrec_recbole.protocols import PROTOCOLS
from alignrec_recbole.registry import components, models
from alignrec_recbole.runs.run import run_one
from alignrec_recbole.runs.spec import RunSpec

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("", "docs", "results", "benchmarks", "tests")
PAGES = [path for folder in FOLDERS for path in sorted((ROOT / folder).glob("*.md"))]
EXECUTED = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"(?<!`)!?\[[^\]]*\]\(([^)\s]+)\)")
MOST_LINES = 300
EXTRAS = {  # page → modules that its examples need
    "docs/tuning.md": ("optuna",),
    "docs/cluster.md": ("distributed", "optuna"),
}


class Example(NamedTuple):
    """A fenced block of a page."""

    page: str
    line: int
    language: str
    text: str

    @property
    def name(self) -> str:
        """As pytest shows it."""
        return f"{self.page}:{self.line}"


def examples(path: Path) -> Iterator[Example]:
    """The fenced blocks of a page."""
    text = path.read_text("utf-8")
    for match in FENCE.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        yield Example(path.relative_to(ROOT).as_posix(), line, match[1], match[2])


ALL = [example for path in EXECUTED for example in examples(path)]
NOT_RUN = yaml.safe_load((Path(__file__).parent / "not_run.yaml").read_text("utf-8"))


def reason(example: Example) -> str:
    """Why an example is not executed; "" if it is."""
    for entry in NOT_RUN:
        if example.page == entry["page"] and example.text.startswith(entry["start"]):
            return str(entry["reason"])
    return ""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder as a reader has it: the script, the committed records, a small data set `shop`."""
    shutil.copy(ROOT / "run_benchmark.py", tmp_path)
    shutil.copytree(ROOT / "results/shipped/runs/baby", tmp_path / "results/shipped/runs/baby")
    make_shop(tmp_path / "data" / "shop")
    return tmp_path


def make_shop(folder: Path, users: int = 30, items: int = 24) -> None:
    """Interactions with a split, texts of two kinds and an image per item."""
    (folder / "images").mkdir(parents=True)
    random = np.random.default_rng(7)
    rows = ["userID\titemID\tx_label"]
    for user in range(users):
        taken = random.permutation(np.arange(user % 2, items, 2))[:7]
        rows += [f"{user}\t{item}\t{max(0, n - 4)}" for n, item in enumerate(taken)]
    seen = {row.split("\t")[1] for row in rows[1:]}
    rows += [f"0\t{item}\t0" for item in range(items) if str(item) not in seen]
    (folder / "shop.inter").write_text("\n".join(rows) + "\n")
    table = ["item_id\ttitle\timage"]
    for item in range(items):
        kind = ("red running shoes", "green herbal tea")[item % 2]
        table.append(f"{item}\t{kind} number {item} of the new season\t{item}.png")
        pixels = random.integers(0, 255, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{item}.png")
    (folder / "items.tsv").write_text("\n".join(table) + "\n")


def pages() -> list[Any]:
    """README, and the pages of the documentation, which take longer together."""
    names = [path.relative_to(ROOT).as_posix() for path in EXECUTED]
    long = {name: () if name == "README.md" else (pytest.mark.long,) for name in names}
    return [pytest.param(name, marks=long[name], id=name) for name in names]


@pytest.mark.slow
@pytest.mark.parametrize("page", pages())
def test_the_examples_of_a_page_run_in_their_order(page: str, place: Path) -> None:
    """One reader, one folder: what a block writes, the next one may read."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    for module in EXTRAS.get(page, ()):
        pytest.importorskip(module, reason="an extra that the page is about")
    started = 0
    for example in ALL:
        if example.page != page or example.language not in ("python", "bash") or reason(example):
            continue
        shell = ["bash", "-euo", "pipefail", "-c", example.text]
        command = shell if example.language == "bash" else [sys.executable, "-c", example.text]
        done = subprocess.run(
            command, cwd=place, env=environment, capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0, f"{example.name}\n{done.stdout[-1500:]}\n{done.stderr[-3000:]}"
        started += 1
    if not started:
        pytest.skip("the page has no example that runs")


@pytest.mark.parametrize(
    "example", [entry for entry in ALL if reason(entry)], ids=lambda entry: entry.name
)
def test_examples_that_are_not_executed_are_listed_with_their_reason(example: Example) -> None:
    pytest.skip(reason(example))


def test_every_reason_belongs_to_one_example() -> None:
    for entry in NOT_RUN:
        found = [
            example.name
            for example in ALL
            if example.page == entry["page"] and example.text.startswith(entry["start"])
        ]
        assert len(found) == 1, (entry, found)


@pytest.mark.parametrize("example", ALL, ids=lambda entry: entry.name)
def test_blocks_have_a_language_and_parse(example: Example) -> None:
    assert example.language in ("python", "bash", "yaml", "toml", "text"), example.language
    if example.language == "python" and not example.text.startswith(" "):
        compile(example.text, example.name, "exec")
    elif example.language == "yaml":
        assert yaml.safe_load(example.text)
    elif example.language == "toml":
        assert pytest.importorskip("tomllib").loads(example.text)
    elif example.language == "bash":
        subprocess.run(["bash", "-n", "-c", example.text], check=True)


def test_the_readme_model_trains_word_for_word(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    monkeypatch.setattr(sys, "argv", ["test"])
    section = (ROOT / "README.md").read_text("utf-8").split("## Add a model")[1].split("\n## ")[0]
    code, line, values = (text for _, text in FENCE.findall(section))
    entry = models.native(*re.findall(r'"(\w+)"', line), "needs_features=True" in line)
    (place / "blend.py").write_text(code, encoding="utf-8")
    loader = importlib.util.spec_from_file_location("blend", place / "blend.py")
    assert loader is not None
    assert loader.loader is not None
    module = importlib.util.module_from_spec(loader)
    loader.loader.exec_module(module)
    monkeypatch.setitem(sys.modules, entry.target.partition(":")[0], module)
    monkeypatch.setitem(models.MODELS, entry.name, entry)
    monkeypatch.setattr(components, "_defaults", lambda *_: yaml.safe_load(values))
    spec = RunSpec(
        "Blend",
        "shop",
        ("lsa",),
        data_path=place / "data",
        output=place / "out",
        epochs=2,
        progress=False,
    )
    record = run_one(spec)
    assert record.config["reg_weight"] == 1e-4
    assert record.history[1]["loss"] < record.history[0]["loss"]
    with pytest.raises(SettingError, match="reg_weight"):
        run_one(replace(spec, overrides={"reg_weight": -3}))


def test_the_readme_names_every_protocol_encoder_and_verb() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    for name, protocol in PROTOCOLS.items():
        assert f"| `{name}`" in text
        assert protocol.question in text
    for entry in ENCODERS.values():
        assert f"`{entry.syntax}`" in text
    shown = {verb for verb, command in program.commands.items() if not command.hidden}
    for verb in shown:
        assert f"`{verb}" in text, verb


def test_the_readme_is_short() -> None:
    lines = (ROOT / "README.md").read_text("utf-8").splitlines()
    assert len(lines) <= MOST_LINES


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_relative_links_lead_to_files_and_headings(path: Path) -> None:
    for target in LINK.findall(FENCE.sub("", path.read_text("utf-8"))):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        found = (path.parent / name).resolve() if name else path
        assert found.exists(), target
        if anchor:
            assert anchor in headings(found), target


def headings(path: Path) -> set[str]:
    """The anchors of a page, as GitHub and mkdocs name them."""
    text = FENCE.sub("", path.read_text("utf-8"))
    found = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in found}


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs")
    pytest.importorskip("mkdocstrings")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "protocols" / "index.html").read_text("utf-8")
    assert "generated:" not in page
    assert "kNN(i)" in page
    assert "arXiv 2403.12384" in (tmp_path / "models" / "index.html").read_text("utf-8")
