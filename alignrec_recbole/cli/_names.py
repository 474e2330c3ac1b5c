"""Names on the command line: checked before heavy imports, and offered to the shell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from alignrec_recbole.data.dataset_paths import (
    data_folders,
    find_dataset,
    present_datasets,
    registered_datasets,
)
from alignrec_recbole.encoders.lookup import check_feature_name
from alignrec_recbole.encoders.registry import ENCODERS
from alignrec_recbole.engines import DEFAULT, check_engine
from alignrec_recbole.errors import SettingError
from alignrec_recbole.features.derived_names import FILLED, FILLS, KINDS
from alignrec_recbole.features.published import GROUPS, expanded
from alignrec_recbole.io.files import inside
from alignrec_recbole.protocols import (
    RANKER_NAMES,
    USE_MODELS,
    USE_SEEDS,
    check_option,
    check_protocols,
    check_use,
    trained_models,
)
from alignrec_recbole.runtime.sizes import SAVE_LIMIT
from alignrec_recbole.tracking import check_trackers

if TYPE_CHECKING:
    from alignrec_recbole.cli._option_values import RunOptions


def check(options: RunOptions) -> None:
    """Check every name of a command line, and that each option is read by some protocol.

    Raises:
        UnknownNameError, SettingError: with the nearest name, or what was expected.
    """
    check_names(options)
    check_data(options)


def check_names(options: RunOptions) -> None:
    """The part of `check` that needs no data."""
    from alignrec_recbole.registry.models import resolve

    check_protocols(options.protocol)
    _check_use(options)
    check_trackers(options.track)
    check_engine(options.engine, options.jobs)
    for model in models_to_train(options):
        resolve(model)
    inside(options.output, options.dataset)


def check_data(options: RunOptions) -> None:
    """The part of `check` that looks at the data set's folder."""
    folder = find_dataset(options.dataset, options.data_path)
    for name in expanded(options.features, folder):
        check_feature_name(name, folder, options.dataset, options.features_path)


def _as_given(value: Any) -> str:
    """A value as the command line has it."""
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _check_use(options: RunOptions) -> None:
    if "full" in options.protocol and not options.model:
        raise SettingError(
            "Protocol full needs a model.",
            found="no --model",
            expected="--model M[,M…], or --protocol with one that trains nothing",
        )
    limit = options.save_limit
    given = {
        "--model": ("model", options.model),
        "--seeds": ("seeds", options.seeds),
        "--epochs": ("epochs", options.epochs),
        "--track": ("track", options.track),
        "--engine": ("engine", options.engine if options.engine != DEFAULT else None),
        "--jobs": ("jobs", options.jobs),
        "--no-save": ("save", None if options.save else ""),
        "--save-limit": ("save_limit", limit if limit != SAVE_LIMIT else None),
    }
    for option, (name, value) in given.items():
        if value not in (None, ()):
            found = f"{option} {_as_given(value)}".rstrip()
            check_option(options.protocol, options.model, name, option, found)
    for protocol in options.protocol:
        if protocol == "full":
            continue
        models = options.model if protocol in USE_MODELS else ()
        check_use(protocol, models, options.seeds if protocol in USE_SEEDS else None)
        if options.grid and protocol not in RANKER_NAMES:
            raise SettingError(
                f"Protocol {protocol!r} chooses nothing on validation.",
                found=f"--grid {options.grid[0][0]}=…",
                expected=f"--grid with {', '.join(RANKER_NAMES)} or full",
                hint="choose with protocol full, then pass the choice with --set",
            )


def models_to_train(options: RunOptions) -> list[str]:
    """The models that some protocol trains: not rankers, nor names of stored rankings."""
    if "full" in options.protocol:
        return list(options.model)
    if set(options.protocol) & {"mask-modality", "knock-out", "cold-start"}:
        return trained_models(options.model)
    return []


def model_names() -> list[str]:
    """Names for `--model`, and of rankers."""
    from alignrec_recbole.registry.models import list_models

    return sorted({*(entry.name for entry in list_models()), *RANKER_NAMES})


def dataset_names() -> list[str]:
    """Names for `--dataset` in the default folders."""
    return sorted({*registered_datasets(), *present_datasets(data_folders())})


def feature_names() -> list[str]:
    """Names for `--features` that need no file."""
    return [
        *(entry.name for entry in ENCODERS.values() if entry.by_name),
        *GROUPS,
        "random",
        *(f"{kind}:" for kind in KINDS),
        *(f"{FILLED}{fill}:" for fill in FILLS),
    ]
