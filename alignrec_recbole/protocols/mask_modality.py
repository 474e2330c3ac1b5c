"""mask-modality: how much ranking quality remains when a modality is missing?

Method: one modality is masked for a share r of the items. The masked items (our definition) are
the first ⌊r·I⌋ of PCG64(1000+s).permutation(I) over the items in the order of their tokens:
nested in r, and the same for every feature set, modality and model (`features/masking.py`). They
are filled in feature sets of that modality: with zeros, with the mean row (`--set fill=mean`), or
with rows made of those of their neighbours in the training interactions (`fill=neighbours`,
`fill=propagation`; see `features/imputation.py`). Of a fused set F they get the rows of
F-no-MODALITY, the same items all encoded with the modality masked (`prepare --name F --mask
MODALITY`). Only feature sets with the modality change.

Without training: zero-shot and item-cf at r = 0, 0.1 … 1, s = 0 … 4. With a model: trained again
at r = 0, ¼, ½, ¾, 1 with the hyper-parameters chosen at r = 0, training seed 999+s with mask
seed s. Candidates, excluded items and targets: those of the evaluation convention, at every r.

Metric (our definition): M(r) is the mean of a metric over s, retention ρ(r) = M(r)/M(0), and the
area under the retention is ∫ρ over [0, 1] by trapezoids. M(0) = 0 is an error. Weak features can
be very robust, so M(r) is always reported next to the area. Chance: as for the ranker.

Source: the AlignRec paper and its code mask one modality at a time, in nested sets, and train
again; ratios, seeds and the summary are our definition.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Annotated, Any

from pydantic import AfterValidator, Field
from tqdm.auto import tqdm

from alignrec_recbole.errors import FeatureError, UnknownNameError
from alignrec_recbole.features.derived_names import MASK_FILLS, MaskFill
from alignrec_recbole.features.masking import (
    MASK_SEED_OFFSET,
    FeatureMask,
    Modality,
    mask_features,
    masked_name,
)
from alignrec_recbole.protocols.content import chance
from alignrec_recbole.protocols.context import ProtocolContext
from alignrec_recbole.protocols.rankers import RANKERS, Ranker
from alignrec_recbole.protocols.robustness import area_under_retention, curve_points
from alignrec_recbole.runs.effective_config import data_keys
from alignrec_recbole.runs.identity import finished_record
from alignrec_recbole.runs.prepare import prepare_run
from alignrec_recbole.runs.record import RunRecord, write_record
from alignrec_recbole.runs.run import run_one
from alignrec_recbole.runs.spec import RunSpec
from alignrec_recbole.runs.tasks import test_task
from alignrec_recbole.settings import Settings, read_settings

NAME = "mask-modality"
VERSION = 1
MODALITIES: tuple[Modality, ...] = ("audio", "image", "text")
TRAINING_SEED = 999  # of mask seed 0


def _with_zero(ratios: tuple[float, ...]) -> tuple[float, ...]:
    if 0 not in ratios:
        raise ValueError("without ratio 0 nothing can be compared")
    return tuple(sorted(set(ratios)))


Ratios = Annotated[
    tuple[Annotated[float, Field(ge=0, le=1)], ...],
    AfterValidator(_with_zero),
    Field(description="list of numbers from 0 to 1, 0 among them"),
]
Fill = Annotated[MaskFill, Field(description=f"{', '.join(MASK_FILLS[:-1])} or {MASK_FILLS[-1]}")]


class MaskSettings(Settings):
    """The grid of the training-free part; frozen for tables."""

    ratios: Ratios = tuple(i / 10 for i in range(11))
    mask_seeds: tuple[Annotated[int, Field(ge=-MASK_SEED_OFFSET, lt=2**63)], ...] = Field(
        default=(0, 1, 2, 3, 4),
        min_length=1,
        description=f"list of whole numbers from -{MASK_SEED_OFFSET}",
    )
    fill: Fill = "zero"


class RetrainSettings(Settings):
    """The grid where a model is trained at every point; its seeds are --seeds."""

    ratios: Ratios = (0.0, 0.25, 0.5, 0.75, 1.0)
    fill: Fill = "zero"


def mask_seed(training_seed: int) -> int:
    """The mask seed of a model's training seed: 999 ↔ 0, 1000 ↔ 1 …"""
    return training_seed - TRAINING_SEED


def run_mask_modality(
    spec: RunSpec, models: Sequence[str], seeds: Sequence[int] | None, overwrite: bool
) -> Iterator[RunRecord]:
    """Rankers (default: all) without training, models with training at every mask ratio.

    Args:
        seeds: training seeds of the models; default: 999, 1000, 1001.
    """
    rankers = [name for name in models if name in RANKERS]
    trained = [name for name in models if name not in RANKERS]
    if rankers or not trained:
        yield from _mask_curves(spec, rankers or list(RANKERS), overwrite)
    for model in trained:
        yield from _mask_and_train(
            replace(spec, model=model), seeds or (999, 1000, 1001), overwrite
        )


