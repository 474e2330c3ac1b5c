"""Options that several verbs have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import cloup

from alignrec_recbole.cli import _names
from alignrec_recbole.cli._overrides import assignment
from alignrec_recbole.cli._types import COUNT, FOLDER, THREADS, Text, names, number_of_jobs
from alignrec_recbole.cli._verb import option
from alignrec_recbole.data.split_names import DEFAULT_SEED, DEFAULT_SPLIT, METHODS, NUMBERINGS
from alignrec_recbole.engines import DEFAULT, ENGINES


def dataset() -> Callable[[Any], Any]:
    """--dataset, of the verbs that read one."""
    return option(
        "--dataset",
        required=True,
        type=Text("name", str, _names.dataset_names),
        metavar="NAME",
        help="Data set (`list datasets`), or a folder of your own in --data-path.",
    )


def features(help_text: str) -> Callable[[Any], Any]:
    """--features."""
    return option(
        "--features",
        type=Text("names", names, _names.feature_names),
        default=(),
        metavar="F[,F…]",
        help=help_text,
    )


def settings(help_text: str) -> Callable[[Any], Any]:
    """--set."""
    return option(
        "--set",
        "overrides",
        type=Text("setting", assignment),
        multiple=True,
        spread=True,
        metavar="KEY=VALUE…",
        help=help_text,
    )


def output(help_text: str) -> Callable[[Any], Any]:
    """--output, by default results."""
    return option("--output", type=FOLDER, default=Path("results"), metavar="DIR", help=help_text)


def no_save(more: str = "") -> Callable[[Any], Any]:
    """--no-save."""
    return option(
        "--no-save",
        "save",
        flag_value=False,
        default=True,
        help=f"Keep no trained models{more}.",
    )


def data_path() -> Callable[[Any], Any]:
    """--data-path."""
    return option(
        "--data-path",
        type=FOLDER,
        metavar="DIR",
        help="Folder that contains the data sets' folders.  [default: $ALIGNREC_DATA, else ./data]",
    )


def split(default: str | None = DEFAULT_SPLIT) -> Callable[[Any], Any]:
    """--split, --numbering and --seed of the verbs that make data sets.

    Args:
        default: split; None: the source's own where it has one.
    """
    shown = "user-random:0.8,0.1,0.1"
    return cloup.option_group(
        "Numbers and split",
        option(
            "--split",
            default=default,
            metavar="NAME[:NUMBERS]",
            help=f"{', '.join(METHODS)}.  "
            f"[default: {shown if default else f'that of the source, else {shown}'}]",
        ),
        option(
            "--numbering",
            type=click.Choice(NUMBERINGS),
            default="random",
            help="Numbers of users and items; those by appearance leak the test set.  "
            "[default: random]",
        ),
        option(
            "--seed",
            type=click.IntRange(0, 2**63 - 1),
            default=DEFAULT_SEED,
            metavar="N",
            help=f"Seed of the random numbers and of the split.  [default: {DEFAULT_SEED}]",
        ),
    )


def rekey(what: str) -> Callable[[Any], Any]:
    """--rekey; `what` begins its help and is followed by the data set."""
    return option(
        "--rekey",
        type=click.IntRange(0, 2**63 - 1),
        metavar="SEED",
        help=f"{what} the data set under random numbers of users and items, with its split, items "
        "and features, as NAME-rekeyed-SEED.",
    )


def features_path() -> Callable[[Any], Any]:
    """--features-path."""
    return option(
        "--features-path",
        type=FOLDER,
        metavar="DIR",
        help="Folder searched for feature files before the data set's own.",
    )


def weights() -> Callable[[Any], Any]:
    """--weights, of BEiT-3."""
    return option(
        "--weights",
        metavar="FILE|NAME",
        help="A file, or base, large, base-itc, large-itc, base-indomain or large-indomain to "
        "download them.",
    )


def tokenizer() -> Callable[[Any], Any]:
    """--tokenizer, of BEiT-3."""
    return option(
        "--tokenizer",
        metavar="FILE",
        help="SentencePiece model.  [default: the one beside the weights]",
    )


def max_tokens() -> Callable[[Any], Any]:
    """--max-tokens, of BEiT-3."""
    return option(
        "--max-tokens",
        type=COUNT,
        metavar="N",
        help="Tokens per text, special ones included.  [default: 128]",
    )


def device() -> Callable[[Any], Any]:
    """--device."""
    return option(
        "--device",
        default="auto",
        metavar="NAME",
        help="auto, cpu, cuda or cuda:N.  [default: auto]",
    )


def threads() -> Callable[[Any], Any]:
    """--threads."""
    return option("--threads", type=THREADS, metavar="N", help="CPU threads.  [default: all cores]")


def jobs(help_text: str) -> Callable[[Any], Any]:
    """--jobs."""
    return option(
        "--jobs",
        type=Text("jobs", number_of_jobs),
        metavar="N|auto",
        help=f"{help_text} auto follows the data's size and the free cores and memory.  "
        "[default: auto]",
    )


def engine() -> Callable[[Any], Any]:
    """--engine."""
    return option(
        "--engine",
        type=Text("engine", str, lambda: ENGINES),
        default=DEFAULT,
        metavar="NAME[:ADDRESS]",
        help="Where the runs are made: local; dask (starts a scheduler here) or dask:ADDRESS "
        "(uses a running one); or slurm.  [default: local]",
    )


def download() -> Callable[[Any], Any]:
    """--download, of the verbs that make runs."""
    return option(
        "--download",
        is_flag=True,
        help="Fetch, verify and convert what the runs need and the data folder does not have.",
    )


def mirror() -> Callable[[Any], Any]:
    """--mirror."""
    return option(
        "--mirror",
        metavar="URL",
        help="Folder on a server that has the files by their names.  "
        "[default: $ALIGNREC_MIRROR, else the published addresses]",
    )


def no_progress() -> Callable[[Any], Any]:
    """--no-progress."""
    return option(
        "--no-progress",
        "progress",
        flag_value=False,
        default=True,
        aliases=["--quiet"],
        help="Show no progress bars.",
    )
