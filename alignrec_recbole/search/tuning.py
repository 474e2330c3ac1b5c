"""Tuning one model: trials on validation by any number of workers, then one test of the choice.

The choice is made when the budget of all workers is spent. Its runs, one per seed, are a study of
their own, so each is made by one worker, and by another if that one dies.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import TypeAdapter

from alignrec_recbole.errors import AlignRecError, SettingError, counted, printable
from alignrec_recbole.io.files import inside
from alignrec_recbole.registry.components import components
from alignrec_recbole.runs.identity import lasting_hash
from alignrec_recbole.runs.prepare import check_run_spec, prepare_run
from alignrec_recbole.runs.prepared import PreparedRun
from alignrec_recbole.runs.record import RunRecord
from alignrec_recbole.runs.run import run_one
from alignrec_recbole.runs.spec import RunSpec
from alignrec_recbole.search.space import Point, Space, check_trials, parse_space
from alignrec_recbole.search.study import HEARTBEAT, REPETITIONS, Limit, Plan, SharedStudy, Storage
from alignrec_recbole.search.trials import (
    Outcome,
    Trial,
    Watch,
    best_of,
    budget_of,
    make_trial,
    outcome_of,
)
from alignrec_recbole.settings import nested, shown

SAMPLERS = ("tpe", "random", "grid", "cmaes")
PRUNERS = ("hyperband", "median", "none")
DECISION = "chosen"  # user attribute of a study
Say = Callable[[str], None]


@dataclass(frozen=True)
class Order:
    """A search as plain data: any process that has the package and the data can work on it.

    Attributes:
        spec: model, data and fixed settings; its seed is that of the trials.
        seeds: of the runs with the chosen settings.
        space: as in a YAML file.
        study: name in the storage.
        storage: URL of a database.
        trials, seconds: the budget, one of the two.
        defaults_first: the first trial has the model's own settings.
    """

    spec: RunSpec
    seeds: tuple[int, ...]
    space: dict[str, Any]
    study: str
    storage: str
    sampler: str = "tpe"
    pruner: str = "none"
    sampler_seed: int = 0
    trials: int | None = None
    seconds: float | None = None
    heartbeat: int = HEARTBEAT
    defaults_first: bool = False

    @property
    def limit(self) -> Limit:
        """The budget."""
        return Limit(self.trials, self.seconds)

    @property
    def most_trials(self) -> int | None:
        """Trials that the budget allows; None if only their time is bounded."""
        size = self.searched.size if self.sampler == "grid" else None
        return min((n for n in (self.trials, size) if n is not None), default=None)

    @property
    def searched(self) -> Space:
        """The space."""
        return parse_space(self.space, f"the space of {self.spec.model}")

    @property
    def first(self) -> Point | None:
        """The first point, if it is not drawn.

        Raises:
            SettingError: the space does not have the model's own settings.
        """
        return _own_point(self) if self.defaults_first else None

    def with_values(self, values: dict[str, Any]) -> RunSpec:
        """The run of a point."""
        return replace(self.spec, overrides=nested(values.items(), self.spec.overrides))


ORDERS = TypeAdapter(Order)


def _own_point(order: Order) -> Point:
    """The searched settings as a run without search would have them."""
    model, space = order.spec.model, order.searched
    if order.sampler == "grid":
        raise SettingError(
            "The order of a grid is fixed: the model's own settings cannot come first.",
            found="--sampler grid and --defaults-first",
            expected="one of the two",
        )
    settings = components(model).defaults_for(order.spec.dataset)
    out: Point = {}
    for name, parameter in space.parameters.items():
        value: Any = settings
        for part in name.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if not parameter.contains(value):
            raise SettingError(
                f"The first trial of {model} cannot have its own settings: the space does not have "
                f"that of {name!r}.",
                found=f"{name}={shown(value)}",
                expected=shown(parameter.model_dump(exclude_defaults=True)),
                hint="pass --space with a file that has it, or leave --defaults-first out",
            )
        out[name] = value
    return out


def open_study(order: Order) -> tuple[PreparedRun, SharedStudy]:
    """The run that an order varies, and its study, which is made if it is not there.

    Raises:
        SettingError: the space, the storage or the study does not fit.
    """
    check_order(order)
    space = order.searched
    prepared = prepare_run(order.spec)
    storage = Storage(order.storage, order.heartbeat)
    study = SharedStudy(storage, _plan(order, prepared, space))
    _check_decision(study, order)
    return prepared, study


def tune(order: Order, say: Say = print, say_choice: Say | None = None) -> list[RunRecord]:
    """Work on a search until it has ended; the records that this process made or found.

    Several processes may do so at once with the same order.

    Args:
        order: the search.
        say: is given a line per trial.
        say_choice: is given a line of the chosen settings; default: `say`.

    Raises:
        SettingError: the space, the storage or the study does not fit.
        AlignRecError: no trial, or not every final run, was completed.
        Interrupted: by a signal; the same order goes on.
    """
    prepared, study = open_study(order)
    study.work(_Trials(order, study, say))
    trials = study.trials()
    best = best_of(trials)
    if best is None:
        raise AlignRecError(
            f"No trial of the study {order.study!r} was completed.",
            found=f"{len(trials)} trials, all pruned or diverged",
            expected="at least one with a validation score",
            hint="lower the ends of the ranges, or pass another --study and --pruner none",
        )
    decision = study.remember(DECISION, _decision(order, best.number))
    chosen = next(trial for trial in trials if trial.number == decision["point"])
    _forget_states(order, study, [trial for trial in trials if trial is not chosen])
    settings = ", ".join(f"{key}={_short(value)}" for key, value in chosen.parameters.items())
    line = f"{order.spec.model}: trial {chosen.number} chosen: {settings}"
    (say_choice or say)(printable(line, 1000))
    return _final_runs(order, study.storage, prepared, trials, chosen, say)


def check_order(order: Order) -> None:
    """Refuse names, settings and ends of the space that the trials would refuse; no data is read.

    Raises:
        SettingError: a setting that the model does not read, or a value it cannot have.
        AlignRecError: as the runs.
    """
    space = order.searched
    if order.sampler == "grid":
        space.check_enumerable()
    if (most := order.most_trials) is not None:
        check_trials(most, f"{order.limit} by {order.sampler}")
    check_run_spec(order.spec)
    if first := order.first:
        check_run_spec(order.with_values(first))
    for point in space.extremes():
        check_run_spec(order.with_values(point))


def _plan(order: Order, prepared: PreparedRun, space: Space) -> Plan:
    spec = order.spec
    return Plan(
        name=order.study,
        identity={
            "model": spec.model,
            "dataset": spec.dataset,
            "features": prepared.feature_name,
            "setting": prepared.config["setting"],
            "seed": spec.seed,
            "configuration": lasting_hash(prepared),
        },
        space=space,
        sampler=order.sampler,
        pruner=order.pruner,
        seed=order.sampler_seed,
        epochs=prepared.config["epochs"],
        limit=order.limit,
        first=order.first,
    )


def _decision(order: Order, point: int) -> dict[str, Any]:
    return {"point": point, "limit": order.limit.as_dict(), "seeds": list(order.seeds)}


def _check_decision(study: SharedStudy, order: Order) -> None:
    """Refuse a larger budget or other seeds after the test split was ranked."""
    known = study.known(DECISION)
    if known is None:
        return
    limits = (order.limit.as_dict(), order.limit.rounded)  # earlier versions stored a text
    if (
        not isinstance(known, dict)
        or known.get("limit") not in limits
        or known.get("seeds") != list(order.seeds)
    ):
        raise SettingError(
            f"The study {order.study!r} has chosen already, and the test split was ranked.",
            found=shown(known),
            expected=f"{order.limit}, seeds {list(order.seeds)}",
            hint="another budget needs another --study; more seeds are runs with --set and the "
            "chosen settings",
        )


class _Trials:
    """Makes a study's trials, says how they went and keeps the state of the best one only."""

    def __init__(self, order: Order, study: SharedStudy, say: Say) -> None:
        self.order, self.study, self.say = order, study, say

    def __call__(self, point: int, values: dict[str, Any], watch: Watch) -> Outcome:
        """The outcome of a point."""
        outcome = make_trial(self.order.with_values(values), watch)
        before = best_of(self.study.trials())
        trials = [before] if before else []
        best = best_of([*trials, Trial(point, values, outcome)])
        self.say(line_of(Trial(point, values, outcome), best))
        if outcome.record is not None and before is not None:
            if best is before:
                _forget(self.order, outcome.record)
            else:
                _forget_states(self.order, self.study, [before])
        return outcome


