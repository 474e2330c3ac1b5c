"""The work of the verb `run`: from its options to records and tables."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignrec_recbole.cli._command import as_typed, given_arguments, without_option
from alignrec_recbole.cli._jobs import Job, make_jobs
from alignrec_recbole.data.dataset_paths import find_dataset
from alignrec_recbole.engines import DEFAULT, open_engine
from alignrec_recbole.errors import Interrupted, RecordError, counted, printable
from alignrec_recbole.features.published import default_features
from alignrec_recbole.protocols import READ_LISTS
from alignrec_recbole.protocols.rankers import RANKERS, rank_by_features
from alignrec_recbole.protocols.run import check_spec, run_protocol
from alignrec_recbole.registry.models import DEFAULT_FEATURES, resolve
from alignrec_recbole.reports.audit_marks import AuditMarks
from alignrec_recbole.reports.contents import tables
from alignrec_recbole.reports.formats.text import as_text
from alignrec_recbole.reports.grouping import candidates_of
from alignrec_recbole.reports.leaderboards import comparison
from alignrec_recbole.reports.notes import FEW
from alignrec_recbole.reports.table_files import write_tables
from alignrec_recbole.runs.at_once import AtOnce, OneByOne, Runs, choose_jobs
from alignrec_recbole.runs.prepare import check_run_spec, delete_checkpoint
from alignrec_recbole.runs.record import Run, RunRecord, read_runs, skip_note
from alignrec_recbole.runs.spec import RunSpec
from alignrec_recbole.runtime.sizes import file_size
from alignrec_recbole.runtime.stop_signals import stop_on_signal
from alignrec_recbole.search.space import check_trials, of_choices
from alignrec_recbole.search.trials import Trial, best_of, budget_of, outcome_of
from alignrec_recbole.settings import nested

if TYPE_CHECKING:
    from alignrec_recbole.cli._option_values import RunOptions

SEEDS = (999,)  # of protocol full


def run(options: RunOptions) -> int:
    """Run every protocol and write its tables; returns the exit status."""
    jobs = make_jobs(options)
    check_jobs(options, jobs)
    for protocol in options.protocol:
        of_protocol = [job for job in jobs if job.protocol == protocol]
        if protocol == "full":
            show_models(options, _run_models(options, of_protocol))
            continue
        runs = OneByOne(options.overwrite)
        for job in of_protocol:
            _run_job(options, job, runs)
        _show_protocol(options, protocol)
    return 0


def _run_models(options: RunOptions, jobs: Sequence[Job]) -> list[RunRecord]:
    """Protocol full; a terminal gets the table of what is finished after every model but the last.

    After an interruption the table is printed wherever the output goes.
    """
    records: list[RunRecord] = []
    with _runs(options, jobs) as runs:
        for job in jobs:
            if records and options.progress and sys.stderr.isatty():
                _show_so_far(options)
            try:
                records += _run_model(options, job, runs)
            except (Interrupted, KeyboardInterrupt):
                _show_so_far(options)
                raise
    return records


def _show_so_far(options: RunOptions) -> None:
    """The data set's table while runs are still to come; nothing if none is finished."""
    found = comparison(_runs_of(options), options.dataset, _say_skipped, _marks(options))
    if found:
        print(f"\nFinished so far:\n\n{as_text(found)}\n", file=sys.stderr)


@contextmanager
def _runs(options: RunOptions, jobs: Sequence[Job]) -> Iterator[Runs]:
    """What makes the runs of protocol full, which has begun with those that are known already."""
    first = [spec for job in jobs for spec in _first_specs(options, job)]
    several = len(first) > 1
    elsewhere = options.engine != DEFAULT
    at_once = (options.jobs or choose_jobs(first, options.overwrite)) if several else 1
    if min(at_once, len(first)) < 2 and not elsewhere:
        yield OneByOne(options.overwrite)
        return
    if options.progress:
        where = f"by {options.engine}" if elsewhere else f"{at_once} at a time (--jobs)"
        print(printable(f"{len(first)} runs, {where}"), file=sys.stderr)
    engine = open_engine(options.engine, at_once)
    with stop_on_signal(engine.stop, "stopping after the running epochs"), engine:
        runs = AtOnce(engine, options.overwrite)
        for spec in first:
            runs.ask(spec)
        yield runs


def _first_specs(options: RunOptions, job: Job) -> list[RunSpec]:
    """The runs that a job begins with: its grid's trials, else one per seed."""
    base, overrides = base_of_model(options, job), nested(job.pairs)
    if job.grid:
        return [spec for _, spec in _trials(options, job, base, overrides)]
    return [
        RunSpec(seed=seed, overrides=overrides, tuned_on=job.source, **base)
        for seed in job.seeds or SEEDS
    ]


