"""The verb `pretrain`: continue BEiT-3 on a data set's own items by masked prediction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

import click
import cloup

from alignrec_recbole.cli import _options
from alignrec_recbole.cli._option_values import PretrainOptions
from alignrec_recbole.cli._pretraining_options import setting_option
from alignrec_recbole.cli._types import COUNT, FILE, FOLDER, WORKERS
from alignrec_recbole.cli._verb import option, verb
from alignrec_recbole.encoders.beit3.pretrain_settings import PretrainSettings


def setting_options(function: Any) -> Any:
    """One option per field of PretrainSettings."""
    options = [_setting_option(name) for name in PretrainSettings.model_fields]
    return cloup.option_group("Training", *options)(function)


def _setting_option(name: str) -> Callable[[Any], Any]:
    field = PretrainSettings.model_fields[name]
    spelling = f"--{name.replace('_', '-')}"
    shown = setting_option(name)
    keywords: dict[str, Any] = {"aliases": [spelling]} if shown != spelling else {}
    text = str(field.description)
    text = f"{text[0].upper()}{text[1:]}."
    if field.annotation is bool:
        return option(shown, name, is_flag=True, default=None, help=text, **keywords)
    several = isinstance(field.default, tuple)
    default = " ".join(map(str, field.default)) if several else field.default
    if default is not None:
        text += f"  [default: {default}]"
    return option(
        shown,
        name,
        help=text,
        nargs=2 if several else 1,
        metavar=_metavar(field.annotation, several),
        **keywords,
    )


def _metavar(annotation: Any, several: bool) -> str:
    if several:
        return "X X"
    choices = get_args(annotation)
    if choices and all(isinstance(choice, str) for choice in choices):
        return "|".join(choices)
    return {int: "N", str: "NAME"}.get(annotation, "X")


@verb(
    examples=(
        "pretrain --dataset shop --output runs/shop --weights base --device cuda",
        "pretrain --dataset shop --output runs/toy --random-init --epochs 2",
    ),
)
@cloup.option_group(
    "Items",
    option("--dataset", required=True, metavar="NAME", help="Data set."),
    _options.data_path(),
    option("--items", type=FILE, metavar="FILE", help="Item table.  [default: the data set's]"),
    option(
        "--images",
        type=FOLDER,
        metavar="DIR",
        help="Its images.  [default: images/ beside the table]",
    ),
)
@cloup.option_group(
    "Initial weights",
    option("--encoder", type=click.Choice(["beit3"]), default="beit3", hidden=True),
    _options.weights(),
    option("--random-init", is_flag=True, help="Start from random weights."),
    option("--keep-mim-head", is_flag=True, help="Keep the image head of the weights, if it fits."),
    option(
        "--size",
        metavar="NAME",
        help="Size of random weights: toy, base or large.  [default: toy]",
    ),
    option(
        "--image-size",
        type=COUNT,
        metavar="PIXELS",
        help="Image size.  [default: that of the weights, 112 for toy]",
    ),
    _options.tokenizer(),
    option(
        "--vocab-size",
        type=click.IntRange(1, 1 << 20),
        aliases=["--pieces"],
        metavar="N",
        help="Vocabulary of the tokenizer that is trained with --random-init.  [default: 4000]",
    ),
    _options.max_tokens(),
)
@setting_options
@cloup.option_group(
    "Execution",
    option(
        "--output",
        type=FOLDER,
        required=True,
        metavar="DIR",
        help="Folder of weights, training state and curves.",
    ),
    option(
        "--max-steps",
        type=COUNT,
        aliases=["--stop-after"],
        metavar="N",
        help="Stop after N steps; the same command continues.",
    ),
    option(
        "--workers",
        type=WORKERS,
        default=0,
        metavar="N",
        help="Processes that decode images.  [default: 0]",
    ),
    _options.threads(),
    _options.device(),
    _options.no_progress(),
)
def pretrain(**given: Any) -> int:
    """Continue BEiT-3 on a data set's items by masked prediction.

    On several GPUs: torchrun --nproc-per-node N run_benchmark.py pretrain …
    """
    settings = {name: given.pop(name) for name in PretrainSettings.model_fields}
    settings = {name: value for name, value in settings.items() if value is not None}
    options = PretrainOptions(settings=settings, **given)
    from alignrec_recbole.cli import _pretrain

    return _pretrain.main(options)
