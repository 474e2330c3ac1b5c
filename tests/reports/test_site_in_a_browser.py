"""Pages in a real browser: no finding of axe, no message, both schemes, a phone and a desk.

Needs Chromium, Node.js and the two packages that `nox -s browser` fetches.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from alignrec_recbole.reports import build

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = Path(__file__).parent / "browser" / "check_site.cjs"
MAX_BYTES, MAX_NODES = 300_000, 3_000

pytestmark = pytest.mark.slow


def browser() -> str:
    """Chromium's path; skips where it or a package of Node.js is absent."""
    names = ("chromium", "chromium-browser", "google-chrome")
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if found is None:
        pytest.skip("Chromium is not installed")
    if shutil.which("node") is None:
        pytest.skip("Node.js is not installed")
    for package in ("playwright-core", "axe-core"):
        asked = ["node", "-e", f"require.resolve({package!r})"]
        if subprocess.run(asked, cwd=SCRIPT.parent, capture_output=True).returncode:
            pytest.skip(f"Node.js does not find {package}: `nox -s browser` fetches it")
    return found


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What the script found, per page, width and colour scheme."""
    found = browser()
    output = tmp_path_factory.mktemp("results")
    shipped = ROOT / "results" / "shipped"
    for part in ("runs/baby", "tuning/baby"):
        if (shipped / part).is_dir():
            shutil.copytree(shipped / part, output / part)
    audit = next((shipped / "audit").glob("baby-*.json"))
    (output / "audit").mkdir()
    shutil.copy(audit, output / "audit")
    build.build(output)
    site = output / "site"
    runs = sorted((site / "runs").glob("*.html"))
    pages = [
        site / "index.html",
        *sorted((site / "data").glob("*.html")),
        next(path for path in runs if "LightGCN" in path.name),
        *(site / "audits").glob("*.html"),
    ]
    screens = Path(os.environ.get("SCREENSHOTS", tmp_path_factory.mktemp("screens")))
    screens.mkdir(parents=True, exist_ok=True)
    command = ["node", str(SCRIPT), found, str(screens), *map(str, pages)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    views: list[dict[str, Any]] = json.loads(done.stdout)
    assert len(views) == 4 * len(pages) >= 16
    return views


def test_axe_has_no_finding(seen: list[dict[str, Any]]) -> None:
    assert [(view["page"], view["violations"]) for view in seen if view["violations"]] == []


def test_nothing_is_said_on_the_console_and_nothing_is_fetched_from_elsewhere(
    seen: list[dict[str, Any]],
) -> None:
    for view in seen:
        assert (view["messages"], view["outside"], view["broken"]) == ([], [], 0), view["page"]


def test_pages_are_small_and_as_wide_as_the_screen(seen: list[dict[str, Any]]) -> None:
    for view in seen:
        assert view["bytes"] < MAX_BYTES, view["page"]
        assert view["nodes"] < MAX_NODES, view["page"]
        assert view["overflow"] <= 0, (view["page"], view["width"])


def test_the_keyboard_reaches_and_sorts_and_opens(seen: list[dict[str, Any]]) -> None:
    assert all(view["keyboard"] for view in seen)
    for action, width in (("opening", 390), ("sorting", 1400), ("filtering", 1400)):
        results = [view[action] for view in seen if view["width"] == width]
        assert True in results, action
        assert False not in results, action