def run_cell(options: RunOptions) -> list[RunRecord]:
    """The records of one command line, without its tables."""
    runs, jobs = OneByOne(options.overwrite), make_jobs(options)
    check_jobs(options, jobs)
    return [record for job in jobs for record in _run_job(options, job, runs)]


def check_jobs(options: RunOptions, jobs: Sequence[Job]) -> None:
    """Refuse a model, feature set or setting of any job before the first run; grids point by point.

    Raises:
        AlignRecError: as the run would.
    """
    for job in jobs:
        if job.grid and job.trained:
            check_trials(of_choices(dict(job.grid)).size or 0, "--grid")
        if job.protocol == "full":
            for overrides in _points(job):
                spec = RunSpec(overrides=overrides, **base_of_model(options, job))
                check_run_spec(spec)
            continue
        for overrides in _points(job):
            spec = RunSpec(overrides=overrides, **{**_base_of_protocol(options, job), "model": ""})
            check_spec(replace(spec, model=job.model))


def _points(job: Job) -> Iterator[dict[str, Any]]:
    """The settings of a job, with those of each point if it has a grid."""
    overrides = nested(job.pairs)
    for point in of_choices(dict(job.grid)).points() if job.grid else [{}]:
        yield nested(point.items(), overrides)


def run_job_alone(options: RunOptions, job: Job) -> list[RunRecord]:
    """The records of one job, one run after the other."""
    return _run_job(options, job, OneByOne(options.overwrite))


def _run_job(options: RunOptions, job: Job, runs: Runs) -> list[RunRecord]:
    if job.protocol == "full":
        return _run_model(options, job, runs)
    return _run_protocol(options, job, runs)


def base_of_model(options: RunOptions, job: Job) -> dict[str, Any]:
    """What all runs of a job of protocol full share."""
    entry = resolve(job.model)
    return {
        **_base(options),
        "model": entry.name,
        "features": options.features if entry.needs_features else (),
        "protocol": "full",
    }


def _run_model(options: RunOptions, job: Job, runs: Runs) -> list[RunRecord]:
    """Protocol full: one model, every seed."""
    entry = resolve(job.model)
    if options.features and not entry.needs_features:
        print(f"note: {entry.name} does not use features", file=sys.stderr)
    base = base_of_model(options, job)
    chosen = _settings(options, job, base, runs)
    specs = [RunSpec(seed=seed, **chosen, **base) for seed in job.seeds or SEEDS]
    for spec in specs:
        runs.ask(spec)
    records = []
    for spec in specs:
        record = runs.record(spec)
        records.append(record)
        print(line(record))
    return records


def _run_protocol(options: RunOptions, job: Job, runs: Runs) -> list[RunRecord]:
    """Any other protocol."""
    base = _base_of_protocol(options, job)
    chosen = _settings(options, job, base, runs)
    spec = RunSpec(**chosen, **{**base, "model": ""})
    records = []
    for record in run_protocol(spec, job.models, job.seeds, options.overwrite):
        records.append(record)
        print(line(record))
    return records


def _base_of_protocol(options: RunOptions, job: Job) -> dict[str, Any]:
    """What all runs of a job of another protocol share."""
    stored = job.protocol in READ_LISTS
    return {
        **_base(options),
        "model": job.protocol if job.protocol in RANKERS else "",
        "features": options.features or (() if stored else _features_there(options)),
        "protocol": job.protocol,
    }


def _features_there(options: RunOptions) -> tuple[str, ...]:
    folder = find_dataset(options.dataset, options.data_path)
    return default_features(folder, otherwise=DEFAULT_FEATURES)


def _settings(options: RunOptions, job: Job, base: dict[str, Any], runs: Runs) -> dict[str, Any]:
    """Fields of the job's runs: its settings, and if a grid selects some, how it did."""
    overrides = nested(job.pairs)
    if job.grid:
        return _choose(options, job, base, overrides, runs)
    return {"overrides": overrides, "tuned_on": job.source}


def show_models(
    options: RunOptions, records: Sequence[RunRecord], may_continue: bool = True
) -> None:
    """The data set's table, and how runs that ended at --epochs go on if they may."""
    found = comparison(_runs_of(options), options.dataset, _say_skipped, _marks(options))
    print("\n" + as_text(found) + "\n")
    for path in write_tables(found, options.output / "tables", options.dataset):
        print(path)
    bounded = [record.model for record in records if record.selection.get("stopped") == "epochs"]
    if may_continue and bounded and options.epochs is not None and not options.grid:
        longer = without_option(given_arguments(), "--epochs")
        print(
            f"\nA first look: {', '.join(dict.fromkeys(bounded))} ended after "
            f"{counted(options.epochs, 'epoch')}, before early stopping.\n"
            "This command goes on from there to the end:\n\n"
            f"  {as_typed(longer)}"
        )


