"""A study: trials that any number of workers make together, through a database.

A worker says every few seconds that it lives. The trial of one that stopped to say so is repeated
by another, with the same values; its training goes on from the last saved state where the workers
share the output folder. A journal file has no such signs of life, so a killed trial would count as
running for ever; such storages are refused.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from alignrec_recbole.errors import (
    AlignRecError,
    DataError,
    Interrupted,
    MissingDependencyError,
    Pruned,
    SettingError,
    printable,
)

try:
    import optuna
    import sqlalchemy
except ImportError as _error:
    raise MissingDependencyError.of_extra(
        "A search needs Optuna.", "search", str(_error)
    ) from _error

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback, fail_stale_trials
from optuna.trial import FrozenTrial, TrialState

from alignrec_recbole.runtime.progress import announce
from alignrec_recbole.runtime.stop_signals import stop_on_signal
from alignrec_recbole.search.samplers import (
    HISTORY,
    POINT,
    REPEATS,
    SURPLUS,
    distribution,
    make_pruner,
    make_sampler,
    point_of,
)
from alignrec_recbole.search.space import Point, Space
from alignrec_recbole.search.trials import Outcome, Trial, Watch
from alignrec_recbole.settings import MAX_TRIALS

HEARTBEAT = 10  # seconds between two signs of life
SILENT = 6  # signs of life that fail to come before a worker counts as dead
REPETITIONS = 3  # of a trial whose worker died; after that it has failed
POLL_SECONDS = 0.5
ATTEMPTS = 10  # to open a storage whose tables another worker makes
DATABASES = ("sqlite", "postgresql", "mysql", "mariadb")
IDENTITY = "identity"  # user attribute of a study
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
Objective = Callable[[int, dict[str, Any], Watch], Outcome]  # point, values, watch → outcome


class _Surplus(Exception):
    """Another worker began the last trial of the budget a moment before."""


@dataclass(frozen=True)
class Limit:
    """When no further trial begins: after so many trials, or so many seconds of training.

    A limit of seconds ends after MAX_TRIALS trials, too.
    """

    trials: int | None = None
    seconds: float | None = None

    def __str__(self) -> str:
        if self.trials is not None:
            return f"{self.trials} trials"
        return f"{str(self.seconds).removesuffix('.0')} seconds"

    @property
    def rounded(self) -> str:
        """Its text in studies of earlier versions, with six digits: it must not change."""
        return f"{self.trials} trials" if self.trials is not None else f"{self.seconds:g} seconds"

    def as_dict(self) -> dict[str, float]:
        """For records."""
        if self.trials is not None:
            return {"trials": float(self.trials)}
        return {"seconds": float(self.seconds or 0)}


@dataclass(frozen=True)
class Plan:
    """How a study chooses its trials.

    Attributes:
        name: of the study.
        identity: what is tuned on what; a study of the same name and another identity is refused.
        space: what is searched.
        sampler, pruner: names.
        seed: of the sampler.
        epochs: maximum of a trial.
        limit: of all workers together.
        first: values of the first trial; by default they are drawn as those of the others.
    """

    name: str
    identity: dict[str, Any]
    space: Space
    sampler: str
    pruner: str
    seed: int
    epochs: int
    limit: Limit
    first: Point | None = None


class Storage:
    """A database of studies.

    Args:
        url: in SQLAlchemy's form; a SQLite file is made where there is none.
        heartbeat: seconds between two signs of life.

    Raises:
        SettingError: no database that has signs of life, or no URL.
        MissingDependencyError: the database's driver is not installed.
        DataError: the database cannot be reached, or is not one of Optuna's.
    """

    def __init__(self, url: str, heartbeat: int = HEARTBEAT) -> None:
        self.heartbeat = heartbeat
        self.shown, kind, file = _checked(url)
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
        options = {"connect_args": {"timeout": 60}} if kind == "sqlite" else {}
        try:
            with _quiet():
                self.optuna = _opened(url, options, heartbeat)
        except ImportError as error:
            raise MissingDependencyError(
                f"The storage {self.shown!r} needs a driver that is not installed.",
                found=str(error),
                expected="a Python driver of the database, such as psycopg for PostgreSQL",
                hint="pip install psycopg[binary], and a URL that begins with postgresql+psycopg://",
            ) from error
        except (optuna.exceptions.OptunaError, sqlalchemy.exc.SQLAlchemyError, OSError) as error:
            raise _unreachable(self.shown, error) from error
        except RuntimeError as error:  # tables of another version
            raise _unreachable(self.shown, error) from error

    @contextlib.contextmanager
    def errors(self) -> Iterator[None]:
        """Errors of the database become one that names it."""
        try:
            yield
        except (optuna.exceptions.StorageInternalError, sqlalchemy.exc.SQLAlchemyError) as error:
            raise _unreachable(self.shown, error) from error


def _opened(url: str, options: dict[str, Any], heartbeat: int) -> RDBStorage:
    """The storage; where another worker makes its tables at this moment, once they exist."""
    for attempt in range(ATTEMPTS):
        try:
            return RDBStorage(
                url,
                engine_kwargs=options,
                heartbeat_interval=heartbeat,
                grace_period=SILENT * heartbeat,
                heartbeat_stale_trial_callback=_repeat,
            )
        except sqlalchemy.exc.DBAPIError as error:
            made_by_another = isinstance(error, sqlalchemy.exc.IntegrityError) or (
                "already exists" in str(error.orig)
            )
            if not made_by_another or attempt == ATTEMPTS - 1:
                raise
            time.sleep(POLL_SECONDS)
    raise AssertionError("unreachable")


def _checked(url: str) -> tuple[str, str, Path | None]:
    """The URL without password and options, the kind of database, and the file of a SQLite one."""
    try:
        parsed = sqlalchemy.engine.make_url(url)
        kind = parsed.get_backend_name()
        shown = parsed.set(query={}).render_as_string(hide_password=True)
    except (sqlalchemy.exc.ArgumentError, ValueError):
        scheme, mark, _ = url.partition("://")  # what follows may hold a password
        kind, shown = "", printable(f"{scheme}{mark}…" if mark else url, 120)
        parsed = None
    if parsed is None or kind not in DATABASES:
        raise SettingError(
            f"The storage {shown!r} cannot hold a study.",
            found="a journal file or server without signs of life: a killed trial would count as "
            "running for ever"
            if kind in ("journal", "redis") or "journal" in url or parsed is None
            else f"a URL of {kind!r}",
            expected="sqlite:///FILE, postgresql://… or mysql://…",
            hint="without --storage, a SQLite file in --output",
        )
    if kind != "sqlite":
        return shown, kind, None
    if not parsed.database or parsed.database == ":memory:":
        raise SettingError(
            "A study in memory could not be shared or resumed.",
            found=shown,
            expected="sqlite:///FILE",
        )
    file = Path(parsed.database)
    if file.is_dir():
        raise SettingError(f"The storage {shown!r} is a folder.", expected="sqlite:///FILE")
    return shown, kind, file


def _unreachable(shown: str, error: BaseException) -> DataError:
    reason: BaseException = error
    while reason.__cause__ is not None:
        reason = reason.__cause__
    first = (str(reason).splitlines() or [type(reason).__name__])[0]
    return DataError(
        f"The storage {shown!r} cannot be used.",
        found=first,
        expected="a database that can be reached, empty or with studies of this Optuna",
        hint="check the address, the name and password, and that the server runs",
    )


def _repeat(study: optuna.Study, trial: FrozenTrial, counted: bool = True) -> None:
    """Queue a trial again that did not end by itself; what pruners noted starts anew.

    Args:
        counted: whether it is one of the repetitions that a trial may have.
    """
    known = trial.system_attrs
    attrs = {key: known[key] for key in (REPEATS, HISTORY) if key in known}
    if counted:
        trial.system_attrs = attrs
        with _quiet():
            RetryHeartbeatStaleTrialCallback(max_retry=REPETITIONS)(study, trial)
        return
    study.add_trial(
        optuna.create_trial(
            state=TrialState.WAITING,
            params=trial.params,
            distributions=trial.distributions,
            user_attrs=trial.user_attrs,
            system_attrs={REPEATS: trial.number, HISTORY: [], **attrs},
        )
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without Optuna's log and its warnings about what is experimental."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class SharedStudy:
    """One study in a storage, as a worker sees it.

    Raises:
        SettingError: the storage has a study of this name that tunes something else.
    """

    def __init__(self, storage: Storage, plan: Plan) -> None:
        self.storage, self.plan = storage, plan
        if plan.sampler == "grid":
            plan.space.check_enumerable()
        self._most = MAX_TRIALS if plan.limit.trials is None else plan.limit.trials
        if plan.sampler == "grid":
            self._most = min(self._most, plan.space.size or 0)
        self._stopped = threading.Event()  # by a signal
        sampler = make_sampler(plan.sampler, plan.space, plan.seed, plan.first)
        with _quiet(), storage.errors():
            self._study = optuna.create_study(
                storage=storage.optuna,
                study_name=plan.name,
                direction="maximize",
                load_if_exists=True,
                sampler=sampler,
                pruner=make_pruner(plan.pruner, plan.epochs),
            )
            sampler.all_trials = lambda: self._study.get_trials(deepcopy=False)
            self._check_identity()

    def _check_identity(self) -> None:
        identity = {
            **self.plan.identity,
            "space": self.plan.space.sha256,
            "sampler": self.plan.sampler,
            "pruner": self.plan.pruner,
            "sampler_seed": self.plan.seed,
            **({"first": self.plan.first} if self.plan.first else {}),
        }
        found = self._study.user_attrs.get(IDENTITY)
        if found is None:
            if self._study.get_trials(deepcopy=False):
                raise SettingError(
                    f"The study {self.plan.name!r} was not made by this program.",
                    found=f"a study without a description in {self.storage.shown}",
                    expected="a new name",
                    hint="pass another --study",
                )
            self._study.set_user_attr(IDENTITY, identity)
            found = self._study.user_attrs.get(IDENTITY)
        if found != identity:
            known = found if isinstance(found, dict) else {}
            wrong = [key for key in {**identity, **known} if known.get(key) != identity.get(key)]
            raise SettingError(
                f"The study {self.plan.name!r} is another one's.",
                found=", ".join(f"{key} {known.get(key)!r}" for key in wrong),
                expected=", ".join(f"{key} {identity.get(key)!r}" for key in wrong),
                hint="pass another --study, or the options that it was begun with",
            )

    # Work -----------------------------------------------------------------------------------------

    def work(self, objective: Objective) -> None:
        """Make trials until all workers together have spent the budget and none is running.

        Args:
            objective: makes a trial of a point; the point counts from 0.

        Raises:
            Interrupted: by a signal; the trial is queued again.
            AlignRecError: a trial could not be made; it is queued again.
        """

        def make(trial: optuna.Trial) -> float:
            return self._make(trial, objective)

        # A signal must not end a transaction of the database halfway.
        with stop_on_signal(self._stopped.set, "stopping before the next trial"), _quiet():
            while self._wanted():
                with self.storage.errors():
                    try:
                        self._study.optimize(make, n_trials=1, catch=(_Surplus,))
                    except (ValueError, optuna.exceptions.UpdateFinishedTrialError) as error:
                        if not _was_taken(error):
                            raise

    def _wanted(self) -> bool:
        """Whether a trial may begin; waits while others run the last ones."""
        announced = False
        while True:
            self._check_stopped()
            with self.storage.errors():
                fail_stale_trials(self._study)
                points = self._last_trials()
            if any(trial.state == TrialState.WAITING for trial in points.values()):
                return True
            if self._leaves_room(points):
                return True
            if all(trial.state.is_finished() for trial in points.values()):
                return False
            if not announced:
                announce(f"study {self.plan.name}: waiting for other workers' trials")
                announced = True
            time.sleep(POLL_SECONDS)

    def _check_stopped(self) -> None:
        if self._stopped.is_set():
            raise Interrupted(
                f"Interrupted: the study {self.plan.name!r} goes on with the same command."
            )

    def _leaves_room(self, points: dict[int, FrozenTrial]) -> bool:
        if len(points) >= self._most:
            return False
        if self.plan.limit.seconds is None:
            return True
        spent = sum(float(trial.user_attrs.get("seconds", 0)) for trial in points.values())
        return spent < self.plan.limit.seconds

    def _last_trials(self) -> dict[int, FrozenTrial]:
        """The last trial of each point: a repetition takes the place of what it repeats."""
        trials = self._study.get_trials(deepcopy=False)
        return {
            point_of(trials, trial): trial
            for trial in sorted(trials, key=lambda trial: trial.number)
            if not trial.user_attrs.get(SURPLUS)
        }

    def _make(self, trial: optuna.Trial, objective: Objective) -> float:
        """One trial as Optuna asks for it."""
        frozen = trial.study.get_trials(deepcopy=False)[trial.number]
        point = point_of(trial.study.get_trials(deepcopy=False), frozen)
        if point >= self._most:
            trial.set_user_attr(SURPLUS, True)
            raise _Surplus
        trial.set_user_attr(POINT, point)
        values = self._suggest(trial)

        def watch(epoch: int, score: float) -> None:
            trial.report(score, epoch)
            if trial.should_prune():
                raise Pruned

        try:
            self._check_stopped()
            outcome = objective(point, values, watch)
        except optuna.exceptions.OptunaError:
            raise
        except (Interrupted, KeyboardInterrupt, AlignRecError, OSError, MemoryError) as error:
            stopped = isinstance(error, (Interrupted, KeyboardInterrupt))
            again = self._study.get_trials(deepcopy=True)[trial.number]
            _repeat(self._study, again, counted=not stopped)
            raise
        trial.set_user_attr("epochs", outcome.epochs)
        trial.set_user_attr("seconds", outcome.seconds)
        trial.set_user_attr("score", outcome.score)
        trial.set_user_attr("run", _run_of(outcome))
        if outcome.state != "complete" or outcome.score is None:
            trial.set_user_attr("failed", outcome.state == "failed")
            raise optuna.TrialPruned
        return outcome.score

    def _suggest(self, trial: optuna.Trial) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for name, parameter in self.plan.space.parameters.items():
            kind = distribution(parameter)
            if isinstance(kind, CategoricalDistribution):
                values[name] = json.loads(str(trial.suggest_categorical(name, kind.choices)))
            elif isinstance(kind, IntDistribution):
                values[name] = trial.suggest_int(
                    name, kind.low, kind.high, step=kind.step, log=kind.log
                )
            else:
                assert isinstance(kind, FloatDistribution)
                values[name] = trial.suggest_float(
                    name, kind.low, kind.high, step=kind.step, log=kind.log
                )
        return values

    # Results --------------------------------------------------------------------------------------

    def trials(self) -> list[Trial]:
        """The trials that have ended, in the order of their points."""
        with self.storage.errors():
            points = self._last_trials()
        return [
            Trial(point, self._parameters(trial), _outcome(trial))
            for point, trial in sorted(points.items())
            if trial.state.is_finished()
        ]

    def run_of(self, number: int) -> str:
        """Where a complete trial's files are, relative to the output's folders."""
        return str(self._last_trials()[number].user_attrs.get("run") or "")

    def known(self, key: str) -> Any:
        """A decision of the study; None if there is none yet."""
        with self.storage.errors():
            return self._study.user_attrs.get(key)

    def remember(self, key: str, value: Any) -> Any:
        """Store a decision of the study unless there is one; return the one that is stored."""
        known = self.known(key)
        if known is None:
            with self.storage.errors():
                self._study.set_user_attr(key, value)
            return value
        return known

    def _parameters(self, trial: FrozenTrial) -> dict[str, Any]:
        return {
            name: json.loads(trial.params[name]) if parameter.choices else trial.params[name]
            for name, parameter in self.plan.space.parameters.items()
            if name in trial.params
        }


def _run_of(outcome: Outcome) -> str:
    """Path of a complete trial's record below the folder of its kind, without its suffix."""
    path = outcome.record.path if outcome.record else None
    return "/".join([*path.parts[-3:-1], path.stem]) if path else ""


def _outcome(trial: FrozenTrial) -> Outcome:
    """What a stored trial found; a lost one that was not repeated has failed."""
    attrs = trial.user_attrs
    score = attrs.get("score")
    seconds = attrs.get("seconds")
    if seconds is None:
        seconds = _lasted(trial)
    state = "failed"
    if trial.state in FINISHED and not attrs.get("failed"):
        state = "complete" if trial.state == TrialState.COMPLETE else "pruned"
    return Outcome(
        state,  # type: ignore[arg-type]
        None if score is None else float(score),
        int(attrs.get("epochs", 0)),
        float(seconds),
    )


def _lasted(trial: FrozenTrial) -> float:
    start, end = trial.datetime_start, trial.datetime_complete
    if not isinstance(start, datetime) or not isinstance(end, datetime):
        return 0.0
    return max((end - start).total_seconds(), 0.0)


def _was_taken(error: BaseException) -> bool:
    """Whether a trial was ended by others, who took this worker for dead."""
    return isinstance(error, optuna.exceptions.UpdateFinishedTrialError) or str(error).startswith(
        "Cannot tell a"
    )
