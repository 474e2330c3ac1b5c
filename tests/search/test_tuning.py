"""Searches: equal for equal seeds, resumed, shared, tested once, and within their budget."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("optuna", reason="the extra 'search' is not installed")

from search_results import curve, quiet, records

from alignrec_recbole.cli._overrides import assignment
from alignrec_recbole.errors import AlignRecError, DivergedError, Interrupted, SettingError
from alignrec_recbole.registry.components import components
from alignrec_recbole.runs.record import RunRecord
from alignrec_recbole.runs.spec import RunSpec
from alignrec_recbole.search import study, tuning
from alignrec_recbole.search import trials as trials_module
from alignrec_recbole.search.space import raw_space
from alignrec_recbole.search.tuning import ORDERS, Order, tune
from alignrec_recbole.settings import nested

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("sampler", ["tpe", "random", "cmaes", "grid"])
def test_a_search_ends_with_one_test_per_seed(order_of: Callable[..., Order], sampler: str) -> None:
    grid = {"learning_rate": [0.001, 0.01], "reg_weight": [0.1, 0.001]}
    order = order_of(
        sampler=sampler, seeds=(1, 2), **({"space": grid} if sampler == "grid" else {})
    )
    first, second = tune(order, quiet)
    assert [first.seed, second.seed] == [1, 2]
    assert first.budget
    assert first.budget["trials"] == 4
    assert first.budget["epochs"] == sum(p["epochs"] for p in first.budget["curve"]) == 8
    assert first.budget["limit"] == {"trials": 4.0}
    best = max(first.budget["curve"], key=lambda point: point["score"])
    assert first.budget["chosen"] == best["trial"]
    assert {key: first.config[key] for key in best["parameters"]} == best["parameters"]
    assert [p["best"] for p in first.budget["curve"]][-1] == best["score"]
    assert first.metrics
    assert not any(record.metrics for record in records(order, "tuning"))
    assert len(records(order)) == 2
    states = [path.name for path in (order.spec.output / "checkpoints").rglob("*.state.pt")]
    assert len(states) == 2, "the states of trials are deleted, those of the two runs are not"
    assert all(name.endswith(".epochs-2.state.pt") for name in states)


def test_the_same_command_again_trains_nothing(
    order_of: Callable[..., Order], monkeypatch: pytest.MonkeyPatch
) -> None:
    order = order_of()
    (first,) = tune(order, quiet)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a trial was made again")

    monkeypatch.setattr(tuning, "make_trial", refuse)
    assert tune(order, quiet) == [first]


@pytest.mark.parametrize(
    ("sampler", "pruner"),
    [
        ("tpe", "hyperband"),
        pytest.param("tpe", "median", marks=pytest.mark.slow),
        pytest.param("cmaes", "none", marks=pytest.mark.slow),
    ],
)
def test_a_resumed_search_equals_an_uninterrupted_one(
    order_of: Callable[..., Order], monkeypatch: pytest.MonkeyPatch, sampler: str, pruner: str
) -> None:
    monkeypatch.setattr("alignrec_recbole.search.samplers.STARTUP_TRIALS", 2)
    monkeypatch.setattr("alignrec_recbole.search.samplers.WARMUP_EPOCHS", 2)
    monkeypatch.setattr("alignrec_recbole.search.samplers.SHORTEST_RUNG", 3)
    given = {"sampler": sampler, "pruner": pruner, "trials": 8, "epochs": 7}
    whole = tune(order_of("whole", **given), quiet)
    order = order_of("resumed", **given)
    made = tuning.make_trial
    stops = [2, 5]  # after these trials, the next is stopped, before anything is pruned
    calls = 0

    def is_stopped(spec: Any, watch: Any) -> Any:
        nonlocal calls
        calls += 1

        def after_an_epoch(epoch: int, score: float) -> None:
            watch(epoch, score)
            if epoch == 1 and stops and calls > stops[0]:
                del stops[0]
                os.kill(os.getpid(), signal.SIGTERM)

        return made(spec, after_an_epoch)

    monkeypatch.setattr(tuning, "make_trial", is_stopped)
    interrupted, resumed = 0, []
    while not resumed:
        try:
            resumed = tune(order, quiet)
        except Interrupted:
            interrupted += 1
    assert interrupted == 2
    assert curve(resumed[0]) == curve(whole[0])
    assert resumed[0].metrics == whole[0].metrics
    assert whole[0].budget
    assert whole[0].budget["trials"] == 8
    assert (whole[0].budget["pruned"] > 0) == (pruner != "none")


@pytest.mark.slow
def test_finished_trials_decide_as_if_they_were_made_now(order_of: Callable[..., Order]) -> None:
    given = {"pruner": "hyperband", "trials": 8, "epochs": 6}
    (first,) = tune(order_of(**given), quiet)
    full = order_of(**{**given, "pruner": "none"}, study="full/BPR")
    tune(full, quiet)  # leaves whole records of many of the same settings
    (again,) = tune(order_of(**given, study="toy/BPR", storage=full.storage), quiet)
    assert curve(again) == curve(first)


def test_a_diverged_trial_is_a_point_of_the_budget(
    order_of: Callable[..., Order], monkeypatch: pytest.MonkeyPatch
) -> None:
    run_one, calls = trials_module.run_one, 0

    def diverges(*given: Any, **named: Any) -> RunRecord:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise DivergedError("The training loss is not finite.")
        return run_one(*given, **named)

    monkeypatch.setattr(trials_module, "run_one", diverges)
    (record,) = tune(order_of(), quiet)
    assert record.budget
    assert (record.budget["trials"], record.budget["failed"]) == (4, 1)
    assert record.budget["curve"][1]["state"] == "failed"


def test_seconds_bound_a_search(order_of: Callable[..., Order]) -> None:
    (record,) = tune(order_of(trials=None, seconds=1e-6), quiet)
    assert record.budget
    assert record.budget["trials"] == 1  # one that has begun is finished
    assert record.budget["limit"] == {"seconds": 1e-6}


@pytest.mark.parametrize("url", ["journal:///studies.log", "redis://host/0", "studies.log"])
def test_storages_without_signs_of_life_are_refused(
    order_of: Callable[..., Order], url: str
) -> None:
    order = order_of(storage=url)
    with pytest.raises(SettingError, match=r"cannot hold a study[^/]*without signs of life"):
        tune(order, quiet)
    assert not records(order, "tuning")


def test_a_signal_before_a_training_stops_it_after_an_epoch(
    order_of: Callable[..., Order], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal ends neither a transaction nor the reading of data halfway."""
    whole = tune(order_of("whole"), quiet)
    order, made, signals = order_of("stopped"), tuning.make_trial, 2

    def signalled(*given: Any) -> Any:
        nonlocal signals
        if signals:
            signals -= 1
            signal.raise_signal(signal.SIGTERM)
        return made(*given)

    monkeypatch.setattr(tuning, "make_trial", signalled)
    for _ in range(2):
        with pytest.raises(Interrupted):
            tune(order, quiet)
    stopped = tune(order, quiet)
    assert [curve(record) for record in stopped] == [curve(record) for record in whole]
    assert stopped[0].metrics == whole[0].metrics