def line_of(trial: Trial, best: Trial | None) -> str:
    """A trial for the terminal."""
    outcome = trial.outcome
    settings = ", ".join(f"{key}={_short(value)}" for key, value in trial.parameters.items())
    score = "no score" if outcome.score is None else f"{outcome.score:.4f}"
    what = {"complete": "validation", "pruned": "pruned at", "failed": "diverged,"}[outcome.state]
    so_far = "" if best is None else f"; best {best.outcome.score:.4f}, trial {best.number}"
    return printable(
        f"  trial {trial.number}: {settings}: {what} {score} "
        f"({counted(outcome.epochs, 'epoch')}, {outcome.seconds:.0f} s{so_far})",
        1000,
    )


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _final_runs(
    order: Order,
    storage: Storage,
    prepared: PreparedRun,
    trials: Sequence[Trial],
    chosen: Trial,
    say: Say,
) -> list[RunRecord]:
    """One run per seed with the chosen settings: the only ones that rank the test split."""
    metric = prepared.config["valid_metric"]
    chosen_on = f"{metric} on validation, seed {order.spec.seed}"
    budget = budget_of(
        trials,
        chosen,
        study=order.study,
        sampler=order.sampler,
        pruner=order.pruner,
        space_sha256=order.searched.sha256,
        chosen_on=chosen_on,
        limit=order.limit.as_dict(),
        patience=prepared.config["stopping_step"],
    )
    tuned_on = (
        f"tuned on validation, seed {order.spec.seed}: {len(trials)} trials of {order.sampler}, "
        f"pruner {order.pruner}, study {order.study}"
    )
    plan = Plan(
        name=f"{order.study}: chosen",
        identity={"of": order.study, "point": chosen.number, "parameters": chosen.parameters},
        space=Space({}),
        sampler="random",
        pruner="none",
        seed=0,
        epochs=1,
        limit=Limit(trials=len(order.seeds)),
    )
    specs = [
        replace(order.with_values(chosen.parameters), seed=seed, tuned_on=tuned_on, budget=budget)
        for seed in order.seeds
    ]
    made: dict[int, RunRecord] = {}

    def final(point: int, values: dict[str, Any], watch: Watch) -> Outcome:
        made[point] = run_one(specs[point])
        return replace(outcome_of(made[point]), score=0.0)

    study = SharedStudy(storage, plan)
    study.work(final)
    for point, spec in enumerate(specs):
        if point not in made and prepare_run(spec).record_path.is_file():
            made[point] = run_one(spec)  # another worker's, in the same folder, or made by `run`
    absent = [point for point in range(len(specs)) if point not in made]
    if absent:
        _say_absent(order, study, absent, chosen, say)
    return [made[point] for point in sorted(made)]


