"""The verb `audit`: what a data set, its features and a model know of the test split."""

from __future__ import annotations

from typing import Any

import click
import cloup

from alignrec_recbole.cli import _names, _options
from alignrec_recbole.cli._types import FILE, Text
from alignrec_recbole.cli._verb import option, verb

CONTROLS = 10


@verb(
    examples=(
        "audit --dataset baby --data-path data --json baby-audit.json",
        "audit --dataset ml-100k --features lsa --model LightGCN",
    ),
)
@cloup.option_group(
    "What to audit",
    _options.dataset(),
    _options.features("Feature sets that are audited with it.  [default: none]"),
    option(
        "--model",
        type=Text("model", str, _names.model_names),
        metavar="M",
        help="Model that is audited with it (`list models`).  [default: none]",
    ),
    _options.settings("Settings of the data set and its split."),
    option(
        "--controls",
        type=click.IntRange(3, 1000),
        default=CONTROLS,
        metavar="N",
        help=f"Random numberings that each figure is compared with.  [default: {CONTROLS}]",
    ),
    option(
        "--fail-on",
        type=click.Choice(["suspicious", "leak"]),
        help="End with status 1 if a verdict is this or worse.  [default: end with 0]",
    ),
)
@cloup.option_group(
    "Files",
    _options.data_path(),
    _options.features_path(),
    _options.output("Folder of reports: DIR/audit/NAME-….json and .md.  [default: results]"),
    option(
        "--json",
        "json_file",
        type=FILE,
        metavar="FILE",
        help="Write the report to this file, too.",
    ),
)
@cloup.option_group("Execution", _options.device(), _options.no_progress())
def audit(**given: Any) -> int:
    """Look for leaks of the test split in data, features, models.

    Of the data: the numbers of users and items, the order of rows, and the split itself.
    """
    from alignrec_recbole.cli import _audit

    return _audit.run(**given)
