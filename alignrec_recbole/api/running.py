"""Runs and protocols called from Python."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from numbers import Integral
from pathlib import Path
from typing import Any, Literal, overload

from alignrec_recbole.api.dataset import Dataset
from alignrec_recbole.data.dataset_paths import find_dataset
from alignrec_recbole.encoders.lookup import check_feature_name
from alignrec_recbole.errors import SettingError
from alignrec_recbole.features.published import expanded
from alignrec_recbole.protocols import READ_LISTS, check_option, check_protocols
from alignrec_recbole.protocols.run import run_protocol as _run_protocol
from alignrec_recbole.registry.components import components
from alignrec_recbole.registry.models import DEFAULT_FEATURES, ModelEntry, resolve
from alignrec_recbole.runs.record import RunRecord
from alignrec_recbole.runs.run import run_one
from alignrec_recbole.runs.spec import RunSpec
from alignrec_recbole.runtime import progress as progress_lines
from alignrec_recbole.runtime.sizes import SAVE_LIMIT, bytes_of

Convention = Literal["mmrec", "recbole"]
Names = str | Sequence[str]
EXAMPLE = 'run(model="BPR", dataset="ml-100k", output="results")'
PathLike = str | os.PathLike[str]


@overload
def run(spec: RunSpec, *, overwrite: bool = False, command: str | None = None) -> RunRecord: ...
@overload
def run(
    *,
    model: Names,
    dataset: str | Dataset,
    features: Names | None = None,
    seeds: int | Iterable[int] = 999,
    epochs: int | None = None,
    convention: Convention | None = None,
    output: PathLike,
    data_path: PathLike | None = None,
    features_path: PathLike | None = None,
    device: str = "auto",
    overwrite: bool = False,
    save: bool = True,
    save_limit: int | str = SAVE_LIMIT,
    track: Names | None = None,
    progress: bool = True,
    **settings: Any,
) -> list[RunRecord]: ...
def run(
    spec: RunSpec | None = None,
    *,
    overwrite: bool = False,
    command: str | None = None,
    **given: Any,
) -> RunRecord | list[RunRecord]:
    """Train and rank models on a data set, or read the records of runs that are finished.

    `run(RunSpec(…))` makes one run and returns its record. With keywords, every model is run with
    every seed, one after the other, and the records are returned in this order.

    Args:
        model: name, or several.
        dataset: name of a data set or of a folder in `data_path`; or a `Dataset`.
        features: feature sets, as `--features`; default: `lsa` for models that need features.
            Other models ignore them, which is said where progress is shown.
        seeds: training seed, or several.
        epochs: maximum number of epochs; a larger one continues.
        convention: what lists exclude, `mmrec` or `recbole`; default: the data set's.
        output: folder of records and models; nothing is written elsewhere. It has no default, so
            that nothing is written to the working directory unasked; "results" is the command
            line's.
        data_path: folder that contains the data sets' folders.
        features_path: folder that is searched for feature files first.
        device: auto, cpu, cuda or cuda:N.
        overwrite: run again what is finished.
        save: keep the trained models, for `load_model`.
        save_limit: bytes, or text such as "2GB", of the largest table of similarities or scores
            that is stored; vectors always are.
        track: trackers, as `--track`: tensorboard, wandb, mlflow, rapl, codecarbon.
        progress: show what is done and a progress bar, on standard error or in the notebook.
        settings: of the model, the trainer or RecBole, as `--set`: `learning_rate=0.002`. Of
            several models, those get one that read it.

    Raises:
        SettingError, UnknownNameError, DataError, FeatureError: an argument or a file cannot be
            used.
        Interrupted: Ctrl-C; calling again resumes the run.
    """
    if spec is not None:
        if not isinstance(spec, RunSpec) or given:
            raise SettingError(
                "run takes either one RunSpec or keywords.",
                found=", ".join([type(spec).__name__, *given]),
                expected=f"run(RunSpec(…)), or {EXAMPLE}",
            )
        return run_one(spec, overwrite=overwrite, command=command)
    if absent := [name for name in ("model", "dataset", "output") if name not in given]:
        raise SettingError(
            f"run needs {', '.join(absent)}.",
            found=", ".join(given) or "no keywords",
            expected=EXAMPLE,
            hint='output="results" is the folder of the command line' if "output" in absent else "",
        )
    return _run_models(overwrite=overwrite, command=command, **given)


def _run_models(
    *,
    model: Names,
    seeds: int | Iterable[int] = 999,
    features: Names | None = None,
    overwrite: bool,
    command: str | None,
    **given: Any,
) -> list[RunRecord]:
    _refuse(given, "run", {**ELSEWHERE, "protocol": 'run_protocol("zero-shot", …)'})
    entries = [resolve(name) for name in _names(model)]
    if not entries:
        raise SettingError("run needs a model.", found=f"model={model!r}", expected=EXAMPLE)
    wanted = _seeds(seeds)
    named = {key: value for key, value in given.items() if key in _ARGUMENTS}
    settings = {key: value for key, value in given.items() if key not in _ARGUMENTS}
    specs = [
        _spec(
            model=entry.name,
            features=_names(features) if entry.needs_features else (),
            seed=seed,
            **named,
            **own,
        )
        for entry, own in zip(entries, _distributed(settings, entries, given), strict=True)
        for seed in wanted
    ]
    _say_unread(entries, replace(specs[0], features=_names(features)))
    return [run_one(spec, overwrite=overwrite, command=command) for spec in specs]


def _say_unread(entries: Sequence[ModelEntry], spec: RunSpec) -> None:
    """Say which models do not use the features, whose names their runs would not look up.

    Raises:
        UnknownNameError, FeatureError, DataError: as a model that reads them.
    """
    without = [entry.name for entry in entries if not entry.needs_features]
    if not (spec.features and without):
        return
    folder = find_dataset(spec.dataset, spec.data_path)
    for name in expanded(spec.features, folder):
        check_feature_name(name, folder, spec.dataset, spec.features_path)
    with progress_lines.shown(spec.progress):
        for model in without:
            progress_lines.announce(f"note: {model} does not use features")


ELSEWHERE = {  # keyword that no function takes → the one to give
    "seed": "seeds=5, or several: seeds=[1, 2]",
    "spec": "run(RunSpec(…)), without keywords",
}


def _refuse(given: dict[str, Any], function: str, instead: dict[str, str]) -> None:
    """Refuse keywords that would be taken for a setting, or change a specification silently.

    Raises:
        SettingError: with what to give instead.
    """
    if wrong := next((name for name in instead if name in given), None):
        raise SettingError(
            f"{function} has no argument {wrong}.",
            found=f"{wrong}={given[wrong]!r}",
            expected=instead[wrong],
        )


_ARGUMENTS = {
    "dataset", "output", "convention", "data_path", "features_path", "epochs", "device", "progress",
    "save", "save_limit", "track",
}  # fmt: skip


def _distributed(
    settings: dict[str, Any], entries: Sequence[ModelEntry], given: dict[str, Any]
) -> list[dict[str, Any]]:
    """The settings of each model: of several, those that it reads, or that none reads.

    The run itself refuses what it does not read.
    """
    if len(entries) < 2 or not settings:
        return [settings] * len(entries)
    dataset = given["dataset"]
    name = dataset.name if isinstance(dataset, Dataset) else dataset
    known = [components(entry.name).keys_for(name) for entry in entries]
    everything = frozenset[str]().union(*known)
    return [
        {key: value for key, value in settings.items() if key in keys or key not in everything}
        for keys in known
    ]


def run_protocol(
    protocol: str,
    *,
    dataset: str | Dataset,
    output: PathLike,
    features: Names | None = None,
    models: Names | None = None,
    seeds: int | Iterable[int] | None = None,
    overwrite: bool = False,
    **given: Any,
) -> list[RunRecord]:
    """Compute an evaluation protocol and return its records; finished ones are read.

    Args:
        protocol: zero-shot, item-cf, mask-modality, knock-out, long-tail, beyond-accuracy,
            cold-start, diagnostics or full.
        dataset, output: as in `run`.
        features: feature sets; default: `lsa`, and none where stored lists are read.
        models: models to train, rankers, or stored rankings, as the protocol has them.
        seeds: training seeds, where a model is trained.
        overwrite: compute again what is finished.
        given: further arguments and settings of `run`.

    Raises:
        UnknownNameError, SettingError: there is no such protocol, it does not use an argument, or
            it needs a model.
    """
    _refuse(given, "run_protocol", {**ELSEWHERE, "model": 'models="BPR", or several'})
    check_protocols([protocol])
    if protocol == "full" and not _names(models):
        raise SettingError(
            "Protocol full needs a model.", found=f"models={models!r}", expected='models="BPR"'
        )
    chosen = _names(features) or (() if protocol in (*READ_LISTS, "full") else DEFAULT_FEATURES)
    spec = _spec(
        model="", protocol=protocol, features=chosen, dataset=dataset, output=output, **given
    )
    _refuse_unused(spec, _names(models))
    if protocol == "full":
        _say_unread([resolve(name) for name in _names(models)], spec)
    wanted = None if seeds is None else tuple(_seeds(seeds))
    return list(_run_protocol(spec, _names(models), wanted, overwrite))


def _refuse_unused(spec: RunSpec, models: Sequence[str]) -> None:
    """Refuse arguments that a protocol does not use, as the command line refuses the options.

    Raises:
        SettingError: with the protocols that use it.
    """
    given = {
        "epochs": spec.epochs,
        "track": spec.track or None,
        "save": None if spec.save else False,
        "save_limit": spec.save_limit if spec.save_limit != SAVE_LIMIT else None,
    }
    for name, value in given.items():
        if value is not None:
            check_option([spec.protocol], models, name, name, f"{name}={value!r}")


def _spec(
    *,
    dataset: str | Dataset,
    output: PathLike,
    convention: Convention | None = None,
    data_path: PathLike | None = None,
    features_path: PathLike | None = None,
    epochs: int | None = None,
    device: str = "auto",
    progress: bool = True,
    model: str,
    features: tuple[str, ...],
    protocol: str = "full",
    seed: int = 999,
    save: bool = True,
    save_limit: int | str = SAVE_LIMIT,
    track: Names | None = None,
    **settings: Any,
) -> RunSpec:
    if isinstance(dataset, Dataset):
        if data_path is not None:
            raise SettingError(
                "A Dataset has a folder of its own.",
                found=f"data_path = {data_path!s}",
                expected="no data_path with it",
            )
        data_path = dataset.folder.parent
    if convention not in (None, "mmrec", "recbole"):
        raise SettingError(
            "convention names no evaluation convention.",
            found=repr(convention),
            expected="'mmrec', 'recbole' or None",
        )
    return RunSpec(
        model=model,
        dataset=dataset.name if isinstance(dataset, Dataset) else dataset,
        features=features,
        protocol=protocol,
        setting=convention,
        seed=seed,
        data_path=Path(data_path) if data_path is not None else None,
        features_path=Path(features_path) if features_path is not None else None,
        output=Path(output),
        epochs=epochs,
        overrides=settings,
        device=device,
        progress=progress,
        save=save,
        save_limit=_size(save_limit),
        track=_names(track),
    )


def _names(given: Names | None) -> tuple[str, ...]:
    """One name, several or none.

    >>> _names("BPR,Pop"), _names(["BPR"]), _names(None)
    (('BPR', 'Pop'), ('BPR',), ())
    """
    if given is None:
        return ()
    if isinstance(given, str):
        return tuple(name.strip() for name in given.split(",") if name.strip())
    return tuple(given)


def _size(given: int | str) -> int:
    """Bytes.

    >>> _size(5), _size("2GB")
    (5, 2000000000)

    Raises:
        SettingError: it is no size.
    """
    if isinstance(given, int) and not isinstance(given, bool) and given >= 0:
        return given
    try:
        return bytes_of(given)  # type: ignore[arg-type]
    except (ValueError, AttributeError) as error:
        raise SettingError(
            "save_limit is no size.", found=repr(given), expected='bytes, or text such as "2GB"'
        ) from error


def _seeds(given: int | Iterable[int]) -> list[int]:
    """One seed or several.

    >>> _seeds(999), _seeds(range(2))
    ([999], [0, 1])

    Raises:
        SettingError: one is no whole number, or there is none.
    """
    seeds: list[Any] = list(given) if isinstance(given, Iterable) else [given]
    if not seeds or not all(isinstance(s, Integral) and not isinstance(s, bool) for s in seeds):
        raise SettingError(
            "seeds are no whole numbers.",
            found=f"seeds={given!r}",
            expected="a whole number, or several: seeds=[1, 2]",
        )
    return [int(seed) for seed in seeds]
