"""The work of the verb `tune`: an order per model, its work, and the table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from alignrec_recbole.cli._jobs import Job, make_jobs
from alignrec_recbole.cli._run import SEEDS, base_of_model, line, show_models
from alignrec_recbole.errors import SettingError
from alignrec_recbole.io.names import check_name
from alignrec_recbole.runs.spec import RunSpec
from alignrec_recbole.search.space import raw_space
from alignrec_recbole.settings import nested

if TYPE_CHECKING:
    from alignrec_recbole.cli._option_values import RunOptions
    from alignrec_recbole.search.tuning import Order


def run(options: RunOptions, search: dict[str, Any]) -> int:
    """Tune every model with the same budget and write the tables; returns the exit status."""
    from alignrec_recbole.search.tuning import tune  # Optuna, an extra

    orders = [_order(options, job, search) for job in make_jobs(options)]
    records = []
    for order in orders:
        print(f"{order.spec.model}: {order.limit}, {order.sampler}, pruner {order.pruner}")
        for record in tune(order):
            records.append(record)
            print(line(record))
    show_models(options, records, may_continue=False)
    return 0


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
