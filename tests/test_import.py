"""Importing the package is cheap, works without RecBole, and extends RecBole in either order."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HEAVY = ("torch", "numpy", "pandas", "scipy", "sklearn", "recbole", "transformers", "pydantic",
         "yaml", "wrapt")  # fmt: skip

HIDE = """
import sys

class Hide:
    def __init__(self, finder):
        self.finder = finder

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, path=None, target=None):
        return None if name.split(".")[0] in HIDDEN else self.finder.find_spec(name, path, target)

sys.meta_path[:] = map(Hide, sys.meta_path)
"""
WITHOUT_RECBOLE = f"HIDDEN = ('recbole',)\n{HIDE}"
WITHOUT_BOTH = f"HIDDEN = ('recbole', 'torch')\n{HIDE}"


def python(code: str, folder: Path = ROOT, **environment: str) -> subprocess.CompletedProcess:
    """Run code in a fresh process."""
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(code)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


def output(code: str, folder: Path = ROOT, **environment: str) -> str:
    """What the code prints; a failure of the code fails the test."""
    done = python(code, folder, **environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.strip()


def heavy_imports(code: str) -> set[str]:
    """Which of the heavy packages are imported in a fresh process that runs this code."""
    ending = f"import sys; print(*sorted(set({HEAVY!r}) & set(sys.modules)))"
    return set(output(f"{code}\n{ending}").split())


@pytest.mark.parametrize(
    "code",
    [
        "import alignrec_recbole; alignrec_recbole.__version__; dir(alignrec_recbole)",
        "import alignrec_recbole.errors",
        "import alignrec_recbole.io.suggest",
        "from alignrec_recbole.compat.imports import require_recbole",
    ],
)
def test_an_import_imports_nothing_heavy(code: str) -> None:
    assert heavy_imports(code) == set()


def test_listing_models_imports_neither_torch_nor_recbole() -> None:
    code = "import alignrec_recbole as a; assert len(a.list_models()) > 40"
    assert heavy_imports(code) <= {"wrapt", "yaml"}


@pytest.mark.parametrize("heavy", ["torch", "recbole", "pandas"])
def test_a_heavy_import_would_be_seen(heavy: str) -> None:
    assert heavy in heavy_imports(f"import {heavy}, alignrec_recbole")


def test_a_heavy_import_in_the_package_would_be_seen(tmp_path: Path) -> None:
    """The same check on a copy of the package that imports torch."""
    package = tmp_path / "alignrec_recbole"
    package.mkdir()
    for name in ("compat", "io", "errors.py", "_version.py"):
        (package / name).symlink_to(ROOT / "alignrec_recbole" / name)
    text = (ROOT / "alignrec_recbole" / "__init__.py").read_text(encoding="utf-8")
    (package / "__init__.py").write_text(f"{text}\nimport torch\n", encoding="utf-8")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\nimport alignrec_recbole"
    assert "torch" in heavy_imports(code)


def test_every_public_name_is_there() -> None:
    import alignrec_recbole

    for name in alignrec_recbole.__all__:
        assert getattr(alignrec_recbole, name) is not None
    assert set(alignrec_recbole.__all__) <= set(dir(alignrec_recbole))
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        alignrec_recbole.nothing  # noqa: B018


# Both orders ------------------------------------------------------------------------------------

RUN = """
from recbole.quick_start import run_recbole
import sys

