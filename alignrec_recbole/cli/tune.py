"""The verb `tune`: search hyper-parameters on validation, then test the choice once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import click
import cloup
from cloup.constraints import mutually_exclusive

from alignrec_recbole.cli import _names, _options
from alignrec_recbole.cli._types import COUNT, FILE, SEEDS, FiniteRange, Text, names
from alignrec_recbole.cli._verb import option, verb
from alignrec_recbole.cli.run import parse
from alignrec_recbole.engines import check_engine

SAMPLERS = ("tpe", "random", "grid", "cmaes")
PRUNERS = ("hyperband", "median", "none")
TRIALS = 30
HEARTBEAT = 10


@verb(
    examples=(
        "tune --model LightGCN,AlignRec --dataset sports --features minilm --trials 30",
        "tune --model MGCN --dataset sports --pruner median --storage postgresql+psycopg://…",
    ),
)
@cloup.option_group(
    "What to tune",
    option(
        "--model",
        required=True,
        type=Text("models", names, _names.model_names),
        metavar="M[,M…]",
        help="Models (`list models`); each gets the same budget.",
    ),
    _options.dataset(),
    _options.features("Feature sets, as for `run`."),
    option(
        "--space",
        type=FILE,
        metavar="FILE",
        help="YAML file of the search space.  [default: properties/search/MODEL.yaml]",
    ),
    _options.settings("Settings that are not searched. MODEL.KEY=VALUE sets one model's."),
    option(
        "--seeds",
        type=SEEDS,
        metavar="S[,S…]",
        help="Training seeds: trials have the first, the chosen settings run with all.  "
        "[default: 999]",
    ),
    option(
        "--epochs",
        type=int,
        metavar="N",
        help="Maximum number of epochs.  [default: the trainer's, 1000]",
    ),
    option(
        "--eval-convention",
        "setting",
        type=click.Choice(["mmrec", "recbole"]),
        help="Which items a test ranking excludes, as for `run`.  [default: the data set's]",
    ),
)
@cloup.option_group(
    "Budget of each model",
    option(
        "--trials",
        type=COUNT,
        metavar="N",
        help=f"Trials, pruned ones included.  [default: {TRIALS}]",
    ),
    option(
        "--budget",
        "seconds",
        type=FiniteRange(0, 1e9, min_open=True),
        metavar="SECONDS",
        help="Seconds of training and validation; no trial begins after them.",
    ),
    constraint=mutually_exclusive,
)
@cloup.option_group(
    "Search",
    option(
        "--sampler",
        type=click.Choice(SAMPLERS),
        default="tpe",
        help="How values are drawn.  [default: tpe]",
    ),
    option(
        "--pruner",
        type=click.Choice(PRUNERS),
        default="none",
        help="Whether trials end early that are worse than others at the same epoch.  "
        "[default: none]",
    ),
    option(
        "--sampler-seed",
        type=click.IntRange(0, 2**32 - 1),
        default=0,
        metavar="N",
        help="Seed of the sampler; with one worker it draws the same trials again.  [default: 0]",
    ),
    option(
        "--defaults-first",
        is_flag=True,
        default=False,
        help="The first trial has the model's own settings, so that none is chosen that is worse "
        "on validation.",
    ),
    option(
        "--study",
        metavar="NAME",
        help="Name in the storage; the model's is added.  [default: DATASET-FEATURES]",
    ),
    option(
        "--storage",
        metavar="URL",
        help="Database that workers share: sqlite:///FILE, postgresql://… or mysql://…  "
        "[default: OUTPUT/studies/STUDY.db]",
    ),
    option(
        "--heartbeat",
        type=click.IntRange(1, 3600),
        default=HEARTBEAT,
        metavar="SECONDS",
        help="Seconds between heartbeats of a worker; after six missed ones its trial is "
        f"repeated.  [default: {HEARTBEAT}]",
    ),
)
@cloup.option_group(
    "Files and execution",
    _options.data_path(),
    _options.features_path(),
    _options.rekey("Tune on"),
    _options.output("Folder of records, tables and models.  [default: results]"),
    _options.no_save(),
    option(
        "--jobs",
        type=COUNT,
        metavar="N",
        help="Workers that share the trials and the final runs.  [default: 1; at the address of a "
        "scheduler, as many as its workers have threads]",
    ),
    _options.engine(),
    _options.device(),
    _options.no_progress(),
)
@cloup.option_group("Download", _options.download(), _options.mirror())
def tune(**given: Any) -> int:
    """Search hyper-parameters on validation, then test the choice.

    The test split is ranked once per seed. --jobs workers, or the same command on several machines,
    share the trials; a command that was stopped goes on where it was.
    """
    own = ("space", "trials", "seconds", "sampler", "pruner", "sampler_seed", "study", "storage")
    search = {name: given.pop(name) for name in (*own, "defaults_first", "heartbeat")}
    if search["trials"] is None and search["seconds"] is None:
        search["trials"] = TRIALS
    usual = parse([f"--dataset={given['dataset']}"])  # the options of `run` that are not here
    check_engine(given["engine"], given["jobs"])
    options = replace(usual, **given).named()
    _names.check_names(options)
    from alignrec_recbole.cli import _provide

    _provide.provide(options)
    _names.check_data(options)
    from alignrec_recbole.cli import _tune

    return _tune.run(options, search)
