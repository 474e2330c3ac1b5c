"""From a protocol's name to its records."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from alignrec_recbole.protocols import (
    check_use,
    cold_start,
    diagnostics,
    long_tail,
    mask_modality,
)
from alignrec_recbole.protocols.rankers import RANKERS, rank_by_features
from alignrec_recbole.runs.record import RunRecord
from alignrec_recbole.runs.spec import RunSpec
from alignrec_recbole.settings import Settings


def run_protocol(
    spec: RunSpec,
    models: Sequence[str] = (),
    seeds: Sequence[int] | None = None,
    overwrite: bool = False,
) -> Iterator[RunRecord]:
    """Run `spec.protocol` (any but full) and give its records, old ones where they are there.

    Args:
        models: models to train (mask-modality), rankers to use (mask-modality, cold-start: all by
            default) or stored rankings to look at (long-tail: all by default).
        seeds: training seeds of the models.

    Raises:
        SettingError: the protocol has no use for the models or seeds.
    """
    name = spec.protocol
    rankers = [model for model in models if model in RANKERS]
    trained = [model for model in models if model not in RANKERS]
    check_use(name, models, seeds)
    if name == long_tail.NAME:
        yield from long_tail.long_tails(spec, models, overwrite)
        return
    if name in RANKERS:
        yield rank_by_features(spec, overwrite)
    elif name == diagnostics.NAME:
        yield diagnostics.diagnose(spec, overwrite)
    elif name == cold_start.NAME:
        yield from cold_start.cold_items(spec, rankers or list(RANKERS), overwrite)
    else:
        if rankers or not trained:
            yield from mask_modality.mask_curves(spec, rankers or list(RANKERS), overwrite)
        for model in trained:
            yield from mask_modality.mask_and_train(
                replace(spec, model=model), seeds or (999, 1000, 1001), overwrite
            )


def setting_names(protocol: str, model: str | None = None) -> set[str]:
    """The protocol's own settings; of mask-modality other ones where a model is trained."""
    if protocol == mask_modality.NAME:
        kind: type[Settings] = (
            mask_modality.RetrainSettings if model else mask_modality.MaskSettings
        )
    elif protocol == cold_start.NAME:
        kind = cold_start.ColdStartSettings
    elif protocol in RANKERS:
        kind = RANKERS[protocol].settings_class
    else:
        kind = Settings
    return set(kind.model_fields)
