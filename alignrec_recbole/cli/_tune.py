"""The work of the verb `tune`: an order per model, its work, and the table."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from alignrec_recbole.cli._jobs import Job, make_jobs
from alignrec_recbole.cli._run import SEEDS, base_of_model, line, show_models
from alignrec_recbole.engines import DEFAULT, check_engine, open_engine
from alignrec_recbole.errors import SettingError
from alignrec_recbole.io.names import check_name
from alignrec_recbole.runs.spec import RunSpec
from alignrec_recbole.runtime.stop_signals import stop_on_signal
from alignrec_recbole.search.space import raw_space
from alignrec_recbole.settings import nested

if TYPE_CHECKING:
    from alignrec_recbole.cli._option_values import RunOptions
    from alignrec_recbole.runs.record import RunRecord
    from alignrec_recbole.search.tuning import Order


def run(options: RunOptions, search: dict[str, Any]) -> int:
    """Tune every model with the same budget and write the tables; returns the exit status."""
    from alignrec_recbole.search.tuning import check_order  # Optuna, an extra
    from alignrec_recbole.search.workers import check_storage, repeats

    orders = [_order(options, job, search) for job in make_jobs(options)]
    for order in orders:
        check_order(order)
    for order in orders:
        check_storage(order, *_engine(options))
    records = []
    with _tuner(options) as (make, workers):
        for order in orders:
            print(f"{order.spec.model}: {order.limit}, {order.sampler}, pruner {order.pruner}")
            if not repeats(order, workers):
                print(
                    f"note: {workers} workers: what is drawn depends on which trials end first; "
                    "--jobs 1 draws the same again",
                    file=sys.stderr,
                )
            for record in make(order):
                records.append(record)
                print(line(record))
    show_models(options, records, may_continue=False)
    return 0


@contextmanager
def _tuner(options: RunOptions) -> Iterator[tuple[Callable[[Order], list[RunRecord]], int]]:
    """What works on an order, and its number of workers: this process, or cells of an engine."""
    from alignrec_recbole.search.tuning import tune
    from alignrec_recbole.search.workers import tune_at_once

    jobs = options.jobs or 1
    if jobs == 1 and options.engine == DEFAULT:
        yield tune, 1
        return
    engine = open_engine(options.engine, jobs)
    with stop_on_signal(engine.stop, "stopping after the running epochs"), engine:
        yield partial(tune_at_once, engine), engine.places


def _engine(options: RunOptions) -> tuple[str, str]:
    """Its name and address."""
    entry, address = check_engine(options.engine, options.jobs)
    return entry.name, address


def _order(options: RunOptions, job: Job, search: dict[str, Any]) -> Order:
    from alignrec_recbole.search.tuning import Order

    seeds = options.seeds or SEEDS
    spec = RunSpec(seed=seeds[0], overrides=nested(job.pairs), **base_of_model(options, job))
    space = raw_space(spec.model, search["space"])
    twice = [key for key, _ in job.pairs if any(_overlap(key, other) for other in space)]
    if twice:
        raise SettingError(
            f"The setting {twice[0]!r} is searched and set.",
            found=f"--set {twice[0]}=… and {twice[0]} in the space of {spec.model}",
            expected="one of the two",
            hint="pass --space with a file without it",
        )
    study = search["study"]
    if study is None:
        study = "-".join([spec.dataset, "+".join(spec.features) or "none"])
    check_name(study, "study")
    storage = search["storage"]
    if storage is None:
        storage = f"sqlite:///{(options.output / 'studies' / f'{study}.db').absolute()}"
    given = {key: value for key, value in search.items() if key not in ("space", "study")}
    given |= {"storage": storage, "study": f"{study}/{spec.model}"}
    return Order(spec, seeds, space, **given)


def _overlap(key: str, other: str) -> bool:
    return key == other or key.startswith(f"{other}.") or other.startswith(f"{key}.")
