"""Quality against the budget of a search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from alignrec_recbole.reports.budgets import Budget, curve_values
from alignrec_recbole.reports.colours import GREY, Colours
from alignrec_recbole.reports.escaping import as_label
from alignrec_recbole.reports.grouping import SeedGroup
from alignrec_recbole.reports.plots.style import (
    MAX_LINES,
    PAGE,
    Drawing,
    at_most,
    epoch_axis,
    legend,
    log_axis,
    marker,
    metric_label,
    needs,
    panels,
    short_names,
    styled,
)

MOST_NAMED = 6  # grey searches with a name each


@styled
def search_curves(
    searches: Mapping[str, Budget],
    members: Sequence[SeedGroup] = (),
    colours: Colours | None = None,
    width: float = PAGE,
) -> Drawing:
    """The best validation score by the epochs of a search, and what to expect of fewer trials.

    Left, if a search trained for epochs: in the order of the trials. Right: the expected best of so
    many trials in random order (`expected_maximum`); a pruned trial counts with its score until
    then, a diverged one with 0.

    Args:
        members: the rows that the searches are of, for names as in the other figures.
    """
    needs(searches, "no search", "records of runs with --grid or of tune")
    at_most(len(searches), MAX_LINES, "searches")
    colours = Colours() if colours is None else colours
    tables = {name: pd.DataFrame(curve_values(budget)) for name, budget in searches.items()}
    spent = any(len(_with_epochs(table)) for table in tables.values())
    figure, axes = panels(1 + spent, width, 2.1, 3.0)
    names = short_names([group for group in members if group.name in searches])
    metric = next(iter(searches.values())).chosen_on.partition(" on ")[0]
    handles: dict[str, Any] = {}
    grey = [name for name in searches if colours.rows.get(name, GREY) == GREY]
    few = len(grey) <= MOST_NAMED
    for name, table in tables.items():
        colour = colours.rows.get(name, GREY)
        style: dict[str, Any] = {
            "color": colour,
            "marker": marker(grey.index(name) if colour == GREY and few else 0),
            "markersize": 2.5,
            "linewidth": 0.8 if colour == GREY else 1.2,
            "zorder": 2 if colour == GREY else 3,
        }
        found = _with_epochs(table)
        if len(found):
            axes[0].step(found["epochs"], found["best"], where="post", **style)
        (handle,) = axes[-1].plot(table["trials"], table["expected maximum"], **style)
        shown = names.get(name, as_label(name))
        handles.setdefault(shown if colour != GREY or few else f"{len(grey)} others", handle)
    if spent:
        axes[0].set_xlabel("epochs of all trials until then")
        axes[0].set_ylabel(f"best {metric_label(metric, 'validation')}")
        log_axis(axes[0], "x")
    axes[-1].set_ylabel(f"expected best\n{metric_label(metric, 'validation')}")
    epoch_axis(axes[-1], max(budget.trials for budget in searches.values()))
    axes[-1].set_xlabel("trials, in random order")
    last = sorted(handles, key=lambda name: name.endswith(" others"))
    legend(figure, {name: handles[name] for name in last})
    for name, table in tables.items():
        table.insert(0, "row", name)
    return Drawing(figure, pd.concat(tables.values(), ignore_index=True))


def _with_epochs(table: pd.DataFrame) -> pd.DataFrame:
    """The trials that have a place on an axis of epochs."""
    found = table.dropna(subset=["best"])
    return found[found["epochs"] > 0]
