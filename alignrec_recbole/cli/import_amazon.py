"""The verb `import-amazon`: the public Amazon files of 2014 and 2018 as a data set."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import cloup

from alignrec_recbole.cli import _options
from alignrec_recbole.cli._option_values import ImportOptions
from alignrec_recbole.cli._types import COUNT, FOLDER
from alignrec_recbole.cli._verb import option, verb


def import_options(hidden: bool = False) -> Callable[[Any], Any]:
    """Which images are downloaded; with `hidden`, in the spelling of `prepare`."""
    options = [
        option("--no-images", is_flag=True, hidden=hidden, help="Do not download the images."),
        option(
            "--image-hosts",
            hidden=hidden,
            metavar="HOST[,HOST…]",
            help="Hosts that may be asked for images.  [default: Amazon's]",
        ),
        option(
            "--connections",
            type=COUNT,
            default=8,
            hidden=hidden,
            metavar="N",
            help="Downloads at the same time.  [default: 8]",
        ),
    ]
    if hidden:
        options.append(option("--raw", type=FOLDER, hidden=True))
        title = "Raw files"
    else:
        title = "Images"
    return cloup.option_group(title, *options, hidden=hidden)


@verb(
    name="import-amazon",
    examples=(
        "import-amazon raw/baby --dataset baby",
        "import-amazon raw/baby --dataset baby --data-path data --no-images",
    ),
)
@cloup.argument(
    "raw",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Folder of meta_*.json.gz, ratings_*.csv or reviews_*.json.gz and, if there is one, "
    "image_features_*.b.",
)
@cloup.option_group(
    "Data set",
    option("--dataset", required=True, metavar="NAME", help="Name of the data set to write."),
    _options.data_path(),
)
@_options.split()
@import_options()
@cloup.option_group("Execution", _options.no_progress())
def import_amazon(**given: Any) -> int:
    """Convert the public Amazon files of 2014 or 2018.

    Writes items.tsv, NAME.inter with its split, NAME.split.json, features and images. An existing
    NAME.inter is kept if its ids match; otherwise nothing is written.
    """
    from alignrec_recbole.cli import _import_amazon

    _import_amazon.run(ImportOptions(**given))
    return 0
