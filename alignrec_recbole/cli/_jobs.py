"""The parts of a command line: one per model or protocol, each with the settings that it reads."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from alignrec_recbole.cli._names import model_names, models_to_train
from alignrec_recbole.cli._overrides import Pair, check_owners, for_model
from alignrec_recbole.errors import SettingError
from alignrec_recbole.protocols import RANKER_NAMES, USE_MODELS, USE_SEEDS
from alignrec_recbole.protocols.run import setting_names
from alignrec_recbole.registry.components import components
from alignrec_recbole.registry.models import resolve
from alignrec_recbole.registry.published import published_settings
from alignrec_recbole.runs.effective_config import data_keys
from alignrec_recbole.settings import check_keys
from alignrec_recbole.training.recbole_settings import check_refused

if TYPE_CHECKING:
    from alignrec_recbole.cli._option_values import RunOptions

Choices = tuple[str, list[Any]]


@dataclass(frozen=True)
class Job:
    """One protocol with the models that share its settings.

    Attributes:
        protocol: the evaluation protocol.
        models: the model that is trained; rankers or names of stored rankings elsewhere.
        trained: whether `models` is one model that is trained.
        seeds: training seeds, None for the protocol's own.
        pairs: `--set` as this job reads it.
        grid: `--grid` as this job reads it.
        source: where published settings among `pairs` are from; None: there are none.
    """

    protocol: str
    models: tuple[str, ...]
    trained: bool
    seeds: tuple[int, ...] | None
    pairs: tuple[Pair, ...]
    grid: tuple[Choices, ...]
    source: str | None = None

    @property
    def model(self) -> str:
        """The model that is trained, or ""."""
        return self.models[0] if self.trained else ""

    @property
    def label(self) -> str:
        """What notes and errors call it."""
        if not self.trained:
            return f"protocol {self.protocol}"
        return self.model if self.protocol == "full" else f"{self.model} in {self.protocol}"


def make_jobs(options: RunOptions) -> list[Job]:
    """The jobs of a command line in its order.

    A setting that only some jobs read is passed to those, with a note on standard error.

    Raises:
        UnknownNameError: MODEL.KEY=VALUE for a model that is not run; --config published for one
            that has no published settings.
        SettingError: a setting that nothing reads.
    """
    models = models_to_train(options)
    check_owners([*options.overrides, *options.grid], models, model_names())
    jobs = [
        replace(
            job,
            pairs=tuple(for_model(job.pairs, job.model, models)),
            grid=tuple(for_model(job.grid, job.model, models)),
        )
        for protocol in options.protocol
        for job in _of_protocol(options, protocol)
    ]
    given = [*options.overrides, *options.grid]
    if given:
        known = [_known(job, options.dataset) for job in jobs]
        _check_unread(jobs, known, given)
        jobs = _distribute(jobs, known)
    return jobs if options.config is None else _with_published(jobs, options.dataset)


def _with_published(jobs: Sequence[Job], dataset: str) -> list[Job]:
    """The jobs that train with the published settings of their model, which `--set` overrides."""
    if not any(job.trained for job in jobs):
        raise SettingError(
            "--config has no effect on protocols that train no model.",
            found=f"the protocols {', '.join(dict.fromkeys(job.protocol for job in jobs))}",
            expected="a protocol that trains a model, such as full",
        )
    out = []
    for job in jobs:
        if job.trained:
            found = published_settings(resolve(job.model).name, dataset)
            pairs = (*found.settings.items(), *job.pairs)
            job = replace(job, pairs=pairs, source=f"published settings: {found.source}")
        out.append(job)
    return out


def _of_protocol(options: RunOptions, protocol: str) -> list[Job]:
    models = options.model if protocol in USE_MODELS else ()
    seeds = options.seeds if protocol in USE_SEEDS else None
    job = Job(protocol, models, False, seeds, options.overrides, options.grid)
    if protocol not in ("full", "mask-modality", "knock-out"):
        return [job]
    takes_rankers = protocol == "mask-modality"
    trained = [name for name in models if not takes_rankers or name not in RANKER_NAMES]
    rankers = tuple(name for name in models if name not in trained)
    out = [replace(job, models=(name,), trained=True) for name in trained]
    if rankers or not trained:
        out.insert(0, replace(job, models=rankers, seeds=None if trained else seeds))
    return out


def _distribute(jobs: Sequence[Job], known: Sequence[set[str]]) -> list[Job]:
    """The jobs without the settings that they do not read and others do."""
    everywhere = {_top(key) for job in jobs for key, _ in (*job.pairs, *job.grid)}
    dropped: dict[str, list[str]] = {}
    out = []
    for job, keys in zip(jobs, known, strict=True):
        unread = {key for key in everywhere - keys if any(key in other for other in known)}
        for key in sorted(unread & {_top(key) for key, _ in (*job.pairs, *job.grid)}):
            dropped.setdefault(key, []).append(job.label)
        out.append(
            replace(
                job,
                pairs=tuple(pair for pair in job.pairs if _top(pair[0]) not in unread),
                grid=tuple(pair for pair in job.grid if _top(pair[0]) not in unread),
            )
        )
    for key, without in dropped.items():
        readers = [job.label for job, keys in zip(jobs, known, strict=True) if key in keys]
        print(
            f"note: setting {key!r} is read by {', '.join(readers)}; "
            f"{', '.join(without)} {'runs' if len(without) == 1 else 'run'} without it",
            file=sys.stderr,
        )
    return out


def _check_unread(
    jobs: Sequence[Job], known: Sequence[set[str]], given: Sequence[tuple[str, Any]]
) -> None:
    """Refuse settings that no job reads, and MODEL.KEY where the model does not read KEY."""
    readers: dict[str, set[str]] = {}  # model → what its jobs read
    own: set[str] = set()
    for job, keys in zip(jobs, known, strict=True):
        readers.setdefault(job.model, set()).update(keys)
        own |= components(job.model).own_keys if job.trained else set()
    trained = [model for model in readers if model]
    if not trained:
        return  # the error of the protocol itself says what it reads
    for key, value in given:
        owner, _, rest = key.partition(".")
        if owner in trained:
            components(owner).check_unused({_top(rest): value})
            check_keys({_top(rest): value}, readers[owner], owner)
        else:
            check_refused({_top(key): value}, own)
            if len(trained) == 1:
                components(trained[0]).check_unused({_top(key): value})
            check_keys({_top(key): value}, set().union(*known), ", ".join(trained))


def _top(key: str) -> str:
    return key.partition(".")[0]


def _known(job: Job, dataset: str) -> set[str]:
    """Top-level settings that a job reads."""
    own = setting_names(job.protocol, job.model or None) if job.protocol != "full" else set()
    if not job.trained:
        return own | data_keys(dataset)
    return own | components(job.model).keys_for(dataset)
