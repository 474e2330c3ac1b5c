"""The verb `prepare`: encode a data set's items into a feature file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import click
import cloup
from click.core import ParameterSource
from cloup.constraints import mutually_exclusive

from alignrec_recbole.cli import _options
from alignrec_recbole.cli._option_values import ImportOptions, PrepareOptions
from alignrec_recbole.cli._types import COUNT, FILE, FOLDER, MASK_SEED, SHARD, SHARE, WORKERS
from alignrec_recbole.cli._verb import option, verb
from alignrec_recbole.cli.import_amazon import import_options
from alignrec_recbole.errors import SettingError


def item_options(function: Any) -> Any:
    """Options of `prepare` and `merge-shards`: the fields of ItemOptions."""
    groups = [
        cloup.option_group(
            "Items",
            option("--dataset", required=True, metavar="NAME", help="Data set."),
            _options.data_path(),
            option(
                "--items",
                type=FILE,
                metavar="FILE",
                help="Item table.  [default: the data set's]",
            ),
            option(
                "--images",
                type=FOLDER,
                metavar="DIR",
                help="Its images.  [default: images/ beside the table]",
            ),
        ),
        cloup.option_group(
            "Features",
            option("--encoder", metavar="NAME", help="Encoder (`list encoders`)."),
            option("--name", metavar="TEXT", help="Feature set.  [default: the encoder's name]"),
            option(
                "--output",
                type=FOLDER,
                metavar="DIR",
                help="Folder of the file.  [default: features/ in the data set's folder]",
            ),
            option("--overwrite", is_flag=True, help="Replace other features of that name."),
        ),
        cloup.option_group(
            "Export",
            option(
                "--export-mmrec",
                type=FOLDER,
                aliases=["--mmrec"],
                metavar="DIR",
                help="Also write the features as MMRec reads them.",
            ),
            option(
                "--mapping",
                type=FILE,
                metavar="FILE",
                help="i_id_mapping.csv, where item ids are not numbers.",
            ),
        ),
    ]
    for group in reversed(groups):
        function = group(function)
    return function


def hidden_import_options() -> Callable[[Any], Any]:
    """Options of `import-amazon` that `prepare` also accepts, after `--raw DIR`."""
    return import_options(hidden=True)


@verb(
    examples=(
        "prepare --dataset shop --encoder beit3 --weights base --device cuda",
        "prepare --dataset shop --rekey 1",
    ),
)
@item_options
@cloup.option_group("Re-keying", _options.rekey("Encode nothing: write"))
@cloup.option_group(
    "Execution",
    option(
        "--batch-size",
        type=COUNT,
        default=32,
        metavar="N",
        help="Items per batch.  [default: 32]",
    ),
    option(
        "--dtype",
        type=click.Choice(["float32", "float16"]),
        default="float32",
        help="Number format of the file.  [default: float32]",
    ),
    option(
        "--workers",
        type=WORKERS,
        metavar="N",
        help="Processes that decode images.  [default: cores − 1]",
    ),
    _options.threads(),
    _options.device(),
    _options.no_progress(),
)
@cloup.option_group(
    "Several machines",
    option(
        "--shard",
        type=SHARD,
        metavar="I/N",
        help="Encode one of N parts; `merge-shards` joins them.",
    ),
    option("--merge", is_flag=True, hidden=True),
    constraint=mutually_exclusive.hidden(),
)
@cloup.option_group(
    "Models",
    option(
        "--prompt",
        metavar="NAME|TEXT",
        help="st:MODEL: a prompt of the model, or a text before each item's; --caption: the "
        "request.  [default: the model's own for documents]",
    ),
    option(
        "--truncate-dim",
        type=COUNT,
        metavar="N",
        help="st:MODEL: the first N columns alone.  [default: all]",
    ),
    option(
        "--pooling",
        type=click.Choice(["cls", "text-cls", "mean", "concat", "pooled"]),
        help="How token vectors become one.  [default: beit3: cls; vision:MODEL: pooled, where "
        "the model has trained that, else cls or mean]",
    ),
    option(
        "--precision",
        type=click.Choice(["auto", "float32", "bfloat16"]),
        help="Number format of the computation.  [default: auto]",
    ),
)
@cloup.option_group(
    "Captions",
    option(
        "--caption",
        metavar="MODEL",
        help="Describe the images by a generative model first; the captions are the texts that "
        "--encoder then encodes.",
    ),
    option(
        "--max-new-tokens",
        type=COUNT,
        metavar="N",
        help="Longest caption.  [default: 64]",
    ),
)
@cloup.option_group(
    "BEiT-3",
    _options.weights(),
    option("--random-init", is_flag=True, help="Untrained weights, for tests; tables say so."),
    option(
        "--size",
        metavar="NAME",
        help="Size of random weights: base, large or toy.  [default: base]",
    ),
    option(
        "--image-size",
        type=COUNT,
        metavar="PIXELS",
        help="Image size, such as 384.  [default: that of the weights]",
    ),
    _options.tokenizer(),
    _options.max_tokens(),
)
@cloup.option_group(
    "Masked variants",
    option("--mask", type=click.Choice(["image", "text"]), help="Mask this modality."),
    option(
        "--mask-ratio",
        type=SHARE,
        metavar="SHARE",
        help="Share of the items that are masked.  [default: 1]",
    ),
    option(
        "--mask-seed",
        type=MASK_SEED,
        metavar="N",
        help="Seed that chooses the masked items.  [default: 0]",
    ),
)
@hidden_import_options()
def prepare(**given: Any) -> int:
    """Encode a data set's items into a feature file.

    Writes NAME.npy and its manifest NAME.json. An interrupted run continues where it stopped.
    """
    imported = {key: given.pop(key) for key in ("raw", "no_images", "image_hosts", "connections")}
    given["shard"] = given["shard"] or (1, 1)  # no default above: it would count as given
    options = PrepareOptions(**given)
    if options.rekey is not None:
        _check_alone_with_rekey([*given, *imported])
        from alignrec_recbole.cli import _rekey

        return _rekey.run(options.dataset, options.data_path, options.rekey)
    if imported["raw"] is not None:
        from alignrec_recbole.cli import _import_amazon

        place = (options.dataset, options.data_path, options.progress)
        _import_amazon.run(ImportOptions(*place, **imported))
        if options.encoder is None:
            return 0
    from alignrec_recbole.cli import _prepare

    return _prepare.run(options)


def _check_alone_with_rekey(names: Sequence[str]) -> None:
    """Refuse options that say how to encode.

    Raises:
        SettingError: for the first one.
    """
    context = click.get_current_context()
    by_default = (ParameterSource.DEFAULT, ParameterSource.DEFAULT_MAP)
    for name in names:
        if name in ("dataset", "data_path", "progress", "rekey"):
            continue
        if context.get_parameter_source(name) not in (None, *by_default):
            raise SettingError(
                f"--rekey cannot be combined with --{name.replace('_', '-')}.",
                found="an option that says how to encode; re-keying encodes nothing",
                expected="--rekey with --dataset and --data-path alone",
                hint="encode first: the features are re-keyed with the items",
            )
