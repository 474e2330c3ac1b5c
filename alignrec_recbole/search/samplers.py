"""Samplers and pruners of Optuna whose choices depend on the point alone.

A point is a set of values that is to be tried; a trial that was lost with its worker is repeated
under another number as the same point. What is drawn for a point depends on the seed, its place
and the results before it, so a study that was interrupted goes on as if it had not been.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState

from alignrec_recbole.errors import MissingDependencyError
from alignrec_recbole.search.space import Parameter, Point, Space

POINT, SURPLUS = "point", "surplus"  # user attributes of trials
REPEATS, HISTORY = "failed_trial", "retry_history"  # Optuna's names for a repeated trial
SHORTEST_RUNG = 27  # of Hyperband: the longest training through the shortest
LONGEST = 270  # epochs; by then most models here have stopped by themselves
STARTUP_TRIALS, WARMUP_EPOCHS = 5, 10  # before the median pruner acts
CMA_SIGMA = 0.25  # first standard deviation, in a unit cube

Distributions = dict[str, BaseDistribution]


def point_of(trials: Sequence[FrozenTrial], trial: FrozenTrial) -> int:
    """The place of a trial's point among all points."""
    known = trial.user_attrs.get(POINT)
    if known is not None:
        return int(known)
    root = trial.system_attrs.get(REPEATS, trial.number)
    return sum(
        1
        for other in trials
        if other.number < root
        and REPEATS not in other.system_attrs
        and not other.user_attrs.get(SURPLUS)
    )


def seed_of(seed: int, point: int) -> int:
    """The seed of what is drawn for a point."""
    return int(np.random.SeedSequence([seed, point]).generate_state(1)[0])


class ByPoint(optuna.samplers.BaseSampler):
    """Uses a new sampler for each point, made from the point's number and seed.

    Attributes:
        all_trials: those of the study; Hyperband shows a sampler the trials of one bracket only.
    """

    all_trials: Callable[[], Sequence[FrozenTrial]]

    def __init__(self, make: Callable[[int, int], optuna.samplers.BaseSampler], seed: int) -> None:
        self._make, self._seed = make, seed
        self._now: optuna.samplers.BaseSampler = optuna.samplers.RandomSampler(seed)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Make the sampler of the point."""
        point = point_of(self.all_trials(), trial)
        self._now = self._make(point, seed_of(self._seed, point))
        self._now.before_trial(study, trial)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> Distributions:
        """Of the point's sampler."""
        return self._now.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: Distributions
    ) -> dict[str, Any]:
        """Of the point's sampler."""
        return self._now.sample_relative(study, trial, search_space)

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Of the point's sampler."""
        return self._now.sample_independent(study, trial, param_name, param_distribution)


class Enumerated(optuna.samplers.BaseSampler):
    """The values of one point that is given: of a grid, or the first of a search."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> Distributions:
        """Nothing is drawn together."""
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: Distributions
    ) -> dict[str, Any]:
        """Nothing is drawn together."""
        return {}

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """The point's value."""
        value = self._values[param_name]
        categorical = isinstance(param_distribution, CategoricalDistribution)
        return json.dumps(value) if categorical else value


class Cma(optuna.samplers.BaseSampler):
    """CMA-ES over the ranges; lists of choices are drawn at random.

    The distribution follows from the complete trials alone, in their order, so nothing but their
    values and scores is stored (Optuna's own sampler stores a pickle). Ranges are searched in a
    unit cube, logarithmic ones by their logarithm.
    Source: Hansen, "The CMA Evolution Strategy: A Tutorial", arXiv:1604.00772, as in `cmaes`.
    """

    def __init__(self, space: Space, seed: int) -> None:
        self._ranges = {n: p for n, p in space.parameters.items() if not p.choices}
        self._seed = seed
        self._random = optuna.samplers.RandomSampler(seed)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> Distributions:
        """The ranges, as distributions."""
        return {name: distribution(parameter) for name, parameter in self._ranges.items()}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: Distributions
    ) -> dict[str, Any]:
        """Values of all ranges."""
        from cmaes import CMA

        count = len(self._ranges)
        if count < 2:  # CMA-ES needs two dimensions
            return {}
        optimizer = CMA(
            mean=np.full(count, 0.5),
            sigma=CMA_SIGMA,
            bounds=np.tile([0.0, 1.0], (count, 1)),
            seed=self._seed,
        )
        size = optimizer.population_size
        trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        known = [(self._place(t.params), -float(t.value or 0.0)) for t in trials]
        for start in range(0, len(known) - size + 1, size):
            optimizer.tell(known[start : start + size])
        return {
            name: value_at(parameter, float(place))
            for (name, parameter), place in zip(self._ranges.items(), optimizer.ask(), strict=True)
        }

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """A choice, at random."""
        return self._random.sample_independent(study, trial, param_name, param_distribution)

    def _place(self, params: Mapping[str, Any]) -> np.ndarray:
        return np.array([place_of(p, params[name]) for name, p in self._ranges.items()])