def _show_protocol(options: RunOptions, protocol: str) -> None:
    """The data set's tables of this protocol."""
    runs = [run for run in _runs_of(options) if run.record.protocol == protocol]
    pages = tables(runs, skipped=_say_skipped, marks=_marks(options))
    for stem, several in pages.items():
        print("\n" + as_text(several) + "\n")
        for path in write_tables(several, options.output / "tables", stem):
            print(path)


def _runs_of(options: RunOptions) -> list[Run]:
    """The usable records of the data set; the others are named, and no reason to fail."""
    return read_runs(options.output / "runs" / options.dataset, _say_skipped)


def _marks(options: RunOptions) -> AuditMarks:
    """Footnotes of data that was audited in this output folder."""
    return AuditMarks.read(options.output, _say_skipped)


def _say_skipped(path: Path, error: RecordError) -> None:
    print(skip_note(path, error), file=sys.stderr)


def line(record: RunRecord) -> str:
    """A record for the terminal."""
    shown = {
        name: record.metrics[name] for name in ("Recall@20", "NDCG@20") if name in record.metrics
    }
    values = ", ".join(f"{name} {value:.4f}" for name, value in (shown or record.metrics).items())
    names = [record.protocol, record.model] if record.protocol != "full" else [record.model]
    ranker = " ".join(dict.fromkeys(name for name in names if name != "none"))
    count = candidates_of(record)
    if any(int(name.partition("@")[2]) * FEW > count > 0 for name in shown):
        values += f" over {count} candidates"
    epochs = f"{counted(record.epochs, 'epoch')}, " if record.epochs else ""
    model = f"model {file_size(record.weights['bytes'])}, " if record.weights else ""
    return (
        f"{ranker} {record.dataset} {record.features} seed {record.seed}: "
        f"{values} ({epochs}{model}{record.seconds['total']:.0f} s)"
    )


def _base(options: RunOptions) -> dict[str, Any]:
    """What a RunSpec takes from the command line as it is."""
    return {
        "dataset": options.dataset,
        "setting": options.setting,
        "data_path": options.data_path,
        "features_path": options.features_path,
        "output": options.output,
        "save": options.save,
        "save_limit": options.save_limit,
        "epochs": options.epochs,
        "device": options.device,
        "progress": options.progress,
        "track": options.track,
    }


def _trials(
    options: RunOptions, job: Job, base: dict[str, Any], overrides: dict[str, Any]
) -> Iterator[tuple[dict[str, Any], RunSpec]]:
    """The points of a job's grid, each with its run of the first seed."""
    seed = (options.seeds or SEEDS)[0]
    for point in of_choices(dict(job.grid)).points():
        settings = nested(point.items(), overrides)
        yield point, RunSpec(seed=seed, overrides=settings, validation_only=True, **base)


def _choose(
    options: RunOptions, job: Job, base: dict[str, Any], overrides: dict[str, Any], runs: Runs
) -> dict[str, Any]:
    """The grid point with the best validation score; the test split is not looked at.

    The winner's state stays, so that its run only has to be ranked; the others' are deleted.
    """
    trained = job.trained
    seed = (options.seeds or SEEDS)[0]
    specs, trials = [], []
    for number, (values, spec) in enumerate(_trials(options, job, base, overrides)):
        record = runs.record(spec) if trained else rank_by_features(spec, options.overwrite)
        trials.append(Trial(number, values, outcome_of(record)))
        specs.append(spec)
        metric = record.selection["metric"]
        print(f"  {values}: validation {metric} {record.selection['best_score']:.4f}")
    best = best_of(trials)
    assert best is not None
    print(printable(f"  chosen: {', '.join(f'{k}={v}' for k, v in best.parameters.items())}", 1000))
    for trial, spec in zip(trials, specs, strict=True):
        if trained and trial is not best:
            delete_checkpoint(spec)
    grid = "; ".join(f"{key} in {list(values)}" for key, values in job.grid)
    tuned = f"tuned on validation, seed {seed}: {grid}"
    budget = budget_of(
        trials,
        best,
        study="grid",
        sampler="grid",
        space_sha256=of_choices(dict(job.grid)).sha256,
        chosen_on=f"{metric} on validation, seed {seed}",
        limit={"trials": float(len(trials))},
        patience=record.config.get("stopping_step"),
    )
    return {
        "overrides": nested(best.parameters.items(), overrides),
        "tuned_on": "; ".join(filter(None, [job.source, tuned])),
        "budget": budget if trained else None,
    }
