"""The verb `run`: train models or compute protocols on a data set, then write its tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click
import cloup
from cloup.constraints import mutually_exclusive

from alignrec_recbole.cli import _names, _options
from alignrec_recbole.cli._option_values import RunOptions
from alignrec_recbole.cli._overrides import choices
from alignrec_recbole.cli._types import SEEDS, Text, names
from alignrec_recbole.cli._verb import option, verb
from alignrec_recbole.protocols import PROTOCOLS
from alignrec_recbole.runtime import processes
from alignrec_recbole.runtime.sizes import SAVE_LIMIT, bytes_of
from alignrec_recbole.tracking import TRACKERS


@verb(
    examples=(
        "--model AlignRec,LightGCN,BPR --dataset sports --download",
        "--protocol zero-shot,diagnostics --dataset ml-100k --features lsa",
    ),
)
@cloup.option_group(
    "What to run",
    option(
        "--model",
        type=Text("models", names, _names.model_names),
        default=(),
        metavar="M[,M…]",
        help="Models (`list models`). Not needed by protocols that train nothing.",
    ),
    _options.dataset(),
    _options.rekey("Use, and write where it is not there,"),
    _options.features(
        "Feature sets: names of .npy files without the ending, encoders (`list encoders`), or "
        "controls such as random and shuffled:NAME. Several names are several modalities; mmrec "
        "and mmssl mean all downloaded features of that source.  [default, for models that need "
        "features: mmrec or mmssl where they are there, else lsa]"
    ),
    option(
        "--protocol",
        type=Text("names", names, lambda: PROTOCOLS),
        default=("full",),
        metavar="P[,P…]",
        help="Evaluation protocols (`list protocols`).  [default: full]",
    ),
    option(
        "--seeds",
        type=SEEDS,
        metavar="S[,S…]",
        help="Training seeds.  [default: 999; with mask-modality 999,1000,1001; with knock-out "
        "999 … 1003]",
    ),
    option(
        "--epochs",
        type=int,
        metavar="N",
        help="Maximum number of epochs, for a first look. The same command with a larger number, "
        "or without --epochs, continues.  [default: the trainer's, 1000]",
    ),
    option(
        "--eval-convention",
        "setting",
        type=click.Choice(["mmrec", "recbole"]),
        aliases=["--setting"],
        help="Which items a test ranking excludes: training items (mmrec), or validation items "
        "too (recbole).  [default: the data set's]",
    ),
)
@cloup.option_group(
    "Hyper-parameters and other settings",
    option(
        "--config",
        type=click.Choice(["published"]),
        help="Settings that the model's authors published for the data set (`list published`) in "
        "place of the defaults; --set overrides them.  [default: the model's defaults]",
    ),
    _options.settings(
        "Settings of the model, the trainer, the protocol or RecBole. MODEL.KEY=VALUE sets "
        "one model's."
    ),
    option(
        "--grid",
        type=Text("choices", choices),
        multiple=True,
        spread=True,
        metavar="KEY=V1,V2…",
        help="Select values on the validation split with the first seed, then run every seed with "
        "them.",
    ),
)
@cloup.option_group(
    "Files",
    _options.data_path(),
    _options.features_path(),
    _options.output("Folder of records, tables and models.  [default: results]"),
    _options.no_save("; `recommend` and `export` need them"),
    option(
        "--save-limit",
        type=Text("size", bytes_of),
        default=SAVE_LIMIT,
        metavar="SIZE",
        help="Largest table of similarities or scores that is stored, such as 2GB; vectors always "
        "are.  [default: 512MiB]",
    ),
)
@cloup.option_group(
    "Download",
    _options.download(),
    _options.mirror(),
)
@cloup.option_group(
    "Existing runs",
    option(
        "--resume",
        is_flag=True,
        help="Keep finished runs, continue interrupted ones (the default).",
    ),
    option("--overwrite", is_flag=True, help="Run again what is finished."),
    constraint=mutually_exclusive,
)
@cloup.option_group(
    "Execution",
    _options.jobs("Number of runs at a time: N or auto."),
    _options.engine(),
    option(
        "--nproc",
        type=click.IntRange(1, 1024),
        default=1,
        metavar="N",
        help="Processes, or GPUs, that make each run together, each with a part of the columns of "
        "the users' and items' tables.  [default: 1]",
    ),
    option(
        "--track",
        type=Text("names", names, lambda: TRACKERS),
        default=(),
        metavar="T[,T…]",
        help="Trackers of each run: tensorboard, wandb or mlflow; energy by rapl or codecarbon. "
        "They write to OUTPUT/tracking.",
    ),
    _options.device(),
    _options.no_progress(),
)
def run(**given: Any) -> int:
    """Train, evaluate and compare models (the default verb).

    Finished runs are read, not repeated; interrupted ones continue from their last epoch, and runs
    with more --epochs than finished ones from where those ended.
    """
    options = RunOptions(**given).named()
    _names.check_names(options)
    from alignrec_recbole.cli import _provide

    if processes.count() > 1:
        from alignrec_recbole.cli import _together

        return _together.run(options)
    _provide.provide(options)
    _names.check_data(options)
    if options.nproc > 1:
        from alignrec_recbole.cli import _together

        return _together.start(options)
    from alignrec_recbole.cli import _run

    return _run.run(options)


def parse(arguments: Sequence[str]) -> RunOptions:
    """The options of a command line.

    Raises:
        click.UsageError: it cannot be parsed.
    """
    with run.make_context("run", list(arguments)) as context:
        return RunOptions(**context.params).named()