def test_orders_are_plain_data(order_of: Callable[..., Order]) -> None:
    order = order_of(trials=2)
    again = ORDERS.validate_json(ORDERS.dump_json(order))
    assert again == order
    assert tune(again, quiet)[0].budget


@pytest.mark.parametrize("sampler", ["tpe", "cmaes"])
def test_the_first_trial_can_have_the_model_s_own_settings(
    order_of: Callable[..., Order], sampler: str
) -> None:
    order = order_of(sampler=sampler, trials=2, defaults_first=True)
    usual = components("BPR").defaults_for("two")
    (record,) = tune(order, quiet)
    own, drawn = (trial[-1] for trial in curve(record))
    assert own == {key: usual[key] for key in order.space}
    assert drawn != own
    with pytest.raises(SettingError, match="another one's") as refused:
        tune(replace(order, defaults_first=False), quiet)
    assert "first" in str(refused.value)


def test_a_space_without_the_model_s_own_settings_is_refused_for_the_first_trial(
    order_of: Callable[..., Order],
) -> None:
    space = {"learning_rate": {"low": 0.5, "high": 0.9}}
    with pytest.raises(SettingError, match="learning_rate"):
        tuning.check_order(order_of(space=space, defaults_first=True))
    tuning.check_order(order_of(space=space))
    with pytest.raises(SettingError, match="grid"):
        tuning.check_order(order_of(sampler="grid", space={"k": [1, 2]}, defaults_first=True))


