"""What every variant of a model leads its ID-only twin by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator

from alignrec_recbole.reports.colours import GREY
from alignrec_recbole.reports.escaping import as_label
from alignrec_recbole.reports.grouping import PRIMARY_METRIC, SeedGroup
from alignrec_recbole.reports.knock_out import REAL, knocked_out, variant_place
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
ABOVE = f"{PRIMARY_METRIC} above the ID-only twin"


def knock_out_leads(members: Sequence[SeedGroup], width: float = PAGE) -> Drawing:
    """The leads of the models of a table, as `draw_leads` shows them."""
    return draw_leads(leads_data(members), width)


def leads_data(members: Sequence[SeedGroup]) -> pd.DataFrame:
    """One row per model and variant, but none for a variant that is the twin itself."""
    models = [model for model in knocked_out(members, lambda *_: None) if model.leads]
    rows = []
    for model in models:
        assert model.leads is not None
        for name, lead in model.leads.over_twin.items():
            if not model.is_twin(name):
                rows.append(
                    {
                        "model": model.label,
                        "features": model.features,
                        "variant": name,
                        ABOVE: lead.value,
                        "low": lead.low,
                        "high": lead.high,
                        "seeds": len(model.seeds),
                        "interval over": "users and seeds" if model.over_users else "seeds",
                    }
                )
    needs(rows, "no model with a twin", "records of protocol knock-out, real and id-only")
    return pd.DataFrame(rows)


@styled
def draw_leads(data: pd.DataFrame, width: float = PAGE) -> Drawing:
    """Dots with 95 % intervals, a row per model and a panel per group of features.

    Real features are black and filled, single modalities black and open, controls grey.

    Args:
        data: rows of `leads_data`; models are drawn in their order.
    """
    models = data[["model", "features"]].drop_duplicates()
    at_most(len(models), MAX_LINES, "models")
    parts = list(dict.fromkeys(data["features"]))
    at_most(len(parts), MAX_PANELS, "groups of features")
    names = sorted(set(data["variant"]), key=variant_place)
    most = max(models["features"].value_counts())
    figure, axes = panels(len(parts), width, 0.7 + LINE * most * (len(names) + 1.5), 3.0)
    handles: dict[str, Any] = {}
    drawn = []
    for axis, features in zip(axes, parts, strict=True):
        labels = list(models.loc[models["features"] == features, "model"])
        here = data[data["features"] == features]
        for place, name in enumerate(names):
            alone = name.endswith(" only")
            colour = INK if name == REAL or alone else GREY
            rows = here[here["variant"] == name].to_dict("records")
            drawn += rows
            for row in rows:
                lead = row[ABOVE]
                handle = axis.errorbar(
                    lead,
                    labels.index(row["model"]) + 0.8 * (place + 0.5) / len(names) - 0.4,
                    xerr=np.array([[max(0, lead - row["low"])], [max(0, row["high"] - lead)]]),
                    fmt=marker(place),
                    color=colour,
                    markerfacecolor="white" if alone else colour,
                    elinewidth=0.8,
                )
                handles.setdefault(as_label(name), handle)
        axis.xaxis.set_major_locator(MaxNLocator(4))
        axis.axvline(0, color=INK, linewidth=0.8)
        axis.set_yticks(range(len(labels)), [fold(as_label(label), 24) for label in labels])
        axis.set_ylim(len(labels) - 0.5, -0.5)
        axis.grid(axis="y", visible=False)
        for between in range(1, len(labels)):
            axis.axhline(between - 0.5, color=INK, linewidth=0.4, alpha=0.3)
        axis.set_xlabel(f"{metric_label(PRIMARY_METRIC)}\nabove the ID-only twin")
        axis.set_title(fold(as_label(features), 40))
    legend(figure, handles)
    return Drawing(figure, pd.DataFrame(drawn))