sys.argv = ["test"]
result = run_recbole(
    model="AlignRec", dataset="ml-100k",
    config_dict={"features": ["lsa"], "epochs": 1, "gpu_id": "", "show_progress": False,
                 "metrics": ["Recall"], "topk": [20], "valid_metric": "Recall@20"},
)
print("\\nrecall", result["test_result"]["recall@20"])
"""


@pytest.mark.parametrize(
    "first",
    [
        "import alignrec_recbole",
        "import recbole\nimport alignrec_recbole",
        "import recbole.data, recbole.trainer, recbole.utils\nimport alignrec_recbole",
        "from recbole.utils import get_model\nimport recbole.config\nimport alignrec_recbole",
    ],
    ids=["before", "after recbole", "after its parts", "after its config"],
)
def test_stock_recbole_runs_our_model_in_any_order_of_imports(first: str, tmp_path: Path) -> None:
    printed = output(f"{first}\n{RUN}", tmp_path).splitlines()
    assert 0 < float(printed[-1].removeprefix("recall ")) < 1


def test_it_is_a_plugin_of_pytest(tmp_path: Path) -> None:
    """RecBole's own tests run with `-p alignrec_recbole`."""
    (tmp_path / "test_stock.py").write_text(
        "from recbole.config import Config\n"
        "from recbole.quick_start import objective_function\n"
        "from recbole.utils import get_model\n\n"
        "def test_config():\n"
        "    config = Config('LightGCN', 'ml-100k', config_dict={'note': '1 + 1'})\n"
        "    assert config['note'] == '1 + 1'\n"
        "    assert get_model('AlignRec').__module__ == 'alignrec_recbole.models.alignrec'\n"
    )
    for plugin, passes in ((["-p", "alignrec_recbole"], True), ([], False)):
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *plugin],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert (done.returncode == 0) is passes, done.stdout[-2000:]


# Without RecBole --------------------------------------------------------------------------------


def test_it_can_be_imported_without_recbole() -> None:
    code = f"""{WITHOUT_RECBOLE}
import alignrec_recbole
from alignrec_recbole import RunRecord, TrainedModel, list_models, load_features, load_model
from alignrec_recbole import load_records, load_results, save_features
import tempfile
with tempfile.TemporaryDirectory() as folder:
    assert load_records(folder) == []
    assert len(load_results(folder)) == 0
print(*[entry.name for entry in list_models()])
"""
    names = output(code).split()
    assert "AlignRec" in names
    assert "SASRec" not in names
    assert "DMF" not in names


@pytest.mark.parametrize(
    "use",
    [
        "from alignrec_recbole import MultimodalDataset",
        "from alignrec_recbole import run",
        "from alignrec_recbole.registry.components import components; components('AlignRec')",
        "from alignrec_recbole.registry.models import resolve; resolve('DMF')",
        "from alignrec_recbole.dataset import MultimodalDataset",
        "try: import recbole\nexcept ImportError: import recbole.config",
        "from alignrec_recbole.compat import patches; patches.check()",
    ],
)
def test_what_needs_recbole_names_the_command(use: str) -> None:
    done = python(f"{WITHOUT_RECBOLE}\nimport alignrec_recbole\n{use}")
    assert done.returncode == 1
    assert "MissingDependencyError: RecBole 1.2.1 is not installed." in done.stderr
    assert "pip install --no-deps recbole==1.2.1 thop" in done.stderr


def _command(hide: str, arguments: list[str]) -> str:
    return f"""{hide}
from alignrec_recbole.cli.main import main
status = main({arguments!r})
print("status", status, "torch" in sys.modules)
"""


def test_a_report_needs_neither_recbole_nor_torch(tmp_path: Path) -> None:
    shipped = ROOT / "results" / "shipped" / "runs"
    for record in sorted(shipped.glob("baby/LightGCN/*.json"))[:2]:
        target = tmp_path / "runs" / record.relative_to(shipped)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(record, target)
    printed = output(_command(WITHOUT_BOTH, ["report", "--output", str(tmp_path)]))
    assert printed.splitlines()[-1] == "status 0 False"
    assert "LightGCN" in (tmp_path / "site" / "data" / "baby.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("arguments", [["--help"], ["list", "models"], ["list", "datasets"]])
def test_quick_commands_need_neither_recbole_nor_torch(arguments: list[str]) -> None:
    assert output(_command(WITHOUT_BOTH, arguments)).splitlines()[-1] == "status 0 False"


def test_a_run_without_recbole_is_refused_with_the_command(tmp_path: Path) -> None:
    data = tmp_path / "toy"
    data.mkdir()
    (data / "toy.inter").write_text("user_id:token\titem_id:token\nu\ti\n")
    given = ["--model", "BPR", "--dataset", "toy", "--data-path", str(tmp_path)]
    done = python(_command(WITHOUT_RECBOLE, given))
    assert done.stdout.splitlines()[-1].startswith("status 2"), done.stderr[-2000:]
    assert "pip install --no-deps recbole==1.2.1 thop" in done.stderr
