"""From a protocol's name to its records."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from alignrec_recbole.protocols import (
    PROTOCOLS,
    check_protocols,
    check_use,
    cold_start,
    knock_out,
    mask_modality,
)
from alignrec_recbole.protocols.context import check_untrained
from alignrec_recbole.protocols.rankers import RANKERS
from alignrec_recbole.runs.prepare import check_data_spec, check_run_spec
from alignrec_recbole.runs.record import RunRecord
from alignrec_recbole.runs.spec import RunSpec
from alignrec_recbole.settings import Settings, read_settings


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


def check_spec(spec: RunSpec) -> None:
    """Refuse what the runs of a specification would refuse, before any data is read.

    Args:
        spec: with the protocol's own settings among the others; `model` is one that is trained, or
            empty.

    Raises:
        AlignRecError: as the runs.
    """
    kind = settings_class(spec.protocol, spec.model or None)
    own = {key: value for key, value in spec.overrides.items() if key in kind.model_fields}
    read_settings(own, kind, f"protocol {spec.protocol}", f"docs/protocols.md, {spec.protocol}")
    others = {key: value for key, value in spec.overrides.items() if key not in own}
    if not spec.model:
        check_untrained(spec.protocol, kind, others)
        check_data_spec(replace(spec, overrides=others).data)
        return
    if spec.protocol == knock_out.NAME:
        knock_out.check_models([spec.model])
    check_run_spec(replace(spec, overrides=others))


def setting_names(protocol: str, model: str | None = None) -> set[str]:
    """Names of a protocol's own settings."""
    return set(settings_class(protocol, model).model_fields)


def settings_class(protocol: str, model: str | None = None) -> type[Settings]:
    """A protocol's own settings; mask-modality has others where a model is trained."""
    if protocol == mask_modality.NAME:
        return mask_modality.RetrainSettings if model else mask_modality.MaskSettings
    if protocol == knock_out.NAME:
        return knock_out.KnockOutSettings
    if protocol == cold_start.NAME:
        return cold_start.ColdStartSettings
    if protocol in RANKERS:
        return RANKERS[protocol].settings_class
    return Settings
