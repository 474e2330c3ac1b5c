"""Generated trials: broken spaces, unusable storages and studies of others are refused."""

from __future__ import annotations

import os
import sqlite3
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trials import check_refused, run_verb, trial
from two_blocks import write_two_blocks

from alignrec_recbole.errors import AlignRecError, SettingError
from alignrec_recbole.io.yaml_loader import properties_dir
from alignrec_recbole.registry.components import components
from alignrec_recbole.registry.models import MODELS
from alignrec_recbole.search.space import Parameter, parse_space, raw_space, space_path
from alignrec_recbole.settings import check_keys

AREA = "tuning"
NOT_SEARCHED = {"Pop", "ItemKNN"}  # nothing to choose; RecBole's own


@pytest.mark.parametrize("model", sorted(set(MODELS) - NOT_SEARCHED))
def test_every_trained_model_has_a_space_that_it_reads(model: str) -> None:
    space = parse_space(raw_space(model), model)
    parts = components(model)
    check_keys({key.split(".")[0]: 0 for key in space.parameters}, set(parts.keys_for("x")), model)
    space.check_enumerable()
    text = space_path(model).read_text("utf-8")
    assert text.startswith("# "), "it says where its values are from"
    defaults = parts.defaults_for("x")
    for key, parameter in space.parameters.items():
        value = defaults[key]
        inside = value in parameter.choices or (
            parameter.low is not None and parameter.low <= value <= (parameter.high or 0)
        )
        assert inside, f"the default of {key}, {value}, is among the values that are searched"


def test_no_space_is_of_no_model() -> None:
    names = {path.stem for path in (properties_dir() / "search").glob("*.yaml")}
    assert names <= set(MODELS)


BROKEN: dict[str, Any] = {
    "no mapping": [1, 2],
    "nothing": {},
    "a number": {"reg_weight": 0.1},
    "null": {"reg_weight": None},
    "no values": {"reg_weight": []},
    "a value twice": {"reg_weight": [0.1, 0.1]},
    "reversed": {"reg_weight": {"low": 1.0, "high": 0.1}},
    "empty": {"reg_weight": {"low": 1.0, "high": 1.0}},
    "no end": {"reg_weight": {"low": 1.0}},
    "log from zero": {"reg_weight": {"low": 0.0, "high": 1.0, "log": True}},
    "log from below zero": {"reg_weight": {"low": -1.0, "high": 1.0, "log": True}},
    "log with a step": {"reg_weight": {"low": 0.1, "high": 1.0, "log": True, "step": 0.1}},
    "no step": {"reg_weight": {"low": 0.1, "high": 1.0, "step": 0}},
    "a step beyond": {"reg_weight": {"low": 0.1, "high": 1.0, "step": 5}},
    "a broken step": {"n_layers": {"low": 1, "high": 4, "step": 1.5}},
    "text": {"reg_weight": {"low": "a", "high": "b"}},
    "true": {"reg_weight": {"low": False, "high": True}},
    "log as text": {"reg_weight": {"low": 0.1, "high": 1.0, "log": "yes"}},
    "an unknown key": {"reg_weight": {"low": 0.1, "high": 1.0, "scale": "log"}},
    "choices in a range": {"reg_weight": {"choices": [1, 2]}},
    "a grid outside": {"reg_weight": {"low": 0.1, "high": 1.0, "grid": [2.0]}},
    "a grid between whole numbers": {"n_layers": {"low": 1, "high": 3, "grid": [1, 1.5, 2, 2.5]}},
    "a grid between steps": {"dropout": {"low": 0.0, "high": 1.0, "step": 0.5, "grid": [0.3]}},
    "a grid of a tiny step": {"dropout": {"low": 0.0, "high": 9e9, "step": 1e-310, "grid": [9e9]}},
    "a grid of texts": {"reg_weight": {"low": 0.1, "high": 1.0, "grid": ["a"]}},
    "infinity": {"reg_weight": {"low": 0.1, "high": float("inf")}},
    "not a number": {"reg_weight": [float("nan"), 1.0]},
    "huge": {"n_layers": {"low": 1, "high": 10**30}},
    "a key of dots": {"a..b": [1, 2]},
    "no key": {"": [1, 2]},
    "a key that is a number": {1: [1, 2]},
    "many parameters": {f"key{n}": [1, 2] for n in range(60)},
    "many values": {"reg_weight": list(range(2000))},
    "deep": {"reg_weight": [eval("[" * 30 + "]" * 30), 1]},
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_spaces_are_refused(name: str) -> None:
    with trial(AREA, name), pytest.raises(SettingError):
        parse_space(BROKEN[name], "a file")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["low", "high", "log", "step", "grid", "choices", "x"]),
            inner,
            max_size=5,
        )
    ),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.text(max_size=12) | st.integers(), VALUES, max_size=4) | VALUES)