def test_more_trials_than_a_record_holds_are_refused_before_the_first(
    order_of: Callable[..., Order],
) -> None:
    tuning.check_order(order_of(trials=5000))
    with pytest.raises(SettingError, match=r"5,001 trials is more than a record holds"):
        tuning.check_order(order_of(trials=5001))
    grid = {"learning_rate": [n / 1000 for n in range(1, 101)], "train_batch_size": [*range(1, 61)]}
    tuning.check_order(order_of(sampler="grid", space=grid, trials=10))
    with pytest.raises(SettingError, match=r"6,000 trials is more than a record holds"):
        tuning.check_order(order_of(sampler="grid", space=grid, trials=10**9))


def test_a_search_by_time_ends_with_as_many_trials_as_a_record_holds(
    order_of: Callable[..., Order], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study, "MAX_TRIALS", 2)
    (record,) = tune(order_of(trials=None, seconds=1e6), quiet)
    assert record.budget
    assert record.budget["trials"] == 2


def test_every_shipped_space_has_the_model_s_own_settings() -> None:
    spaces = sorted(path.stem for path in (ROOT / "properties" / "search").glob("*.yaml"))
    assert len(spaces) > 20
    for model in spaces:
        spec = RunSpec(model, "lfm2k")
        order = Order(spec, (1,), raw_space(model), "s", "sqlite:///s.db", defaults_first=True)
        assert order.first


def test_the_choice_is_final(order_of: Callable[..., Order]) -> None:
    order = order_of(trials=2)
    tune(order, quiet)
    for other in (replace(order, trials=3), replace(order, seeds=(1, 2))):
        with pytest.raises(SettingError, match="has chosen already"):
            tune(other, quiet)


def test_another_limit_of_seconds_is_another_one_however_near(
    order_of: Callable[..., Order],
) -> None:
    order = order_of(trials=None, seconds=2000000.0)
    near = replace(order, seconds=2000004.0)
    _, searched = tuning.open_study(order)
    searched.remember(tuning.DECISION, tuning._decision(order, 0))
    tuning.open_study(order)
    with pytest.raises(SettingError, match="has chosen already") as refused:
        tuning.open_study(near)
    assert refused.value.expected == "2000004 seconds, seeds [1]"


@pytest.mark.parametrize(
    ("limit", "text"),
    [({"trials": None, "seconds": 2000004.0}, "2e+06 seconds"), ({"trials": 30}, "30 trials")],
    ids=["seconds", "trials"],
)
def test_a_choice_that_an_earlier_version_stored_is_recognised(
    order_of: Callable[..., Order], limit: dict[str, Any], text: str
) -> None:
    order = order_of(**limit)
    _, searched = tuning.open_study(order)
    searched.remember(tuning.DECISION, {"point": 0, "limit": text, "seeds": [1]})
    tuning.open_study(order)
    with pytest.raises(SettingError, match="has chosen already"):
        tuning.open_study(replace(order, trials=31, seconds=None))


