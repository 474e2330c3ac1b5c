"""A metric over the share of masked items."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from alignrec_recbole.features.derived_names import is_control
from alignrec_recbole.protocols import RANKER_NAMES
from alignrec_recbole.protocols.robustness import Curve, robustness
from alignrec_recbole.reports.colours import GREY, Colours
from alignrec_recbole.reports.escaping import as_label
from alignrec_recbole.reports.grouping import PRIMARY_METRIC, SeedGroup
from alignrec_recbole.reports.plots.style import (
    INK,
    MAX_LINES,
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
from alignrec_recbole.reports.protocol_tables import mask_points

CURVE = ["ranker", "features", "masked", "fill"]
WORDS_OF_FILL = {  # others as they are
    "zero": "",
    "mean": ", mean fill",
    "neighbours": ", filled by neighbours",
    "propagation": ", filled by propagation",
}
DASHES = ("-", "--", "-.", ":")
AGAIN = "trained again"


@styled
def robustness_curves(
    members: Sequence[SeedGroup],
    metric: str = PRIMARY_METRIC,
    colours: Colours | None = None,
    width: float = PAGE,
) -> Drawing:
    """Curves with 95 % t-bands over mask seeds, a panel per ranker and modality; dotted: chance.

    Rankers without training share one scale. Controls are grey.
    """
    points = pd.DataFrame(mask_points(members, metric), columns=[*CURVE, "ratio", "value"])
    needs(points, "no curve over the mask ratio", "records of protocol mask-modality")
    colours = Colours() if colours is None else colours
    wanted: dict[tuple[str, str], list[tuple[tuple[str, ...], Curve]]] = {}
    for key, line in points.groupby(CURVE, sort=False):
        ranker, _, masked, _ = key
        curve = _curve(line)
        if curve is not None:
            row = ranker if ranker in RANKER_NAMES else AGAIN
            wanted.setdefault((row, masked), []).append((key, curve))
    needs(wanted, "no curve with more than one ratio", "more records of mask-modality")
    order = sorted(wanted, key=lambda key: ([*RANKER_NAMES, AGAIN].index(key[0]), key[1]))
    at_most(sum(map(len, wanted.values())), MAX_LINES, "curves")
    figure, axes = panels(len(order), width, 1.9, 2.2)
    looks: dict[tuple[str, str, str], dict[str, Any]] = {}
    handles: dict[str, Any] = {}
    rows = []
    for axis, (row, masked) in zip(axes, order, strict=True):
        for (ranker, features, _, fill), curve in wanted[row, masked]:
            who = "" if row in RANKER_NAMES else ranker
            look = looks.setdefault((who, features, fill), _look(who, features, looks, colours))
            label = as_label(
                (f"{who}, {features}" if who else features) + WORDS_OF_FILL.get(fill, f", {fill}")
            )
            (handle,) = axis.plot(curve.ratios, curve.mean, **look)
            axis.fill_between(
                curve.ratios, curve.low, curve.high, color=look["color"], alpha=0.18, linewidth=0
            )
            handles.setdefault(label, handle)
            rows += [
                {
                    "ranker": ranker,
                    "features": features,
                    "masked": masked,
                    "fill": fill,
                    "share of items masked": ratio,
                    metric: mean,
                    "low": low,
                    "high": high,
                }
                for ratio, mean, low, high in zip(
                    curve.ratios, curve.mean, curve.low, curve.high, strict=True
                )
            ]
        axis.set_xlabel("share of items masked")
        axis.set_ylabel(metric_label(metric))
        axis.set_title(fold(f"{row}, {masked} masked", 34))
    top = max(
        [a.get_ylim()[1] for a, (row, _) in zip(axes, order, strict=True) if row in RANKER_NAMES],
        default=None,
    )
    chance = _chance(members, metric)
    for axis, (row, _) in zip(axes, order, strict=True):
        axis.set_ylim(0, top if row in RANKER_NAMES else None)
        if chance is not None:
            handles["chance"] = axis.axhline(chance, color=INK, linestyle=":", linewidth=1)
    legend(figure, handles)
    data = pd.DataFrame(rows)
    data["chance"] = chance
    return Drawing(figure, data)


def _curve(line: pd.DataFrame) -> Curve | None:
    """The curve of some points; None without a value at 0 or with that alone."""
    unmasked = line.loc[line["ratio"] == 0, "value"]  # empty if that record is missing
    if line["ratio"].nunique() < 2 or unmasked.empty or unmasked.mean() == 0:
        return None
    return robustness(list(zip(line["ratio"], line["value"], strict=True)))


def _look(
    who: str, features: str, before: dict[tuple[str, str, str], Any], colours: Colours
) -> dict[str, Any]:
    """Colour by feature set (of trained models: by model and set), dash by fill."""
    colour = colours.of_model(who, features) if who else colours.of_features(features)
    same = [look for look in before.values() if look["color"] == colour]
    place = len(same)
    dash = DASHES[place % len(DASHES)] if colour != GREY else DASHES[1 + place % 3]
    if colour == GREY and not is_control(features):
        dash = "-"
    return {
        "color": colour,
        "linestyle": dash,
        "marker": marker(place if colour == GREY else len(before)),
        "markersize": 3,
    }


def _chance(members: Sequence[SeedGroup], metric: str) -> float | None:
    found = [record.chance for group in members for record in group.records if record.chance]
    values = [chance[metric] for chance in found if metric in chance]
    return values[0] if values else None