def test_any_space_is_read_or_refused(space: Any) -> None:
    with trial(AREA, "any space"):
        try:
            found = parse_space(space, "a file")
        except AlignRecError:
            return
        assert found.sha256
        for parameter in found.parameters.values():
            assert len(parameter.points) <= 1000
            assert parameter.ends


@settings(max_examples=200, deadline=None)
@given(
    low=st.floats(1e-6, 1e3),
    width=st.floats(1e-3, 1e3),
    log=st.booleans(),
    whole=st.booleans(),
    place=st.floats(0, 1),
)
def test_places_and_values_belong_together(
    low: float, width: float, log: bool, whole: bool, place: float
) -> None:
    pytest.importorskip("optuna", reason="the extra 'search' is not installed")
    from alignrec_recbole.search.samplers import distribution, place_of, value_at

    ends = (int(low) + 1, int(low) + 2 + int(width)) if whole else (low, low + width)
    parameter = Parameter(low=ends[0], high=ends[1], log=log)
    value = value_at(parameter, place)
    with trial(AREA, "a place"):
        assert ends[0] <= value <= ends[1]
        assert isinstance(value, int) == whole
        kind = distribution(parameter)
        assert kind._contains(kind.to_internal_repr(value))
        if not whole:
            assert place_of(parameter, value) == pytest.approx(place, abs=1e-6)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the data set `two`."""
    folder = tmp_path_factory.mktemp("data")
    write_two_blocks(folder)
    return folder


def tune(data: Path, output: Path, *more: object) -> Any:
    """A small search by the command line."""
    pytest.importorskip("optuna", reason="the extra 'search' is not installed")
    return run_verb(
        "tune", "--model", "BPR", "--dataset", "two", "--data-path", data, "--output", output,
        "--trials", 2, "--epochs", 1, "--no-progress", *more,
    )  # fmt: skip


FILES = {
    "not there": (None, "There is no search space"),
    "a folder": ("folder", "There is no search space"),
    "a pipe": ("pipe", "There is no search space"),
    "no YAML": ("reg_weight: [1, 2", "is not valid YAML"),
    "bytes": (b"\xff\xfe\x00", "is not UTF-8 text"),
    "a list": ("[1, 2]", "is not a mapping"),
    "empty": ("", "has no parameter to search"),
    "an unknown key": ("reg_wight: [0.1, 0.2]", "Unknown setting 'reg_wight'"),
    "a key with an option": ("seed: [1, 2]", "use --seeds"),
    "a path": ("data_path: [a, b]", "use --data-path"),
    "a value that cannot be": ("embedding_size: [64, -1]", "embedding_size"),
    "an end that cannot be": ("learning_rate: {low: -1.0, high: 0.1}", "learning_rate"),
    "another model's": ("LightGCN: {n_layers: [1, 2]}", "has no space of BPR"),
    "an object": ("reg_weight: !!python/object/apply:os.system [x]", "is not valid YAML"),
}


@pytest.mark.parametrize("name", FILES)
def test_files_that_are_no_space_of_the_model(name: str, data: Path, tmp_path: Path) -> None:
    content, words = FILES[name]
    file = tmp_path / "space.yaml"
    if content == "folder":
        file.mkdir()
    elif content == "pipe":
        os.mkfifo(file)
    elif isinstance(content, bytes):
        file.write_bytes(content)
    elif isinstance(content, str):
        file.write_text(content)
    with trial(AREA, name):
        check_refused(tune(data, tmp_path / "out", "--space", file), words)
        assert not (tmp_path / "out" / "tuning").exists()


STORAGES = {
    "a journal": ("journal:///x", "signs of life"),
    "a journal file": ("studies/x.journal", "signs of life"),
    "a file name": ("x.db", "signs of life"),
    "redis": ("redis://127.0.0.1/0", "cannot hold a study"),
    "nothing": ("", "cannot hold a study"),
    "in memory": ("sqlite://", "in memory"),
    "in memory by name": ("sqlite:///:memory:", "in memory"),
    "an escape": ("\x1b[31m", "cannot hold a study"),
    "an unknown database": ("mssql://a/b", "cannot hold a study"),
    "a folder": ("sqlite:////tmp", "folder"),
    "a proc file": ("sqlite:////proc/version", "cannot be used"),
    "nobody there": ("postgresql+psycopg2://u:secret@127.0.0.1:9/x", ""),
}


@pytest.mark.parametrize("name", STORAGES)
def test_storages_that_cannot_be_used(name: str, data: Path, tmp_path: Path) -> None:
    url, words = STORAGES[name]
    with trial(AREA, name):
        answer = tune(data, tmp_path / "out", "--storage", url)
        check_refused(answer, words)
        assert "secret" not in answer.errors + answer.output


@pytest.mark.parametrize("content", [b"no database", b"SQLite format 3\x00" + b"x" * 200])
def test_files_that_are_no_database(content: bytes, data: Path, tmp_path: Path) -> None:
    file = tmp_path / "x.db"
    file.write_bytes(content)
    with trial(AREA, "no database"):
        check_refused(tune(data, tmp_path / "out", "--storage", f"sqlite:///{file}"), "x.db")
        assert file.read_bytes() == content


def test_the_database_of_another_program(data: Path, tmp_path: Path) -> None:
    file = tmp_path / "x.db"
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE studies (name TEXT)")
    with trial(AREA, "tables of others"):
        check_refused(tune(data, tmp_path / "out", "--storage", f"sqlite:///{file}"), "x.db")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "closed"
    folder.mkdir()
    folder.chmod(stat.S_IRUSR | stat.S_IXUSR)
    with trial(AREA, "no permission"):
        check_refused(tune(data, tmp_path / "out", "--storage", f"sqlite:///{folder}/x.db"))


def test_studies_of_something_else(data: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    given = ("--study", "mine", "--storage", f"sqlite:///{tmp_path}/x.db")
    assert tune(data, output, *given).status == 0
    space = tmp_path / "space.yaml"
    space.write_text("reg_weight: [0.1, 0.2]")
    write_two_blocks(tmp_path)
    lines = (tmp_path / "two" / "two.inter").read_text().splitlines()
    (tmp_path / "two" / "two.inter").write_text("\n".join(lines[:-3]) + "\n")
    others = {
        "another space": ("--space", space),
        "another sampler": ("--sampler", "random"),
        "another pruner": ("--pruner", "median"),
        "another seed": ("--seeds", "5"),
        "another seed of the sampler": ("--sampler-seed", "5"),
        "other settings": ("--set", "embedding_size=8"),
        "other epochs": ("--epochs", "2"),
        "other data": ("--data-path", tmp_path),
    }
    for name, more in others.items():
        with trial(AREA, name):
            check_refused(tune(data, output, *given, *more), "The study 'mine/BPR'")
    with trial(AREA, "a larger budget"):
        answer = tune(data, output, *given, "--trials", "3")
        check_refused(answer, "has chosen already")


@pytest.mark.parametrize("name", ["../x", "a/b", "", "*", "x" * 300, "\x1b[31m"])
def test_names_of_studies(name: str, data: Path, tmp_path: Path) -> None:
    with trial(AREA, name):
        check_refused(tune(data, tmp_path / "out", "--study", name), "study")


def test_what_is_searched_cannot_be_set(data: Path, tmp_path: Path) -> None:
    with trial(AREA, "searched and set"):
        answer = tune(data, tmp_path / "out", "--set", "reg_weight=0.1")
        check_refused(answer, "is searched and set")


def test_ranges_without_values_are_no_grid(data: Path, tmp_path: Path) -> None:
    space = tmp_path / "space.yaml"
    space.write_text("reg_weight: {low: 0.1, high: 0.2}")
    with trial(AREA, "a grid of a range"):
        answer = tune(data, tmp_path / "out", "--space", space, "--sampler", "grid")
        check_refused(answer, "no values to enumerate")


def test_models_without_a_space(data: Path, tmp_path: Path) -> None:
    with trial(AREA, "no space"):
        answer = tune(data, tmp_path / "out", "--model", "Pop")
        check_refused(answer, "Pop has no search space")
