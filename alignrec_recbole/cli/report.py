"""The verb `report`: tables, plots and a site from stored records; nothing is run."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Literal

import click
import cloup

from alignrec_recbole.cli import _options
from alignrec_recbole.cli._types import Text, names
from alignrec_recbole.cli._verb import option, verb
from alignrec_recbole.errors import RecordError, printable

Side = Literal["two-sided", "right-sided"]
ALTERNATIVES: dict[str, Side] = {
    "two-sided": "two-sided",
    "greater": "right-sided",
}  # the second: as stored
OLDER = {"right-sided": "greater"}


def alternative(text: str) -> str:
    """Parse --alternative; right-sided is an older word for greater."""
    name = OLDER.get(text, text)
    if name not in ALTERNATIVES:
        raise ValueError(f"{text!r} is not one of {', '.join(ALTERNATIVES)}")
    return name


def figure_kinds() -> tuple[str, ...]:
    """What --figures takes, without the names of data sets."""
    from alignrec_recbole.reports.captions import KINDS

    return KINDS


@verb(
    examples=(
        "report --target AlignRec --test wilcoxon --alternative greater",
        "report --figures cost,training --figure-width column",
    ),
)
@cloup.option_group(
    "Files",
    _options.output("Folder whose runs/ holds the records.  [default: results]"),
)
@cloup.option_group(
    "Significance tests",
    option(
        "--target",
        metavar="NAME",
        help="Model or feature set that is compared with the others.  [default: AlignRec, else the "
        "row with the best validation score]",
    ),
    option(
        "--alternative",
        type=Text("alternative", alternative, lambda: ALTERNATIVES),
        default="two-sided",
        aliases=["--side"],
        metavar="|".join(ALTERNATIVES),
        help="Alternative hypothesis.  [default: two-sided]",
    ),
    option(
        "--test",
        type=click.Choice(["t", "wilcoxon"]),
        default="t",
        help="Paired test.  [default: t]",
    ),
)
@cloup.option_group(
    "Tables",
    option(
        "--columns",
        type=Text("names", names),
        default=(),
        metavar="NAME[,NAME…]",
        help="Columns of the first LaTeX table, such as Recall@20,NDCG@20; the others follow in "
        "further ones.  [default: the metrics]",
    ),
)
@cloup.option_group(
    "Figures",
    option(
        "--figures",
        type=Text("names", names, figure_kinds),
        default=(),
        metavar="NAME[,NAME…]",
        help="Draw these figures alone: a kind (training, cost, sensitivity, protocols, long-tail, "
        "robustness, beyond-accuracy, knock-out, audit, budget) or a file's name such as "
        "baby-cost.  [default: all figures, with tables and site]",
    ),
    option(
        "--figure-width",
        type=click.Choice(["column", "page"]),
        default="page",
        help="Width of figures: a column (3.3 in) or the page (7 in).  [default: page]",
    ),
)
def report(output: Path, target: str | None, **given: Any) -> int:
    """Write tables, plots and a site from stored records.

    The exit status is 1 if a record was skipped because it cannot be used.
    """
    from alignrec_recbole.reports.build import build
    from alignrec_recbole.runs.record import skip_note

    notes: list[str] = []

    def skipped(path: Path, error: RecordError) -> None:
        notes.append(skip_note(path, error))
        print(notes[-1], file=sys.stderr)

    side = ALTERNATIVES[given["alternative"]]
    shape = (given["figure_width"], given["figures"], given["columns"])
    for path in build(output, target, side, given["test"], skipped, *shape):
        print(printable(str(path)))
    return 1 if notes else 0