def place_of(parameter: Parameter, value: float) -> float:
    """Where a value is in its range, 0 to 1.

    >>> place_of(Parameter(low=1e-4, high=1e-2, log=True), 1e-3)
    0.5
    """
    low, high = float(parameter.low or 0), float(parameter.high or 0)
    if parameter.log:
        return math.log(value / low) / math.log(high / low)
    return (value - low) / (high - low)


def value_at(parameter: Parameter, place: float) -> float:
    """The value at a place in a range, on its steps.

    >>> value_at(Parameter(low=1, high=5), 0.5), value_at(Parameter(low=0.0, high=1.0, step=0.5), 1)
    (3, 1.0)
    """
    low, high = float(parameter.low or 0), float(parameter.high or 0)
    value = low * (high / low) ** place if parameter.log else low + place * (high - low)
    step = parameter.step or (1 if parameter.whole and not parameter.log else None)
    if step is not None:
        value = min(low + round((value - low) / step) * step, high)
    value = min(max(value, low), high)
    return round(value) if parameter.whole else value


def distribution(parameter: Parameter) -> BaseDistribution:
    """A parameter in Optuna's form; choices are JSON, so that lists can be chosen."""
    if parameter.choices:
        return CategoricalDistribution([json.dumps(value) for value in parameter.choices])
    low, high, step = parameter.low, parameter.high, parameter.step
    assert low is not None
    assert high is not None
    if parameter.whole:
        return optuna.distributions.IntDistribution(
            int(low), int(high), log=parameter.log, step=int(step or 1)
        )
    return optuna.distributions.FloatDistribution(
        float(low), float(high), log=parameter.log, step=None if step is None else float(step)
    )


def make_sampler(name: str, space: Space, seed: int, first: Point | None = None) -> ByPoint:
    """The sampler of a name: tpe, random, grid or cmaes.

    Args:
        name: the sampler.
        space: what it draws from.
        seed: of what is drawn.
        first: the first point, which is then not drawn.

    TPE: Bergstra et al., "Algorithms for Hyper-Parameter Optimization", NIPS 2011; Optuna's, over
    all parameters together, ten random points first.
    """
    make = _maker(name, space)
    if first is None:
        return ByPoint(make, seed)
    return ByPoint(lambda point, own: make(point, own) if point else Enumerated(first), seed)


def _maker(name: str, space: Space) -> Callable[[int, int], optuna.samplers.BaseSampler]:
    """Makes the sampler of a point from the point's number and seed."""
    if name == "grid":
        points = list(space.points())
        return lambda point, _: Enumerated(_at(points, point))
    if name == "cmaes":
        _need_cmaes()
        return lambda _, own: Cma(space, own)
    kind = {"tpe": optuna.samplers.TPESampler, "random": optuna.samplers.RandomSampler}[name]
    return lambda _, own: kind(seed=own)


def _at(points: Sequence[Point], place: int) -> Point:
    return points[min(place, len(points) - 1)]  # beyond the last: a trial that will not be made


def _need_cmaes() -> None:
    try:
        import cmaes  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError.of_extra(
            "The sampler cmaes needs a package.", "search", str(error)
        ) from error


class HyperbandByPoint(optuna.pruners.HyperbandPruner):
    """Hyperband whose brackets follow the point, and which does not see trials that were lost.

    Source: Li et al., "Hyperband", JMLR 18 (2018); Optuna's, with asynchronous halving.
    """

    def _get_bracket_id(self, study: optuna.Study, trial: FrozenTrial) -> int:
        if trial.state == TrialState.FAIL:
            return -1  # in no bracket
        if POINT in trial.user_attrs and trial.user_attrs[POINT] != trial.number:
            trial = _renumbered(trial)
        return super()._get_bracket_id(study, trial)


def _renumbered(trial: FrozenTrial) -> FrozenTrial:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        out = optuna.trial.create_trial(state=TrialState.WAITING)
    out.number = trial.user_attrs[POINT]
    return out


def make_pruner(name: str, epochs: int) -> optuna.pruners.BasePruner:
    """The pruner of a name: hyperband, median or none.

    Args:
        name: the pruner.
        epochs: maximum of a trial.
    """
    if name == "hyperband":
        longest = min(epochs, LONGEST)
        return HyperbandByPoint(max(1, longest // SHORTEST_RUNG), max(longest, 1), 3)
    if name == "median":
        return optuna.pruners.MedianPruner(STARTUP_TRIALS, WARMUP_EPOCHS)
    return optuna.pruners.NopPruner()
