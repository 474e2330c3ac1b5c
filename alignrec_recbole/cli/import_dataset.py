"""The verb `import`: a newer published data set, or any table, as a data set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import cloup

from alignrec_recbole.cli import _options
from alignrec_recbole.cli._option_values import ImportDatasetOptions
from alignrec_recbole.cli._types import CORES, FILE
from alignrec_recbole.cli._verb import option, verb
from alignrec_recbole.cli.import_amazon import import_options
from alignrec_recbole.data.format_names import FORMAT_NAMES


@verb(
    name="import",
    examples=(
        "import raw/beauty --format amazon2023 --dataset beauty",
        "import log.csv.gz --columns user=uid,item=sku,time=ts --dataset shop --items items.csv",
    ),
)
@cloup.argument(
    "path",
    metavar="PATH",
    type=click.Path(path_type=Path),
    help="Folder of the files as they are published; for `table` a CSV, TSV or Parquet file.",
)
@cloup.option_group(
    "Data set",
    option("--dataset", required=True, metavar="NAME", help="Name of the data set to write."),
    _options.data_path(),
)
@cloup.option_group(
    "Source",
    option(
        "--format",
        type=click.Choice(FORMAT_NAMES),
        help="Format of the files.  [default: table, with --columns]",
    ),
    option(
        "--columns",
        metavar="user=NAME,item=NAME,…",
        help="Columns of a table: user, item and, where there are any, time, rating and split; "
        "#1, #2, … of a file without a header.",
    ),
    option(
        "--items",
        type=FILE,
        metavar="FILE",
        help="Item texts of a table: an id column, text columns, image or image_url.",
    ),
    option(
        "--core",
        type=CORES,
        metavar="K|U,I",
        help="Interactions that each user and item has at least.  [default: 5 for amazon2023 "
        "reviews and hm, else 1]",
    ),
)
@cloup.option_group(
    "Damaged files",
    option(
        "--on-bad-line",
        type=click.Choice(["error", "skip"]),
        default="error",
        help="Lines of interactions that cannot be used: end with the first, or skip and count "
        "them.  [default: error]",
    ),
)
@_options.split(None)
@import_options()
@cloup.option_group("Execution", _options.no_progress())
def import_dataset(**given: Any) -> int:
    """Convert a newer published data set, or any table.

    Writes NAME.inter with its split, NAME.split.json, id mappings, items.tsv, images and features.
    Nothing is written where NAME.inter exists with other content.
    """
    from alignrec_recbole.cli import _import_dataset

    _import_dataset.run(ImportDatasetOptions(**given))
    return 0
