"""From a protocol's name to its records."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from alignrec_recbole.protocols import (
    PROTOCOLS,
    check_protocols,
    check_use,
    cold_start,
    knock_out,
    mask_modality,
)
from alignrec_recbole.protocols.rankers import RANKERS
from alignrec_recbole.runs.record import RunRecord
from alignrec_recbole.runs.spec import RunSpec
from alignrec_recbole.settings import Settings


def run_protocol(
    spec: RunSpec,
    models: Sequence[str] = (),
    seeds: Sequence[int] | None = None,
    overwrite: bool = False,
) -> Iterator[RunRecord]:
    """Run `spec.protocol` and yield its records; finished ones are read.

    Args:
        models: models to train (full, mask-modality, knock-out), rankers to use (mask-modality,
            cold-start; default: all) or stored rankings to read (long-tail, beyond-accuracy;
            default: all).
        seeds: training seeds of the models.

    Raises:
        SettingError: the protocol does not use the models or seeds.
        UnknownNameError: there is no such protocol.
    """
    check_protocols([spec.protocol])
    check_use(spec.protocol, models, seeds)
    yield from PROTOCOLS[spec.protocol].load()(spec, models, seeds, overwrite)


def setting_names(protocol: str, model: str | None = None) -> set[str]:
    """Names of a protocol's own settings; mask-modality has others where a model is trained."""
    kind: type[Settings] = Settings
    if protocol == mask_modality.NAME:
        kind = mask_modality.RetrainSettings if model else mask_modality.MaskSettings
    elif protocol == knock_out.NAME:
        kind = knock_out.KnockOutSettings
    elif protocol == cold_start.NAME:
        kind = cold_start.ColdStartSettings
    elif protocol in RANKERS:
        kind = RANKERS[protocol].settings_class
    return set(kind.model_fields)
