"""A leaderboard as a data frame, plain or styled."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pandas as pd

from alignrec_recbole.api.results import load_runs
from alignrec_recbole.errors import SettingError, UnknownNameError
from alignrec_recbole.io.suggest import suggest
from alignrec_recbole.reports.comparisons import comparisons
from alignrec_recbole.reports.contents import check_target
from alignrec_recbole.reports.grouping import comparable_groups
from alignrec_recbole.reports.leaderboards import leaderboard
from alignrec_recbole.reports.notes import table_title
from alignrec_recbole.reports.significance import UserMeans
from alignrec_recbole.reports.table import MISSING, PLACES, Table

if TYPE_CHECKING:
    from pandas.io.formats.style import Styler

LOOK = {1: "font-weight: bold", 2: "text-decoration: underline"}


def load_leaderboard(
    folder: str | os.PathLike[str],
    dataset: str,
    *,
    protocol: str = "full",
    convention: str | None = None,
    target: str | None = None,
    styled: bool = False,
) -> pd.DataFrame | Styler:
    """The table that `report` makes of a data set and protocol, one row per model and features.

    Args:
        folder: the output folder of `run` or of the command line; its `runs/` is read.
        protocol: one that ranks items: full, zero-shot, item-cf or cold-start.
        convention: mmrec or recbole, if there are records of both.
        target: the row that is tested against the others; as for `report`.
        styled: with the best of a column bold and the second underlined, four places, for
            notebooks and `to_latex`.

    Returns:
        Means over seeds under the names of the metrics and their standard deviations as
        `Recall@20 sd`, unrounded; cells without a value are missing.

    Raises:
        UnknownNameError: no record is of the data set and protocol, or of the target.
        SettingError: there are records of several conventions or data and none is chosen.
    """
    runs = load_runs(folder)
    check_target(runs, target)
    groups = comparable_groups(runs)
    known = sorted({key.dataset for key in groups if key.protocol == protocol})
    if dataset not in known:
        raise UnknownNameError(
            f"No record of protocol {protocol!r} is of data set {dataset!r}."
            f"{suggest(dataset, known)}",
            found=dataset,
            expected=f"one of {', '.join(known)}" if known else "records of the protocol",
        )
    keys = [
        key
        for key in groups
        if (key.dataset, key.protocol) == (dataset, protocol) and convention in (None, key.setting)
    ]
    if len(keys) != 1:
        raise SettingError(
            f"{len(keys)} tables are of data set {dataset!r} and protocol {protocol!r}.",
            found=", ".join(map(table_title, keys)) or f"convention={convention!r}",
            expected="records of one convention and one version of the data",
            hint="pass convention, or a folder with the records of one version",
        )
    (key,) = keys
    members = groups[key]
    tests = comparisons(members, target, user_means=UserMeans())
    made = leaderboard(key, members, tests, target)
    frame = _frame(made)
    return _styled(made, frame) if styled else frame


def _frame(made: Table) -> pd.DataFrame:
    """Numbers as numbers, words as words, nothing as missing."""
    columns: dict[str, list[object]] = {}
    for place, name in enumerate(made.header):
        cells = [row[place] for row in made.rows]
        columns[name] = [
            cell.value if cell.value is not None else None if cell.text == MISSING else cell.text
            for cell in cells
        ]
        if any(cell.spread is not None for cell in cells):
            columns[f"{name} sd"] = [cell.spread for cell in cells]
    return pd.DataFrame(columns)


def _styled(made: Table, frame: pd.DataFrame) -> Styler:
    looks = pd.DataFrame("", index=frame.index, columns=frame.columns)
    for place, name in enumerate(made.header):
        looks[name] = [LOOK.get(row[place].rank, "") for row in made.rows]
    numbers = frame.select_dtypes("float").columns
    shown = [name for name in numbers if "@" in name]
    styler = frame.style.apply(lambda _: looks, axis=None).hide(axis="index")
    return styler.format(precision=PLACES, na_rep=MISSING, subset=shown).set_caption(made.title)
