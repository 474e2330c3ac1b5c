"""knock-out: how much of a model's lead over its ID-only twin does content explain?

Method: a model is trained with its features and with features that say less, with the same
settings, epochs and patience, once per training seed (default 999 … 1003):

real
    The features as they are.
alone
    Those of one modality, where there are several.
random
    Normal numbers of the same widths and root mean squares.
shuffled
    Rows permuted across items.
popularity-shuffled
    Rows permuted among items with about as many training interactions.
constant
    One row for all items. Item graphs are then arbitrary: all items are equally near.
zero
    No item has features.
id-only
    The model's own twin without content.

What is drawn is drawn anew for each training seed (`features/controls.py`); a permutation is the
same for all feature sets. The twin of a model is the model itself with the features `zero`: what it
computes from features is then absent or the same for all items; its ID vectors and the user-item
graph stay. Models that have no ID vectors of items (DRAGON, MENTOR, PGL, DualGNN) get `random`
features in their place and no item graph. A model declares its twin by `id_only_features` and
`id_only_settings`; one that is nothing without content (ItemKNNCBF) has none, and no lead.

Metric (our definition), with R the mean of Recall@20 over users and seeds:

    lead L = R(real) − R(id-only)          share of v = (R(real) − R(v)) / L

The share of `shuffled` is what content explains: what is lost when each item has another's. That of
`popularity-shuffled` is what content explains beyond popularity. 1 − share is what the model gains
by having features at all, whatever they say: by its size, its item graph, their scale. Example:
real .10, id-only .06, shuffled .07: the lead is .04, and content explains .03 of it, 75 %.

Intervals: 95 % percentiles of 2,000 resamples of the seeds and, independently, of the users, both
with replacement (a crossed bootstrap; Owen, "The pigeonhole bootstrap", 2007), the same for all
variants. Without per-user values beside the records they are of the seeds alone. Rule: a share is
given only where the interval of the lead lies above 0. Else there is no lead that content could
explain, and the table says so.

Interventions at test time, on the model trained with the real features: the features of one set,
and of all sets, are replaced by zeros, by their mean row or by a permutation of the rows (three
draws, `--set draws=N`), for ranking only. Learnt feature tables are replaced where a model learns
them. Which items have the modality stays as it was. Each is made twice: with the item graphs of the
training (`features`), and with item graphs of the replaced features as well (`features and item
graphs`: the model is built again on them and given its trained weights). Reported are Recall@20,
NDCG@20 and, against the user's list without intervention, overlap@20, rank-biased overlap (p = 0.9,
extrapolated from 20 ranks) and the share of users with the same 20 items in the same order. A model
whose scores read no features (BM3) keeps every list; one that has them in a graph alone (FREEDOM)
keeps them until the graph changes. Models that are not trained in steps have no interventions.

The test split is ranked once per run, and once more per intervention by the run with the real
features; its record says how often. Nothing is chosen by it.

Candidates, excluded items and targets: those of the evaluation convention. Chance: as for `full`.

Source: variants after Ye et al., ECIR 2026 (arXiv 2508.07399), who use noise; share, twins, rule
and interventions are our definition.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from pydantic import Field

from alignrec_recbole.errors import SettingError
from alignrec_recbole.features.derived_names import control_name
from alignrec_recbole.features.knock_out import KnockOut, Variant
from alignrec_recbole.protocols.interventions import examine
from alignrec_recbole.registry.models import resolve
from alignrec_recbole.runs.prepare import prepare_run
from alignrec_recbole.runs.prepared import PreparedRun
from alignrec_recbole.runs.record import RunRecord
from alignrec_recbole.runs.run import run_one
from alignrec_recbole.runs.spec import RunSpec
from alignrec_recbole.settings import Settings, read_settings

NAME = "knock-out"
SEEDS = (999, 1000, 1001, 1002, 1003)
VARIANTS: tuple[Variant, ...] = (
    "real",
    "alone",
    "random",
    "shuffled",
    "popularity-shuffled",
    "constant",
    "zero",
    "id-only",
)


class KnockOutSettings(Settings):
    """Which variants are trained, and how often the interventions permute."""

    variants: tuple[Variant, ...] = Field(
        VARIANTS, min_length=1, description=f"list of {', '.join(VARIANTS)}"
    )
    draws: int = Field(3, ge=1, le=1000, description="permutations, at least 1")


def run_knock_out(
    spec: RunSpec, models: Sequence[str], seeds: Sequence[int] | None, overwrite: bool
) -> Iterator[RunRecord]:
    """Every model with every seed on every variant of its features.

    Raises:
        SettingError: there is no model, or one without features.
    """
    own = {key: v for key, v in spec.overrides.items() if key in KnockOutSettings.model_fields}
    settings = read_settings(
        own, KnockOutSettings, f"protocol {NAME}", f"docs/protocols.md, {NAME}"
    )
    others = {key: v for key, v in spec.overrides.items() if key not in own}
    check_models(models)
    for model in models:
        for seed in seeds or SEEDS:
            base = replace(spec, model=model, seed=seed, overrides=others, protocol=NAME)
            yield from _variants(base, settings, overwrite)


def check_models(models: Sequence[str]) -> None:
    """Refuse a model without features.

    Raises:
        SettingError: for the first one.
    """
    for model in models:
        if not resolve(model).needs_features:
            raise SettingError(
                f"{model} has no features that could be knocked out.",
                found=f"--model {model}",
                expected="models that need item features",
            )


def _variants(base: RunSpec, settings: KnockOutSettings, overwrite: bool) -> Iterator[RunRecord]:
    """The wanted variants of one model and seed; each run is made once."""
    names = tuple(prepare_run(replace(base, protocol="full")).feature_files)
    knock_out = KnockOut(variant="real", of=names, draws=settings.draws)
    real_spec = replace(base, features=names, knock_out=knock_out)
    if "real" in settings.variants:
        looked_at = partial(examine, draws=settings.draws)
        yield run_one(real_spec, overwrite=overwrite, examine=looked_at)
    prepared = prepare_run(real_spec)
    made: list[RunSpec] = []
    for variant in settings.variants:
        for each in _specs(base, variant, prepared):
            if each not in made:
                made.append(each)
                yield run_one(each, overwrite=overwrite)


def _specs(base: RunSpec, variant: Variant, real: PreparedRun) -> Iterator[RunSpec]:
    """The runs of one variant other than the real features."""
    files = real.feature_files
    stands_for = partial(KnockOut, of=tuple(files), real=real.config_hash)
    if variant == "alone":
        modalities = dict.fromkeys(file["modality"] for file in files.values())
        for modality in modalities if len(modalities) > 1 else ():
            names = tuple(name for name, file in files.items() if file["modality"] == modality)
            yield replace(base, features=names, knock_out=stands_for(variant=variant))
    elif variant != "real":
        model = real.components.model_class
        twin: Variant | None = getattr(model, "id_only_features", "zero")
        extra: dict[str, Any] = dict(getattr(model, "id_only_settings", {}))
        kind = twin if variant == "id-only" else variant
        if kind is None:
            return
        own = variant == "id-only" and bool(extra)  # a run of no other variant
        knock_out = stands_for(
            variant="id-only" if own else kind, id_only=own or (kind == twin and not extra)
        )
        yield replace(
            base,
            features=tuple(control_name(kind, name, base.seed) for name in files),
            overrides={**base.overrides, **(extra if own else {})},
            knock_out=knock_out,
        )