def test_a_final_run_that_always_fails_is_no_success(
    order_of: Callable[..., Order], monkeypatch: pytest.MonkeyPatch
) -> None:
    order, run_one = order_of(trials=1, epochs=1, seeds=(1, 2)), tuning.run_one

    def diverges(spec: RunSpec) -> RunRecord:
        if spec.seed == 2:
            raise DivergedError("The training loss is not finite.")
        return run_one(spec)

    with monkeypatch.context() as patch:
        patch.setattr(tuning, "run_one", diverges)
        for _ in range(4):
            with pytest.raises(DivergedError):
                tune(order, quiet)
        for _ in range(2):
            with pytest.raises(
                AlignRecError, match="final runs that were not completed"
            ) as refused:
                tune(order, quiet)
    assert refused.value.found.startswith("seeds 2: every attempt, 4 of each")
    options = shlex.split(refused.value.hint.split("`")[1])
    assert options[:4] == ["run", "--seeds", "2", "--set"]

    settings = nested(map(assignment, options[4:]), order.spec.overrides)  # as the hint says
    alone = run_one(replace(order.spec, seed=2, overrides=settings))
    assert alone.budget is None
    first, second = tune(order, quiet)
    assert second.metrics == alone.metrics
    assert second.budget == first.budget is not None


def test_a_final_run_whose_record_was_deleted_is_named(order_of: Callable[..., Order]) -> None:
    order, said = order_of(trials=1, epochs=1), list[str]()
    (record,) = tune(order, quiet)
    assert record.path
    record.path.unlink()
    assert tune(order, said.append) == []
    assert said[-1].startswith("note: seeds 1 were run for this study, and their records are not")
    assert "`run --seeds 1 --set learning_rate=" in said[-1]


WORKER = """
import sys
from alignrec_recbole.search.tuning import ORDERS, tune
tune(ORDERS.validate_json(sys.stdin.read()))
"""


def start(order: Order) -> subprocess.Popen[str]:
    """A worker in a process of its own."""
    child = subprocess.Popen(
        [sys.executable, "-c", WORKER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )
    assert child.stdin
    child.stdin.write(ORDERS.dump_json(order).decode())
    child.stdin.close()
    return child


@pytest.mark.slow
@pytest.mark.long
def test_two_workers_one_killed(order_of: Callable[..., Order]) -> None:
    import optuna

    order = order_of(trials=4, epochs=150, seeds=(1, 2, 3), heartbeat=1)
    order = replace(
        order, spec=replace(order.spec, overrides={**order.spec.overrides, "stopping_step": 150})
    )
    url = order.storage
    victim = start(order)
    deadline = time.monotonic() + 120
    running: list[Any] = []
    while not running:  # it has told its first scores
        assert time.monotonic() < deadline
        time.sleep(0.2)
        if not (order.spec.output / "studies" / "toy.db").is_file():
            continue
        try:
            study = optuna.load_study(study_name=order.study, storage=url)
            running = [t for t in study.trials if len(t.intermediate_values) > 3]
        except Exception:
            continue
    other = start(order)
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    assert other.stdout
    output = other.stdout.read()
    assert other.wait(timeout=240) == 0, output

    trials = optuna.load_study(study_name=order.study, storage=url).trials
    states = [trial.state.name for trial in trials]
    assert "RUNNING" not in states
    assert "WAITING" not in states
    lost = [trial for trial in trials if trial.state.name == "FAIL"]
    assert lost, states
    for trial in lost:
        same = [t for t in trials if t.params == trial.params and t.state.name == "COMPLETE"]
        assert len(same) == 1
    assert sum(state == "COMPLETE" for state in states) == 4
    final = optuna.load_study(study_name=f"{order.study}: chosen", storage=url).trials
    assert [trial.state.name for trial in final] == ["COMPLETE"] * 3
    assert sorted(record.seed for record in records(order)) == [1, 2, 3]


@pytest.mark.slow
@pytest.mark.long
def test_three_workers_make_every_trial_and_every_test_once(
    order_of: Callable[..., Order],
) -> None:
    order = order_of(trials=7, epochs=60, seeds=(1, 2))
    outputs = []
    for worker in [start(order) for _ in range(3)]:
        assert worker.stdout
        outputs.append(worker.stdout.read())
        assert worker.wait(timeout=240) == 0
    lines = [line for output in outputs for line in output.splitlines() if "  trial " in line]
    numbers = sorted(int(line.split()[1].rstrip(":")) for line in lines)
    assert numbers == list(range(7))
    found = records(order)
    assert [record.seed for record in found] == [2, 1] or [r.seed for r in found] == [1, 2]
    assert json.dumps(found[0].budget) == json.dumps(found[1].budget)
