"""What every variant of a model leads its ID-only twin by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator

from alignrec_recbole.reports.colours import GREY, Colours
from alignrec_recbole.reports.escaping import as_label
from alignrec_recbole.reports.grouping import PRIMARY_METRIC, SeedGroup
from alignrec_recbole.reports.knock_out import REAL, KnockedOut, knocked_out
from alignrec_recbole.reports.plots.style import (
    INK,
    MAX_LINES,
    MAX_PANELS,
    PAGE,
    Drawing,
    at_most,
    fold,
    legend,
    marker,
    metric_label,
    needs,
    panels,
    styled,
)

LINE = 0.11  # inches of a variant of a row


@styled
def knock_out_leads(
    members: Sequence[SeedGroup], colours: Colours | None = None, width: float = PAGE
) -> Drawing:
    """Dots with 95 % intervals, a row per model and a panel per group of features.

    Real features are black and filled, single modalities black and open, controls grey. A variant
    that is the twin itself has no dot.
    """
    models = [model for model in knocked_out(members, lambda *_: None) if model.leads]
    needs(models, "no model with a twin", "records of protocol knock-out, real and id-only")
    at_most(len(models), MAX_LINES, "models")
    parts = list(dict.fromkeys(model.features for model in models))
    at_most(len(parts), MAX_PANELS, "groups of features")
    most = max(sum(model.features == each for model in models) for each in parts)
    names = list(dict.fromkeys(name for model in models for name in _shown(model)))
    figure, axes = panels(len(parts), width, 0.7 + LINE * most * (len(names) + 1.5), 3.0)
    handles: dict[str, Any] = {}
    rows = []
    for axis, features in zip(axes, parts, strict=True):
        shown = [model for model in models if model.features == features]
        for place, name in enumerate(names):
            alone = name.endswith(" only")
            colour = INK if name == REAL or alone else GREY
            for row, model in enumerate(shown):
                if model.leads is None or name not in _shown(model):
                    continue
                lead = model.leads.over_twin[name]
                arms = [[max(0, lead.value - lead.low)], [max(0, lead.high - lead.value)]]
                handle = axis.errorbar(
                    lead.value,
                    row + 0.8 * (place + 0.5) / len(names) - 0.4,
                    xerr=np.array(arms),
                    fmt=marker(place),
                    color=colour,
                    markerfacecolor="white" if alone else colour,
                    elinewidth=0.8,
                )
                handles.setdefault(as_label(name), handle)
                rows.append(
                    {
                        "model": model.label,
                        "features": features,
                        "variant": name,
                        f"{PRIMARY_METRIC} above the ID-only twin": lead.value,
                        "low": lead.low,
                        "high": lead.high,
                        "seeds": len(model.seeds),
                        "interval over": "users and seeds" if model.over_users else "seeds",
                    }
                )
        axis.xaxis.set_major_locator(MaxNLocator(4))
        axis.axvline(0, color=INK, linewidth=0.8)
        axis.set_yticks(range(len(shown)), [fold(as_label(m.label), 24) for m in shown])
        axis.set_ylim(len(shown) - 0.5, -0.5)
        axis.grid(axis="y", visible=False)
        for row in range(1, len(shown)):
            axis.axhline(row - 0.5, color=INK, linewidth=0.4, alpha=0.3)
        axis.set_xlabel(f"{metric_label(PRIMARY_METRIC)}\nabove the ID-only twin")
        axis.set_title(fold(as_label(features), 40))
    legend(figure, handles)
    return Drawing(figure, pd.DataFrame(rows))


def _shown(model: KnockedOut) -> list[str]:
    """The variants that are compared with the twin and are not the twin."""
    found = {} if model.leads is None else model.leads.over_twin
    return [name for name in model.variants if name in found and not model.is_twin(name)]
