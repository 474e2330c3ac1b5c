"""The generated tables of the Markdown files are views of committed results, and never stale."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from records import record, store

from alignrec_recbole.errors import RecordError
from alignrec_recbole.runs.record import read_runs
from benchmarks import readme_blocks, readme_tables

ROOT = Path(__file__).resolve().parents[2]


def copy_pages(folder: Path) -> None:
    """The Markdown files that hold generated tables."""
    for name in readme_tables.FILES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)


def test_no_generated_table_is_stale(capsys: pytest.CaptureFixture[str]) -> None:
    assert readme_tables.main(["--check"]) == 0, capsys.readouterr().out


@pytest.mark.parametrize("page", readme_tables.FILES)
def test_no_table_has_a_row_twice(page: str) -> None:
    for block in (ROOT / page).read_text("utf-8").split("\n\n"):
        rows = [line for line in block.splitlines() if line.startswith("|")]
        assert len(rows) == len(set(rows)), [row for row in rows if rows.count(row) > 1]


def test_a_stale_table_is_found_and_rebuilt(tmp_path: Path) -> None:
    copy_pages(tmp_path)
    store(tmp_path / "results" / "shipped", record(dataset="baby", value=0.0754))
    assert readme_tables.main(["--check"], tmp_path) == 1
    assert readme_tables.main([], tmp_path) == 0
    assert readme_tables.main(["--check"], tmp_path) == 0
    text = (tmp_path / "results" / "README.md").read_text("utf-8")
    assert "0.0754" in text
    assert text.startswith((ROOT / "results/README.md").read_text("utf-8")[:200])
    store(tmp_path / "results" / "shipped", record(dataset="baby", seed=1000, value=0.0764))
    assert readme_tables.main(["--check"], tmp_path) == 1


def test_runs_of_uncommitted_code_are_not_shown(tmp_path: Path) -> None:
    store(tmp_path, record(code={"dirty": True}))
    assert not readme_blocks.clean(read_runs(tmp_path / "runs"))


def test_the_readme_shows_the_eight_best_those_without_features_and_five_rows_of_speed() -> None:
    results = readme_blocks.read(ROOT / "results" / "shipped")
    head = 2
    rows = readme_blocks.best_on_sports(results).splitlines()[head:]
    assert [" none " in row for row in rows] == 8 * [False] + 4 * [True]
    rows = [line for line in readme_blocks.speed_short(results).splitlines() if line[:1] == "|"]
    assert len(rows) == head + 5


def test_an_unknown_table_is_an_error() -> None:
    results = readme_blocks.Results({}, [])
    with pytest.raises(RecordError, match="unknown table"):
        readme_tables.rebuilt("<!-- table: nothing -->\n<!-- end table -->", results, "a page")
    with pytest.raises(RecordError, match="has no generated table"):
        readme_tables.rebuilt("text", results, "a page")


def test_every_script_that_times_something_is_in_the_table_of_scripts() -> None:
    scripts = {path.stem for path in (ROOT / "benchmarks" / "speed").glob("*.py")}
    table = (ROOT / "benchmarks" / "README.md").read_text("utf-8").partition("\n## Speed\n")[2]
    named = set(re.findall(r"^\| `speed\.(\w+)` \|", table, flags=re.M))
    assert named == scripts - {"__init__", "paired_timing"}, "paired_timing is what they share"
