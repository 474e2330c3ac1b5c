"""One colour for one thing in all figures of a data set.

Models have colours of Okabe and Ito ("Color Universal Design", 2008), feature sets those of Paul
Tol's scheme "muted" (technical note SRON/EPS/TN/09-002, 2021); both are made for colour-blind
readers, and no colour is in both. Everything else, controls first of all, is grey.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from alignrec_recbole.features.derived_names import is_control
from alignrec_recbole.reports.comparisons import targets
from alignrec_recbole.reports.grouping import (
    ComparisonKey,
    SeedGroup,
    default_variants,
    primary_metric,
)

TARGET = "#0072B2"
OTHERS = ("#D55E00", "#009E73", "#CC79A7", "#E69F00")
OF_FEATURES = (
    "#332288", "#44AA99", "#882255", "#999933", "#88CCEE", "#117733", "#AA4499", "#DDCC77",
    "#CC6677",
)  # fmt: skip
GREY = "#8a8f98"


@dataclass(frozen=True)
class Colours:
    """The colours of a data set.

    Attributes:
        rows: name of a row of protocol full → its colour: the target and the best four others.
        models: (model, features) → the same, for the model's usual settings.
        features: feature set → its colour.
    """

    rows: Mapping[str, str] = field(default_factory=dict)
    models: Mapping[tuple[str, str], str] = field(default_factory=dict)
    features: Mapping[str, str] = field(default_factory=dict)

    def of_row(self, group: SeedGroup) -> str:
        """The colour of a trained model; grey for all but the first ones."""
        own = (group.first.model, group.first.features)
        return self.rows.get(group.name, self.of_model(*own) if is_usual(group) else GREY)

    def of_model(self, model: str, features: str) -> str:
        """The colour of a model with its usual settings."""
        return self.models.get((model, features), GREY)

    def of_features(self, features: str) -> str:
        """The colour of a feature set; grey for controls."""
        return self.features.get(features, GREY)


def is_usual(group: SeedGroup) -> bool:
    """Whether no setting of a row differs from the usual ones."""
    return not group.non_default_settings


def colours_of(
    found: Mapping[ComparisonKey, Sequence[SeedGroup]], wanted: str | None = None
) -> Colours:
    """The colours of the groups of one data set and evaluation convention.

    Args:
        wanted: the target of the report; its first row has the colour of targets.
    """
    full = [group for key, groups in found.items() if key.protocol == "full" for group in groups]
    metric = primary_metric(full)
    ours = targets(full, wanted)[:1] if full else []
    scored = sorted(
        ((mean, group) for group in full if (mean := group.mean(metric)) is not None),
        key=lambda entry: -entry[0],
    )
    usual = default_variants(full).values()
    best = [group for _, group in scored if group in usual and group not in ours]
    best += [group for _, group in scored if group not in usual and group not in ours]
    chosen = [*ours, *best[: len(OTHERS)]]
    hues = [*([TARGET] if ours else []), *OTHERS]
    rows = {group.name: hue for group, hue in zip(chosen, hues, strict=False)}
    models: dict[tuple[str, str], str] = {}
    for group in chosen:
        models.setdefault((group.first.model, group.first.features), rows[group.name])
    sets = sorted(
        {
            record.features
            for groups in found.values()
            for group in groups
            for record in group.records
            if record.features != "none" and not is_control(record.features)
        }
    )
    return Colours(rows, models, dict(zip(sets, OF_FEATURES, strict=False)))