def _say_absent(
    order: Order, study: SharedStudy, absent: Sequence[int], chosen: Trial, say: Say
) -> None:
    """Name the final runs without a record here, which may be in another worker's folder.

    Raises:
        AlignRecError: some failed as often as they may be repeated.
    """
    complete = {trial.number for trial in study.trials() if trial.outcome.state == "complete"}
    failed = [point for point in absent if point not in complete]
    seeds = [str(order.seeds[point]) for point in failed or absent]
    if failed:
        raise AlignRecError(
            f"The study {order.study!r} has final runs that were not completed.",
            found=f"seeds {','.join(seeds)}: every attempt, {REPETITIONS + 1} of each, ended by an "
            "error or with its process",
            expected=f"a finished run for each of the seeds {','.join(map(str, order.seeds))}",
            hint=f"{_alone(seeds, chosen)} says what is wrong; once it has ended well, this "
            "command finds its records",
        )
    text = f"note: seeds {','.join(seeds)} were run for this study, and their records are not here"
    say(printable(f"{text}; {_alone(seeds, chosen)} makes them again", 1000))


def _alone(seeds: Sequence[str], chosen: Trial) -> str:
    """The command that makes final runs without the study."""
    settings = [f"{key}={json.dumps(value)}" for key, value in chosen.parameters.items()]
    options = ["--seeds", ",".join(seeds), "--set", *settings]
    return f"`run {shlex.join(options)}` with the model, data, settings and output of this command"


def _forget_states(order: Order, study: SharedStudy, trials: Sequence[Trial]) -> None:
    """Delete the saved states of trials that were not chosen."""
    for trial in trials:
        if trial.outcome.state == "complete" and (run := study.run_of(trial.number)):
            folder = order.spec.output / "checkpoints"
            inside(folder, f"{run}.state.pt").unlink(missing_ok=True)


def _forget(order: Order, record: RunRecord) -> None:
    assert record.path is not None
    path = record.path
    folder = order.spec.output / "checkpoints" / path.parts[-3] / path.parts[-2]
    (folder / f"{path.stem}.state.pt").unlink(missing_ok=True)