def _mask_curves(
    spec: RunSpec, rankers: Sequence[str], overwrite: bool = False
) -> Iterator[RunRecord]:
    """Without training: one record per ranker, its curve over all modalities."""
    context = ProtocolContext(spec, MaskSettings, NAME)
    masked, counterparts = maskable(context)
    frozen = {**context.settings.model_dump(mode="json"), "second_files": counterparts}
    for name in rankers:
        run = context.run(name, VERSION, {**frozen, "ranker": RANKERS[name].frozen()})
        if record := context.finished(run, overwrite):
            yield record
            continue
        curve = _curve(context, RANKERS[name], masked)
        areas = {
            modality: {
                metric: area_under_retention(curve_points(curve, modality, metric))
                for metric in ("Recall@20", "NDCG@20")
                if metric in curve[0]["metrics"]
            }
            for modality in masked
        }
        yield context.write(
            run,
            metrics=next(point["metrics"] for point in curve if point["ratio"] == 0),
            groups={"robustness": areas},
            curve=curve,
            chance=chance(test_task(context.data), context.metric_names[1]),
        )


def _curve(
    context: ProtocolContext, ranker: Ranker, masked: Sequence[Modality]
) -> list[dict[str, Any]]:
    """Points {modality, ratio, mask_seed, metrics}; the unmasked features are ranked once."""
    settings = context.settings
    task = test_task(context.data)
    grid = list(itertools.product(masked, settings.ratios, settings.mask_seeds))
    curve: list[dict[str, Any]] = []
    unmasked: dict[str, float] | None = None
    graph = functools.cache(context.dataset.item_neighbours)
    label = f"{NAME} {ranker.name}"
    for modality, ratio, seed in tqdm(grid, desc=label, disable=not context.progress, leave=False):
        mask = FeatureMask(modality=modality, ratio=ratio, seed=seed, fill=settings.fill)
        sets = mask_features(
            context.feature_sets, mask, context.tokens, context.open_features, graph
        )
        metrics = unmasked if sets is context.feature_sets else None
        if metrics is None:
            content = context.content(feature_sets=sets)
            scores = ranker.scorer(content, ranker.settings_class())
            metrics = context.rank(scores, content, task).means(*context.metric_names)
        if sets is context.feature_sets:
            unmasked = metrics
        point = {"modality": modality, "ratio": ratio, "mask_seed": seed}
        curve.append({**point, "metrics": metrics})
    return curve


def maskable(context: ProtocolContext) -> tuple[list[Modality], dict[str, str]]:
    """Modalities that can be masked, and the hashes of fused sets' masked counterparts.

    Raises:
        FeatureError: a fused set has no counterpart with a masked modality.
    """
    found: set[Modality] = set()
    files: dict[str, str] = {}
    for name, table in context.feature_sets.items():
        if table.modality != "fused":
            found |= {modality for modality in MODALITIES if modality == table.modality}
            continue
        family: dict[Modality, str] = {}
        for modality in MODALITIES:
            second = masked_name(name, modality)
            try:
                files[second] = context.open_features(second).manifest.sha256
            except UnknownNameError:
                continue
            family[modality] = second
        if not family:
            raise FeatureError(
                f"The fused features {name!r} cannot be masked.",
                found="no file with a masked modality",
                expected=" or ".join(masked_name(name, m) for m in ("image", "text")),
                hint=f"make it with prepare --name {name} --mask image (or text)",
            )
        found |= set(family)
    return sorted(found), files


def _mask_and_train(
    spec: RunSpec, seeds: Sequence[int], overwrite: bool = False
) -> Iterator[RunRecord]:
    """With a model: trained at every ratio; ratio 0 is the ordinary run."""
    own = {key: v for key, v in spec.overrides.items() if key in RetrainSettings.model_fields}
    settings = read_settings(own, RetrainSettings, f"protocol {NAME}", f"docs/protocols.md, {NAME}")
    others = {key: v for key, v in spec.overrides.items() if key not in own}
    base = replace(spec, overrides=others)
    of_data = {key: v for key, v in others.items() if key in data_keys(spec.dataset)}
    masked, _ = maskable(ProtocolContext(replace(spec, overrides=of_data), Settings, NAME))
    for modality, ratio, seed in itertools.product(masked, settings.ratios, seeds):
        mask = FeatureMask(modality=modality, ratio=ratio, seed=mask_seed(seed), fill=settings.fill)
        point = replace(base, protocol=NAME, seed=seed, mask=mask)
        if ratio:
            yield run_one(point, overwrite=overwrite)
        else:  # one run for all modalities
            yield _unmasked(base, point, overwrite and modality == masked[0])


def _unmasked(base: RunSpec, point: RunSpec, overwrite: bool) -> RunRecord:
    """The record of ratio 0: that of the ordinary run, which is run if it does not exist."""
    whole = run_one(replace(base, protocol="full", seed=point.seed), overwrite=overwrite)
    prepared = prepare_run(point)
    finished_record(prepared, overwrite)  # a damaged one is refused
    record = whole.model_copy(
        update={
            "protocol": NAME,
            "config": prepared.effective_config,
            "config_sha256": prepared.config_hash,
            "per_user": None,
            "weights": None,  # they are beside the record of the ordinary run
            "notes": [*whole.notes, f"the run of protocol full, {whole.config_sha256[:8]}"],
        }
    )
    write_record(prepared.record_path, record)
    return record
