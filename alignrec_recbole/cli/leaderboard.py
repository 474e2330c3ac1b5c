"""The verb `leaderboard`: check a folder of records that others add to."""

from __future__ import annotations

from typing import Any

import click
import cloup

from alignrec_recbole.cli import _options
from alignrec_recbole.cli._types import FILE, FOLDER, SHARE
from alignrec_recbole.cli._verb import option, verb

RERUN_SECONDS = 600
TOLERANCE = 0.05


@verb(
    examples=(
        "leaderboard check results/leaderboard",
        "leaderboard check results/leaderboard --rerun 2 --json board.json",
    ),
)
@cloup.argument("action", type=click.Choice(["check"]), help="What to do with the folder.")
@cloup.argument("folder", type=FOLDER, help="Folder whose runs/ holds the records.")
@cloup.option_group(
    "Runs made again",
    option(
        "--rerun",
        type=click.IntRange(0, 100),
        default=0,
        metavar="N",
        help="Train N of the sound records again and compare their test metrics.  [default: 0]",
    ),
    option(
        "--sample-seed",
        type=click.IntRange(0, 2**32 - 1),
        default=0,
        metavar="S",
        help="Seed of the draw of these records.  [default: 0]",
    ),
    option(
        "--among",
        type=FILE,
        metavar="FILE",
        help="Choose among the records that this text file lists, a path under the folder per "
        "line.  [default: all]",
    ),
    option(
        "--tolerance",
        type=SHARE,
        default=TOLERANCE,
        metavar="X",
        help="Largest difference of a metric, relative to the larger value, that agrees.  "
        f"[default: {TOLERANCE:g}]",
    ),
    option(
        "--rerun-seconds",
        type=click.IntRange(1, 86400),
        default=RERUN_SECONDS,
        metavar="SECONDS",
        help="Longest time of a run; records that took more than half of it are not chosen.  "
        f"[default: {RERUN_SECONDS}]",
    ),
    _options.data_path(),
    _options.features_path(),
    _options.device(),
)
@cloup.option_group(
    "Files",
    option(
        "--json",
        "json_file",
        type=FILE,
        metavar="FILE",
        help="Write what was found to this file.",
    ),
)
def leaderboard(action: str, **given: Any) -> int:
    """Check the records of a folder that others add to.

    `leaderboard check DIR`: schema, hashes, names, figures, duplicates and budgets of every record;
    with --rerun a sample is trained again. Nothing of a record is executed. The exit status is 1 if
    anything is wrong.
    """
    from alignrec_recbole.cli import _leaderboard

    return _leaderboard.run(**given)
