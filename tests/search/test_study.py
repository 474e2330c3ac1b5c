"""Studies without trainings: where samplers go, what pruners end, and what a budget counts."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("optuna", reason="the extra 'search' is not installed")

import optuna

from alignrec_recbole.errors import Interrupted, Pruned, SettingError
from alignrec_recbole.runs.spec import RunSpec
from alignrec_recbole.search import samplers, tuning
from alignrec_recbole.search.samplers import make_sampler
from alignrec_recbole.search.space import Parameter, Space
from alignrec_recbole.search.study import Limit, Plan, SharedStudy, Storage
from alignrec_recbole.search.trials import Outcome, Trial, Watch, best_of, make_trial
from alignrec_recbole.search.tuning import Order

SPACE = Space(
    {"rate": Parameter(low=1e-4, high=1.0, log=True), "share": Parameter(low=0.0, high=1.0)}
)
PLAN = Plan("toy", {"model": "BPR"}, SPACE, "random", "none", 0, 100, Limit(trials=3))


def drawn(sampler: str, seed: int, trials: int) -> list[optuna.trial.FrozenTrial]:
    """Trials in memory; the best score, 0, is at a rate of 0.01 and a share of 0.25."""

    def score(trial: optuna.Trial) -> float:
        rate = trial.suggest_float("rate", 1e-4, 1.0, log=True)
        share = trial.suggest_float("share", 0.0, 1.0)
        return -((math.log10(rate) + 2) ** 2) - (share - 0.25) ** 2

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    made = make_sampler(sampler, SPACE, seed)
    study = optuna.create_study(direction="maximize", sampler=made)
    made.all_trials = lambda: study.get_trials(deepcopy=False)
    study.optimize(score, n_trials=trials)
    return study.trials


def test_cma_es_goes_where_scores_are_large() -> None:
    scores = [trial.value or 0.0 for trial in drawn("cmaes", 0, 60)]
    assert np.median(scores[-20:]) > np.median(scores[:20]) / 4


def test_what_is_drawn_follows_from_the_point_and_the_seed() -> None:
    first, again, other = ([t.params for t in drawn("random", seed, 6)] for seed in (0, 0, 1))
    assert first == again
    assert len({values["rate"] for values in (*first, *other)}) == 12


def study_of(folder: Path, plan: Plan) -> SharedStudy:
    return SharedStudy(Storage(f"sqlite:///{folder / 'toy.db'}"), plan)


def test_the_median_pruner_ends_what_scores_less_after_its_first_trials_and_epochs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(samplers, "STARTUP_TRIALS", 1)
    monkeypatch.setattr(samplers, "WARMUP_EPOCHS", 2)
    study = study_of(tmp_path, replace(PLAN, pruner="median", limit=Limit(trials=2)))
    levels = [0.2, 0.1]

    def trial(point: int, values: dict[str, Any], watch: Watch) -> Outcome:
        for epoch in (1, 2):
            try:
                watch(epoch, levels[point])
            except Pruned:
                return Outcome("pruned", levels[point], epoch, 1.0)
        return Outcome("complete", levels[point], 2, 1.0)

    study.work(trial)
    found = [(t.outcome.state, t.outcome.score, t.outcome.epochs) for t in study.trials()]
    assert found == [("complete", 0.2, 2), ("pruned", 0.1, 2)]


def test_the_seconds_of_all_trials_are_counted(tmp_path: Path) -> None:
    """The second of two seconds each begins before three are spent, and no third."""
    study = study_of(tmp_path, replace(PLAN, limit=Limit(seconds=3.0)))
    study.work(lambda point, values, watch: Outcome("complete", 0.1, 1, 2.0))
    assert [trial.outcome.seconds for trial in study.trials()] == [2.0, 2.0]


@pytest.mark.parametrize("high", [0.3, 0.35])
def test_the_last_point_of_a_grid_of_steps_can_be_interrupted(tmp_path: Path, high: float) -> None:
    """In floating point, 0.1 + 2 · 0.1 is above 0.3, the last value of either range."""
    space = Space({"share": Parameter(low=0.1, high=high, step=0.1)})
    plan = replace(PLAN, space=space, sampler="grid")
    study, stops = study_of(tmp_path, plan), [2]

    def trial(point: int, values: dict[str, Any], watch: Watch) -> Outcome:
        if point in stops:
            stops.remove(point)
            raise Interrupted
        return Outcome("complete", values["share"], 1, 1.0)

    with pytest.raises(Interrupted):
        study.work(trial)
    study.work(trial)
    assert [t.outcome.state for t in study.trials()] == ["complete"] * 3
    assert [t.parameters["share"] for t in study.trials()] == [0.1, 0.2, 0.3]


def test_an_unfinished_search_does_not_go_on_with_trials_of_another_seed(
    order_of: Callable[..., Order],
) -> None:
    order = order_of()
    tuning.open_study(order)
    with pytest.raises(SettingError, match="another one's") as refused:
        tuning.open_study(replace(order, spec=replace(order.spec, seed=2)))
    assert (refused.value.found, refused.value.expected) == ("seed 1", "seed 2")


def test_of_equal_scores_the_first_trial_is_chosen() -> None:
    trials = [Trial(n, {}, Outcome("complete", s, 1, 1.0)) for n, s in enumerate((0.1, 0.3, 0.3))]
    assert best_of(trials) is trials[1]


def test_a_trial_that_would_end_without_a_score_is_refused(order_of: Callable[..., Order]) -> None:
    def spec_of(epochs: int) -> RunSpec:
        spec = order_of(epochs=epochs).spec
        return replace(spec, overrides={**spec.overrides, "eval_step": 2})

    with pytest.raises(SettingError, match="1 epochs with eval_step=2 have none"):
        make_trial(spec_of(1))
    assert make_trial(spec_of(2)).score is not None
