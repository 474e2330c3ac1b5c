"""Plug-in models that cannot be imported, built, trained or ranked: one sentence each."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from trials import check_refused, run_verb, trial

from alignrec_recbole.registry import models
from alignrec_recbole.registry.components import components
from alignrec_recbole.testing.synthetic import make_blocks

HEAD = """
import torch
from recbole.model.general_recommender.bpr import BPR

class Walk(BPR):
    default_settings = {"embedding_size": 8}
"""
LOSS = HEAD + "\n    def calculate_loss(self, interaction):\n        "
SCORES = HEAD + "\n    def full_sort_predict(self, interaction):\n        "
SHAPE = "len(interaction), self.n_items"

IMPORTED = {  # what walkers.py contains → words of the error
    "a syntax error": ("class Walk(:", "SyntaxError"),
    "an error at import": ("raise RuntimeError('no licence')", "no licence"),
    "an exit at import": ("import sys; sys.exit(0)", "SystemExit"),
    "an interpreter's exit code": ("raise SystemExit('bye')", "bye"),
    "no such class": ("x = 1", "Walk"),
    "a module that is missing": ("import not_installed_anywhere", "not_installed_anywhere"),
    "a number": ("Walk = 3", "int"),
    "a function": ("def Walk(config, dataset): pass", "function"),
    "another class": ("class Walk: pass", "class Walk"),
    "a sequential recommender": (
        "from recbole.model.sequential_recommender.gru4rec import GRU4Rec as Walk",
        "class GRU4Rec",
    ),
    "settings in a list": (
        HEAD.replace('{"embedding_size": 8}', "[1, 2]"),
        "default_settings",
    ),
    "settings with a number as a name": (HEAD.replace('"embedding_size"', "8"), "default_settings"),
    "bytes that are no text": ("\udcff", "SyntaxError"),
}
RUN = {
    "no constructor": (HEAD + "\n    def __init__(self, config):\n        pass", "be built"),
    "a constructor that raises": (
        HEAD + "\n    def __init__(self, config, dataset):\n        raise KeyError('walks')",
        "walks",
    ),
    "a constructor that exits": (
        HEAD + "\n    def __init__(self, config, dataset):\n        raise SystemExit(0)",
        "SystemExit",
    ),
    "a loss that raises": (LOSS + "raise KeyError('x')", "KeyError: 'x'"),
    "a loss that is None": (LOSS + "return None", "be trained"),
    "a loss that is a number": (LOSS + "return 1.0", "be trained"),
    "a loss of two rows": (LOSS + "return torch.ones(2, requires_grad=True)", "be trained"),
    "a loss of no terms": (LOSS + "return ()", "be trained"),
    "an infinite loss": (
        LOSS + "return super().calculate_loss(interaction) * float('inf')",
        "not finite",
    ),
    "scores of another shape": (SCORES + "return torch.ones(3)", "[3]"),
    "scores that are a list": (SCORES + "return [1.0]", "list"),
    "scores that raise": (SCORES + "raise ValueError('empty')", "ValueError: empty"),
    "scores that are infinite": (SCORES + f"return torch.full(({SHAPE}), torch.inf)", "infinity"),
    "scores that are NaN": (SCORES + f"return torch.full(({SHAPE}), torch.nan)", "NaN"),
    "scores that exit": (SCORES + "raise SystemExit(3)", "SystemExit"),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    make_blocks(users=6, items=6, cold=1).write(folder)
    return folder


def offer(folder: Path, monkeypatch: pytest.MonkeyPatch, point: str, code: str = HEAD) -> None:
    """Install a module `walkers` with this entry point, as pip would."""
    info = folder / "walkers-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: walkers\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{models.ENTRY_POINTS}]\n{point}\n", "utf-8")
    (folder / "walkers.py").write_text(code, "utf-8", errors="surrogateescape")
    monkeypatch.delitem(sys.modules, "walkers", raising=False)
    monkeypatch.syspath_prepend(str(folder))


def run(data: Path, folder: Path, model: str = "Walk"):
    return run_verb(
        "--model", model, "--dataset", "block_world", "--data-path", data,
        "--output", folder / "out", "--epochs", 1, "--quiet",
        "--set", "load_col={inter: [user_id, item_id], item: [item_id]}",
    )  # fmt: skip


@pytest.mark.parametrize("name", [*IMPORTED, *RUN])
def test_a_broken_plugin_is_named(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    code, word = {**IMPORTED, **RUN}[name]
    offer(tmp_path / "site", monkeypatch, "Walk = walkers:Walk", code)
    with trial("plug-ins", name):
        answer = run(data, tmp_path)
        check_refused(answer, word)
        assert "'Walk'" in answer.errors or name == "an infinite loss", answer.errors
        assert not list((tmp_path / "out" / "runs").rglob("*.json"))


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("float('inf')", "inf: not finite"),
        ("float('nan')", "nan: not finite"),
        ("[0.1, {'a': float('-inf')}]", "not finite"),
        ("2**63", "a number beyond 64 bits"),
        ("{1, 2}", "a set"),
    ],
)
def test_a_default_that_no_record_can_hold_is_refused_before_training(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str, says: str
) -> None:
    code = SCORES.replace('"embedding_size": 8', f'"embedding_size": 8, "walk": {value}')
    code += "raise AssertionError('trained')"
    offer(tmp_path / "site", monkeypatch, "Walk = walkers:Walk", code)
    with trial("plug-ins", f"default {value}"):
        check_refused(run(data, tmp_path), "'walk'", says, "the defaults of Walk")
        assert not list((tmp_path / "out").rglob("*.json"))


@pytest.mark.parametrize(
    "point",
    ["../x = walkers:Walk", "Walk.k = walkers:Walk", "a b = walkers:Walk", "\x1b[31m = walkers:W",
     "Walk = :Walk", "Walk = walkers", "Walk = walkers:", "Walk = ..:Walk", "Walk = a b c",
     "Walk = walkers:Walk.nothing", "W" * 300 + " = walkers:Walk"],
)  # fmt: skip
def test_an_odd_entry_point_is_named_and_harms_no_other_model(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    offer(tmp_path / "site", monkeypatch, point)
    name = point.partition(" = ")[0]
    with trial("plug-ins", point):
        check_refused(run(data, tmp_path, name), "plug-in")
        if name in ("\x1b[31m", "Walk"):
            assert run_verb("list", "models").status == 0
            assert "\x1b" not in run_verb("list", "models").output
        assert components("Pop").entry.is_native


def test_a_good_plugin_runs(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offer(tmp_path / "site", monkeypatch, "Walk = walkers:Walk")
    assert run(data, tmp_path).status == 0
