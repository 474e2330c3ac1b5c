"""Searches by the workers of an engine: equal to one process, and whole where a worker dies."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

pytest.importorskip("optuna", reason="the extra 'search' is not installed")

import optuna
from search_results import curve, quiet, records

from alignrec_recbole.cli.main import main
from alignrec_recbole.engines import open_engine
from alignrec_recbole.errors import SettingError
from alignrec_recbole.runs.record import read_runs
from alignrec_recbole.search import workers
from alignrec_recbole.search.tuning import Order, tune
from alignrec_recbole.search.workers import check_storage, repeats, tune_at_once

SERVER = "postgresql+psycopg://host/studies"


def test_a_sqlite_file_is_refused_where_workers_are_elsewhere(
    order_of: Callable[..., Order],
) -> None:
    order = order_of()
    for engine, address in [("slurm", ""), ("dask", "tcp://10.0.0.5:8786"), ("dask", "host:8786")]:
        with pytest.raises(SettingError, match="SQLite file cannot be shared"):
            check_storage(order, engine, address)
        check_storage(replace(order, storage=SERVER), engine, address)
    for engine, address in [("local", ""), ("dask", ""), ("dask", "tcp://127.0.0.1:8786")]:
        check_storage(order, engine, address)


def test_when_the_same_command_draws_the_same_again(order_of: Callable[..., Order]) -> None:
    assert repeats(order_of(sampler="tpe", pruner="hyperband"), 1)
    assert repeats(order_of(sampler="random"), 2)
    assert not repeats(order_of(sampler="tpe"), 2)
    assert not repeats(order_of(sampler="random", pruner="median"), 2)
    assert not repeats(order_of(sampler="random", trials=None, seconds=9.0), 2)


@pytest.mark.parametrize(
    ("places", "given", "number"),
    [
        (8, {"trials": 4}, 4),
        (2, {"trials": 4}, 2),
        (8, {"trials": 2, "seeds": (1, 2, 3)}, 3),
        (8, {"trials": None, "seconds": 9.0}, 8),
        (8, {"sampler": "grid", "trials": 30, "space": {"reg_weight": [0.1, 1.0]}}, 2),
    ],
    ids=["trials", "places", "seeds", "seconds", "grid"],
)
def test_no_more_workers_than_have_something_to_do(
    order_of: Callable[..., Order], places: int, given: dict[str, Any], number: int
) -> None:
    class Places:
        pass

    engine: Any = Places()
    engine.places = places
    assert workers._number(engine, order_of(**given)) == number


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--engine=condor"], "Engine 'condor' is unknown"),
        (["--engine=dask:tcp://127.0.0.1:1", "--jobs=2"], "--jobs has no effect"),
        (["--engine=dask:tcp://10.0.0.5:8786"], "SQLite file cannot be shared"),
    ],
    ids=["unknown", "jobs", "sqlite"],
)
def test_refused_before_anything_is_made(
    two: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    if "dask" in arguments[0]:
        pytest.importorskip("distributed", reason="the extra dask is not installed")
    output = tmp_path / "out"
    given = ["--model=BPR", "--dataset=two", f"--data-path={two}", f"--output={output}"]
    assert main(["tune", *given, *arguments]) == 2
    assert words in capsys.readouterr().err
    assert not output.exists()


def test_a_grid_of_run_equals_the_grid_of_tune(two: Path, tmp_path: Path) -> None:
    """The same trials, scores, choice and tests."""
    (tmp_path / "space.yaml").write_text("learning_rate: [0.001, 0.05]\nreg_weight: [0.1, 0.001]\n")
    usual = ["--model=BPR", "--dataset=two", f"--data-path={two}", "--seeds=1,2", "--epochs=3",
             "--set", "valid_metric=NDCG@5", "--quiet"]  # fmt: skip
    grid = ["--grid", "learning_rate=0.001,0.05", "--grid", "reg_weight=0.1,0.001"]
    assert main(["run", *usual, *grid, f"--output={tmp_path / 'run'}"]) == 0
    search = ["--sampler=grid", "--trials=4", f"--space={tmp_path / 'space.yaml'}"]
    assert main(["tune", *usual, *search, f"--output={tmp_path / 'tune'}"]) == 0
    found = [
        {run.record.seed: run.record for run in read_runs(tmp_path / name / "runs")}
        for name in ("run", "tune")
    ]
    assert [sorted(records) for records in found] == [[1, 2], [1, 2]]
    for name in ("run", "tune"):  # no training is left half done, and of two seeds each has its end
        states = [path.name for path in (tmp_path / name / "checkpoints").rglob("*.state.pt")]
        assert (
            sorted(state.partition("-s")[2].partition(".")[2] for state in states)
            == ["epochs-3.state.pt"] * 2
        )
    for seed in (1, 2):
        one, other = (records[seed] for records in found)
        assert one.budget
        assert other.budget
        assert curve(one) == curve(other)
        assert len(curve(one)) == 4
        for key in ("chosen", "trials", "epochs", "chosen_on", "space_sha256", "limit"):
            assert one.budget[key] == other.budget[key], key
        assert one.config_sha256 == other.config_sha256
        assert one.metrics == other.metrics


@pytest.mark.slow
def test_local_and_dask_workers_find_what_one_process_finds(
    order_of: Callable[..., Order], capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("distributed", reason="the extra dask is not installed")
    given: dict[str, Any] = {"sampler": "random", "trials": 6, "seeds": (1, 2)}
    alone = tune(order_of("alone", **given), quiet)
    for name in ("local", "dask"):
        order = order_of(name, **given)
        choice: list[str] = []
        with open_engine(name, 2) as engine:
            found = tune_at_once(engine, order, choice.append)
        assert [record.seed for record in found] == [1, 2]
        assert [curve(record) for record in found] == [curve(record) for record in alone]
        assert [record.metrics for record in found] == [record.metrics for record in alone]
        assert len(choice) == 1
        lines = [line for line in capfd.readouterr().err.splitlines() if "]   trial " in line]
        assert sorted(int(line.split("trial ")[1].split(":")[0]) for line in lines) == [*range(6)]
        assert sorted(record.seed for record in records(order)) == [1, 2]


@pytest.mark.slow
def test_a_worker_that_is_killed_loses_no_trial_and_none_counts_twice(
    order_of: Callable[..., Order], capfd: pytest.CaptureFixture[str]
) -> None:
    given: dict[str, Any] = {"sampler": "random", "trials": 4, "epochs": 150}
    overrides = {**order_of().spec.overrides, "stopping_step": 150}

    def made(name: str) -> Order:
        order = order_of(name, heartbeat=1, **given)
        return replace(order, spec=replace(order.spec, overrides=overrides))

    (alone,) = tune(made("alone"), quiet)
    order, found, before = made("killed"), [], psutil.Process().children()

    def search() -> None:
        with open_engine("local", 2) as engine:
            found.extend(tune_at_once(engine, order, quiet))

    def in_the_middle() -> list[Any]:
        try:
            trials = optuna.load_study(study_name=order.study, storage=order.storage).trials
        except Exception:  # it is not there yet
            return []
        running = [t for t in trials if t.state.name == "RUNNING"]
        return [t for t in running if 0 < len(t.intermediate_values) < 75]

    thread = threading.Thread(target=search)
    thread.start()
    deadline = time.monotonic() + 120
    while len(in_the_middle()) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    victim = next(c for c in psutil.Process().children() if c not in before)
    victim.kill()  # SIGKILL
    thread.join(200)
    (record,) = found
    trials = optuna.load_study(study_name=order.study, storage=order.storage).trials
    states = [trial.state.name for trial in trials]
    assert states.count("COMPLETE") == 4
    assert states.count("FAIL") == len(states) - 4 >= 1
    assert curve(record) == curve(alone)
    assert record.metrics == alone.metrics
    said = capfd.readouterr().err
    assert "ended without a result. (SIGKILL) Other workers repeated its trial." in said
