"""Quality against the budget of a search."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from alignrec_recbole.reports.budgets import Budget, curve_values
from alignrec_recbole.reports.colours import GREY, Colours
from alignrec_recbole.reports.escaping import as_label
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
    styled,
)

MOST_NAMED = 6  # grey searches with a name each


@styled
def search_curves(
    searches: Mapping[str, Budget], colours: Colours | None = None, width: float = PAGE
) -> Drawing:
    """The best validation score by the epochs of a search, and what to expect of fewer trials.

    Left: in the order of the trials. Right: the expected best of so many trials in random order
    (`expected_maximum`); a pruned trial counts with its score until then, a diverged one with 0.
    """
    needs(searches, "no search", "records of runs with --grid or of tune")
    at_most(len(searches), MAX_LINES, "searches")
    colours = Colours() if colours is None else colours
    figure, axes = panels(2, width, 2.1, 3.0)
    handles: dict[str, Any] = {}
    grey = [name for name in searches if colours.rows.get(name, GREY) == GREY]
    tables = []
    for name, budget in searches.items():
        table = pd.DataFrame(curve_values(budget))
        colour = colours.rows.get(name, GREY)
        few = len(grey) <= MOST_NAMED
        style: dict[str, Any] = {
            "color": colour,
            "marker": marker(grey.index(name) if colour == GREY and few else 0),
            "markersize": 2.5,
            "linewidth": 0.8 if colour == GREY else 1.2,
            "zorder": 2 if colour == GREY else 3,
        }
        found = table.dropna(subset=["best"])
        found = found[found["epochs"] > 0]
        if len(found):
            axes[0].step(found["epochs"], found["best"], where="post", **style)
        (handle,) = axes[1].plot(table["trials"], table["expected maximum"], **style)
        label = as_label(name) if colour != GREY or few else f"{len(grey)} others"
        handles.setdefault(label, handle)
        table.insert(0, "row", name)
        tables.append(table)
    metric = next(iter(searches.values())).chosen_on.partition(" on ")[0]
    axes[0].set_xlabel("epochs of all trials until then")
    axes[0].set_ylabel(f"best {metric_label(metric, 'validation')}")
    if axes[0].lines:
        log_axis(axes[0], "x")
    axes[1].set_ylabel(f"expected best\n{metric_label(metric, 'validation')}")
    epoch_axis(axes[1], max(budget.trials for budget in searches.values()))
    axes[1].set_xlabel("trials, in random order")
    last = sorted(handles, key=lambda name: name.endswith(" others"))
    legend(figure, {name: handles[name] for name in last})
    return Drawing(figure, pd.concat(tables, ignore_index=True))
